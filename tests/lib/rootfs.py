"""A Debian 12 with systemd, as a directory under cache/: what machine.py boots.

build() has debootstrap make it the first time, from where this machine's own apt gets Debian; that takes a minute.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .guestkit import REPOSITORY, KitError, Progress, locked, output
from .qemukit import archives

CACHE = REPOSITORY / "cache" / "rootfs"
CODENAME = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev"),
    # Whom the broker has to get on with.
    *("systemd-resolved", "polkitd", "network-manager", "firewalld"),
    # What the broker runs with: [run] of scripts/packages, and its libraries.
    *("dnsmasq-base", "libcap-ng0", "libjansson4", "libnftables1", "libnl-route-3-200", "libseccomp2"),
    *("iproute2", "iputils-ping", "netbase", "nftables", "procps", "python3"),
)
# As it comes to somebody who installs packages: nothing but systemd, and what the tests themselves call in it.
FRESH = ("systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev", "netbase", "procps")
# Each test starts those it is about.
STOPPED = ("NetworkManager.service", "firewalld.service", "systemd-networkd.service", "systemd-networkd.socket")
LAYOUT = 2  # another number for another way to keep the same


def _key(packages: Sequence[str]) -> str:
    return hashlib.sha256(repr((CODENAME, packages, STOPPED, LAYOUT)).encode()).hexdigest()[:16]


def _debootstrap(tree: Path, archive: str, packages: Sequence[str]) -> None:
    debootstrap = shutil.which("debootstrap", path="/usr/sbin:/sbin:/usr/bin")
    if not debootstrap:
        raise KitError("debootstrap: not found; run scripts/install-packages test")
    command = [debootstrap, "--variant=minbase", f"--include={','.join(packages)}", CODENAME, str(tree), archive]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        log = tree / "debootstrap" / "debootstrap.log"
        last = (log.read_text() if log.exists() else result.stdout).splitlines()[-20:]
        raise KitError("debootstrap failed; is this machine online?\n" + "\n".join([*last, result.stderr]))


def _settle(tree: Path) -> None:
    for unit in STOPPED:
        if (tree / "lib/systemd/system" / unit).exists():
            output("chroot", str(tree), "systemctl", "disable", "--quiet", unit)
    (tree / "etc/machine-id").write_text("")  # none yet, and no first boot, which would enable all again
    shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
    shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)


def _make(directory: Path, packages: Sequence[str], progress: Progress) -> None:
    """Makes it beside its place and renames it there, so that nobody ever sees half of one."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="new-") as temporary:
        tree = Path(temporary) / "tree"
        archive = archives(CODENAME)[0]
        progress(f"debootstrap of {CODENAME} from {archive} (a minute, some 100 MB)")
        _debootstrap(tree, archive, packages)
        _settle(tree)
        os.chmod(tree, 0o755)
        os.rename(tree, directory)


def build(
    progress: Progress | None = None, cache: Path = CACHE, packages: Sequence[str] = PACKAGES
) -> Path:
    """The directory, made if it isn't there. It is shared: nobody writes there."""
    progress = progress or (lambda text: print(f"root file system: {text}", file=sys.stderr, flush=True))
    directory = cache / _key(packages)
    with locked(cache, progress):
        if directory.exists():
            return directory
        try:
            _make(directory, packages, progress)
        except KitError:
            # A machine's package lists may be absent.
            progress("fetching package lists")
            subprocess.run(["apt-get", "update", "-q"], capture_output=True)
            _make(directory, packages, progress)
    return directory
