"""Names of VMs, and what a network serves: DHCP, DNS, advertisements, each on or off."""

from __future__ import annotations

import contextlib
import itertools
import json
import os

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.lab import wait_for
from lib.resolver import knows, resolve, resolve_address
from lib.simulated import LINK, SimulatedVm

LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
echo "{\\"address\\": \\"$ip\\", \\"router\\": \\"$router\\", \\"dns\\": \\"$dns\\", \\"domain\\": \\"$domain\\",
 \\"lease_s\\": $lease}"
"""


@pytest.fixture
def make_vm(bin_dir):
    """make_vm(broker, network, *helper arguments): a VM with a kernel of its own."""
    with contextlib.ExitStack() as ends:

        def make(broker, network="shared", *arguments):
            cable = Cable(broker, bin_dir, ("--network", network, *arguments))
            ends.callback(cable.close)
            vm = SimulatedVm(cable, bin_dir)
            ends.callback(vm.close)
            return vm

        yield make


@pytest.fixture
def lease(lab):
    """lease(vm, name): what DHCP gives a VM that calls itself so; None when nothing answers."""
    script = lab.directory / "lease-script"
    script.write_text(LEASE_SCRIPT)
    script.chmod(0o755)

    def ask(vm, name=None):
        told = ["-x", f"hostname:{name}"] if name else []
        result = vm.namespace.run(
            ["busybox", "udhcpc", "-f", "-q", "-n", "-i", LINK, "-t", "5", "-T", "1", "-s", script, *told], check=False
        )
        found = [line for line in result.stdout.splitlines() if line.startswith("{")]
        return json.loads(result.stdout[result.stdout.index("{") : result.stdout.rindex("}") + 1]) if found else None

    return ask


def network_of(broker, name="shared"):
    with broker.connect() as peer:
        networks = {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}
    return networks[name]


def slaac_address(network, mac):
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 2
    halves = octets[:3] + [0xFF, 0xFE] + octets[3:]
    groups = [f"{halves[i] << 8 | halves[i + 1]:x}" for i in range(0, 8, 2)]
    return network["ipv6Prefix"].split("::/")[0] + ":" + ":".join(groups)


def listed_names(broker):
    with broker.connect(MEMBER) as peer:
        interfaces = peer.call("ListInterfaces")[0]["interfaces"]
    return {interface["address"]: interface.get("hostname") for interface in interfaces}


def test_name_of_hostname_and_of_dhcp(broker, lab, make_vm, lease):
    declared, told = make_vm(broker, "shared", "--hostname", "web"), make_vm(broker)
    gateway = declared.cable.gateway
    for name in ("web", "web.shared.vmnet", "WEB"):
        assert resolve(told.namespace, gateway, name) == [declared.cable.address], "before it has a lease"
    assert lease(told, "db")["address"] == told.cable.address
    for name in ("db", "db.shared.vmnet"):
        assert resolve(declared.namespace, gateway, name) == [told.cable.address]
    for vm, name in ((declared, "web.shared.vmnet"), (told, "db.shared.vmnet")):
        assert resolve_address(lab.host, gateway, vm.cable.address) == [name]
    expected = {declared.cable.address: "web", told.cable.address: "db"}
    wait_for(lambda: listed_names(broker) == expected, 3, "both names are listed")
    assert lease(declared, "other")["address"] == declared.cable.address
    assert knows(lab.host, gateway, "other") == [], "a declared name is the only one"
    told.close()
    told.cable.close()
    wait_for(lambda: knows(lab.host, gateway, "db.shared.vmnet") in ([], [told.cable.address]), 3, "an answer")


def test_name_has_an_ipv6_address_once_that_answers(broker, lab, make_vm, lease):
    one, two = make_vm(broker, "shared", "--hostname", "web"), make_vm(broker)
    gateway, network = one.cable.gateway, network_of(broker)
    assert lease(one) and lease(two, "db")
    for vm, name in ((one, "web"), (two, "db")):
        expected = slaac_address(network, vm.cable.mac)
        wait_for(lambda: knows(lab.host, gateway, name, "AAAA"), 20, f"an IPv6 address of {name}")
        for text in (name, f"{name}.shared.vmnet"):
            assert resolve(lab.host, gateway, text, "AAAA") == [expected]
        assert resolve_address(lab.host, gateway, expected) == [f"{name}.shared.vmnet"]


@pytest.mark.parametrize("name", ["host", "HOST", "gateway", "wpad", "localhost", "isatap"])
def test_names_of_the_host_are_nobodys(broker, lab, make_vm, lease, name):
    vm = make_vm(broker)
    network = network_of(broker)
    assert lease(vm, name)["address"] == vm.cable.address, "it has an address all the same"
    expected = [network["gateway"]] if name.lower() == "host" else []
    for text in (name, f"{name}.shared.vmnet"):
        assert knows(lab.host, network["gateway"], text) in (expected, ["127.0.0.1"] if name == "localhost" else expected)
    assert resolve_address(lab.host, network["gateway"], network["gateway"]) == ["_gateway.shared.vmnet"]
    with broker.connect(MEMBER) as peer, pytest.raises(VarlinkError) as refusal:
        peer.call("CreateInterface", network="shared", hostname=name)
    assert refusal.value.name == "InvalidRequest" and name in refusal.value.parameters["reason"]


def test_hostname_of_a_live_vm_is_refused(broker, lab, make_vm, lease):
    declared, told = make_vm(broker, "shared", "--hostname", "web"), make_vm(broker)
    assert lease(told, "db")
    with broker.connect() as peer:  # another user than the VMs'
        for name in ("web", "WEB", "db"):
            wait_for(lambda: refused(peer, name), 3, f"{name} is refused")
        declared.close()
        declared.cable.close()
        wait_for(lambda: not refused(peer, "web"), 5, "the name is free when its VM has gone")


def refused(peer, name):
    """The reason why a new VM may not have the name; None when it may, and then it has gone again."""
    try:
        _, fds = peer.call("CreateInterface", network="shared", hostname=name)
    except VarlinkError as error:
        assert error.name == "Conflict"
        assert name in error.parameters["reason"] and "interface vmtap" in error.parameters["reason"]
        return error.parameters["reason"]
    for fd in fds:
        os.close(fd)
    return None


@pytest.mark.parametrize("first_declares", [True, False])
def test_name_of_a_live_vm_is_not_taken_by_dhcp(broker, lab, make_vm, lease, first_declares):
    owner = make_vm(broker, "shared", *(("--hostname", "web") if first_declares else ()))
    thief = make_vm(broker)
    gateway, network = owner.cable.gateway, network_of(broker)
    assert lease(owner, "web")
    wait_for(lambda: "web" in hosts(broker), 3, "the name is the first VM's")
    assert lease(thief, "web")["address"] == thief.cable.address
    own_address = slaac_address(network, owner.cable.mac)
    wait_for(lambda: knows(lab.host, gateway, "web", "AAAA"), 20, "an IPv6 address of the name")
    for text in ("web", "web.shared.vmnet"):
        assert resolve(lab.host, gateway, text) == [owner.cable.address]
        assert resolve(lab.host, gateway, text, "AAAA") == [own_address]
    assert resolve_address(lab.host, gateway, thief.cable.address) != ["web.shared.vmnet"]
    assert lease(thief, "web"), "again"
    assert resolve(lab.host, gateway, "web") == [owner.cable.address]


def hosts(broker, network="shared"):
    return (broker.runtime_dir / "networks" / f"{network}.hosts").read_text()


def answers(namespace, gateway, name):
    """As knows(); None while nobody answers."""
    try:
        return knows(namespace, gateway, name, timeout_s=0.3)
    except OSError:
        return None


def test_told_name_outlives_the_broker(broker, lab, make_vm, lease):
    owner, thief = make_vm(broker), make_vm(broker)
    assert lease(owner, "web")
    wait_for(lambda: "web" in hosts(broker), 3, "the name is the first VM's")
    broker.kill("priv")
    broker.start()
    wait_for(broker.dnsmasq_pids, 5, "dnsmasq is back")
    wait_for(lambda: answers(lab.host, owner.cable.gateway, "web") == [owner.cable.address], 5, "the name is back")
    assert lease(thief, "web")
    assert resolve(lab.host, owner.cable.gateway, "web") == [owner.cable.address]


def settings(dhcp, dns, ra):
    return {"mode": "shared", "dhcp": dhcp, "dns": dns, "ra": ra}


@pytest.mark.parametrize(("dhcp", "dns", "ra"), list(itertools.product([True, False], repeat=3)))
def test_every_combination_of_services(make_broker, lab, make_vm, lease, dhcp, dns, ra):
    broker = make_broker(networks={"lab": settings(dhcp, dns, ra)})
    vm = make_vm(broker, "lab", "--hostname", "web")
    gateway = vm.cable.gateway
    got = lease(vm)
    if dhcp:
        assert got["address"] == vm.cable.address
        assert got["dns"] == (gateway if dns else ""), "no server is told of that does not answer"
    else:
        assert got is None
    if dns:
        assert resolve(vm.namespace, gateway, "web.lab.vmnet") == [vm.cable.address]
        assert resolve(vm.namespace, gateway, "host") == [gateway]
        another = make_vm(broker, "lab", "--hostname", "db")
        assert resolve(vm.namespace, gateway, "db") == [another.cable.address]
    else:
        with pytest.raises(OSError):
            resolve(vm.namespace, gateway, "host", timeout_s=0.5)
    assert has_prefix(vm, network_of(broker, "lab"), wait=ra) == ra
    assert "did not say" not in broker.log()
    broker.kill("dnsmasq")
    wait_for(lambda: broker.dnsmasq_pids(), 5, "dnsmasq is back")


def has_prefix(vm, network, wait):
    """Whether the VM made itself an address; waits for it where one must come."""

    def look():
        return network["ipv6Prefix"].split("::/")[0] in vm.namespace.ip("-6", "address", "show", "dev", LINK)

    return bool(wait_for(look, 10, "an address")) if wait else look()


def test_lease_time_and_domain(make_broker, lab, make_vm, lease):
    broker = make_broker(networks={"lab": {"mode": "host", "lease_time": 300, "domain": "example.test"}})
    vm = make_vm(broker, "lab", "--hostname", "web")
    got = lease(vm)
    assert got["lease_s"] == 300 and got["domain"] == "example.test" and got["router"] == ""
    assert resolve(vm.namespace, vm.cable.gateway, "web.example.test") == [vm.cable.address]
    assert resolve(vm.namespace, vm.cable.gateway, "_gateway.example.test") == [vm.cable.gateway]
    assert resolve_address(vm.namespace, vm.cable.gateway, vm.cable.address) == ["web.example.test"]
    assert network_of(broker, "lab")["domain"] == "example.test"


def test_no_ipv6_and_own_prefix(make_broker, lab, make_vm):
    broker = make_broker(
        networks={"plain": {"mode": "shared", "ipv6": False}, "own": {"mode": "shared", "ipv6": "fd77:1:2:3::/64"}}
    )
    vm = make_vm(broker, "plain")
    assert "ipv6Prefix" not in network_of(broker, "plain")
    assert knows(vm.namespace, vm.cable.gateway, "host", "AAAA") == []
    with broker.connect() as peer:
        network = peer.call("AcquireNetwork", network="own")[0]["network"]
        assert network["ipv6Prefix"] == "fd77:1:2:3::/64" and network["gateway6"] == "fd77:1:2:3::1"
