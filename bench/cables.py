"""Ways to carry frames between a VM and a network's bridge: each ends in a socket for whatever plays the VM."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.broker import MEMBER
from lib.lab import wait_for

from .place import Place, Unavailable

KINDS = {"datagram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}
# What the VM's side carries, and the helper's options that say so.
MODE_ARGUMENTS = {
    "plain": (),
    "raw": ("--enable-tso", "--enable-checksum-offload"),
    "vnet-hdr": ("--vnet-hdr",),
}
# What the original asks for, and what an ordinary process gets of it where the distribution's limit is 212,992.
GOOD_BUFFER = 4 << 20
SMALL_BUFFER = 212_992
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # not in Python's socket module


@dataclass(frozen=True)
class Helper:
    """Which vmnet-helper, and how it is started: for comparisons of two builds in one run too."""

    label: str = "helper"
    program: Path | None = None  # None: the build's own
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass
class Cable:
    """A forwarder that is ready. vm_end is the VM's socket, or its TAP; pids are measured."""

    vm_end: int
    mac: str
    address: str
    network: str
    mode: str
    pids: list[int]
    further_ends: list[int]  # of VMs that are flooded along with this one
    stats: Callable[[], dict[str, Any]] = dict


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Kills it at the end."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(5)


@contextlib.contextmanager
def owned(fd: int) -> Iterator[int]:
    """Closes it at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def _set_buffers(sockets: Sequence[socket.socket], size: int, force: bool = False) -> None:
    for one in sockets:
        for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE) if force else (socket.SO_SNDBUF, socket.SO_RCVBUF):
            one.setsockopt(socket.SOL_SOCKET, option, size)


def _logged_stats(log_path: Path) -> dict[str, Any]:
    marked = [line for line in log_path.read_text().splitlines() if "[stats] " in line]
    return json.loads(marked[-1].partition("[stats] ")[2]) if marked else {}


@contextlib.contextmanager
def helper_process(
    place: Place, arguments: Sequence[str], *, helper: Helper = Helper(), fds: Sequence[int] = ()
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], Path]]:
    """A vmnet-helper that is ready, its JSON line, and its log."""
    log_path = place.broker.directory / f"helper-{place.number()}.log"
    with open(log_path, "w") as log:
        process = place.host.popen(
            [helper.program or place.bin_dir / "vmnet-helper", *arguments, *helper.arguments],
            user=MEMBER,
            env={"VMNET_BROKER_SOCKET": str(place.broker.socket_path), **dict(helper.environment)},
            stdout=subprocess.PIPE, stderr=log, text=True, pass_fds=fds,
        )  # fmt: skip
    with ended(process):
        answer = process.stdout.readline()
        if not answer:
            raise Unavailable(f"vmnet-helper {' '.join(arguments)}: {log_path.read_text().strip()}")
        yield process, json.loads(answer), log_path


@contextlib.contextmanager
def helper_cable(
    place: Place, *, kind: str = "datagram", mode: str = "plain", network: str = "small", helper: Helper = Helper(),
    small_buffers: bool = False, extra: Sequence[str] = (),
) -> Iterator[Cable]:  # fmt: skip
    """vmnet-helper. small_buffers: what is left of the queues for a user whom nobody forces larger ones for."""
    place.hold(network)
    vm_socket, own = socket.socketpair(socket.AF_UNIX, KINDS[kind])
    arguments = ["--fd", str(own.fileno()), "--network", network, *MODE_ARGUMENTS[mode], *extra]
    with vm_socket, own, helper_process(place, arguments, helper=helper, fds=[own.fileno()]) as (process, line, log):
        if small_buffers:
            _set_buffers([vm_socket, own], SMALL_BUFFER)
        own.close()
        yield Cable(
            vm_socket.fileno(), line["vmnet_mac_address"], line["vmnet_ipv4_address"], network, mode, [process.pid], [],
            lambda: _logged_stats(log),
        )  # fmt: skip


@contextlib.contextmanager
def one_frame_cable(place: Place, *, network: str = "small", flood: int = 0) -> Iterator[Cable]:
    """The baseline: one frame a system call; with flood every frame goes to so many further VMs too."""
    place.hold(network)
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(1 + flood)]
        for vm_socket, own in pairs:
            stack.enter_context(vm_socket)
            own.setblocking(False)
            _set_buffers([vm_socket, own], GOOD_BUFFER, force=True)
        fds = [own.fileno() for _, own in pairs]
        tap = place.open_tap(network, f"one{place.number()}")
        arguments = [word for fd in fds for word in ("--fd", str(fd))]
        process = place.host.popen(
            [place.bench_dir / "one-frame-forwarder", "--tap-fd", str(tap), *arguments], pass_fds=[tap, *fds]
        )
        stack.enter_context(ended(process))
        os.close(tap)
        for _, own in pairs:
            own.close()
        number = place.number()
        yield Cable(
            pairs[0][0].fileno(), f"52:54:00:b0:{number >> 8:02x}:{number & 255:02x}", place.foreign_address(network),
            network, "plain", [process.pid], [vm_socket.fileno() for vm_socket, _ in pairs[1:]],
        )  # fmt: skip


@contextlib.contextmanager
def native_cable(place: Place, *, network: str = "small") -> Iterator[Cable]:
    """No forwarder: the broker's TAP itself, as a VM has it that was attached natively."""
    place.hold(network)
    with place.broker.connect() as connection:
        reply, fds = connection.call("CreateInterface", network=network)
    with owned(fds[0]) as tap:
        for fd in fds[1:]:
            os.close(fd)
        yield Cable(tap, reply["mac"], reply["address"], network, "vnet-hdr", [], [])


@contextlib.contextmanager
def passt(place: Place, *, mtu: int, extra: Sequence[str] = ()) -> Iterator[tuple[int, Path]]:
    """A running passt in lab.host: its pid, and the path of its socket."""
    path = place.lab.directory / f"passt{place.number()}"
    log_path = path.with_suffix(".log")
    with open(log_path, "w") as log:
        process = place.host.popen(
            [place.options.passt, "--runas", "0", "-f", "-s", path, "-m", str(mtu), *extra], stdout=log, stderr=log
        )
    with ended(process):

        def listens() -> bool:
            if process.poll() is not None:
                raise Unavailable(f"passt: {log_path.read_text().strip()}")
            return path.exists()

        wait_for(listens, 5, "passt's socket")
        yield process.pid, path
