"""Runs a case: all its lines at once, one measurement at a time, in an order that changes from round to round."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from lib.guestkit import GuestError
from lib.lab import CommandError

from .measure import Figures
from .place import Absent, Place, Unavailable
from .stats import Sample

FAILURES = (CommandError, GuestError, RuntimeError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Entry:
    """A line of a case, still to be made."""

    name: str
    make: Callable[[Place], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Measure:
    """What is measured on each line in each round."""

    direction: str
    function: Callable[[Any, float], Figures]


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    entries: tuple[Entry, ...]
    measures: tuple[Measure, ...]
    once: bool = False  # one round says it
    notes: tuple[str, ...] = ()  # what a reader of the table must know


@dataclass
class Results:
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # what could not be measured, and why
    absent: list[str] = field(default_factory=list)  # what a peer's version does not have
    seconds: dict[str, float] = field(default_factory=dict)  # that each case took

    def problem(self, text: str) -> None:
        self.problems.append(text)
        print(f"   could not run: {text}", file=sys.stderr, flush=True)


def _open_lines(place: Place, case: Case, stack: contextlib.ExitStack, results: Results) -> list[tuple[Entry, Any]]:
    lines = []
    for entry in case.entries:
        try:
            lines.append((entry, stack.enter_context(entry.make(place))))
        except Absent as reason:
            results.absent.append(f"{case.name}, {entry.name}: {reason}")
        except (Unavailable, *FAILURES) as error:
            results.problem(f"{case.name}, {entry.name}: {_last_line(error)}")
    return [(entry, line) for entry, line in lines if _prepare(case, entry, line, results)]


def _prepare(case: Case, entry: Entry, line: Any, results: Results) -> bool:
    """Waits until a line can be measured; guests boot together."""
    try:
        getattr(line, "prepare", lambda: None)()
    except FAILURES as error:
        results.problem(f"{case.name}, {entry.name}: {_last_line(error)}")
        return False
    return True


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _measure(case: Case, name: str, line: Any, measure: Measure, seconds: float, round_number: int,
             results: Results) -> bool:  # fmt: skip
    try:
        figures = measure.function(line, seconds)
    except FAILURES as error:
        results.problem(f"{case.name}, {name}, {measure.direction}, round {round_number + 1}: {_last_line(error)}")
        return False
    for figure, value in figures.items():
        results.samples.append(Sample(case.name, name, measure.direction, figure, round_number, value))
    shown = ", ".join(f"{figure} {value:.2f}" for figure, value in figures.items())
    print(f"   {round_number + 1}  {name:34} {measure.direction:12} {shown}", flush=True)
    return True


def _run_round(case: Case, lines: list[tuple[Entry, Any]], round_number: int, seconds: float,
               results: Results) -> list[Entry]:  # fmt: skip
    """Each line once, another one first in each round. Returns those that failed: they would again, and take long."""
    first = round_number % len(lines)
    failed = []
    for entry, line in lines[first:] + lines[:first]:
        for measure in case.measures:
            if not _measure(case, entry.name, line, measure, seconds, round_number, results):
                failed.append(entry)
                break
    return failed


def run_case(place: Place, case: Case, rounds: int, seconds: float, results: Results) -> None:
    """What fails is noted in results, and the rest goes on."""
    started = time.monotonic()
    print(f"\n== {case.title}", flush=True)
    with contextlib.ExitStack() as stack:
        lines = _open_lines(place, case, stack, results)
        for round_number in range(1 if case.once else rounds):
            if lines:
                failed = _run_round(case, lines, round_number, seconds, results)
                lines = [one for one in lines if one[0] not in failed]
    results.seconds[case.name] = time.monotonic() - started
