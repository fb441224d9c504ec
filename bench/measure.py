"""One measurement each: every function returns figures by name, in the units that `UNITS` gives."""

from __future__ import annotations

import re
import time
from typing import Any

from lib.iperf3 import iperf3
from lib.lab import CommandError

from .lines import Line

UNITS = {
    "throughput": "Gbit/s",
    "cpu": "CPU s/GB",
    "cpu with VM": "CPU s/GB",
    "retransmits": "segments",
    "round trip": "us",
    "round trip 99 %": "us",
    "frames": "1000/s",
    "cpu per frame": "ns",
    "wake-ups": "in 10 s",
    "memory": "MiB",
    "stall": "ms",
    "stall while reading": "ms",
    "end after SIGTERM": "ms",
    "counted drops": "frames",
    "request": "ms",
    "request 99 %": "ms",
    "cpu per request": "ms",
    "cpu while idle": "ms/s",
    "dnsmasq while idle": "ms/s",
    "all served": "s",
}
Figures = dict[str, float]

CPUCLOCK_SCHED = 2  # clock ids of other processes: the kernel's include/linux/posix-timers.h


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes so far with all their threads, in ns steps, as clock_getcpuclockid(3)."""
    return sum(time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED) for pid in pids)


def _iperf3(line: Line, arguments: list[str], seconds: float) -> dict[str, Any]:
    try:
        return iperf3(
            lambda argv: line.run(argv, timeout=seconds + 10),
            line.target, "-t", str(round(seconds)), "-p", str(line.port), *arguments,
        )  # fmt: skip
    except CommandError as failure:
        raise CommandError(f"{line.name}: {failure}") from None


def throughput(line: Line, seconds: float, *, reverse: bool) -> Figures:
    """One TCP stream, VM->host or (reverse) host->VM; CPU time of the forwarding processes for each GB received."""
    before, vm_before = cpu_seconds(line.pids), cpu_seconds(line.vm_pids)
    result = _iperf3(line, ["-R"] if reverse else [], seconds)
    used, vm_used = cpu_seconds(line.pids) - before, cpu_seconds(line.vm_pids) - vm_before
    received = result["end"]["sum_received"]
    if not received["bytes"]:
        raise CommandError(f"{line.name}: nothing came through")
    figures = {
        "throughput": received["bits_per_second"] / 1e9,
        "retransmits": float(result["end"]["sum_sent"].get("retransmits", 0)),
    }
    gigabytes = received["bytes"] / 1e9
    if line.pids:
        figures["cpu"] = used / gigabytes
    if line.vm_pids:
        figures["cpu with VM"] = (used + vm_used) / gigabytes
    return figures


def vm_to_host(line: Line, seconds: float) -> Figures:
    return throughput(line, seconds, reverse=False)


def host_to_vm(line: Line, seconds: float) -> Figures:
    return throughput(line, seconds, reverse=True)


def ping(line: Line, seconds: float) -> Figures:
    """ICMP echo to the host, 5 ms apart."""
    count = max(20, round(seconds * 200))
    output = line.run(["ping", "-n", "-i", "0.005", "-c", str(count), line.target], timeout=seconds + 30)
    times = sorted(float(found) * 1000 for found in re.findall(r"time=([\d.]+) ms", output))
    if len(times) < count * 0.9:
        raise CommandError(f"{line.name}: {len(times)} of {count} pings were answered")
    return {"round trip": times[len(times) // 2], "round trip 99 %": times[int(len(times) * 0.99)]}
