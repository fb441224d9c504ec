"""What is compared: each line connects a VM - here a namespace - with the host, in one of many ways.

A line is made once and lives through all rounds of its case, so that rounds can interleave.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.broker import MEMBER
from lib.lab import Namespace, wait_for

from .place import LOOPBACK, PREFIX, Place, Unavailable

VM_LINK = "eth0"
KINDS = {"datagram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}
# What the original asks for, and what an ordinary process gets of it where the distribution's limit is 212,992.
GOOD_BUFFER = 4 << 20
SMALL_BUFFER = 212_992


@dataclass
class Line:
    """A VM and its way to the host. pids: of the forwarding processes, whose CPU time is measured."""

    name: str
    namespace: Namespace
    address: str  # the VM's
    target: str  # the host's, with an iperf3 server at this port
    port: int
    mtu: int
    pids: list[int] = field(default_factory=list)
    vm_pids: list[int] = field(default_factory=list)  # what plays the VM
    stats: Callable[[], dict[str, Any]] = dict  # the forwarder's own counters, if it has any

    def run(self, argv: Sequence[str], timeout: float = 30) -> str:
        """Runs a program in the VM; its output."""
        return self.namespace.run(argv, timeout=timeout).stdout


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait(5)


def _set_up(vm: Namespace, address: str, mtu: int, mac: str | None = None) -> None:
    if mac:
        vm.ip("link", "set", VM_LINK, "address", mac)
    vm.ip("link", "set", VM_LINK, "mtu", str(mtu), "up")
    vm.ip("address", "add", f"{address}/{PREFIX}", "dev", VM_LINK)


def _line(place: Place, name: str, vm: Namespace, address: str, mtu: int, *pids: list[int], **more: Any) -> Line:
    """A line to the host's address on the network."""
    gateway = place.gateway(mtu)
    return Line(name, vm, address, gateway, place.start_server(gateway), mtu, *pids, **more)


@contextlib.contextmanager
def simulator(
    place: Place, vm: Namespace, vm_socket: socket.socket, *, mode: str, mtu: int, extra: Sequence[str] = ()
) -> Iterator[subprocess.Popen[Any]]:
    """A VM program that pumps the namespace's TAP over vm_socket, which it takes over."""
    process = vm.popen(
        [place.bench_dir / "vm-simulator", "--tap", VM_LINK, "--fd", str(vm_socket.fileno()), "--mode", mode,
         "--mtu", str(mtu), *extra],
        pass_fds=[vm_socket.fileno()], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    vm_socket.close()
    with ended(process):
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("vm-simulator did not start")
        yield process


def set_buffers(sockets: Sequence[socket.socket], size: int, force: bool = False) -> None:
    SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # not in Python's socket module
    options = (SO_SNDBUFFORCE, SO_RCVBUFFORCE) if force else (socket.SO_SNDBUF, socket.SO_RCVBUF)
    for one in sockets:
        for option in options:
            one.setsockopt(socket.SOL_SOCKET, option, size)


@dataclass(frozen=True)
class Helper:
    """Which vmnet-helper, and how it is started: for comparisons of two builds in one run too."""

    label: str = "helper"
    program: Path | None = None  # None: the build's own
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


MODE_ARGUMENTS = {
    "plain": (),
    "raw": ("--enable-tso", "--enable-checksum-offload"),
    "vnet-hdr": ("--enable-tso", "--enable-checksum-offload", "--vnet-hdr"),
}


@dataclass
class Attached:
    """A helper that is ready, and the VM's end of its socket."""

    process: subprocess.Popen[str]
    line: dict[str, Any]
    vm_socket: socket.socket
    log_path: Path

    def stats(self) -> dict[str, Any]:
        """The last counters that it logged."""
        marked = [line for line in self.log_path.read_text().splitlines() if "[stats] " in line]
        return json.loads(marked[-1].partition("[stats] ")[2]) if marked else {}


@contextlib.contextmanager
def attached_helper(
    place: Place, *, kind: str, mode: str, mtu: int, helper: Helper, small_buffers: bool = False,
    extra: Sequence[str] = (),
) -> Iterator[Attached]:  # fmt: skip
    """small_buffers: what is left of the buffers for a user who may not force them, nor has a broker that does."""
    network = place.network(mtu)
    vm_socket, helper_socket = socket.socketpair(socket.AF_UNIX, KINDS[kind])
    log_path = place.broker.directory / f"helper-{place.number()}.log"
    arguments = ["--fd", str(helper_socket.fileno()), "--network", network, *MODE_ARGUMENTS[mode], *helper.arguments]
    with open(log_path, "w") as log:
        process = place.host.popen(
            [helper.program or place.bin_dir / "vmnet-helper", *arguments, *extra],
            user=MEMBER,
            env={"VMNET_BROKER_SOCKET": str(place.broker.socket_path), **dict(helper.environment)},
            stdout=subprocess.PIPE, stderr=log, text=True, pass_fds=[helper_socket.fileno()],
        )  # fmt: skip
    with ended(process):
        answer = process.stdout.readline()
        if not answer:
            raise Unavailable(f"vmnet-helper {' '.join(arguments[2:])}: {log_path.read_text().strip()}")
        if small_buffers:
            set_buffers([vm_socket, helper_socket], SMALL_BUFFER)
        helper_socket.close()
        yield Attached(process, json.loads(answer), vm_socket, log_path)


@contextlib.contextmanager
def helper_line(
    place: Place, name: str, *, kind: str = "datagram", mode: str = "plain", mtu: int = 1500,
    helper: Helper = Helper(), small_buffers: bool = False, extra: Sequence[str] = (),
    simulator_arguments: Sequence[str] = (),
) -> Iterator[Line]:  # fmt: skip
    """vmnet-helper on a socket, the simulator at its other end."""
    with contextlib.ExitStack() as stack:
        attached = stack.enter_context(
            attached_helper(
                place, kind=kind, mode=mode, mtu=mtu, helper=helper, small_buffers=small_buffers, extra=extra
            )
        )
        vm = place.namespace()
        vm_process = stack.enter_context(
            simulator(place, vm, attached.vm_socket, mode=mode, mtu=mtu, extra=simulator_arguments)
        )
        address = attached.line["vmnet_ipv4_address"]
        _set_up(vm, address, mtu, attached.line["vmnet_mac_address"])
        yield _line(place, name, vm, address, mtu, [attached.process.pid], [vm_process.pid], stats=attached.stats)


@contextlib.contextmanager
def one_frame_line(place: Place, name: str, *, mtu: int = 1500, flood: int = 0) -> Iterator[Line]:
    """The baseline: one frame a system call, and with flood every frame to so many further VMs, who ignore it."""
    tap_name = f"one{place.number()}"
    address = place.foreign_address(mtu)
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(1 + flood)]
        place.bridge(mtu)
        tap = place.open_tap(mtu, tap_name)
        fds = [pair[1].fileno() for pair in pairs]
        for pair in pairs:
            pair[1].setblocking(False)
            set_buffers(pair, GOOD_BUFFER, force=True)
        arguments = [word for fd in fds for word in ("--fd", str(fd))]
        process = place.host.popen(
            [place.bench_dir / "one-frame-forwarder", "--tap-fd", str(tap), *arguments], pass_fds=[tap, *fds]
        )
        stack.enter_context(ended(process))
        os.close(tap)
        for pair in pairs:
            pair[1].close()
        vms = []
        for pair in pairs:
            vm = place.namespace()
            vms.append(vm)
            vm_process = stack.enter_context(simulator(place, vm, pair[0], mode="plain", mtu=mtu))
            vm.ip("link", "set", VM_LINK, "up")
        _set_up(vms[0], address, mtu)
        yield _line(place, name, vms[0], address, mtu, [process.pid], [vm_process.pid])


