"""What is seen over time: a helper that has nothing to do, and one whose VM stops reading again and again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.lab import CommandError, is_running, wait_for

from .cables import ended
from .lines import VM_LINK, Line, cable_line
from .measure import Figures, vm_to_host, host_to_vm
from .place import Place

IDLE_S = 10
STALL_EVERY_S, STALL_S = 10, 5
SOAK_S = 60
STREAMS = 8


def context_switches(pid: int) -> int:
    """Of all threads, voluntary and involuntary: a thread that woke up has switched."""
    statuses = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(count) for status in statuses for count in re.findall(r"ctxt_switches:\s+(\d+)", status))


def memory_mib(pid: int) -> float:
    """Resident."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, f"process {pid} has no memory"
    return int(found[1]) / 1024


def _wait_quiet(pid: int) -> None:
    """Until nothing was to do for a second: the last ACKs of what was before."""
    last = [context_switches(pid), time.monotonic()]

    def quiet() -> bool:
        now = context_switches(pid)
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] > 1

    wait_for(quiet, 30, f"process {pid} has nothing to do")


def idle(line: Line, seconds: float) -> Figures:
    """After traffic both ways, which touches all the memory there is to touch. The kernels at both ends are kept from
    talking by themselves: there is no IPv6, and neighbours are known for good."""
    pid = line.pids[0]
    vm_to_host(line, seconds)
    host_to_vm(line, seconds)
    for neighbour in json.loads(line.namespace.ip("-json", "neighbour", "show", "dev", VM_LINK)):
        if "lladdr" in neighbour:
            line.namespace.ip("neighbour", "replace", neighbour["dst"], "lladdr", neighbour["lladdr"], "dev", VM_LINK)
    for neighbour in json.loads(line.place.host.ip("-json", "neighbour", "show", line.address)):
        line.place.host.ip("neighbour", "replace", line.address, "lladdr", neighbour["lladdr"], "dev", neighbour["dev"])
    _wait_quiet(pid)
    before = context_switches(pid)
    time.sleep(IDLE_S)  # it is this span that is measured
    return {"wake-ups": float(context_switches(pid) - before), "memory": memory_mib(pid)}


@contextlib.contextmanager
def soak_line(place: Place, name: str, **options: Any) -> Iterator[Line]:
    """A VM that stops reading for 5 s every 10 s."""
    stalls = ("--stall-every", str(STALL_EVERY_S), "--stall", str(STALL_S))
    extra = ("--stats-interval", "1")
    with cable_line(place, name, simulator_arguments=stalls, extra=extra, **options) as line:
        yield line


def _datagram_pair(line: Line) -> tuple[socket.socket, socket.socket]:
    """From the VM to the host."""
    sink = line.place.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sink.bind((line.target, 0))
    source = line.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    source.connect(sink.getsockname())
    return source, sink


def _worst_delays(line: Line, seconds: int) -> list[float]:
    """ms, of each tenth of a second, of datagrams from the VM to the host."""
    source, sink = _datagram_pair(line)
    with source, sink:
        fds = [source.fileno(), sink.fileno()]
        command = [line.place.bench_dir / "gap-meter", "--source-fd", str(fds[0]), "--sink-fd", str(fds[1]), "--seconds", str(seconds)]
        result = json.loads(line.place.host.run(command, pass_fds=fds, timeout=seconds + 30).stdout)
    if result["received"] < 0.9 * result["sent"] or not result["sent"]:
        raise CommandError(f"{line.name}: {result['received']} of {result['sent']} datagrams arrived")
    return result["worst_ms"]


def _end(line: Line) -> float:
    """SIGTERM: ms until it has ended."""
    pid = line.pids[0]
    if not is_running(pid):
        raise CommandError(f"{line.name}: the helper ended by itself")
    started = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    while is_running(pid) and time.monotonic() - started < 10:
        time.sleep(0.001)
    return (time.monotonic() - started) * 1000


def soak(line: Line, seconds: float) -> Figures:
    """TCP streams both ways while datagrams VM->host show whether the VM that does not read host->VM stalls them too."""
    length = SOAK_S if seconds > 1 else 2 * STALL_EVERY_S
    command = ["iperf3", "-P", str(STREAMS), "--bidir", "-t", str(length), "-p", str(line.port), "-c", line.target]
    load = line.namespace.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with ended(load):
        delays = _worst_delays(line, length)
    stats = line.stats()
    drops = {direction: counters["drops"] for direction, counters in stats.items() if isinstance(counters, dict)}
    return {
        "stall": max(delays),
        "stall 99 %": sorted(delays)[int(len(delays) * 0.99)],
        "counted drops": float(sum(drops.values())),
        "end after SIGTERM": _end(line),
    }
