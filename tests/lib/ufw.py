"""A real ufw in a lab's host namespace."""

from __future__ import annotations

import shutil
import subprocess

from .lab import Lab
from .unpacked import MOUNTS, unpack


class Ufw:
    """Its settings live as long as the lab, in a mount namespace of their own."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        tree = unpack("ufw", lab.public_directory("ufw") / "tree")
        # What its installation does beside unpacking.
        share = tree / "usr/share/ufw"
        for file in (*(share / "iptables").iterdir(), share / "ufw.conf", *share.glob("*.init")):
            shutil.copy(file, tree / "etc/ufw")
        shutil.copytree(tree / "lib", tree / "usr/lib", dirs_exist_ok=True)
        script = MOUNTS.format(tree=tree) + "echo ready; exec sleep infinity"
        self.holder = lab.host.popen(["unshare", "-m", "sh", "-ec", script], stdout=subprocess.PIPE)
        assert self.holder.stdout.readline() == b"ready\n"

    def __call__(self, *arguments: str) -> str:
        """Runs ufw with them."""
        return self.lab.host.run(["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "ufw", *arguments]).stdout
