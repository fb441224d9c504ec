"""Medians and spreads of samples."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One figure of one round."""

    case: str
    line: str
    direction: str  # "" where there is none
    figure: str
    round: int
    value: float


@dataclass(frozen=True)
class Summary:
    median: float
    low: float
    high: float
    count: int


Key = tuple[str, str, str, str]  # case, line, direction, figure


def summarise(samples: Iterable[Sample]) -> dict[Key, Summary]:
    """By case, line, direction and figure, in the order in which they first came."""
    values: dict[Key, list[float]] = {}
    for sample in samples:
        values.setdefault((sample.case, sample.line, sample.direction, sample.figure), []).append(sample.value)
    return {key: Summary(statistics.median(got), min(got), max(got), len(got)) for key, got in values.items()}


def paired_ratio(samples: Iterable[Sample], one: Key, other: Key) -> Summary | None:
    """one's figure divided by other's, round by round: what disturbs a whole round cancels out."""
    by_round: dict[Key, dict[int, float]] = {one: {}, other: {}}
    for sample in samples:
        key = (sample.case, sample.line, sample.direction, sample.figure)
        if key in by_round:
            by_round[key][sample.round] = sample.value
    ratios = [by_round[one][at] / by_round[other][at] for at in by_round[one] if by_round[other].get(at)]
    if not ratios:
        return None
    return Summary(statistics.median(ratios), min(ratios), max(ratios), len(ratios))
