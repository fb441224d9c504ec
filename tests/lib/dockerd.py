"""Docker's own daemon in a lab's host namespace, without containers: it makes its bridge and its rules at its start."""

from __future__ import annotations

import os
import signal

from .lab import Lab, is_running, wait_for
from .unpacked import MOUNTS, unpack

PACKAGES = ("containerd", "docker.io", "runc")
START_S = 60

# Everything it writes is in memory of its mount namespace.
RUN = (
    MOUNTS
    + """
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
exec "$@"
"""
)


class Dockerd:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.public_directory("docker")
        self.tree = self.directory / "tree"
        for package in PACKAGES:
            unpack(package, self.tree)
        self.log_path = self.directory / "log"
        self.socket = self.directory / "socket"
        self.start()

    def start(self) -> None:
        """It starts containerd by itself."""
        arguments = ["-H", f"unix://{self.socket}", "-s", "vfs", "--iptables=true"]
        with open(self.log_path, "a") as log:
            self.process = self.lab.host.popen(
                ["unshare", "-m", "sh", "-ec", RUN.format(tree=self.tree), "sh", "dockerd", *arguments],
                stdout=log,
                stderr=log,
            )
        started = self.log().count("API listen on")
        wait_for(lambda: self.log().count("API listen on") > started, START_S, "Docker's daemon")

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)
        wait_for(lambda: not is_running(self.process.pid), START_S, "end of Docker's daemon")

    def log(self) -> str:
        return self.log_path.read_text()
