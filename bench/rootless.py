"""An ordinary user's broker beside the system's: VM to VM, and out to the world beside pasta alone.

The VMs are namespaces behind a veth pair, or guests; what carries them is the kernel's bridge in both brokers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lib import guestkit
from lib.broker import Varlink
from lib.far import FAR_ADDRESS, FarWorld
from lib.lab import WORLD_ADDRESS, Namespace, User, children_of, process_name, wait_for

from .cables import ended
from .guests import GuestLine
from .lines import VM_LINK, Line
from .measure import Figures, throughput
from .place import PREFIX, Place, Unavailable

USER = User(4244, 4244)  # nobody's, in no group
NETWORKS = {"small": ("192.168.131", 1500), "large": ("192.168.132", 65520)}
GUEST_PORT = 5000


class RootlessBroker:
    """vmnet-broker --rootless in the lab's host, as USER, with a network of each MTU, which ends with its last user."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.directory = place.lab.public_directory(f"rootless{place.number()}", USER)
        config = self.directory / "config"
        config.mkdir()
        networks = {name: {"mode": "shared", "subnet": f"{subnet}.0/{PREFIX}", "mtu": mtu}
                    for name, (subnet, mtu) in NETWORKS.items()}  # fmt: skip
        (config / "networks.json").write_text(json.dumps(networks))
        os.chmod(config, 0o755)
        self.runtime = self.directory / "run"
        self.log_path = place.lab.directory / f"rootless{place.number()}.log"
        self.connections: dict[str, Varlink] = {}
        with open(self.log_path, "w") as log:
            self.process = place.host.popen(
                [place.bin_dir / "vmnet-broker", "--rootless", "--runtime-dir", self.runtime, "--config", config,
                 "--idle-timeout", "0"],
                user=USER, env={"HOME": str(self.directory)}, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: (self.runtime / "socket").exists() or self.process.poll() is not None, 10, "the rootless broker")
        if self.process.poll() is not None:
            raise Unavailable(f"vmnet-broker --rootless: {self.log_path.read_text().strip()}")
        self.pause_pid = self._find_pause()
        wait_for(lambda: "default" in self.run(["ip", "route"]), 10, "pasta's default route")

    def _find_pause(self) -> int:
        """Who listens at RUNTIME/pause holds the namespaces."""

        def look() -> int:
            with socket.socket(socket.AF_UNIX) as one:
                if one.connect_ex(str(self.runtime / "pause")):
                    return 0
                return struct.unpack("=iII", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

        return wait_for(look, 10, "the pause process")

    def run(self, argv: Sequence[str], check: bool = True) -> str:
        """Runs a command in the networks' namespace."""
        return subprocess.run(["nsenter", "-t", str(self.pause_pid), "-n", *argv], check=check, capture_output=True,
                              text=True).stdout  # fmt: skip

    def pasta_pid(self) -> int:
        """Of its children."""
        return next(pid for pid in children_of(self.process.pid) if process_name(pid).startswith("pas"))

    def connect(self) -> Varlink:
        return Varlink(self.runtime / "socket", USER, 30)

    def hold(self, network: str) -> str:
        """The name of its bridge; it exists from now on."""
        if network not in self.connections:
            connection = self.connections[network] = self.connect()
            connection.call("AcquireNetwork", network=network)
        return f"vmnet-{network}"

    def release(self, network: str) -> None:
        """It ends, and with it what its MTU asks of the queue in front of pasta."""
        connection = self.connections.pop(network, None)
        if connection:
            connection.close()
            wait_for(lambda: f"vmnet-{network}" not in self.run(["ip", "link"]), 10, f"the end of {network}")

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self.process.terminate()
        self.process.wait(20)


def broker_of(place: Place) -> RootlessBroker:
    """The one of a place, started on first use."""
    if not hasattr(place, "rootless"):
        place.rootless = RootlessBroker(place)
        place.defer(place.rootless.close)
    return place.rootless


def _set_up(vm: Namespace, address: str, gateway: str, mtu: int) -> None:
    vm.sysctl(f"net/ipv6/conf/{VM_LINK}/disable_ipv6", 1)
    vm.ip("link", "set", VM_LINK, "mtu", str(mtu), "up")
    vm.ip("address", "add", f"{address}/{PREFIX}", "dev", VM_LINK)
    vm.ip("route", "add", "default", "via", gateway)


def system_vm(place: Place, network: str) -> tuple[Namespace, str]:
    """A namespace on the system broker's network, and its address."""
    vm, link, address = place.namespace(), f"ve{place.number()}", place.foreign_address(network)
    place.hold(network)
    place.lab.veth(vm, VM_LINK, place.host, link)
    place.join(network, link)
    _set_up(vm, address, place.gateway(network), place.mtu(network))
    return vm, address


def rootless_vm(place: Place, network: str) -> tuple[Namespace, str]:
    """The same on the user's own."""
    broker = broker_of(place)
    bridge = broker.hold(network)
    subnet, mtu = NETWORKS[network]
    vm, link = place.namespace(), f"ve{place.number()}"
    address = f"{subnet}.{place.foreign_address('small').rpartition('.')[2]}"
    vm.ip("link", "add", VM_LINK, "type", "veth", "peer", "name", link, "netns", str(broker.pause_pid))
    broker.run(["ip", "link", "set", link, "mtu", str(mtu), "master", bridge, "up"])
    _set_up(vm, address, f"{subnet}.1", mtu)
    return vm, address


Maker = Callable[[Place, str], tuple[Namespace, str]]


@contextlib.contextmanager
def pair_line(place: Place, name: str, *, vm: Maker, network: str) -> Iterator[Line]:
    """Two VMs on one network of one broker."""
    (one, one_address), (two, two_address) = vm(place, network), vm(place, network)
    try:
        yield Line(name, place, one, one_address, two_address, place.start_server(two_address, two))
    finally:
        for each in (one, two):
            each.ip("link", "delete", VM_LINK)


def world_port(place: Place) -> int:
    """A server of the world's for one line alone, at both of its addresses."""
    if not hasattr(place, "far"):
        place.far = FarWorld(place.lab)
        place.defer(place.far.close)
    return place.start_server("0.0.0.0", place.lab.internet)


@contextlib.contextmanager
def world_line(place: Place, name: str, *, network: str) -> Iterator[Line]:
    """A VM of the user's own broker, to the world."""
    broker = broker_of(place)
    for other in set(NETWORKS) - {network}:
        broker.release(other)
    vm, address = rootless_vm(place, network)
    try:
        yield Line(name, place, vm, address, WORLD_ADDRESS, world_port(place), [broker.pasta_pid()])
    finally:
        vm.ip("link", "delete", VM_LINK)


class _InPasta:
    """What Line runs its programs in: a namespace that pasta alone joins to the host."""

    def __init__(self, place: Place, mtu: int) -> None:
        self.place = place
        self.process = place.host.popen(
            ["pasta", "--foreground", "--config-net", "--mtu", str(mtu), "-t", "none", "-u", "none", "-T", "none", "-U",
             "none", "--no-map-gw", "sleep", "3600"],
            user=USER, env={"HOME": "/"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.pid = wait_for(self._child, 10, "pasta's command")
        wait_for(lambda: "default" in self.run(["ip", "route"], check=False).stdout, 10, "pasta's route")

    def _child(self) -> int:
        return next((pid for pid in children_of(self.process.pid) if process_name(pid) == "sleep"), 0)

    def run(self, argv: Sequence[str], timeout: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["nsenter", "-t", str(self.pid), "-n", *argv], capture_output=True, text=True,
                              timeout=timeout, check=check)  # fmt: skip


@contextlib.contextmanager
def pasta_line(place: Place, name: str, *, mtu: int) -> Iterator[Line]:
    """pasta with nothing behind it: no bridge, no NAT of ours."""
    inside: Any = _InPasta(place, mtu)
    with ended(inside.process):
        yield Line(name, place, inside, "", WORLD_ADDRESS, world_port(place), [inside.process.pid])


@contextlib.contextmanager
def _guest(place: Place, connection: Varlink, network: str, mtu: int) -> Iterator[tuple[guestkit.Guest, Any, Path]]:
    """QEMU with a broker's TAP."""
    with contextlib.ExitStack() as stack:
        reply, fds = connection.call("CreateInterface", network=network)
        for fd in fds:
            stack.callback(os.close, fd)
        console = place.lab.public_directory(f"g{place.number()}", USER) / "console"
        command = guestkit.qemu_command(
            place.kit(), f"guest{place.number()}", console, emulator=tuple(place.emulator().command)
        )
        device = f"virtio-net-pci,netdev=n0,mac={reply['mac']},host_mtu={mtu}"
        with open(f"{console}.qemu", "w") as log:
            qemu = place.host.popen(
                [*command, "-netdev", f"tap,id=n0,fd={fds[0]}", "-device", device],
                user=USER, pass_fds=fds, stdout=log, stderr=log,
            )  # fmt: skip
        stack.enter_context(ended(qemu))
        yield stack.enter_context(guestkit.Guest(console, qemu)), qemu, Path(f"{console}.qemu")


class GuestPair(GuestLine):
    """A line from one guest to another, in which the server runs."""

    other: GuestLine

    def prepare(self) -> None:
        self.other.prepare()
        super().prepare()
        self.target = self.other.guest.address(60)
        self.other.guest.check(f"iperf3 -s -D -p {self.port}")


@contextlib.contextmanager
def guest_pair_line(
    place: Place, name: str, *, broker: Callable[[Place], Any], network: str, mtu: int
) -> Iterator[GuestLine]:
    """Two native guests on one network of one broker."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(broker(place).connect())
        (one, qemu, log), (two, other_qemu, other_log) = (
            stack.enter_context(_guest(place, connection, network, mtu)) for _ in range(2)
        )
        line = GuestPair(name, one, "", GUEST_PORT, mtu, [], [qemu.pid], log_path=log)
        line.other = GuestLine(name, two, "", GUEST_PORT, mtu, [], [other_qemu.pid], log_path=other_log)
        yield line


def system_broker(place: Place) -> Any:
    place.hold("small")
    place.hold("large")
    return place.broker


def out(line: Any, seconds: float) -> Figures:
    """To where a round trip takes as long as in a network."""
    return throughput(dataclasses.replace(line, target=FAR_ADDRESS), seconds, reverse=False)


def back(line: Any, seconds: float) -> Figures:
    return throughput(line, seconds, reverse=True)
