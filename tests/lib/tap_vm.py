"""A VM without an emulator and without a namespace: this process answers on the TAP that the broker gave it."""

from __future__ import annotations

import os
import threading

from lib.readiness import readable

from . import frames
from .broker import Varlink
from .dhcp import VNET_HDR, leased_address


class TapVm:
    """Answers ARP for its address and sends every UDP datagram for it back, from a thread of its own."""

    def __init__(self, peer: Varlink, network: str = "shared", **parameters: object) -> None:
        reply, fds = peer.call("CreateInterface", network=network, **parameters)
        self.mac: str = reply["mac"]
        self.address: str = reply["address"]
        self.interface: str = reply["interfaceName"]
        self.tap = fds[reply["queues"][0]]
        self._end, self._told = os.pipe()
        self._thread: threading.Thread | None = None

    def lease(self) -> str | None:
        """Asks DHCP; not while it answers."""
        assert not self._thread
        return leased_address(self.tap, self.mac)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            ready = readable([self.tap, self._end])
            if self._end in ready:
                return
            data = os.read(self.tap, 65550)
            answer = self._answer_to(data[VNET_HDR:])
            if answer:
                # The header says what is left to be done about the checksum, which is the same both ways.
                os.write(self.tap, data[:VNET_HDR] + answer)

    def _answer_to(self, frame: bytes) -> bytes | None:
        found = frames.parse(frame)
        if found.destination_ip != self.address:
            return None
        if found.arp_operation == frames.ARP_REQUEST:
            return frames.arp_reply(self.mac, self.address, found.source, found.source_ip)
        if found.protocol == frames.PROTOCOL_UDP:
            ips, ports = frame[26:34], frame[34:38]
            swapped = frame[6:12] + frame[0:6] + frame[12:26] + ips[4:] + ips[:4] + ports[2:] + ports[:2]
            return swapped + frame[38:]
        return None

    def stop(self) -> None:
        """No more answers from now on."""
        if self._thread:
            os.write(self._told, b"x")
            self._thread.join()
            self._thread = None
            os.read(self._end, 1)

    def close(self) -> None:
        self.stop()
        for fd in (self.tap, self._end, self._told):
            os.close(fd)
