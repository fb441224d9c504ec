"""Beside everything else on a host: a VM's five ways work, or it is said what mends them."""

from __future__ import annotations

import contextlib
import os
import re
import signal

import pytest

from lib.broker import MEMBER
from lib.household import (
    DOCKER,
    FIREWALLS,
    NATIVE,
    UFW,
    apply_firewall,
    resident,
    rules_of_ours,
    wait_rules,
    works,
)
from lib.lab import wait_for

IDLE_S = 1


@pytest.fixture
def world(lab):
    lab.internet.start_echo()
    return lab


@contextlib.contextmanager
def stopped(pid):
    """A process that does nothing for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def end_network(broker):
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal of the network")


# Firewalls that drop what nobody allowed


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("firewall", FIREWALLS)
def test_all_ways_work_beside(world, make_broker, bin_dir, firewall, moment):
    broker = make_broker(idle_timeout_s=IDLE_S)
    if moment == "before":
        apply_firewall(world.host, FIREWALLS[firewall])
    with resident(broker, bin_dir) as vm:
        if moment == "after":
            apply_firewall(world.host, FIREWALLS[firewall])
            wait_rules(world.host, bool, 1, "accepts in the new firewall")
        wait_for(lambda: not vm.broken(), 1, f"all ways: {vm.broken()}")
        assert rules_of_ours(world.host)
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")
    assert broker.terminate() == 0


# What each firewall does to a VM while nobody opens it: this is what the accepts are for.
BLOCKED = {
    "docker": {"out"},
    "ufw": {"out", "to_host", "dhcp", "dns"},
    "native": {"out", "to_host", "dhcp", "dns"},
}
RELOAD = {
    "docker": "iptables -F FORWARD; iptables -F DOCKER-USER; iptables -A FORWARD -j DOCKER-USER;"
    "ip6tables -F FORWARD",
    "ufw": "".join(
        f"{tool} -F INPUT; {tool} -F FORWARD; {tool} -A INPUT -j ufw-before-INPUT; {tool} -A FORWARD -j ufw-before-FORWARD;"
        for tool in ("iptables", "ip6tables")
    ),
    "native": "nft flush chain inet filter input; nft flush chain inet filter forward;"
    "nft add rule inet filter input ct state established accept",
}


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_reload_of_a_firewall_is_mended_within_a_second(world, make_broker, bin_dir, firewall):
    broker = make_broker()
    apply_firewall(world.host, FIREWALLS[firewall])
    with resident(broker, bin_dir) as vm:
        before = sorted(rules_of_ours(world.host))
        with stopped(broker.front_pid):
            apply_firewall(world.host, RELOAD[firewall])
            assert not rules_of_ours(world.host)
            assert set(vm.broken()) == BLOCKED[firewall], "the imitation blocks what the real one does"
        wait_rules(world.host, lambda rules: len(rules) == len(before), 1, "accepts after a reload")
        assert not vm.broken()


def test_flushed_ruleset_is_mended_within_a_second(world, make_broker, bin_dir):
    """As `systemctl restart nftables` does it: everything goes, and the host's own rules come back."""
    broker = make_broker()
    apply_firewall(world.host, NATIVE)
    with resident(broker, bin_dir) as vm:
        for _ in range(3):
            apply_firewall(world.host, "nft flush ruleset;" + NATIVE)
            wait_rules(world.host, bool, 1, "accepts after a flush")
            wait_for(broker.tables, 1, "the NAT table after a flush")
            assert not vm.broken()


def test_accepts_are_where_they_count_and_nowhere_else(world, make_broker):
    """Docker's own chain for others, the chain that drops otherwise; none where nothing is dropped."""
    open_chain = "add chain inet open forward { type filter hook forward priority 5; policy accept; }"
    broker = make_broker(idle_timeout_s=IDLE_S, networks={"one": {"mode": "host"}})
    apply_firewall(world.host, DOCKER + f"nft 'add table inet open'; nft '{open_chain}'")
    with broker.connect(MEMBER) as peer:
        bridge = peer.call("AcquireNetwork", network="one")[0]["network"]["bridge"]
        listed = world.host.run(["iptables", "-S"]).stdout
        ours = [line.split()[1] for line in listed.splitlines() if bridge in line]
        assert ours == ["DOCKER-USER"] * 2, listed
        assert [line.split()[1] for line in world.host.run(["ip6tables", "-S"]).stdout.splitlines() if bridge in line] == [
            "FORWARD"
        ] * 2
        assert len(rules_of_ours(world.host)) == 4
        # Docker goes, and another drop stays.
        apply_firewall(world.host, "iptables -F FORWARD; iptables -F DOCKER-USER; iptables -X DOCKER-USER")
        wait_for(lambda: f"-A FORWARD -i {bridge}" in world.host.run(["iptables", "-S"]).stdout, 1, "the other place")
        apply_firewall(world.host, "iptables -P FORWARD ACCEPT")
        wait_for(lambda: bridge not in world.host.run(["iptables", "-S"]).stdout, 1, "none where nothing is dropped")
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")


def test_saved_and_restored_rules_are_known_again(world, make_broker):
    """iptables-save and -restore make our comment a part of the rule: it is still ours, and not made twice."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    apply_firewall(world.host, UFW)
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", network="shared")

        def ours():
            return sorted(re.findall(r"-i (vmbr\w+) .*--comment \"(vmnet/1/[^\"]*)\"", world.host.run(["iptables", "-S"]).stdout))

        before = ours()
        assert len(before) == len(set(before)) == 5
        apply_firewall(world.host, "iptables-save >saved; iptables-restore <saved; rm saved")
        apply_firewall(world.host, "iptables -N event; iptables -X event; iptables -P FORWARD DROP")
        wait_for(lambda: ours() == before, 1, "the same rules")
    end_network(broker)
    wait_for(lambda: "vmnet" not in world.host.run(["iptables", "-S"]).stdout, 2, "no rule of ours is left")


def test_killed_broker_takes_its_rules_up_again(world, make_broker, bin_dir):
    broker = make_broker(idle_timeout_s=IDLE_S)
    apply_firewall(world.host, UFW)
    with resident(broker, bin_dir) as vm:
        before = sorted(rules_of_ours(world.host))
        broker.kill("priv")
        assert sorted(rules_of_ours(world.host)) == before
        broker.start()
        wait_for(lambda: not vm.broken(), 5, "all ways after a new start")
        assert sorted(rules_of_ours(world.host)) == before
        broker.kill("priv")
    broker.start()
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")
