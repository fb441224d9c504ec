"""A disk that boots the tests' guest by itself, for command lines that bring no kernel: GRUB, then the kit's files.

Sector 0 is GRUB's, which finds the rest of itself in the sectors behind it; the one partition is a tar archive, which
GRUB reads. The guest has one serial port only, so there is no console for commands: it is seen by what it does in the
network, where it serves iperf3.
"""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

from . import guestkit
from .unpacked import unpack

SECTOR = 512
PARTITION_SECTOR = 2048
TABLE = slice(446, 510)  # of a master boot record
BOOTABLE, LINUX = 0x80, 0x83
MODULES = ("biosdisk", "boot", "linux", "part_msdos", "tar")
# An emulated timer comes late on a busy machine, and the kernel's check of it would end the guest.
ARGUMENTS = f"{guestkit.KERNEL_ARGUMENTS} no_timer_check"
# The kit's own serves the console that is not there, and the guest ends with it.
AGENT = "#!/bin/sh\nwhile sleep 1000; do :; done\n"


def _grub(arguments: str) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for package in ("grub-common", "grub-pc-bin"):
            unpack(package, place)
        modules = place / "usr/lib/grub/i386-pc"
        (place / "commands").write_text(
            f"set root=(hd0,msdos1)\nlinux /kernel {arguments}\ninitrd /initramfs\nboot\n"
        )
        make = [place / "usr/bin/grub-mkimage", "--directory", modules, "--format=i386-pc", "--prefix=/"]
        words = ["--config", place / "commands", "--output", place / "core", *MODULES]
        subprocess.run([*make, *words], check=True)
        return (modules / "boot.img").read_bytes() + (place / "core").read_bytes()


def _files(kit: guestkit.Kit) -> bytes:
    other = guestkit.Archive()
    other.file("etc/agent", AGENT.encode(), executable=True)
    files = {"kernel": kit.kernel.read_bytes(), "initramfs": kit.initramfs.read_bytes() + other.bytes()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def make(kit: guestkit.Kit, hostname: str) -> bytes:
    """The disk; its guest calls itself hostname."""
    start = bytearray(_grub(f"{ARGUMENTS} vmnet.hostname={hostname}"))
    files = _files(kit)
    files += bytes(-len(files) % SECTOR)
    assert len(start) <= PARTITION_SECTOR * SECTOR
    entry = struct.pack("<B3xB3xII", BOOTABLE, LINUX, PARTITION_SECTOR, len(files) // SECTOR)
    # Behind it was code for floppy disks, which would be three more partitions.
    start[TABLE] = entry.ljust(TABLE.stop - TABLE.start, b"\0")
    return bytes(start.ljust(PARTITION_SECTOR * SECTOR, b"\0")) + files
