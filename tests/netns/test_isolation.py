"""Isolated interfaces, and the rules and ports of guarded ones: that they are there in time, come back, and go."""

from __future__ import annotations

import json

import pytest

from lib import frames
from lib.broker import MEMBER
from lib.cable import Cable
from lib.holder import Holder
from lib.lab import mended_within, wait_for

NETWORKS = {
    "apart": {"mode": "shared", "isolation": True},
    "both": {"mode": "shared", "isolation": True, "lock_mac": True},
    "locked": {"mode": "shared", "lock_mac": True},
    "open": {"mode": "shared"},
}
SWEPT_S = 3 + 3


@pytest.fixture
def broker(make_broker):
    return make_broker(networks=NETWORKS, idle_timeout_s=1)


@pytest.fixture
def hold(broker):
    holders = []

    def make(network, **parameters):
        holders.append(Holder(broker, network, **parameters))
        return holders[-1]

    make.all = holders
    yield make
    for holder in holders:
        holder.close()


def rules(broker):
    """Of our table in the bridge family; empty when there is none."""
    table = next((table for table in broker.tables() if table.startswith("bridge")), None)
    if not table:
        return []
    listed = broker.namespace.run(["nft", "-s", "-j", "list", "table", *table.split()]).stdout
    entries = [entry for entry in json.loads(listed)["nftables"] if "metainfo" not in entry]
    return sorted(without_handles(json.dumps(entry, sort_keys=True)) for entry in entries)


def without_handles(text):
    entry = json.loads(text)
    for inner in entry.values():
        inner.pop("handle", None)
        if "elem" in inner:
            inner["elem"] = sorted(inner["elem"], key=json.dumps)
    return json.dumps(entry, sort_keys=True)


def mentions(broker, holder):
    return any(holder.name in rule for rule in rules(broker))


def reaches(sender, receiver, mac=None):
    """Whether a datagram arrives; gateways answer anybody who is let to them, so theirs tells when to stop waiting."""
    marker = f"to {receiver.name}".encode()
    sender.send(sender.datagram(marker, receiver.address, mac or receiver.mac))
    assert sender.pings(sender.gateway, sender.gateway_mac)
    return any(marker in frame for frame in receiver.received(0.05))


def hold_some(hold, network, count=2, **parameters):
    made = [hold(network, **parameters) for _ in range(count)]
    for holder in made:
        holder.gateway_mac = holder.resolve(holder.gateway)
    return made


@pytest.mark.parametrize("network", ["apart", "both"])
def test_isolated_vms_reach_the_host_and_the_world_only(hold, network):
    one, other = hold_some(hold, network)
    assert not reaches(one, other) and not reaches(other, one)
    assert not reaches(one, other, frames.BROADCAST)
    assert one.pings("198.51.100.1", one.gateway_mac)


@pytest.mark.parametrize("network", ["apart", "both", "open", "locked"])
def test_the_host_does_not_carry_between_isolated_vms(hold, network, broker):
    """One sends to the other's address, but to the host's MACs: that of the bridge, and that of its own TAP."""
    one, other = hold_some(hold, network)
    own_tap = one.link()["address"]
    for mac in (one.gateway_mac, own_tap):
        assert reaches(one, other, mac) == (network in ("open", "locked")), mac


def test_isolation_of_one_interface(hold):
    (isolated, another), (free,) = hold_some(hold, "open", isolation=True), hold_some(hold, "open", 1)
    assert not reaches(isolated, another)
    assert reaches(isolated, free) and reaches(free, isolated)


