"""What the benchmark measures: each case is a table of lines that are compared under the same conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import measure
from .lines import Helper, helper_line, one_frame_line, passt_line, vde_line, veth_line
from .runner import Case, Entry, Measure

BOTH_WAYS = (Measure("VM->host", measure.vm_to_host), Measure("host->VM", measure.host_to_vm))


def _entry(name: str, make: Callable[..., Any], **options: Any) -> Entry:
    return Entry(name, lambda place: make(place, name, **options))


def _helpers(helpers: tuple[Helper, ...], what: str, **options: Any) -> list[Entry]:
    return [_entry(f"{helper.label} {what}", helper_line, helper=helper, **options) for helper in helpers]


def small_frames(helpers: tuple[Helper, ...]) -> Case:
    """A VM that knows nothing but frames of 1500 bytes."""
    entries = [
        _entry("veth", veth_line),
        _entry("one-frame forwarder", one_frame_line),
        *_helpers(helpers, "datagram", kind="datagram"),
        *_helpers(helpers, "stream", kind="stream"),
        *_helpers(helpers, "datagram, small buffers", kind="datagram", small_buffers=True),
        *_helpers(helpers, "stream, small buffers", kind="stream", small_buffers=True),
        _entry("passt stream", passt_line),
        _entry("vde_switch", vde_line),
    ]
    return Case("small frames", "Simulator, frames of 1500 bytes", tuple(entries), BOTH_WAYS)


def all_cases(helpers: tuple[Helper, ...]) -> list[Case]:
    return [small_frames(helpers)]
