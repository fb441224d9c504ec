"""An interface of which there is no fd: a program of its owner's opens the TAP by its name."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Any

from .broker import MEMBER, Broker, acting_as
from .holder import VNET_HDR, Holder
from .lab import User, wait_for
from .tap_program import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, open_by_name

TUNGETVNETHDRSZ, TUNSETVNETHDRSZ = 0x800454D7, 0x400454D8
PLAIN = IFF_TAP | IFF_NO_PI
WITH_HEADER = PLAIN | IFF_VNET_HDR


def open_tap(broker: Broker, name: str, user: User = MEMBER, flags: int = WITH_HEADER) -> int:
    """The TAP as user's program opens it."""

    def attach() -> int:
        with acting_as(user):
            return open_by_name(name, flags)

    return broker.namespace.inside(attach)


def header_size(tap: int) -> int:
    """Bytes in front of a frame, as the TAP has it."""
    return struct.unpack("i", fcntl.ioctl(tap, TUNGETVNETHDRSZ, bytes(4)))[0]


def wait_forwarding(holder: Any) -> None:
    """The kernel tells the bridge of a new carrier when it finds the time, at most a second later."""
    wait_for(
        lambda: holder.link()["linkinfo"]["info_slave_data"]["state"] == "forwarding", 5, "the port forwards frames"
    )


class NamedHolder(Holder):
    """MEMBER's connection, which is the lease, and a program that opened the TAP; parameters are CreateInterface's."""

    def __init__(self, broker: Broker, network: str, user: User = MEMBER, **parameters: Any) -> None:
        self.broker = broker
        self.peer = broker.connect(user)
        self.reply, fds = self.peer.call("CreateInterface", network=network, named=True, **parameters)
        assert (fds, self.reply["queues"], self.reply["vhosts"]) == ([], [], [])
        self.queues: list[int] = []

    def open(self) -> NamedHolder:
        """With the header that Holder's methods use, as QEMU and Firecracker set it."""
        tap = open_tap(self.broker, self.name)
        wait_forwarding(self)
        fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR))
        os.set_blocking(tap, False)
        self.queues.append(tap)
        return self

    def end(self) -> None:
        """The lease's end."""
        self.peer.close()

    def close(self) -> None:
        super().close()
        self.end()
