"""What is compared: each line connects a VM - here a namespace - with the host, in one of many ways.

A line is made once and lives through all rounds of its case, so that rounds can interleave.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from lib.broker import MEMBER
from lib.lab import INTERNET_ADDRESS, UPLINK_ADDRESS, Namespace, wait_for

from .cables import Cable, Helper, ended, helper_process, passt
from .place import LOOPBACK, PREFIX, Place, Unavailable

VM_LINK = "eth0"


@dataclass
class Line:
    """A VM and its way to the host. pids: of the forwarding processes, whose CPU time is measured."""

    name: str
    place: Place
    namespace: Namespace
    address: str  # the VM's
    target: str  # the host's, or another VM's, with an iperf3 server at this port
    port: int
    pids: list[int] = field(default_factory=list)
    vm_pids: list[int] = field(default_factory=list)  # what plays the VM
    stats: Callable[[], dict[str, Any]] = dict  # the forwarder's own counters, if it has any
    started: float = field(default_factory=time.monotonic)

    def run(self, argv: Sequence[str], timeout: float = 30) -> str:
        """Runs a program in the VM; its output."""
        return self.namespace.run(argv, timeout=timeout).stdout


def _set_up(vm: Namespace, address: str, mtu: int, mac: str | None = None) -> None:
    """Without IPv6, whose solicitations by multicast would reach every other line of the network."""
    vm.sysctl(f"net/ipv6/conf/{VM_LINK}/disable_ipv6", 1)
    if mac:
        vm.ip("link", "set", VM_LINK, "address", mac)
    vm.ip("link", "set", VM_LINK, "mtu", str(mtu), "up")
    vm.ip("address", "add", f"{address}/{PREFIX}", "dev", VM_LINK)


def line_to_gateway(
    place: Place, name: str, vm: Namespace, address: str, network: str, *pids: list[int], **more: Any
) -> Line:
    """A line to the host's address on the network."""
    gateway = place.gateway(network)
    return Line(name, place, vm, address, gateway, place.start_server(gateway), *pids, **more)


