"""A vmnet-helper in a lab, with the test at the VM's end of its socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .broker import MEMBER, Broker
from .frames import (
    ARP_REPLY,
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ICMP_ECHO_REPLY,
    Frame,
    arp_reply,
    arp_request,
    ethernet,
    icmp_echo,
    parse,
)
from .lab import User, wait_for


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    yield writer
    os.close(writer)
    os.close(reader)


class Cable:
    """One helper. line is its JSON line, parsed; the socket is the VM's end.

    user: MEMBER is the broker's own member. path is where the helper makes its socket, by path_option; None: the arguments say so already.
    """

    def __init__(
        self,
        broker: Broker,
        bin_dir: Path,
        arguments: Sequence[str] = ("--network", "shared"),
        *,
        user: User | None = MEMBER,
        path: Path | None = None,
        path_option: str | None = "--socket",
        kind: int = socket.SOCK_DGRAM,
        wait: bool = True,
        environment: Mapping[str, str] | None = None,
        stdout: int = subprocess.PIPE,
    ) -> None:
        self.broker = broker
        self.log_path = broker.directory / f"helper-{len(broker.lab.processes)}.log"
        self.path = path
        theirs = None
        if path:
            transport = [path_option, str(path)] if path_option else []
            self.socket = None
        else:
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, kind)
            self.socket.settimeout(5)
            transport = ["--fd", str(theirs.fileno())]
        with open(self.log_path, "w") as log:
            self.process: subprocess.Popen[str] = broker.namespace.popen(
                [bin_dir / "vmnet-helper", *transport, *arguments],
                user=broker.member if user is MEMBER else user,
                env={**broker.client_environment, **(environment or {})},
                stdout=stdout,
                stderr=log,
                pass_fds=[theirs.fileno()] if theirs else [],
                text=True,
            )
        if theirs:
            theirs.close()
        self.line: dict[str, Any] = self.read_line() if wait else {}

    def read_line(self) -> dict[str, Any]:
        text = self.process.stdout.readline()
        assert text.endswith("\n"), f"no JSON line; the helper said:\n{self.log()}"
        return json.loads(text)

    def log(self) -> str:
        return self.log_path.read_text()

    def stats(self) -> list[dict[str, Any]]:
        marked = [line.partition("[stats] ")[2] for line in self.log().splitlines() if "[stats] " in line]
        return [json.loads(line) for line in marked]

    def attach(self, own_path: Path, first: bytes | None = b"VFKT") -> None:
        """Plays a VM program on the helper's path."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(str(own_path))
        os.chmod(own_path, 0o777)
        self.socket.connect(str(self.path))
        if first is not None:
            self.socket.send(first)

    # The VM's side

    @property
    def mac(self) -> str:
        return self.line["vmnet_mac_address"]

    @property
    def address(self) -> str:
        return self.line["vmnet_ipv4_address"]

    @property
    def gateway(self) -> str:
        return self.line.get("net_ipv4_subnet") or self.line["vmnet_start_address"]

    def receive(self, wanted: Callable[[Frame], bool], deadline_s: float = 3) -> Frame:
        """The first frame that is wanted; others are passed over."""
        deadline = time.monotonic() + deadline_s
        while True:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                frame = parse(self.socket.recv(70000))
            except TimeoutError:
                raise TimeoutError(f"no such frame within {deadline_s} s\n{self.log()}") from None
            if wanted(frame):
                return frame

    def resolve(self, address: str, source: str | None = None) -> str:
        """ARP: the MAC of address."""
        self.socket.send(arp_request(self.mac, source or self.address, address))
        reply = self.receive(lambda frame: frame.arp_operation == ARP_REPLY and frame.source_ip == address)
        return reply.arp_source_mac

    def ping(self, address: str, via: str | None = None, deadline_s: float = 3) -> None:
        """Echo request and reply, through the router unless via is another MAC's address."""
        mac = self.resolve(via or self.gateway)
        identifier = os.getpid() & 0xFFFF
        self.socket.send(ethernet(mac, self.mac, ETHERTYPE_IPV4, icmp_echo(self.address, address, identifier, 1)))
        self.receive(lambda frame: frame.icmp_type == ICMP_ECHO_REPLY and frame.source_ip == address, deadline_s)

    def answer_arp(self) -> None:
        """Answers one ARP request for our address."""
        request = self.receive(lambda frame: frame.ethertype == ETHERTYPE_ARP and frame.destination_ip == self.address)
        self.socket.send(arp_reply(self.mac, self.address, request.arp_source_mac, request.source_ip))

    def broadcast(self, marker: bytes) -> None:
        """A frame of an experimental type (IEEE 802 local experimental 1) to everybody."""
        self.socket.send(ethernet(BROADCAST, self.mac, 0x88B5, marker))

    def close(self) -> None:
        """Kills it; whatever a sanitizer found before fails the test."""
        self.process.kill()
        self.process.wait(5)
        assert "Sanitizer" not in self.log(), self.log()

    def end(self, deadline_s: float = 5) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(deadline_s)

    def wait_end(self, deadline_s: float = 5) -> int:
        return wait_for(lambda: None if self.process.poll() is None else [self.process.returncode], deadline_s,
                        "end of vmnet-helper")[0]
