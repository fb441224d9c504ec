"""iperf3's client, against a server that may be at the end of its last test."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .lab import CommandError, wait_for

# A server closes its listening socket after each test and opens the next: who came too early was told that it is busy,
# or was in the queue of the old socket and is reset, or found none.
NOT_YET = ("server is busy", "Connection reset by peer", "Connection refused")


def iperf3(run: Callable[[list[str]], str], address: str, *arguments: str) -> dict[str, Any]:
    """One test, by run() in the client's place; its report. CommandError when it fails: iperf3 may with status 0."""
    last: dict[str, Any] = {}

    def try_once() -> bool:
        nonlocal last
        last = json.loads(run(["iperf3", "-J", "-c", address, *arguments]))
        began = bool(last.get("start", {}).get("connected"))
        return began or not any(words in last.get("error", "") for words in NOT_YET)

    try:
        wait_for(try_once, 10, f"iperf3's server at {address}")
    except TimeoutError as late:
        raise CommandError(f"{late}: {last['error']}") from None
    if "error" in last:
        raise CommandError(f"iperf3 to {address}: {last['error']}")
    return last
