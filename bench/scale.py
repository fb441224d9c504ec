"""What a broker takes: for an interface, for a network, for many of them, and for many clients at once.

Each line has a lab and a broker of its own for the time of one measurement, so that nothing is there before. As on a
system with systemd, the runtime directory is in memory and the state directory is not.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import load
from lib.broker import Broker, Varlink, VarlinkError
from lib.lab import CommandError, Lab, wait_for

from .measure import Figures, cpu_seconds
from .place import Place

WARM_REQUESTS = 200
COLD_NETWORKS = 20
IDLE_S = 10
END_S = 60  # one bridge after the other
WIDE = "10.77.0.0/22"
GROWTH = {"interfaces on one network": (50, 100, 200, 300, 400, 500), "networks": (10, 20, 40, 60),
          "clients at once": (25, 50, 100, 200)}  # fmt: skip
MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def fresh_broker(place: Place, networks: int = 0) -> Iterator[Broker]:
    """With a network "wide" for hundreds, and as many numbered ones."""
    load.allow_many_fds()
    config = {"wide": {"mode": "shared", "subnet": WIDE}}
    config |= {f"n{number}": {"mode": "shared"} for number in range(networks)}
    with tempfile.TemporaryDirectory(prefix="vmnet-bench-", dir=MEMORY) as memory, Lab() as lab:
        os.chmod(memory, 0o755)
        with Broker(lab, place.bin_dir, networks=config, runtime_dir=Path(memory) / "run") as broker:
            yield broker
            broker.terminate(END_S)


def _parts(broker: Broker) -> list[int]:
    """Without dnsmasq, which is no code of ours."""
    return [broker.priv_pid, broker.front_pid]


def _checked(answer: load.Answer | VarlinkError) -> load.Answer:
    if isinstance(answer, VarlinkError):
        raise CommandError(f"the broker refused: {answer}")
    return answer


def _create(client: Varlink, network: str) -> load.Answer:
    return _checked(load.ask_together([client], [("CreateInterface", {"network": network})])[0])


def _percentiles(seconds: list[float]) -> Figures:
    ordered = sorted(seconds)
    return {"request": ordered[len(ordered) // 2] * 1000, "request 99 %": ordered[int(len(ordered) * 0.99)] * 1000}


def _per_request(broker: Broker, before: float, requests: int) -> Figures:
    return {"cpu per request": (cpu_seconds(_parts(broker)) - before) * 1000 / requests}


def _memory(broker: Broker) -> Figures:
    return {"memory": sum(map(load.rss_kib, _parts(broker))) / 1024}


def warm(place: Place) -> Figures:
    """One interface after the other on a network that runs; the one before has gone."""
    with fresh_broker(place) as broker, broker.connect() as client:
        client.call("AcquireNetwork", network="wide")
        before, seconds = cpu_seconds(_parts(broker)), []
        for _ in range(WARM_REQUESTS):
            answer = _create(client, "wide")
            seconds.append(answer.after_s)
            load.close_together(answer.fds)
            wait_for(lambda: not os.listdir(broker.runtime_dir / "interfaces"), 5, "the interface has gone")
        return {**_percentiles(seconds), **_per_request(broker, before, WARM_REQUESTS), **_memory(broker)}


def cold(place: Place) -> Figures:
    """An interface on a network that does not run: bridge, rules and DHCP server are made for it."""
    with fresh_broker(place, COLD_NETWORKS) as broker:
        before, seconds = cpu_seconds(_parts(broker)), []
        for number in range(COLD_NETWORKS):
            with broker.connect() as client:
                answer = _create(client, f"n{number}")
                seconds.append(answer.after_s)
                load.close_together(answer.fds)
        return {**_percentiles(seconds), **_per_request(broker, before, COLD_NETWORKS), **_memory(broker)}


def idle(place: Place) -> Figures:
    """60 networks and 100 interfaces with nothing to do. dnsmasq, which is no code of ours, sends router advertisements,
    often in a network's first minute."""
    with fresh_broker(place, 60) as broker, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(broker.connect()) for _ in range(60)]
        asked = [("AcquireNetwork", {"network": f"n{number}"}) for number in range(60)]
        list(map(_checked, load.ask_together(clients, asked)))
        answers = [_create(clients[0], f"n{number % 60}") for number in range(100)]
        load.wait_idle(broker)
        groups = {"cpu while idle": _parts(broker), "dnsmasq while idle": broker.dnsmasq_pids()}
        before = {name: cpu_seconds(pids) for name, pids in groups.items()}
        time.sleep(IDLE_S)  # it is this span that is measured
        figures = {name: (cpu_seconds(pids) - before[name]) * 1000 / IDLE_S for name, pids in groups.items()}
        figures |= _memory(broker)
        load.close_together(fd for answer in answers for fd in answer.fds)
    return figures


def interfaces(place: Place, count: int) -> Figures:
    """All are there at the end."""
    with fresh_broker(place) as broker, broker.connect() as client:
        client.call("AcquireNetwork", network="wide")
        before = cpu_seconds(_parts(broker))
        answers = [_create(client, "wide") for _ in range(count)]
        figures = {
            "all served": sum(answer.after_s for answer in answers), **_per_request(broker, before, count),
            **_percentiles([answer.after_s for answer in answers]), **_memory(broker),
        }  # fmt: skip
        load.close_together(fd for answer in answers for fd in answer.fds)
    return figures


def _together(broker: Broker, calls: list[tuple[str, dict[str, str]]]) -> Figures:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(broker.connect()) for _ in calls]
        before = cpu_seconds(_parts(broker))
        answers = list(map(_checked, load.ask_together(clients, calls)))
        seconds = [answer.after_s for answer in answers]
        figures = {"all served": max(seconds), **_per_request(broker, before, len(calls)),
                   **_percentiles(seconds), **_memory(broker)}  # fmt: skip
        load.close_together(fd for answer in answers for fd in answer.fds)
    return figures


def networks(place: Place, count: int) -> Figures:
    """Asked for at the same moment, by as many clients."""
    with fresh_broker(place, count) as broker:
        return _together(broker, [("AcquireNetwork", {"network": f"n{number}"}) for number in range(count)])


def clients(place: Place, count: int) -> Figures:
    """Each asks for an interface on the same network that runs."""
    with fresh_broker(place) as broker, broker.connect() as holder:
        holder.call("AcquireNetwork", network="wide")
        return _together(broker, [("CreateInterface", {"network": "wide"})] * count)


GROWERS = dict(zip(GROWTH, (interfaces, networks, clients), strict=True))


@dataclass(frozen=True)
class ScaleLine:
    """What the runner keeps open between measurements: nothing."""

    place: Place
    function: Callable[[Place], Figures]


def measure(line: ScaleLine, _seconds: float) -> Figures:
    return line.function(line.place)


@contextlib.contextmanager
def scale_line(place: Place, _name: str, function: Callable[[Place], Figures]) -> Iterator[ScaleLine]:
    yield ScaleLine(place, function)


def growth_name(what: str, count: int) -> str:
    return f"{what}: {count}"