@contextlib.contextmanager
def simulator(
    place: Place, vm: Namespace, vm_end: int, *, mode: str, mtu: int, extra: Sequence[str] = ()
) -> Iterator[subprocess.Popen[Any]]:
    """A VM program that pumps the namespace's TAP over the socket vm_end."""
    process = vm.popen(
        [place.bench_dir / "vm-simulator", "--tap", VM_LINK, "--fd", str(vm_end), "--mode", mode,
         "--mtu", str(mtu), *extra],
        pass_fds=[vm_end], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with ended(process):
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("vm-simulator did not start")
        yield process


@contextlib.contextmanager
def simulated_vm(place: Place, cable: Cable, extra: Sequence[str] = ()) -> Iterator[tuple[Namespace, int]]:
    """A VM with an address at the end of a cable: its namespace, and the pid of its VM program."""
    vm, mtu = place.namespace(), place.mtu(cable.network)
    with simulator(place, vm, cable.vm_end, mode=cable.mode, mtu=mtu, extra=extra) as process:
        _set_up(vm, cable.address, mtu, cable.mac)
        yield vm, process.pid


@contextlib.contextmanager
def cable_line(
    place: Place, name: str, *, cable: Callable[..., AbstractContextManager[Cable]],
    simulator_arguments: Sequence[str] = (), **options: Any,
) -> Iterator[Line]:  # fmt: skip
    """A cable, and the simulator at its other end; others that are flooded are up and ignore what comes."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(cable(place, **options))
        vm, vm_pid = stack.enter_context(simulated_vm(place, made, simulator_arguments))
        for end in made.further_ends:
            other = place.namespace()
            stack.enter_context(simulator(place, other, end, mode=made.mode, mtu=place.mtu(made.network)))
            other.ip("link", "set", VM_LINK, "up")
        yield line_to_gateway(place, name, vm, made.address, made.network, made.pids, [vm_pid], stats=made.stats)


@contextlib.contextmanager
def vhost_user_line(place: Place, name: str, *, network: str = "small", helper: Helper = Helper()) -> Iterator[Line]:
    """vmnet-helper --vhost-user; the VM is a namespace behind a front-end with the least driver there can be."""
    place.hold(network)
    path = place.lab.public_directory(f"vu{place.number()}", MEMBER) / "socket"
    arguments = ["--vhost-user", str(path), "--network", network]
    with helper_process(place, arguments, helper=helper) as (process, answer, _):
        vm, mac, address = place.namespace(), answer["vmnet_mac_address"], answer["vmnet_ipv4_address"]
        front_end = vm.popen(
            [place.bench_dir / "vhost-user-guest", path, VM_LINK, mac], stdout=subprocess.PIPE, text=True
        )
        with ended(front_end):
            if front_end.stdout.readline() != "ready\n":
                raise Unavailable("vhost-user-guest did not start")
            _set_up(vm, address, place.mtu(network))
            yield line_to_gateway(place, name, vm, address, network, [process.pid], [front_end.pid])


@contextlib.contextmanager
def pair_line(
    place: Place, name: str, *, cable: Callable[..., AbstractContextManager[Cable]], idle: int = 0, **options: Any
) -> Iterator[Line]:
    """Two VMs that talk to each other, and idle ones beside them."""
    with contextlib.ExitStack() as stack:
        cables = [stack.enter_context(cable(place, **options)) for _ in range(2 + idle)]
        vms = [stack.enter_context(simulated_vm(place, made)) for made in cables]
        port = place.start_server(cables[1].address, vms[1][0])
        pids = cables[0].pids + cables[1].pids
        yield Line(name, place, vms[0][0], cables[0].address, cables[1].address, port, pids, [vms[0][1], vms[1][1]])


@contextlib.contextmanager
def veth_line(place: Place, name: str, *, network: str = "small", offloads: bool = True) -> Iterator[Line]:
    """No forwarder at all: the kernel's own cable into the bridge, the limit without a guest."""
    vm, link, address = place.namespace(), f"ve{place.number()}", place.foreign_address(network)
    place.hold(network)
    place.lab.veth(vm, VM_LINK, place.host, link)
    try:
        place.join(network, link)
        _set_up(vm, address, place.mtu(network))
        if not offloads:
            for namespace, one in ((vm, VM_LINK), (place.host, link)):
                namespace.run(["ethtool", "-K", one, "tso", "off", "gso", "off", "gro", "off", "tx", "off"])
        yield line_to_gateway(place, name, vm, address, network)
    finally:
        place.host.ip("link", "delete", link)


@contextlib.contextmanager
def vde_line(place: Place, name: str) -> Iterator[Line]:
    """vde_switch between a TAP on the bridge and one in the VM's namespace."""
    network, tap, address = "small", f"vde{place.number()}", place.foreign_address("small")
    control = place.lab.directory / f"{tap}-control"
    place.hold(network)
    with contextlib.ExitStack() as stack:
        switch = place.host.popen(
            ["vde_switch", "-s", control, "-M", f"{control}-mgmt", "-n", "64", "-m", "666"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,  # it ends with its stdin
        )  # fmt: skip
        stack.enter_context(ended(switch))
        wait_for(lambda: (control / "ctl").exists(), 5, "vde_switch's socket")
        vm = place.namespace()
        plugs = []
        for namespace, link in ((place.host, tap), (vm, VM_LINK)):
            plugs.append(stack.enter_context(ended(namespace.popen(["vde_plug2tap", "-s", control, link]))))
            wait_for(lambda: f" {link}:" in namespace.ip("link"), 5, f"vde_plug2tap's {link}")  # noqa: B023
        place.join(network, tap)
        _set_up(vm, address, place.mtu(network))
        yield line_to_gateway(place, name, vm, address, network, [switch.pid, plugs[0].pid], [plugs[1].pid])


@contextlib.contextmanager
def passt_line(place: Place, name: str, *, mtu: int = 1500) -> Iterator[Line]:
    """passt's stream socket. The VM has the host's own address, and the gateway's stands for the host's loopback."""
    with passt(place, mtu=mtu) as (pid, path), socket.socket(socket.AF_UNIX) as vm_socket:
        vm_socket.connect(str(path))
        vm = place.namespace()
        with simulator(place, vm, vm_socket.fileno(), mode="plain", mtu=mtu) as own:
            _set_up(vm, UPLINK_ADDRESS, mtu)
            port = place.start_server(LOOPBACK)
            yield Line(name, place, vm, UPLINK_ADDRESS, INTERNET_ADDRESS, port, [pid], [own.pid])
