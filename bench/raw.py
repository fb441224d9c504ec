"""Cables without a kernel's TCP at the VM's end: made frames through the VM's socket, for rates and round trips."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from lib.lab import CommandError

from .cables import Cable, native_cable
from .measure import Figures, cpu_seconds
from .place import Place

NOWHERE = "192.0.2.1"  # RFC 5737
# Frames in flight to the VM: a TAP's queue, which drops what it has no room for, holds 500.
WINDOW = 256


@dataclass
class RawLine:
    """A cable, with the test's own program at the VM's end of it."""

    name: str
    place: Place
    cable: Cable
    other: Cable | None  # another VM's TAP on the same network


@contextlib.contextmanager
def raw_line(
    place: Place, name: str, *, cable: Callable[..., AbstractContextManager[Cable]], sends_to_vm: bool = False,
    **options: Any,
) -> Iterator[RawLine]:  # fmt: skip
    with cable(place, **options) as made, contextlib.ExitStack() as stack:
        other = stack.enter_context(native_cable(place, network=made.network)) if sends_to_vm else None
        place.discard(made.network, NOWHERE)
        _send_first(made)
        yield RawLine(name, place, made, other)


def _send_first(cable: Cable) -> None:
    """A helper ends with the process that sent it the first datagram. That shall be this one, which outlives the
    programs that play the VM."""
    with contextlib.ExitStack() as stack:
        try:
            vm_socket = stack.enter_context(socket.socket(fileno=os.dup(cable.vm_end)))
        except OSError:
            return  # a TAP
        if vm_socket.type == socket.SOCK_DGRAM:
            vm_socket.send(bytes(12) + b"\x88\xb5" + bytes(46))  # for nobody: IEEE 802 local experimental


def _run(line: RawLine, program: str, fds: list[int], arguments: list[str], seconds: float) -> dict[str, Any]:
    """Runs one of the benchmark's programs, which answers with one line of JSON."""
    command = [line.place.bench_dir / program, *arguments, *(["--vnet-hdr"] if line.cable.mode == "vnet-hdr" else [])]
    return json.loads(line.place.host.run(command, pass_fds=fds, timeout=seconds + 30).stdout)


def _flow(source: Cable, destination_mac: str, destination: str) -> list[str]:
    return ["--source-mac", source.mac, "--source", source.address, "--destination-mac", destination_mac,
            "--destination", destination]  # fmt: skip


def _rates(name: str, frames: int, result: dict[str, Any], used: float, pids: list[int]) -> Figures:
    if frames < 1000:
        raise CommandError(f"{name}: only {frames} frames came through")
    figures = {"frames": frames / result["seconds"] / 1000}
    if pids:
        figures["cpu per frame"] = used / frames * 1e9
    return figures


def _host_bytes(line: RawLine) -> int:
    """Bytes that the bridge got from its ports for the host itself."""
    return line.place.bridge_link(line.cable.network)["stats64"]["rx"]["bytes"]


def blast_to_host(line: RawLine, seconds: float, size: int, protocol: str) -> Figures:
    """As fast as the VM's socket takes them. What the host got is asked of its bridge, in bytes, as it gets large
    frames made of many."""
    mac = line.place.bridge_link(line.cable.network)["address"]
    arguments = ["--source-fd", str(line.cable.vm_end), "--size", str(size), "--protocol", protocol,
                 "--milliseconds", str(round(seconds * 1000)), *_flow(line.cable, mac, NOWHERE)]  # fmt: skip
    before, bytes_before = cpu_seconds(line.cable.pids), _host_bytes(line)
    result = _run(line, "frame-blaster", [line.cable.vm_end], arguments, seconds)
    used, got = cpu_seconds(line.cable.pids) - before, _host_bytes(line) - bytes_before
    if got < 0.5 * result["sent"] * (size - 14):
        raise CommandError(f"{line.name}: the host got {got} bytes of {result['sent']} frames of {size}")
    return _rates(line.name, result["sent"], result, used, line.cable.pids)


def blast_to_vm(line: RawLine, seconds: float, size: int, protocol: str) -> Figures:
    """From another VM's TAP, no further ahead than what the queues on the way hold; frames that arrived."""
    assert line.other
    fds = [line.other.vm_end, line.cable.vm_end]
    arguments = ["--source-fd", str(fds[0]), "--sink-fd", str(fds[1]), "--window", str(WINDOW), "--size", str(size),
                 "--protocol", protocol, "--milliseconds", str(round(seconds * 1000)),
                 *_flow(line.other, line.cable.mac, line.cable.address)]  # fmt: skip
    before = cpu_seconds(line.cable.pids)
    result = _run(line, "frame-blaster", fds, arguments, seconds)
    used = cpu_seconds(line.cable.pids) - before
    return _rates(line.name, result["received"], result, used, line.cable.pids)


def round_trip(line: RawLine, seconds: float) -> Figures:
    """ICMP echo to the host, 1 ms apart."""
    place, cable = line.place, line.cable
    bridge = place.bridge_link(cable.network)
    place.host.ip("neighbour", "replace", cable.address, "lladdr", cable.mac, "dev", bridge["ifname"])
    arguments = ["--fd", str(cable.vm_end), "--count", str(max(100, round(seconds * 1000))),
                 *_flow(cable, bridge["address"], place.gateway(cable.network))]  # fmt: skip
    result = _run(line, "frame-ping", [cable.vm_end], arguments, seconds)
    if result["answered"] < 0.99 * result["sent"]:
        raise CommandError(f"{line.name}: {result['answered']} of {result['sent']} echo requests were answered")
    return {"round trip": result["median_us"], "round trip 99 %": result["p99_us"]}
