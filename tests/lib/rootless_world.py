"""What surrounds an ordinary user's broker: a world that answers, and VMs with a kernel of their own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from .cable import Cable
from .lab import INTERNET_ADDRESS, WORLD_ADDRESS, WORLD_ADDRESS6, Lab, Namespace, wait_for
from .rootless import RootlessBroker
from .simulated import SimulatedVm

PING_RANGE = "net/ipv4/ping_group_range"
SERVICE_PORT = 4321  # something of the host's own, on its loopback, and something else of its router's
WORLD_NAMES = "192.0.2.11"  # what the world's name server answers to everything, and the host's own
STUB, STUB_NAMES = "127.0.0.53", "192.0.2.33"

NAME_SERVER = """
import socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, client = server.recvfrom(4096)
    head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
    record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(sys.argv[2])
    server.sendto(head + query[12:query.index(b"\\0", 12) + 5] + record, client)
"""


def serve_names(namespace: Namespace, address: str, answer: str) -> None:
    """Answers every question at address for another address, until the lab's end."""
    command = [sys.executable, "-c", NAME_SERVER, address, answer]
    server = namespace.popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n", f"no name server at {address}"


def prepare_world(lab: Lab) -> None:
    """Echo servers and name servers, and a host that lets everybody ping."""
    for address in (WORLD_ADDRESS, WORLD_ADDRESS6):
        lab.internet.start_echo(address)
    lab.internet.start_echo(INTERNET_ADDRESS, SERVICE_PORT)
    lab.host.start_echo("127.0.0.1", SERVICE_PORT)
    serve_names(lab.internet, WORLD_ADDRESS, WORLD_NAMES)
    serve_names(lab.host, STUB, STUB_NAMES)
    lab.host.sysctl(PING_RANGE, "0 2147483647")


class KernelVm:
    """A VM with a kernel of its own, over a helper's cable; its methods are what its programs do."""

    def __init__(self, broker: RootlessBroker, bin_dir: Path, hostname: str, network: str = "shared") -> None:
        self.cable = Cable(broker, bin_dir, ("--network", network, "--hostname", hostname))
        self.vm = SimulatedVm(self.cable, bin_dir)
        self.namespace = self.vm.namespace

    @property
    def address(self) -> str:
        return self.cable.address

    @property
    def gateway(self) -> str:
        return self.cable.gateway

    @property
    def interface(self) -> str:
        return self.cable.line["vmnet_interface_name"]

    def tcp(self, address: str, port: int = 7, timeout_s: float = 5) -> str:
        """What an echo server says over a new connection; OSError."""

        def ask() -> str:
            with socket.create_connection((address, port), timeout_s) as stream:
                stream.sendall(b"hello")
                return stream.recv(1000).decode()

        return self.namespace.inside(ask)

    def udp(self, address: str, port: int = 7, timeout_s: float = 5) -> str:
        """The same by a datagram."""
        with self.namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(timeout_s)
            client.sendto(b"hello", (address, port))
            return client.recv(1000).decode()

    def ping(self, address: str) -> bool:
        return self.namespace.run(["ping", "-c", "1", "-W", "3", address], check=False).returncode == 0

    def reaches(self, address: str, deadline_s: float, patience_s: float = 1) -> None:
        """Waits until a new connection is answered; patience_s is for each of them."""

        def answered() -> bool:
            with contextlib.suppress(OSError):
                return bool(self.tcp(address, timeout_s=patience_s))
            return False

        wait_for(answered, deadline_s, f"a new connection to {address}")

    def end(self) -> None:
        self.vm.close()
        self.cable.process.kill()
        self.cable.process.wait(5)


class Stream:
    """A TCP stream from one namespace to another, from its start to end(); the receiver looks at its clock."""

    INTERVAL_S = 0.01

    def __init__(self, sender: Namespace, receiver: Namespace, address: str) -> None:
        self._listener = receiver.inside(lambda: socket.create_server((address, 0)))
        port = self._listener.getsockname()[1]
        self._sender = sender.inside(lambda: socket.create_connection((address, port), 5))
        self._receiver = self._listener.accept()[0]
        self._receiver.settimeout(20)
        self._sender.settimeout(20)
        self._last = time.monotonic()
        self._gap_s = 0.0
        self._count = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=target) for target in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopped.wait(self.INTERVAL_S):
                self._sender.sendall(bytes(8192))
        self._sender.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while self._receiver.recv(65536):
                now = time.monotonic()
                self._gap_s = max(self._gap_s, now - self._last)
                self._last = now
                self._count += 1

    def wait_flowing(self, deadline_s: float = 5) -> None:
        before = self._count
        wait_for(lambda: self._count > before + 20, deadline_s, "bytes of the stream")

    @property
    def gap_s(self) -> float:
        """The longest time without a byte."""
        return max(self._gap_s, time.monotonic() - self._last)

    def end(self) -> None:
        self._stopped.set()
        for one in (self._sender, self._receiver):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._receiver, self._listener):
            one.close()
