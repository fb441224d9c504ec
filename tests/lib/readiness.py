"""Waiting for file descriptors: select(), for numbers of any size (select(2) ends at 1024)."""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Any


def _wait(sources: Sequence[Any], events: int, timeout_s: float | None) -> list[Any]:
    poll = select.poll()
    for source in sources:
        poll.register(source, events)
    numbers = {number for number, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}
    return [source for source in sources if (source if isinstance(source, int) else source.fileno()) in numbers]


def readable(sources: Sequence[Any], timeout_s: float | None = None) -> list[Any]:
    """Those that can be read, or have ended, once there are some; none after timeout_s."""
    return _wait(sources, select.POLLIN, timeout_s)


def writable(sources: Sequence[Any], timeout_s: float | None = None) -> list[Any]:
    """Those that can be written, or have ended."""
    return _wait(sources, select.POLLOUT, timeout_s)