@contextlib.contextmanager
def veth_line(place: Place, name: str, *, mtu: int = 1500, offloads: bool = True) -> Iterator[Line]:
    """No forwarder at all: the kernel's own cable into the bridge, the limit without a guest."""
    vm, link, address = place.namespace(), f"ve{place.number()}", place.foreign_address(mtu)
    place.bridge(mtu)
    place.lab.veth(vm, VM_LINK, place.host, link)
    place.join(mtu, link)
    _set_up(vm, address, mtu)
    if not offloads:
        for namespace, one in ((vm, VM_LINK), (place.host, link)):
            namespace.run(["ethtool", "-K", one, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])
    yield _line(place, name, vm, address, mtu)
    place.host.ip("link", "delete", link)


@contextlib.contextmanager
def vde_line(place: Place, name: str) -> Iterator[Line]:
    """vde_switch between a TAP on the bridge and one in the VM's namespace."""
    mtu, tap, address = 1500, f"vde{place.number()}", place.foreign_address(1500)
    control = place.lab.directory / f"{tap}-control"
    place.bridge(mtu)
    with contextlib.ExitStack() as stack:
        switch = place.host.popen(
            ["vde_switch", "-s", control, "-M", f"{control}-mgmt", "-n", "64", "-m", "666"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,  # it ends with its stdin
        )
        stack.enter_context(ended(switch))
        wait_for(lambda: (control / "ctl").exists(), 5, "vde_switch's socket")
        vm = place.namespace()
        plugs = [place.host.popen(["vde_plug2tap", "-s", control, tap]),
                 vm.popen(["vde_plug2tap", "-s", control, VM_LINK])]  # fmt: skip
        for plug in plugs:
            stack.enter_context(ended(plug))
        for namespace, link in ((place.host, tap), (vm, VM_LINK)):
            wait_for(lambda: f" {link}:" in namespace.ip("link"), 5, f"vde_plug2tap's {link}")  # noqa: B023
        place.join(mtu, tap)
        _set_up(vm, address, mtu)
        yield _line(place, name, vm, address, mtu, [switch.pid, plugs[0].pid], [plugs[1].pid])


@contextlib.contextmanager
def passt(place: Place, *, mtu: int, extra: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[Any], Path]]:
    """A running passt in lab.host, and its socket."""
    path = place.lab.directory / f"passt{place.number()}"
    log_path = path.with_suffix(".log")
    with open(log_path, "w") as log:
        process = place.host.popen(
            ["passt", "--runas", "0", "-f", "-s", path, "-m", str(mtu), *extra], stdout=log, stderr=log
        )
    with ended(process):

        def listens() -> bool:
            if process.poll() is not None:
                raise Unavailable(f"passt: {log_path.read_text().strip()}")
            return path.exists()

        wait_for(listens, 5, "passt's socket")
        yield process, path


@contextlib.contextmanager
def passt_line(place: Place, name: str, *, mtu: int = 1500) -> Iterator[Line]:
    """passt's stream socket. The VM has the host's own address, and the gateway's stands for the host's loopback."""
    with passt(place, mtu=mtu) as (process, path):
        vm_socket = socket.socket(socket.AF_UNIX)
        vm_socket.connect(str(path))
        vm = place.namespace()
        with simulator(place, vm, vm_socket, mode="plain", mtu=mtu) as vm_process:
            _set_up(vm, "198.51.100.2", mtu)
            port = place.start_server(LOOPBACK)
            yield Line(name, vm, "198.51.100.2", "198.51.100.1", port, mtu, [process.pid], [vm_process.pid])


