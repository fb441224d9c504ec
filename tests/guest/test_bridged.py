"""Real guests on the LAN of the host."""

from __future__ import annotations

import pytest

from lib.broker import MEMBER
from lib.iperf3 import iperf3
from lib.lab import wait_for
from lib.lan import KINDS, LAN_HOST, Lan
from lib.vm import wait_gone


@pytest.mark.parametrize("attach", ["native", "native with 2 queues", "socket"])
@pytest.mark.parametrize("kind", KINDS)
def test_guest_is_a_machine_of_the_lan(lab, make_broker, make_vm, kind, attach):
    """Its address is the LAN's; packets of all sizes go both ways; after it nothing of it is left."""
    lan = Lan(lab, kind)
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=1)
    vm = make_vm(broker, "one", attach, network="lan")
    assert "vmnet_ipv4_address" not in vm.line
    vm.guest.wait_ready()
    address = vm.guest.address()
    assert address.startswith("10.99.0.1") and vm.mac in (lab.directory / "lan.leases").read_text()
    vm.guest.check(f"ping -c 2 -W 5 -s 1472 {LAN_HOST}")
    lan.namespace.run(["ping", "-c1", "-W5", "-s", "1472", "-M", "do", address])
    lan.namespace.start_iperf3(LAN_HOST)
    for direction in ((), ("--reverse",)):
        iperf3(lambda words: vm.guest.run(" ".join(words), 60)[1], LAN_HOST, "-n", "16M", *direction)
    vm.guest.power_off()
    wait_gone(vm)
    wait_for(lambda: not broker.links(), 5, "the interface's end")
