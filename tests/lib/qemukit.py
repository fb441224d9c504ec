"""A QEMU that is new enough, beside the installed one, for tests that Debian 12's own can't run.

QEMU 7.2 crashes under TCG as soon as a guest starts a vhost-user network device; 10.0 does not. Debian has it for
Debian 12 in the suite of backports, in the same archive as everything else. build() takes the program and its
firmware out of those packages, without installing them, and keeps them under cache/ in the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import programs
from .guestkit import REPOSITORY, KitError, Progress, locked, output

CACHE = REPOSITORY / "cache" / "qemu"
PROGRAM = "qemu-system-x86_64"
MAJOR_MIN = 10
PACKAGES = ("qemu-system-x86", "qemu-system-data", "seabios")
PROGRAM_FILE = f"usr/bin/{PROGRAM}"
FIRMWARE_GLOBS = ("usr/share/qemu/*.bin", "usr/share/seabios/*.bin")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LAYOUT = 1  # another number for another way to keep the same files


@dataclass(frozen=True)
class Emulator:
    """A QEMU; directory is None for the installed one."""

    directory: Path | None = None

    @property
    def command(self) -> list[str]:
        """The first words of a command line."""
        if not self.directory:
            return [PROGRAM]
        return [str(self.directory / PROGRAM), "-L", str(self.directory / "firmware")]

    def major_version(self) -> int:
        found = re.search(r"version (\d+)\.", output(*self.command, "--version"))
        if not found:
            raise KitError(f"{self.command[0]} --version doesn't tell its version")
        return int(found[1])


INSTALLED = Emulator()


def codename() -> str:
    """This machine's Debian."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.M)
    if not found:
        raise KitError("/etc/os-release names no VERSION_CODENAME: is this Debian?")
    return found[1]


def archives(codename: str) -> list[str]:
    """Where this machine's own apt gets Debian from."""
    targets = output("apt-get", "indextargets", "--format", "$(CREATED_BY) $(ORIGIN) $(LABEL) $(CODENAME) $(REPO_URI)")
    wanted = f"Packages Debian Debian {codename} "
    found = sorted({line.removeprefix(wanted) for line in targets.splitlines() if line.startswith(wanted)})
    if not found:
        raise KitError(f"apt has no package list of Debian's {codename}: is this machine online, and Debian?")
    return found


class Suite:
    """An apt of our own below place, which knows nothing but this suite of Debian's."""

    def __init__(self, place: Path, suite: str) -> None:
        self.suite = suite
        if not KEYRING.exists():
            raise KitError(f"{KEYRING}: not found; install the package debian-archive-keyring")
        for directory in ("lists/partial", "cache/archives/partial"):
            (place / directory).mkdir(parents=True)
        sources = place / "suite.sources"
        sources.write_text(
            f"Types: deb\nURIs: {' '.join(archives(codename()))}\nSuites: {self.suite}\nComponents: main\n"
            f"Signed-By: {KEYRING}\n"
        )
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": place / "none",
            "Dir::State::lists": place / "lists",
            "Dir::Cache": place / "cache",
            # apt's own user can't write below /root and would only say so.
            "APT::Sandbox::User": "root",
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def download(self, packages: tuple[str, ...], place: Path) -> list[Path]:
        """The newest version of each; the machine may have some installed, whatever they are."""
        self._run("update")
        self._run("download", *(f"{package}/{self.suite}" for package in packages), cwd=place)
        files = sorted(place.glob("*.deb"))
        if len(files) != len(packages):
            raise KitError(f"apt-get download brought {[file.name for file in files]}, not {packages}")
        return files

    def _run(self, *words: str, cwd: Path | None = None) -> None:
        command = ["apt-get", "-q", *self._options, *words]
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        # A list that could not be fetched is a mere warning to "update".
        if result.returncode or re.search(r"^[WE]: .*Failed to fetch", result.stderr, re.M):
            raise KitError(f"apt-get {words[0]} for {self.suite} failed; is this machine online?\n{result.stderr.strip()}")


def _check(emulator: Emulator) -> None:
    missing = re.findall(r"(\S+) => not found", output("ldd", emulator.command[0]))
    if missing:
        raise KitError(f"{emulator.command[0]} needs {', '.join(missing)}: name the package in scripts/packages, [test]")
    if emulator.major_version() < MAJOR_MIN:
        raise KitError(f"{emulator.command[0]}: version {emulator.major_version()}, and {MAJOR_MIN} is needed")


def _make(directory: Path, suite: str, progress: Progress) -> None:
    """Makes it beside its place and renames it there, so that nobody ever sees half of one."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="new-") as temporary:
        work = Path(temporary)
        progress(f"downloading {', '.join(PACKAGES)} of {suite} (13 MB)")
        for package in Suite(work / "apt", suite).download(PACKAGES, work):
            output("dpkg-deb", "-x", str(package), str(work / "tree"))
        kit = work / "kit"
        (kit / "firmware").mkdir(parents=True)
        shutil.copy2(work / "tree" / PROGRAM_FILE, kit / PROGRAM)
        for pattern in FIRMWARE_GLOBS:
            for file in (work / "tree").glob(pattern):
                if file.is_file():
                    shutil.copy2(file, kit / "firmware")
        _check(Emulator(kit))
        os.chmod(kit, 0o755)
        os.rename(kit, directory)


def _find_or_make(cache: Path, progress: Progress) -> Emulator:
    directory = cache / f"{codename()}-{LAYOUT}"
    if not directory.exists():
        _make(directory, f"{codename()}-backports", progress)
    emulator = Emulator(directory)
    _check(emulator)
    return emulator


def build(progress: Progress | None = None, cache: Path = CACHE) -> Emulator:
    """The installed QEMU if it is new enough, else one that is, made if it isn't there."""
    progress = progress or (lambda text: print(f"QEMU kit: {text}", file=sys.stderr, flush=True))
    if shutil.which(PROGRAM) and INSTALLED.major_version() >= MAJOR_MIN:
        return INSTALLED
    with locked(cache, progress):
        try:
            return _find_or_make(cache, progress)
        except KitError:
            # A machine's package lists may be absent.
            progress("fetching package lists")
            subprocess.run(["apt-get", "update", "-q"], capture_output=True)
            return _find_or_make(cache, progress)


def reachable(emulator: Emulator, place: Path) -> Emulator:
    """The emulator, copied below place where not every user can reach it."""
    if not emulator.directory or programs.everybody_can_reach(emulator.directory):
        return emulator
    copy = place / "qemu"
    shutil.copytree(emulator.directory, copy)
    return Emulator(copy)
