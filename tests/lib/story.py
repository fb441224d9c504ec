"""What a demonstration is made of: chapters, tries and their summary, and what is measured in guests."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from . import guestkit, programs
from .iperf3 import iperf3
from .lab import CommandError
from .vm import VM

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BOLD, GREEN, RED, PLAIN = ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4


class Story:
    """Says what happens, and keeps what was found for the summary."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.rows: list[tuple[bool, str, str]] = []

    def chapter(self, text: str) -> None:
        print(f"\n{BOLD}== {text}{PLAIN}  ({time.monotonic() - self.started:.0f} s)", flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def try_it(self, what: str, action: Callable[[], str]) -> None:
        """Runs an action that returns what was seen; a failure is shown and goes on."""
        print(f"   {what} ... ", end="", flush=True)
        try:
            seen, good = action(), True
        except (AssertionError, CommandError, guestkit.GuestError, TimeoutError) as error:
            seen, good = str(error).strip().splitlines()[-1], False
        print(f"{GREEN if good else RED}{seen}{PLAIN}", flush=True)
        self.rows.append((good, what, seen))

    def summary(self) -> int:
        print(f"\n{BOLD}== summary{PLAIN}")
        width = max(len(what) for _, what, _ in self.rows)
        for good, what, seen in self.rows:
            mark = f"{GREEN}ok  {PLAIN}" if good else f"{RED}FAIL{PLAIN}"
            print(f"   {mark} {what.ljust(width)}  {seen}")
        failed = sum(not good for good, _, _ in self.rows)
        took = time.monotonic() - self.started
        print(f"\n   {len(self.rows) - failed} of {len(self.rows)} as they should be, after {took:.0f} s")
        return 1 if failed else 0


def round_trip(run: Callable[[list[str]], str], address: str) -> str:
    """Least of five echoes."""
    out = run(["ping", "-c", "5", "-i", "0.2", "-W", "3", address])
    return f"{float(out.rsplit('= ', 1)[1].split('/')[0]):.2f} ms"


def in_guest(vm: VM) -> Callable[[list[str]], str]:
    return lambda argv: vm.guest.check(" ".join(argv))


def gigabits(run: Callable[[list[str]], str], address: str, *options: str) -> str:
    report = iperf3(run, address, "-t", "1", *options)
    return f"{report['end']['sum_received']['bits_per_second'] / 1e9:.2f} Gbit/s"


def lease(vm: VM) -> str:
    address = vm.guest.address()
    assert address == vm.address, f"{address}, but {vm.address} was reserved"
    return f"{address} after {vm.guest.lease_ms():.0f} ms, as reserved"


def end_on(number: int, _frame: FrameType | None) -> None:
    """Everything is removed on the way out; a second Ctrl-C must not stop that half way."""
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    print("\n   ending, and removing host and internet", flush=True)
    raise SystemExit(128 + number)


def tell(main: Callable[[], int]) -> None:
    """Runs a demonstration to its end, or to a signal, and exits."""
    for ending in ENDING:
        signal.signal(ending, end_on)
    try:
        sys.exit(main())
    except (guestkit.KitError, guestkit.GuestError, programs.MissingProgram, CommandError, TimeoutError) as error:
        sys.exit(f"\n{RED}scripts/demo could not go on:{PLAIN} {error}")
