"""A forwarder in a namespace of its own, a VM behind it, and this process as the front that passes it sockets.

    internet ---- host (here is what listens)        inside (the forwarder) ---- vm
                                                     10.77.0.1                   10.77.0.2
                                                     fd77::1                     fd77::2

Nothing but the sockets that are passed connects host and inside.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import socket
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from lib.lab import Lab, Namespace, is_running, process_name, wait_for

MAGIC = 0x766D6631
BEGIN, ADD, END = range(3)
REQUEST = struct.Struct("=IIIIBBHH16s16s10x")
REPLY = struct.Struct("=IIIi112s")
GATEWAY, VM, OTHER_VM = "10.77.0.1", "10.77.0.2", "10.77.0.3"
GATEWAY6, VM6 = "fd77::1", "fd77::2"

PROTOCOLS = {"tcp": (socket.IPPROTO_TCP, socket.SOCK_STREAM), "udp": (socket.IPPROTO_UDP, socket.SOCK_DGRAM)}


def address_bytes(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address).ljust(16, b"\0")


@dataclass(frozen=True)
class Forward:
    """What one ADD says."""

    listen: tuple[str, int]
    target: tuple[str, int]
    protocol: str = "tcp"

    @property
    def family(self) -> int:
        return socket.AF_INET6 if ":" in self.listen[0] else socket.AF_INET

    def to(self, *target: str | int) -> Forward:
        return replace(self, target=target)

    def pack(self) -> bytes:
        return struct.pack(
            "=BBHH16s16s",
            self.family == socket.AF_INET6,
            PROTOCOLS[self.protocol][0],
            self.listen[1],
            self.target[1],
            address_bytes(self.listen[0]),
            address_bytes(self.target[0]),
        )

    def open(self, namespace: Namespace) -> socket.socket:
        """The socket that a front opens for it."""
        opened = namespace.socket(self.family, PROTOCOLS[self.protocol][1])
        if self.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if self.protocol == "tcp":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setblocking(False)
        opened.bind(self.listen)
        if self.protocol == "tcp":
            opened.listen(4096)
        return opened


class Front:
    """A connection to the forwarder, as the front has one."""

    def __init__(self, path: Path, namespace: Namespace) -> None:
        self.namespace = namespace
        self.sequence = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(os.fspath(path))

    def exchange(self, data: bytes, fds: list[int] | None = None) -> tuple[int, str]:
        """Result and detail of a record, well-formed or not."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], rights)
        answer = self.socket.recv(4096)
        assert len(answer) == REPLY.size
        magic, _, _, result, detail = REPLY.unpack(answer)
        assert magic == MAGIC
        assert detail.endswith(b"\0")
        return result, detail.rstrip(b"\0").decode()

    def call(self, kind: int, forward: Forward | None = None, fds: list[int] | None = None, ends_flows: int = 0) -> int:
        self.sequence += 1
        head = struct.pack("=IIII", MAGIC, kind, self.sequence, ends_flows)
        body = forward.pack() if forward else b""
        return self.exchange((head + body).ljust(REQUEST.size, b"\0"), fds)[0]

    def add(self, forward: Forward) -> int:
        """With a socket when there is none yet."""
        result = self.call(ADD, forward)
        if result != -errno.ENOENT:
            return result
        with forward.open(self.namespace) as opened:
            return self.call(ADD, forward, [opened.fileno()])

    def declare(self, *forwards: Forward, ends_flows: bool = False) -> int:
        """The whole list; how many there are then."""
        assert self.call(BEGIN) == 0
        for forward in forwards:
            assert self.add(forward) == 0
        return self.call(END, ends_flows=int(ends_flows))

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forwarder:
    """The process and its namespaces; the lab's end is its end."""

    def __init__(self, lab: Lab, program: Path, prefix: list[str] | None = None) -> None:
        self.lab = lab
        self.inside = lab.namespace("inside")
        self.vm = lab.namespace("vm")
        self._connect_vm()
        self.path = lab.directory / "forwarder.socket"
        self.log_path = lab.directory / "forwarder.log"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.setblocking(False)
        self.listener.bind(os.fspath(self.path))
        self.path.chmod(0o666)
        self.listener.listen(16)
        self.process = self._start([*(prefix or []), os.fspath(program), "--role=forwarder"])
        wait_for(self._is_started, 10, "the forwarder behind what it is started by")

    def _start(self, command: list[str]):
        with open(self.log_path, "w") as log:
            return self.inside.popen(
                command, stderr=log, pass_fds=(3,), preexec_fn=lambda: os.dup2(self.listener.fileno(), 3)
            )

    def _is_started(self) -> bool:
        return process_name(self.process.pid) == "vmnet-forwarder" or not is_running(self.process.pid)

    def _connect_vm(self) -> None:
        self.lab.veth(self.inside, "bridge0", self.vm, "eth0")
        for namespace, link, addresses in (
            (self.inside, "bridge0", (f"{GATEWAY}/24", f"{GATEWAY6}/64")),
            (self.vm, "eth0", (f"{VM}/24", f"{OTHER_VM}/24", f"{VM6}/64")),
        ):
            for address in addresses:
                namespace.ip("address", "add", address, "dev", link, *(["nodad"] if ":" in address else []))

    def front(self) -> Front:
        return Front(self.path, self.lab.host)

    def log(self) -> str:
        return self.log_path.read_text()

    def fd_count(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def wait_for_fds(self, count: int) -> None:
        wait_for(lambda: self.fd_count() == count, 10, f"{count} open files of the forwarder")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(10)
        self.listener.close()


def is_readable(opened: socket.socket, timeout_s: float) -> bool:
    return bool(select.select([opened], [], [], timeout_s)[0])
