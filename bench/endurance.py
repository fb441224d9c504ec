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
FLOOD = "100M"  # of UDP: no congestion control holds it back, so what is not read has to be dropped
MARGIN_S = 1  # between a phase's beginning as the simulator sees it and as it is seen here


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


def _answers_ping(line: Line) -> bool:
    """A VM that does not read finds out nobody's MAC meanwhile, which ends a ping at once."""
    try:
        line.run(["ping", "-c", "1", "-W", "1", line.target])
    except CommandError:
        return False
    return True


def _pin_neighbours(line: Line) -> None:
    """The VM and the host know each other's MAC for good."""
    wait_for(lambda: _answers_ping(line), 60, f"{line.name}: an answer to ping")
    for namespace, address in ((line.namespace, line.target), (line.place.host, line.address)):
        for neighbour in json.loads(namespace.ip("-json", "neighbour", "show", "to", address)):
            words = ("lladdr", neighbour["lladdr"], "dev", neighbour["dev"], "nud", "permanent")
            namespace.ip("neighbour", "replace", address, *words)


def idle(line: Line, seconds: float) -> Figures:
    """After traffic both ways, which touches all the memory there is to touch. The kernels at both ends are kept from
    talking by themselves: there is no IPv6, and neighbours are known for good."""
    pid = line.pids[0]
    vm_to_host(line, seconds)
    host_to_vm(line, seconds)
    _pin_neighbours(line)
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


def _gaps(line: Line, seconds: int) -> tuple[list[float], list[float]]:
    """ms without a datagram from the VM at the host: while the VM reads, and while it doesn't."""
    source, sink = _datagram_pair(line)
    with source, sink:
        fds = [source.fileno(), sink.fileno()]
        program = line.place.bench_dir / "gap-meter"
        command = [program, "--source-fd", str(fds[0]), "--sink-fd", str(fds[1]), "--seconds", str(seconds)]
        offset = time.monotonic() - line.started
        result = json.loads(line.place.host.run(command, pass_fds=fds, timeout=seconds + 30).stdout)
    if result["received"] < 0.5 * result["sent"] or not result["sent"]:
        raise CommandError(f"{line.name}: {result['received']} of {result['sent']} datagrams arrived")
    reading, stopped = [], []
    for number, gap in enumerate(result["gaps_ms"]):
        phase = (offset + number / 10) % STALL_EVERY_S
        is_stopped = STALL_EVERY_S - STALL_S + MARGIN_S <= phase < STALL_EVERY_S - MARGIN_S
        (stopped if is_stopped else reading).append(gap)
    return reading, stopped


@contextlib.contextmanager
def _load(line: Line, seconds: int) -> Iterator[None]:
    """TCP streams both ways, and host->VM more UDP than can wait."""
    flood_port = line.place.start_server(line.target)
    client = ["iperf3", "-t", str(seconds), "-c", line.target]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    streams = line.namespace.popen([*client, "-p", str(line.port), "-P", str(STREAMS), "--bidir"], **quiet)
    flood = line.namespace.popen([*client, "-p", str(flood_port), "-u", "-R", "-b", FLOOD, "-l", "1400"], **quiet)
    with ended(streams), ended(flood):
        yield


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
    """Whether a VM that does not read what comes for it stalls what it sends. A VM that does not read gets no answer
    to ARP either, so that nobody needs to ask."""
    _pin_neighbours(line)
    length = SOAK_S if seconds > 1 else 2 * STALL_EVERY_S
    with _load(line, length):
        reading, stopped = _gaps(line, length)
    counters = [one for one in line.stats().values() if isinstance(one, dict)]
    return {
        "stall": max(stopped),
        "stall while reading": max(reading),
        "counted drops": float(sum(one["drops"] for one in counters)),
        "end after SIGTERM": _end(line),
    }
