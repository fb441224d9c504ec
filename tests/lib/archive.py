"""Our Debian packages, and all that they need, for apt in a machine that has no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .guestkit import REPOSITORY, locked, output
from .machine import Machine

CACHE = REPOSITORY / "cache" / "archive"
PLACE = "/srv/archive"
SETTINGS = 'APT::Install-Recommends "false";\nAPT::Get::Assume-Yes "true";\nAPT::Sandbox::User "root";\n'


def find(directory: Path) -> dict[str, Path]:
    """Packages in it, by name."""
    return {file.name.split("_")[0]: file for file in sorted(directory.glob("*.deb"))}


def _needs(package: Path) -> str:
    return output("dpkg-deb", "--field", str(package), "Package", "Pre-Depends", "Depends")


def dependencies(rootfs: Path, packages: Sequence[Path], others: Sequence[str]) -> Path:
    """A directory with what a machine of rootfs lacks for the packages and the others; downloaded at first use."""
    needs = [_needs(package) for package in packages]
    directory = CACHE / hashlib.sha256(repr((rootfs.name, needs, others)).encode()).hexdigest()[:16]
    with locked(CACHE, print):
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                place = Path(work) / "archive"
                _download(rootfs, [*(str(package.resolve()) for package in packages), *others], place)
                place.rename(directory)
    return directory


def _download(rootfs: Path, packages: Sequence[str], place: Path) -> None:
    """apt of this machine, which takes the other's packages for the installed ones."""
    (place / "partial").mkdir(parents=True)
    settings = {
        "Dir::State::status": rootfs / "var/lib/dpkg/status",
        "Dir::Cache::archives": place,
        # apt's own user can't write below /root and would only say so.
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    command = ["apt-get", "-q", "-y", *options, "--download-only", "--no-install-recommends", "install", *packages]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        # A machine's package lists may be absent, or so old that what they name is gone from the archive.
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stderr}"
    shutil.rmtree(place / "partial")
    with open(place / "Packages", "w") as index:
        subprocess.run(["dpkg-scanpackages", "."], cwd=place, stdout=index, stderr=subprocess.DEVNULL, check=True)


def offer(machine: Machine, archive: Path) -> None:
    """The machine's apt knows this archive and no other."""
    shutil.copytree(archive, machine.path(PLACE))
    machine.path("/etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{PLACE} ./\n")
    machine.path("/etc/apt/apt.conf.d/tests").write_text(SETTINGS)
    machine.run(["apt-get", "update"])


def as_version(package: Path, version: str, files: dict[str, Path], place: Path) -> Path:
    """The same package with another version, and with other files at some paths of its own."""
    with tempfile.TemporaryDirectory() as work:
        tree = Path(work) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
        for path, source in files.items():
            assert (tree / path).exists()
            shutil.copyfile(source, tree / path)
        control = tree / "DEBIAN/control"
        old = output("dpkg-deb", "--field", str(package), "Version").strip()
        control.write_text(control.read_text().replace(f"\nVersion: {old}\n", f"\nVersion: {version}\n"))
        os.chmod(tree, 0o755)
        file = place / f"{package.name.split('_')[0]}_{version}.deb"
        subprocess.run(["dpkg-deb", "--build", tree, file], check=True, stdout=subprocess.DEVNULL)
    return file
