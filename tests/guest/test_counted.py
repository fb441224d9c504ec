"""What was counted of real guests, and what the broker knows of their leases."""

from __future__ import annotations

import pytest

from lib.broker import MEMBER

HELPED = ("socket", "stream", "vhost-user")


@pytest.mark.parametrize("kind", [*HELPED, "native"])
def test_a_guest(broker, make_vm, kind):
    vm = make_vm(broker, "web", kind)
    vm.guest.wait_ready()
    assert vm.guest.address() == vm.address
    with broker.connect(MEMBER) as peer:
        (lease,) = peer.call("ListLeases")[0]["leases"]
        assert (lease["address"], lease["mac"], lease["hostname"], lease["interfaceName"]) == (
            vm.address, vm.mac, "web", vm.interface)
        (before,) = peer.call("ListStatistics")[0]["statistics"]
        # There and back, in frames that need no cutting: 1000 of 1028 bytes and their headers.
        vm.guest.check(f"ping -q -c 1000 -i 0.001 -s 1000 {lease['address'].rpartition('.')[0]}.1 >/dev/null", 60)
        (after,) = peer.call("ListStatistics")[0]["statistics"]
    assert ("helper" in after) == (kind in HELPED)
    for source in ("kernel", "helper") if kind in HELPED else ("kernel",):
        for direction in ("hostToVm", "vmToHost"):
            grown = {name: after[source][direction][name] - before[source][direction][name] for name in ("packets", "bytes")}
            assert 1000 <= grown["packets"] < 1100 and 1042 * 1000 <= grown["bytes"] < 1.1 * 1042 * 1000, (source, direction, grown)
