"""A TCP stream between two real VMs, whose receiver counts what comes."""

from __future__ import annotations

import json

from .vm import VM

INTERVAL_S = 0.1
STREAM_S = 5


class Stream:
    """iperf3 from one VM to another, slow enough to leave the CPUs room; the receiver counts every tenth of a second."""

    def __init__(self, sender: VM, receiver: VM) -> None:
        self.receiver = receiver.guest
        self.receiver.check(
            f"(iperf3 -J -R -l 8K -i {INTERVAL_S} -t {STREAM_S} -b 20M -c {sender.address} >/run/stream.json 2>&1; "
            "echo $? >/run/stream.status) </dev/null >/dev/null 2>&1 & true"
        )
        # 1451 is iperf3's port and 01 the state ESTABLISHED in hexadecimal.
        self.receiver.check("i=0; until grep -q ':1451 01' /proc/net/tcp; do i=$((i+1)); [ $i -gt 100 ] && exit 1; usleep 50000; done")

    def gap_s(self) -> float:
        """The longest time without a byte; fails when the stream was reset."""
        wait = "i=0; until [ -e /run/stream.status ]; do i=$((i+1)); [ $i -gt 400 ] && exit 1; usleep 50000; done"
        self.receiver.check(f"{wait}; cat /run/stream.status | grep -qx 0", timeout_s=30)
        report = json.loads(self.receiver.check("cat /run/stream.json"))
        self.receiver.check("rm /run/stream.status")
        assert report["end"]["sum_sent"]["seconds"] > STREAM_S * 0.9
        longest = silent = 0.0
        for interval in report["intervals"]:
            silent = 0.0 if interval["sum"]["bytes"] else silent + interval["sum"]["seconds"]
            longest = max(longest, silent)
        return longest
