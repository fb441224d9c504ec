"""Beside firewalld itself, version 1.3 of Debian 12 with its nftables backend."""

from __future__ import annotations

import pytest

from lib.firewalld import Firewalld
from lib.household import resident
from lib.lab import wait_for

IDLE_S = 1


@pytest.fixture
def make_firewalld(lab, show_on_failure):
    def make(**options):
        lab.internet.start_echo()
        made = Firewalld(lab, **options)
        show_on_failure("firewalld", made.log)
        return made

    return make


def test_all_ways_work_over_reloads_and_restarts(make_firewalld, make_broker, bin_dir):
    firewalld = make_firewalld()
    broker = make_broker(idle_timeout_s=IDLE_S, env={"DBUS_SYSTEM_BUS_ADDRESS": firewalld.bus})
    with resident(broker, bin_dir) as vm:
        bridge = next(link["ifname"] for link in broker.links() if link["ifname"].startswith("vmbr"))
        wait_for(lambda: firewalld.zone_of(bridge) == "vmnet", 5, "our zone")
        assert not vm.broken()
        firewalld.call(".zone", "removeInterface", "vmnet", bridge)
        assert set(vm.broken()) == {"out", "dhcp", "dns"}, "without the zone firewalld blocks them"
        firewalld.reload()
        wait_for(lambda: firewalld.zone_of(bridge) == "vmnet", 5, "our zone after a reload")
        assert not vm.broken()
        firewalld.stop()
        assert not vm.broken()
        firewalld.start()
        wait_for(lambda: firewalld.zone_of(bridge) == "vmnet", 5, "our zone after a restart")
        assert not vm.broken()
        broker.kill("front")
        assert broker.front_pid
        firewalld.reload()
        wait_for(lambda: firewalld.zone_of(bridge) == "vmnet", 5, "our zone by a new front")
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal of the network")
    wait_for(lambda: firewalld.zone_of(bridge) == "", 5, "the bridge is in no zone any more")
    assert "firewalld" not in broker.log()


def test_end_of_the_broker_takes_the_bridge_out_of_the_zone(make_firewalld, make_broker):
    firewalld = make_firewalld()
    broker = make_broker(env={"DBUS_SYSTEM_BUS_ADDRESS": firewalld.bus})
    with broker.connect() as peer:
        bridge = peer.call("AcquireNetwork", network="host")[0]["network"]["bridge"]
        wait_for(lambda: firewalld.zone_of(bridge) == "vmnet", 5, "our zone")
        assert broker.terminate() == 0
    assert firewalld.zone_of(bridge) == ""


def test_unknown_zone_is_said_and_trusted_is_used_until_the_reload(make_firewalld, make_broker):
    firewalld = make_firewalld(zone=False)
    broker = make_broker(env={"DBUS_SYSTEM_BUS_ADDRESS": firewalld.bus})
    with broker.connect() as peer:
        bridge = peer.call("AcquireNetwork", network="shared")[0]["network"]["bridge"]
        wait_for(lambda: firewalld.zone_of(bridge) == "trusted", 5, "another zone")
        wait_for(lambda: "firewall-cmd --reload" in broker.log(), 10, "a word about it")
        firewalld.ship_zone()
        firewalld.reload()
        wait_for(lambda: firewalld.zone_of(bridge) == "vmnet", 5, "our zone after a reload")


def test_refusal_is_said_with_its_mend(make_firewalld, make_broker):
    firewalld = make_firewalld(user="somebody-else")
    broker = make_broker(env={"DBUS_SYSTEM_BUS_ADDRESS": firewalld.bus})
    with broker.connect() as peer:
        bridge = peer.call("AcquireNetwork", network="shared")[0]["network"]["bridge"]
        wait_for(lambda: f"--add-interface={bridge}" in broker.log(), 5, "a word about it")
        assert "Not Authorized" in broker.log()
        assert firewalld.zone_of(bridge) == ""
