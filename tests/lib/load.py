"""Many clients of a broker at once, and what it costs the broker."""

from __future__ import annotations

import os
import resource
import selectors
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .broker import Broker, Varlink, VarlinkError
from .lab import read_proc, wait_for

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CLOSERS = 32


@dataclass
class Answer:
    """What a client was told, and when: seconds after all had asked."""

    reply: dict[str, Any]
    fds: list[int]  # the caller's
    after_s: float


def allow_many_fds() -> None:
    """Distributions give a process 1024 of them, and hundreds of VMs have more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def ask_together(
    clients: Sequence[Varlink], calls: Sequence[tuple[str, dict[str, Any]]], deadline_s: float = 60
) -> list[Answer | VarlinkError]:
    """Each client makes its call (method, parameters) before anybody reads an answer; the answers, in their order."""
    answers: list[Answer | VarlinkError | None] = [None] * len(clients)
    with selectors.DefaultSelector() as selector:
        for number, client in enumerate(clients):
            selector.register(client.socket, selectors.EVENT_READ, number)
        for client, (method, parameters) in zip(clients, calls, strict=True):
            client.send(method, parameters)
        asked = time.monotonic()
        while selector.get_map():
            ready = selector.select(max(0.0, asked + deadline_s - time.monotonic()))
            if not ready:
                missing = [calls[key.data] for key in selector.get_map().values()]
                raise TimeoutError(f"{len(missing)} calls have no answer after {deadline_s} s: {missing[:3]}")
            for key, _ in ready:
                selector.unregister(key.fileobj)
                answers[key.data] = _answer(clients[key.data], asked)
    return [answer for answer in answers if answer]


def _answer(client: Varlink, asked: float) -> Answer | VarlinkError:
    try:
        reply, fds, _ = client.reply()
    except VarlinkError as error:
        return error
    return Answer(reply, fds, time.monotonic() - asked)


def close_together(fds: Iterable[int]) -> None:
    """By many threads: the kernel takes up to 20 ms over each TAP and does some together."""
    with ThreadPoolExecutor(CLOSERS) as threads:
        list(threads.map(os.close, fds))


# What it costs


def parts_of(broker: Broker) -> dict[str, int]:
    """Process ids of front, priv and each dnsmasq."""
    servers = {f"dnsmasq {number}": pid for number, pid in enumerate(broker.dnsmasq_pids())}
    return {"priv": broker.priv_pid, "front": broker.front_pid, **servers}


def rss_kib(pid: int) -> int:
    for line in read_proc(pid, "status").decode().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def cpu_ticks(pid: int) -> int:
    """Clock ticks in user and kernel mode so far (proc(5), stat)."""
    fields = read_proc(pid, "stat").decode().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_idle(broker: Broker, quiet_s: float = 3, deadline_s: float = 30) -> None:
    """Waits until neither of the broker's parts has used a clock tick for so long.

    dnsmasq is another matter: it sends router advertisements, in a network's first minute often.
    """
    since, before = time.monotonic(), None

    def is_quiet() -> bool:
        nonlocal since, before
        ticks = [cpu_ticks(pid) for pid in (broker.priv_pid, broker.front_pid)]
        if ticks != before:
            since, before = time.monotonic(), ticks
        return time.monotonic() - since >= quiet_s

    wait_for(is_quiet, deadline_s, f"{quiet_s} s in which the broker uses no CPU")
