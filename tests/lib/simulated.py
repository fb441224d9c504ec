"""A VM without an emulator: a network namespace whose TAP one of the benchmark's programs pumps over a helper's cable."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from .cable import Cable

LINK = "eth0"
PREFIX = 24
# By offload mode: what the helper must be told.
HELPER_ARGUMENTS = {
    "plain": (),
    "raw": ("--enable-tso", "--enable-checksum-offload"),
    "vnet-hdr": ("--vnet-hdr",),
}


class SimulatedVm:
    """Takes over the VM's end of a cable: a namespace with the cable's MAC and address, and a route to the gateway.

    A cable with a path is one of vhost-user.
    """

    def __init__(self, cable: Cable, bin_dir: Path, mode: str = "plain", arguments: Sequence[str] = ()) -> None:
        lab = cable.broker.lab
        self.cable = cable
        self.namespace = lab.namespace(f"vm-{cable.line['vmnet_interface_name']}")
        mtu = cable.line["vmnet_mtu"]
        if cable.path:
            command = [bin_dir / "vhost-user-guest", str(cable.path), LINK]
            fds = []
        else:
            cable.socket.setblocking(True)  # as vm-simulator wants it
            fds = [cable.socket.fileno()]
            command = [bin_dir / "vm-simulator", "--tap", LINK, "--fd", str(fds[0]), "--mode", mode, "--mtu", str(mtu)]
        self.process: subprocess.Popen[str] = self.namespace.popen(
            [*command, *arguments], pass_fds=fds, stdout=subprocess.PIPE, text=True
        )
        if cable.socket:
            cable.socket.close()
        assert self.process.stdout.readline() == "ready\n", "what plays the VM did not start"
        self.namespace.ip("link", "set", LINK, "address", cable.mac)
        self.namespace.ip("link", "set", LINK, "mtu", str(mtu), "up")
        self.namespace.ip("address", "add", f"{cable.address}/{PREFIX}", "dev", LINK)
        self.namespace.ip("route", "add", "default", "via", cable.gateway)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(5)
