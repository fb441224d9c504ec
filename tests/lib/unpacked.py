"""Debian packages that are unpacked and not installed: a machine that runs the tests shall not get a firewall by it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / "cache"

# For unshare -m: the program sees a /usr and an /etc with the package in them, and nothing of it reaches the machine's.
MOUNTS = """
mount -t overlay overlay -o lowerdir={tree}/usr:/usr /usr
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir={tree}/etc:/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
"""


def unpack(package: str, place: Path) -> Path:
    """Copies the package's files to place, which may have others in it; downloaded at first use."""
    cached = CACHE / package
    if not cached.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            tree = Path(work) / "tree"
            subprocess.run(["dpkg-deb", "-x", _download(package, Path(work)), tree], check=True)
            tree.rename(cached)
    shutil.copytree(cached, place, symlinks=True, dirs_exist_ok=True)
    return place


def _download(package: str, place: Path) -> Path:
    # apt's own user can't write below /root and would only say so.
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package]
    if subprocess.run(command, cwd=place, capture_output=True).returncode:
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        subprocess.run(command, cwd=place, check=True, capture_output=True)
    return next(place.glob(f"{package}_*.deb"))
