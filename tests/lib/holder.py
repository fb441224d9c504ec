"""A program that holds the fd of its TAP itself and may do with it what it likes, as a hostile VM program would."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from lib.readiness import readable

from . import frames
from .broker import Broker
from .lab import wait_for

VNET_HDR = 12  # bytes in front of a TAP's frame
ETH_P_ALL = 0x0003


class Holder:
    """An interface of the broker's member; parameters are CreateInterface's."""

    def __init__(self, broker: Broker, network: str, **parameters: Any) -> None:
        self.broker = broker
        with broker.connect(broker.member) as peer:
            self.reply, fds = peer.call("CreateInterface", network=network, **parameters)
        self.queues = [fds[index] for index in self.reply["queues"]]

    @property
    def mac(self) -> str:
        return self.reply["mac"]

    @property
    def address(self) -> str:
        return self.reply["address"]

    @property
    def name(self) -> str:
        return self.reply["interfaceName"]

    @property
    def gateway(self) -> str:
        return self.reply["network"]["gateway"]

    @property
    def bridge(self) -> str:
        return self.reply["network"]["bridge"]

    def close(self) -> None:
        while self.queues:
            os.close(self.queues.pop())

    def link(self) -> dict[str, Any] | None:
        """As `ip -details link` shows the TAP; None once it is gone."""
        return next((link for link in self.broker.links() if link["ifname"] == self.name), None)

    def send(self, frame: bytes) -> None:
        os.write(self.queues[0], bytes(VNET_HDR) + frame)

    def received(self, deadline_s: float = 3) -> Iterator[bytes]:
        """Frames as they come; ends after deadline_s, when all that has come by then was seen."""
        deadline = time.monotonic() + deadline_s
        while readable([self.queues[0]], max(deadline - time.monotonic(), 0)):
            with contextlib.suppress(BlockingIOError):
                yield os.read(self.queues[0], 70000)[VNET_HDR:]

    def until(self, marker: bytes, deadline_s: float = 3) -> list[bytes]:
        """All frames before the one that has marker in it."""
        before = []
        for frame in self.received(deadline_s):
            if marker in frame:
                return before
            before.append(frame)
        raise TimeoutError(f"{self.name}: no frame with {marker!r} within {deadline_s} s")

    def datagram(self, marker: bytes, destination: str = "255.255.255.255", mac: str = frames.BROADCAST) -> bytes:
        """A frame that is all honest: from our own MAC and address."""
        packet = frames.udp(self.address, 9, destination, 9, marker)
        return frames.ethernet(mac, self.mac, frames.ETHERTYPE_IPV4, packet)

    def resolve(self, address: str, deadline_s: float = 3) -> str:
        """ARP: the MAC of address."""
        self.send(frames.arp_request(self.mac, self.address, address))
        for frame in map(frames.parse, self.received(deadline_s)):
            if frame.arp_operation == frames.ARP_REPLY and frame.source_ip == address:
                return frame.arp_source_mac
        raise TimeoutError(f"{self.name}: nobody answered for {address} within {deadline_s} s")

    def arp_reply(self, request: frames.Frame) -> bytes:
        return frames.arp_reply(self.mac, self.address, request.arp_source_mac, request.source_ip)

    def pings(self, address: str, mac: str, deadline_s: float = 1) -> bool:
        """Whether one echo request is answered."""
        request = frames.icmp_echo(self.address, address, 7, 1)
        self.send(frames.ethernet(mac, self.mac, frames.ETHERTYPE_IPV4, request))
        return any(
            frame.icmp_type == frames.ICMP_ECHO_REPLY and frame.source_ip == address
            for frame in map(frames.parse, self.received(deadline_s))
        )


class Listener:
    """What reaches a link of the host: an AF_PACKET socket on it, of one ethertype or all."""

    def __init__(self, broker: Broker, link: str, ethertype: int = ETH_P_ALL) -> None:
        self.socket = broker.inside.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype))
        self.socket.bind((link, ethertype))
        self.socket.settimeout(3)

    def until(self, marker: bytes) -> list[bytes]:
        before = []
        while True:
            frame = self.socket.recv(70000)
            if marker in frame:
                return before
            before.append(frame)

    def close(self) -> None:
        self.socket.close()


class Traffic:
    """Echo requests from a holder to its gateway until stop(); longest_gap_s is the longest time without an answer.

    Nobody else may read from the holder meanwhile. So that a lost entry of the bridge shows in both directions, a
    second holder's datagrams to it are counted, too.
    """

    INTERVAL_S = 0.01

    def __init__(self, victim: Holder, neighbour: Holder) -> None:
        self.victim = victim
        self.neighbour = neighbour
        self._gateway_mac = victim.resolve(victim.gateway)
        self._last = {"gateway": time.monotonic(), "neighbour": time.monotonic()}
        self._gaps = {"gateway": 0.0, "neighbour": 0.0}
        self._stopped = threading.Event()
        self._counts = {"gateway": 0, "neighbour": 0}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.wait_flowing()

    @property
    def longest_gap_s(self) -> float:
        now = time.monotonic()
        return max(max(self._gaps[kind], now - self._last[kind]) for kind in self._gaps)

    def wait_flowing(self, deadline_s: float = 3) -> None:
        """Until both kinds have come again."""
        before = dict(self._counts)
        wait_for(
            lambda: all(self._counts[kind] > before[kind] + 2 for kind in before), deadline_s, "the victim's traffic"
        )

    def stop(self) -> float:
        self._stopped.set()
        self._thread.join()
        return self.longest_gap_s

    def _run(self) -> None:
        victim = self.victim
        while not self._stopped.is_set():
            echo = frames.icmp_echo(victim.address, victim.gateway, 7, 1)
            victim.send(frames.ethernet(self._gateway_mac, victim.mac, frames.ETHERTYPE_IPV4, echo))
            self.neighbour.send(self.neighbour.datagram(b"neighbour", victim.address, victim.mac))
            for frame in victim.received(self.INTERVAL_S):
                self._note(frame)

    def _note(self, frame: bytes) -> None:
        kind = "neighbour" if b"neighbour" in frame else "gateway"
        parsed = frames.parse(frame)
        if parsed.arp_operation == frames.ARP_REQUEST and parsed.destination_ip == self.victim.address:
            self.victim.send(self.victim.arp_reply(parsed))  # or the gateway would forget it after some seconds
        if kind == "gateway" and parsed.icmp_type != frames.ICMP_ECHO_REPLY:
            return
        now = time.monotonic()
        self._gaps[kind] = max(self._gaps[kind], now - self._last[kind])
        self._last[kind] = now
        self._counts[kind] += 1
