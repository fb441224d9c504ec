"""systemd's varlinkctl, which Debian has from 13 on: from its packages, unpacked below cache/ and run with their own libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .guestkit import REPOSITORY, KitError, Progress, locked, output
from .qemukit import Suite

CACHE = REPOSITORY / "cache" / "varlinkctl"
SUITE = "trixie"
PACKAGES = (
    *("systemd", "libsystemd-shared", "libc6"),
    *("libacl1", "libaudit1", "libblkid1", "libcap-ng0", "libcap2", "libcrypt1", "libmount1", "libpam0g", "libpcre2-8-0"),
    *("libseccomp2", "libselinux1", "libssl3t64", "libzstd1", "zlib1g"),
)
PROGRAM = Path("usr/bin/varlinkctl")
LAYOUT = 1  # another number for another way to keep the same files


def _libraries(tree: Path) -> list[Path]:
    """Where they are; the first has the loader, too."""
    return [loader.parent for loader in tree.glob("usr/lib/*/ld-linux*.so.*")] + list(tree.glob("usr/lib/*/systemd"))


def command(tree: Path) -> list[str]:
    """The first words of a command line."""
    libraries = _libraries(tree)
    loader = next(libraries[0].glob("ld-linux*.so.*"))
    return [str(loader), "--library-path", ":".join(map(str, libraries)), str(tree / PROGRAM)]


def _keep(work: Path, tree: Path) -> None:
    """Of the packages the program and shared libraries only."""
    kept = [path for place in _libraries(work) for path in place.glob("*.so*")] + [work / PROGRAM]
    for path in kept:
        place = tree / path.relative_to(work)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place, follow_symlinks=True)


def _make(directory: Path, progress: Progress) -> None:
    """Makes it beside its place and renames it there, so that nobody ever sees half of one."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="new-") as temporary:
        work = Path(temporary)
        progress(f"downloading {len(PACKAGES)} packages of {SUITE} (22 MB)")
        for package in Suite(work / "apt", SUITE).download(PACKAGES, work):
            output("dpkg-deb", "-x", str(package), str(work / "unpacked"))
        _keep(work / "unpacked", work / "tree")
        output(*command(work / "tree"), "--version")
        os.chmod(work / "tree", 0o755)
        os.rename(work / "tree", directory)


def build(progress: Progress | None = None, cache: Path = CACHE) -> Path:
    """The directory for command(), made if it isn't there."""
    progress = progress or (lambda text: print(f"varlinkctl: {text}", file=sys.stderr, flush=True))
    directory = cache / f"{SUITE}-{LAYOUT}"
    with locked(cache, progress):
        if not directory.exists():
            try:
                _make(directory, progress)
            except KitError:
                # A machine's package lists may be absent, and tell where its Debian comes from.
                progress("fetching package lists")
                subprocess.run(["apt-get", "update", "-q"], capture_output=True)
                _make(directory, progress)
    return directory
