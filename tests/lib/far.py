"""A world as far away as a real one.

In a lab the host and the internet are 4 us apart, and pasta treats whoever is less than 10 us away as a part of its own
host: other windows, other acknowledgements. Nobody's VM talks to such a world.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Iterator

from .lab import UPLINK_ADDRESS, Lab

FAR_ADDRESS, FAR_ADDRESS6 = "203.0.113.7", "2001:db8:1::7"  # of the internet's
DELAY_S = 100e-6
FRAME_MAX = 65536
TABLE = "7"


def _frames_of(tap: int) -> Iterator[bytes]:
    """What waits there."""
    with contextlib.suppress(BlockingIOError):
        while frame := os.read(tap, FRAME_MAX):
            yield frame


class FarWorld:
    """What the internet sends from FAR_ADDRESS takes a way through this process, which lets it wait.

    What is sent there does not, so that a long way to the world is no slow one. One a lab. `carried` counts frames, so
    that a test can tell that the long way was taken.
    """

    def __init__(self, lab: Lab) -> None:
        world, host = lab.internet, lab.host
        self._here, self._there = world.open_tap("far0", vnet_hdr=False), host.open_tap("near0", vnet_hdr=False)
        host.sysctl("net/ipv4/conf/near0/rp_filter", 0)  # or nothing comes in by a link without an address
        near_mac = json.loads(host.ip("-json", "link", "show", "dev", "near0"))[0]["address"]
        for family, address, router in (("-4", FAR_ADDRESS, UPLINK_ADDRESS), ("-6", FAR_ADDRESS6, "fe80::1")):
            world.ip(family, "address", "add", address, "dev", "lo")
            world.ip(family, "neighbour", "add", router, "lladdr", near_mac, "dev", "far0", "nud", "permanent")
            world.ip(family, "route", "add", "default", "via", router, "dev", "far0", "onlink", "table", TABLE)
            world.ip(family, "rule", "add", "from", address, "lookup", TABLE)
        self.carried = 0
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while not self._is_ending.is_set():
            select.select([self._here], [], [], 0.1)
            waiting = list(_frames_of(self._here))
            time.sleep(DELAY_S)
            for frame in waiting:
                with contextlib.suppress(BlockingIOError):  # no room: lost, as on any way
                    os.write(self._there, frame)
                    self.carried += 1

    def close(self) -> None:
        self._is_ending.set()
        self._thread.join()
        os.close(self._here)
        os.close(self._there)
