"""What the figures have to be: each target is computed from the samples of one run, and met or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .stats import Key, Sample, Summary, paired_ratio, summarise

TO_HOST, TO_VM, TO_VM2 = "VM->host", "host->VM", "VM->VM"
TO_WORLD, FROM_WORLD = "VM->world", "world->VM"


@dataclass(frozen=True)
class Target:
    """limit is a lower bound, or (is_most) an upper one."""

    text: str
    limit: float
    value: Callable[[Sequence[Sample]], Summary | None]
    is_most: bool = False
    unit: str = ""

    def is_met(self, value: Summary) -> bool:
        return value.median <= self.limit if self.is_most else value.median >= self.limit


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; value is None when it was not."""

    target: Target
    value: Summary | None

    @property
    def word(self) -> str:
        if not self.value:
            return "not measured"
        return "met" if self.target.is_met(self.value) else "NOT MET"


def _ratio(one: Key, *others: Key) -> Callable[[Sequence[Sample]], Summary | None]:
    """one's figure over the best of the others', round by round."""

    def value(samples: Sequence[Sample]) -> Summary | None:
        medians = summarise(samples)
        known = [other for other in others if other in medians]
        return paired_ratio(samples, one, max(known, key=lambda key: medians[key].median)) if known else None

    return value


def _plain(key: Key) -> Callable[[Sequence[Sample]], Summary | None]:
    return lambda samples: summarise(samples).get(key)


def _above(one: Key, other: Key) -> Callable[[Sequence[Sample]], Summary | None]:
    """By how much one's median is above other's."""

    def value(samples: Sequence[Sample]) -> Summary | None:
        medians = summarise(samples)
        if one not in medians or other not in medians:
            return None
        base = medians[other].median
        return Summary(medians[one].median - base, medians[one].low - base, medians[one].high - base, 1)

    return value


def _both_ways(case: str, one: str, others: Sequence[str], limits: tuple[float, float], figure: str = "throughput",
               is_most: bool = False) -> list[Target]:  # fmt: skip
    what = {"throughput": "throughput", "cpu": "CPU s/GB"}[figure]
    return [
        Target(
            f"{case}: {one}, {what} {direction} over {' or '.join(others)}", limit,
            _ratio((case, one, direction, figure), *((case, other, direction, figure) for other in others)),
            is_most, "x",
        )
        for direction, limit in zip((TO_HOST, TO_VM), limits, strict=True)
    ]  # fmt: skip


def _small_frames(label: str) -> list[Target]:
    case, datagram, stream = "small frames", f"{label} datagram", f"{label} stream"
    targets = _both_ways(case, datagram, ["one-frame forwarder"], (2.5, 1.2))
    targets += _both_ways(case, datagram, ["one-frame forwarder"], (0.25, 0.55), "cpu", True)
    targets += _both_ways(case, stream, [datagram], (0.5, 0.5), "cpu", True)
    # Without forced buffers nothing may collapse.
    for kind in (datagram, stream):
        targets += _both_ways(case, f"{kind}, small buffers", [kind], (0.5, 0.5))
    return targets


def _large_frames(label: str) -> list[Target]:
    targets = []
    for what in ("datagram", "datagram, vnet-hdr", "stream", "stream, vnet-hdr", "vhost-user"):
        targets += _both_ways("large frames", f"{label} {what}", ["veth"], (0.75, 0.75))
    for kind in ("datagram", "stream"):
        one = f"{label} {kind}"
        targets += _both_ways("large frames", f"{one}, small buffers", [one], (0.5, 0.5))
    return targets


def _guests(label: str) -> list[Target]:
    case, tap, passt = "guests 1500", "QEMU's TAP, as root", "passt stream"
    vhost_user = f"{label} vhost-user"
    targets = _both_ways(case, "native", [tap], (0.97, 0.97))
    targets += _both_ways(case, vhost_user, [tap], (1.0, 1.0))
    targets += _both_ways(case, vhost_user, [passt, "passt vhost-user"], (2.5, 2.5))
    for mtu in (1500, 65520):
        targets += _both_ways(f"guests {mtu}", f"{label} stream", [passt], (1.0, 1.0))
    return targets


def _others(label: str) -> list[Target]:
    def idle(count: int) -> Key:
        return ("idle VMs", f"{label} datagram, {count} idle", TO_VM2, "throughput")

    def plain(case: str, line: str, figure: str, limit: float, unit: str, is_most: bool = True) -> Target:
        return Target(f"{case}: {line}, {figure}", limit, _plain((case, f"{label} {line}", "", figure)), is_most, unit)

    targets = [
        Target(
            f"round trip: {label} {kind} above native", 50,
            _above(("round trip", f"{label} {kind}", "", "round trip"), ("round trip", "native", "", "round trip")),
            True, "us",
        )
        for kind in ("datagram", "stream")
    ]  # fmt: skip
    beside_idle = "idle VMs: two VMs beside 14 idle ones over alone"
    targets.append(Target(beside_idle, 0.95, _ratio(idle(14), idle(0)), unit="x"))
    targets += [plain("idle helper", line, "wake-ups", 0, "in 10 s") for line in ("datagram", "stream")]
    targets += [
        plain("idle helper", "datagram", "memory", 4, "MiB"),
        plain("idle helper", "datagram, large frames", "memory", 12, "MiB"),
    ]
    for kind in ("datagram", "stream"):
        targets += [
            plain("soak", kind, "stall", 5, "ms"),
            plain("soak", kind, "end after SIGTERM", 100, "ms"),
            plain("soak", kind, "counted drops", 1, "frames", is_most=False),
        ]
    return targets


def _broker() -> list[Target]:
    def most(case: str, line: str, figure: str, limit: float, unit: str) -> Target:
        return Target(f"{case}: {line}, {figure}", limit, _plain((case, line, "", figure)), True, unit)

    many = ("interfaces on one network: 500", "networks: 60", "clients at once: 200")
    return [
        most("broker", "interface, warm network", "request", 3, "ms"),
        most("broker", "interface, warm network", "request 99 %", 10, "ms"),
        most("broker", "interface, cold network", "request 99 %", 250, "ms"),
        most("broker", "60 networks, 100 interfaces, idle", "cpu while idle", 0.1, "ms/s"),
        *(most("broker growth", line, "memory", 16, "MiB") for line in many),
    ]


def _rootless() -> list[Target]:
    def ratio(case: str, one: str, other: str, direction: str, limit: float) -> Target:
        keys = [(case, line, direction, "throughput") for line in (one, other)]
        return Target(f"{case}: {one}, {direction} over {other}", limit, _ratio(*keys), unit="x")

    return [
        *(ratio("rootless pairs", f"rootless, {mtu}", f"system, {mtu}", TO_VM2, 0.95) for mtu in (1500, 65520)),
        ratio("rootless guests", "rootless, 1500", "system, 1500", TO_VM2, 0.95),
        *(ratio(f"rootless world {mtu}", "VM", "pasta alone", direction, 0.9)
          for mtu in (1500, 65520) for direction in (TO_WORLD, FROM_WORLD)),
    ]  # fmt: skip


def verdicts(samples: Sequence[Sample], label: str) -> list[Verdict]:
    """For the helper of that label."""
    targets = _small_frames(label) + _large_frames(label) + _guests(label) + _others(label) + _broker() + _rootless()
    return [Verdict(target, target.value(samples)) for target in targets]