def test_isolation_by_option(broker, bin_dir):
    cables = [Cable(broker, bin_dir, ("--network", "open", *option)) for option in
              (("--enable-isolation",), ("--enable-isolation",), ())]
    one, other, free = cables
    for cable in cables:
        cable.resolve(cable.gateway)
    for sender in (one, free):
        sender.broadcast(b"from " + sender.line["vmnet_interface_name"].encode())
    other.receive(lambda frame: b"from " + free.line["vmnet_interface_name"].encode() in frame.payload)
    seen = free.receive(lambda frame: b"from " in frame.payload)
    assert one.line["vmnet_interface_name"].encode() in seen.payload
    with broker.connect(MEMBER) as peer:
        listed = {entry["interfaceName"]: entry for entry in peer.call("ListInterfaces")[0]["interfaces"]}
    assert [listed[cable.line["vmnet_interface_name"]]["isolated"] for cable in cables] == [True, True, False]
    for cable in cables:
        cable.close()


@pytest.mark.parametrize("part", ["front", "priv"])
def test_guarded_interfaces_outlive_the_broker(hold, broker, part):
    made = {network: hold_some(hold, network) for network in NETWORKS}
    before, links = rules(broker), broker.links()
    broker.kill(part)
    if part == "priv":
        broker.namespace.run(["nft", "flush", "ruleset"])
        broker.start()
    broker.front_pid
    with broker.connect(MEMBER) as peer:
        listed = {entry["interfaceName"]: entry for entry in peer.call("ListInterfaces")[0]["interfaces"]}
    wait_for(lambda: rules(broker) == before, 10, "the same rules")
    assert len(broker.links()) == len(links)
    for network, holders in made.items():
        for holder in holders:
            entry = listed[holder.name]
            assert entry["isolated"] == (network in ("apart", "both"))
            assert entry["locked"] == (network in ("locked", "both"))
    assert not reaches(*made["both"]) and reaches(*made["locked"])


def test_flushed_rules_are_back_within_a_second(hold, broker):
    for network in NETWORKS:
        hold_some(hold, network)
    before = rules(broker)
    chain = next(table for table in broker.tables() if table.startswith("bridge")).split()
    for command in (
        ["flush", "ruleset"], ["delete", "table", *chain], ["flush", "chain", *chain, "vm"],
        ["flush", "set", *chain, "macs"], ["flush", "map", *chain, "locked_ports"],
    ):
        mended_within(
            1,
            lambda command=command: broker.namespace.run(["nft", *command]),
            lambda: rules(broker) == before,
            f"the rules are back after {command}",
        )


def test_rules_of_interfaces_that_went_are_swept(hold, broker):
    stays, goes = hold_some(hold, "both")
    before = len(rules(broker))
    assert mentions(broker, goes)
    goes.close()
    wait_for(lambda: not mentions(broker, goes), SWEPT_S, "its rules are gone")
    assert mentions(broker, stays) and len(rules(broker)) == before
    stays.close()
    wait_for(lambda: not broker.links() and not broker.tables(), SWEPT_S, "nothing is left")


def test_a_port_is_kept_before_it_is_up(hold, broker):
    log = broker.directory / "monitor"
    with open(log, "w") as output:
        broker.namespace.popen(["ip", "-details", "-oneline", "monitor", "link"], stdout=output)

    def told(holder):
        """The port as events showed it, from when it was up."""
        lines = [line for line in log.read_text().splitlines() if f" {holder.name}:" in line]
        return [line for line in lines if ",UP" in line and "bridge_slave" in line]

    wait_for(lambda: told(hold("both")), 5, "the monitor listens")
    for holder in [hold("both") for _ in range(5)]:
        for line in wait_for(lambda: told(holder), 5, "it is up"):
            assert "locked on" in line and "isolated on" in line and "learning off" in line


def test_a_bridge_has_the_guard_before_its_first_vm(broker):
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", network="open")
        assert any("01:80:c2:00:00:00" in rule for rule in rules(broker))
        peer.call("AcquireNetwork", network="apart")
        bridges = [link["ifname"] for link in broker.links()]
        assert all(any(f"locked_{bridge}" in rule for rule in rules(broker)) for bridge in bridges)
    wait_for(lambda: not broker.tables(), 10, "the rules go with the last bridge")
