"""A real guest over the native TAP, streaming while the broker is killed, restarted and upgraded."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lib import guestkit
from lib.lab import wait_for
from lib.machine import FRONT, PRIV


@pytest.fixture
def iperf3(machine):
    """A server in the machine's network; the program is this machine's."""
    server = subprocess.Popen(
        ["nsenter", "--net", "--target", str(machine.leader), "iperf3", "--server", "--one-off", "--forceflush"],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: "listening" in server.stdout.readline(), 10, "iperf3 serves")
    yield server
    server.kill()
    server.wait()


@pytest.fixture
def guest(machine, guest_kit, tmp_path):
    """Under QEMU, with the TAP that alice was given; address and gateway beside it."""
    with machine.connect(machine.alice) as peer:
        reply, (tap,) = peer.call("CreateInterface", network="shared", hostname="guest")
    console = Path("/tmp") / f"{machine.name}.guest"
    network = ("-netdev", f"tap,id=n0,fd={tap}", "-device", f"virtio-net-pci,netdev=n0,mac={reply['mac']}")
    process = subprocess.Popen(guestkit.qemu_command(guest_kit, "guest", console, network), pass_fds=[tap])
    os.close(tap)
    with guestkit.Guest(console, process) as guest:
        guest.wait_ready(120)
        yield guest, reply["address"], reply["network"]["gateway"]
    process.kill()
    process.wait()
    for file in (console, Path(f"{console}.log")):
        file.unlink(missing_ok=True)


def test_a_guest_streams_through_deaths_restarts_and_an_upgrade(machine, guest, iperf3, package_build, upgrade_build):
    guest, address, gateway = guest
    assert guest.address() == address
    before = {unit: machine.pid(unit) for unit in (FRONT, PRIV)}
    guest.check(f"iperf3 --json --time 600 --client {gateway} >/tmp/stream 2>&1 &")
    wait_for(lambda: "connected to" in iperf3.stdout.readline(), 20, "the stream runs")
    machine.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", FRONT])
    wait_for(lambda: machine.pid(FRONT) not in (0, before[FRONT]), 10, "another front")
    machine.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", PRIV])
    wait_for(lambda: machine.pid(PRIV) not in (0, before[PRIV]), 10, "another priv")
    try:
        machine.install(upgrade_build)
        machine.run(["systemctl", "restart", FRONT])
    finally:
        machine.install(package_build)
    guest.check("killall -INT iperf3; while pidof iperf3; do usleep 50000; done")
    report = json.loads(guest.check("cat /tmp/stream"))
    seconds = [interval["sum"]["bytes"] for interval in report["intervals"]]
    print("MB of each second:", *(count >> 20 for count in seconds))
    assert "interrupt" in report["error"], "it ended because it was told to"
    assert len(seconds) > 1 and all(seconds[:-1]), "no second without data; the last one is a part"
    assert wait_for(machine.dnsmasq_pids, 10, "DHCP and DNS serve")
    guest.check(f"nslookup guest.shared.vmnet {gateway}", 10)
