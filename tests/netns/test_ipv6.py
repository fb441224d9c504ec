"""IPv6 of networks: prefix, router advertisements, NAT66, and hosts that have none."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct

import pytest

from lib.broker import MEMBER
from lib.cable import Cable
from lib.lab import UPLINK, UPLINK_ADDRESS6, WORLD_ADDRESS, WORLD_ADDRESS6, CommandError, wait_for
from lib.resolver import knows, resolve, resolve_address
from lib.simulated import LINK, SimulatedVm

ROUTER_ADVERTISEMENT = 134


@pytest.fixture
def make_vm(bin_dir):
    """make_vm(broker, network): a VM with a kernel of its own and an address by router advertisement."""
    with contextlib.ExitStack() as ends:

        def make(broker, network="shared", *arguments):
            cable = Cable(broker, bin_dir, ("--network", network, *arguments))
            ends.callback(cable.close)
            vm = SimulatedVm(cable, bin_dir)
            ends.callback(vm.close)
            return vm

        yield make


def addresses(namespace, link):
    """Usable global IPv6 addresses."""
    (shown,) = json.loads(namespace.ip("-json", "-6", "address", "show", "dev", link, "scope", "global")) or [{}]
    return [
        address["local"]
        for address in shown.get("addr_info", [])
        if "local" in address and not address.get("tentative") and not address.get("deprecated")
    ]


def own_address(vm):
    return wait_for(lambda: addresses(vm.namespace, LINK), 10, "the VM made itself an address")[0]


def default_routes(vm):
    return json.loads(vm.namespace.ip("-json", "-6", "route", "show", "default"))


def network_of(broker, name="shared"):
    with broker.connect() as peer:
        networks = {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}
    return networks[name]


def can_ping(namespace, address):
    return namespace.run(["ping", "-c", "1", "-W", "2", address], check=False).returncode == 0


def test_vm_gets_a_prefix_and_reaches_host_world_and_sibling(broker, lab, make_vm):
    lab.internet.start_echo(WORLD_ADDRESS6)
    one, two = make_vm(broker), make_vm(broker)
    network = network_of(broker)
    prefix = ipaddress.ip_network(network["ipv6Prefix"])
    assert prefix.prefixlen == 64 and prefix.subnet_of(ipaddress.ip_network("fd00::/8"))
    assert ipaddress.ip_address(network["gateway6"]) == prefix[1]
    for vm in (one, two):
        assert ipaddress.ip_address(own_address(vm)) in prefix
        assert vm.cable.line["net_ipv6_prefix"] == str(prefix.network_address)
        assert vm.cable.line["net_ipv6_prefix_len"] == 64
        assert "vmnet_nat66_prefix" not in vm.cable.line
        assert can_ping(vm.namespace, network["gateway6"])
        assert can_ping(lab.host, own_address(vm))
    assert can_ping(one.namespace, own_address(two))
    (route,) = default_routes(one)
    assert route["gateway"].startswith("fe80::") and route["dev"] == LINK


def test_the_host_stays_a_router_when_it_is_probed(broker, make_vm):
    """A neighbour that answers without the router flag is a router no more, and its routes go (RFC 4861 7.2.5)."""
    vm = make_vm(broker)
    own_address(vm)
    (route,) = default_routes(vm)
    router, mac = route["gateway"], next(link["address"] for link in broker.links() if "vmbr" in link["ifname"])
    vm.namespace.ip("neigh", "replace", router, "lladdr", mac, "dev", LINK, "router", "nud", "probe")

    def state():
        return json.loads(vm.namespace.ip("-json", "-6", "neigh", "show", router, "dev", LINK))[0]

    wait_for(lambda: "REACHABLE" in state()["state"], 5, "an answer to the probe")
    assert default_routes(vm) and "router" in state()


def ask_world(vm, sender_port=0):
    """What the echo server sees of a connection: address and port."""

    def ask():
        with socket.socket(socket.AF_INET6) as stream:
            stream.settimeout(5)
            stream.bind(("::", sender_port))
            stream.connect((WORLD_ADDRESS6, 7))
            stream.sendall(b"hello")
            return stream.recv(1000).decode().split()[:2]

    return vm.namespace.inside(ask)


def test_nat66(broker, lab, make_vm):
    lab.internet.start_echo(WORLD_ADDRESS6)
    vm = make_vm(broker)
    own_address(vm)
    wait_for(lambda: can_ping(vm.namespace, WORLD_ADDRESS6), 10, "the VM reaches the world")
    address, port = ask_world(vm, sender_port=700)
    assert address == UPLINK_ADDRESS6, "the world sees the host"
    assert int(port) >= 1024, "a VM's root shall not be taken for the host's (RFC 1813 4.1)"


def test_a_foreign_source_does_not_leave(broker, lab, make_vm):
    vm = make_vm(broker)
    own_address(vm)
    wait_for(lambda: can_ping(vm.namespace, WORLD_ADDRESS6), 10, "the VM reaches the world")
    vm.namespace.ip("-6", "address", "add", "fd99::5/64", "dev", LINK, "nodad")
    lab.internet.ip("-6", "route", "add", "fd99::/64", "via", UPLINK_ADDRESS6)
    lab.host.ip("-6", "route", "add", "fd99::/64", "dev", network_of(broker)["bridge"])
    result = vm.namespace.run(["ping", "-c", "1", "-W", "1", "-I", "fd99::5", WORLD_ADDRESS6], check=False)
    assert result.returncode != 0


def test_the_world_does_not_reach_a_vm(broker, lab, make_vm):
    vm = make_vm(broker)
    address = own_address(vm)
    wait_for(lambda: can_ping(vm.namespace, WORLD_ADDRESS6), 10, "the VM reaches the world")
    lab.internet.ip("-6", "route", "add", network_of(broker)["ipv6Prefix"], "via", UPLINK_ADDRESS6)
    assert not can_ping(lab.internet, address)


def test_host_network_has_a_prefix_and_no_router(broker, lab, make_vm):
    one, two = make_vm(broker, "host"), make_vm(broker, "host")
    assert can_ping(one.namespace, own_address(two))
    assert can_ping(one.namespace, network_of(broker, "host")["gateway6"])
    assert not default_routes(one)


def test_prefix_is_the_same_after_a_restart_and_another_for_another_network(make_broker, make_vm, lab):
    broker = make_broker(networks={"other": {"mode": "shared"}})
    with broker.connect() as peer:
        first = peer.call("AcquireNetwork", network="shared")[0]["network"]
        other = peer.call("AcquireNetwork", network="other")[0]["network"]
        assert first["ipv6Prefix"] != other["ipv6Prefix"]
        broker.kill("priv")
        broker.start()
        assert network_of(broker)["ipv6Prefix"] == first["ipv6Prefix"], "it was read back from the kernel"
        assert network_of(broker)["gateway6"] == first["gateway6"]
    assert broker.terminate() == 0
    broker.start()
    with broker.connect() as peer:
        again = peer.call("AcquireNetwork", network="shared")[0]["network"]
    assert again["ipv6Prefix"] == first["ipv6Prefix"]


def test_names_and_answers_over_ipv6(broker, lab, make_vm):
    vm = make_vm(broker)
    own_address(vm)
    network = network_of(broker)
    for name in ("host", "_gateway", "host.shared.vmnet", "_gateway.shared.vmnet"):
        assert resolve(vm.namespace, network["gateway6"], name, "AAAA") == [network["gateway6"]]
        assert resolve(vm.namespace, network["gateway6"], name) == [network["gateway"]]
    assert resolve_address(vm.namespace, network["gateway6"], network["gateway6"]) == ["_gateway.shared.vmnet"]


def test_kill_of_everything_leaves_ipv6_working(broker, lab, make_vm):
    vm = make_vm(broker)
    address = own_address(vm)
    wait_for(lambda: can_ping(vm.namespace, WORLD_ADDRESS6), 10, "the VM reaches the world")
    broker.kill("priv")
    assert can_ping(vm.namespace, WORLD_ADDRESS6)
    broker.start()
    assert can_ping(vm.namespace, WORLD_ADDRESS6)
    newcomer = make_vm(broker)
    own_address(newcomer)
    assert can_ping(newcomer.namespace, address)


def test_taps_have_no_ipv6_of_their_own(broker, lab, make_vm):
    vm = make_vm(broker)
    own_address(vm)
    for link in broker.links():
        shown = json.loads(lab.host.ip("-json", "-6", "address", "show", "dev", link["ifname"]))
        assert bool(shown) == (link["ifname"] == network_of(broker)["bridge"])


def test_bridge_address_follows_from_its_mac_and_needs_no_carrier(broker, lab):
    with broker.connect() as peer:
        network = peer.call("AcquireNetwork", network="shared")[0]["network"]
        assert addresses(lab.host, network["bridge"]) == [network["gateway6"]], "at once, though no VM is there"
        assert resolve(lab.host, network["gateway6"], "host") == [network["gateway"]]


class Advertisement:
    """What a router advertisement says (RFC 4861 4.2, RFC 8106)."""

    def __init__(self, data):
        self.lifetime_s = struct.unpack_from("!H", data, 6)[0]
        self.options = {}
        offset = 16
        while offset < len(data):
            kind, size = data[offset], data[offset + 1] * 8
            self.options[kind] = data[offset + 2 : offset + size]
            offset += size

    @property
    def prefix(self):
        return str(ipaddress.ip_address(self.options[3][14:30])) if 3 in self.options else None

    @property
    def mtu(self):
        return struct.unpack("!I", self.options[5][2:6])[0] if 5 in self.options else None

    @property
    def dns(self):
        return str(ipaddress.ip_address(self.options[25][6:22])) if 25 in self.options else None


def solicit(vm, timeout_s=3):
    """A router's answer, or TimeoutError."""
    index = vm.namespace.inside(lambda: socket.if_nametoindex(LINK))
    with vm.namespace.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        member = socket.inet_pton(socket.AF_INET6, "ff02::1") + struct.pack("@I", index)
        icmp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
        icmp.settimeout(timeout_s)
        icmp.sendto(bytes([133, 0, 0, 0, 0, 0, 0, 0]), ("ff02::2", 0, 0, index))
        while True:
            data = icmp.recv(2000)
            if data[0] == ROUTER_ADVERTISEMENT:
                return Advertisement(data)


def wait_link_local(vm):
    def usable():
        (shown,) = json.loads(vm.namespace.ip("-json", "-6", "address", "show", "dev", LINK, "scope", "link")) or [{}]
        return any("local" in info and not info.get("tentative") for info in shown.get("addr_info", []))

    wait_for(usable, 5, "the VM's link-local address")


@pytest.mark.parametrize("mtu", [1280, 1400, 9000])
def test_advertisement_says_mtu_prefix_and_server(make_broker, make_vm, mtu):
    broker = make_broker(networks={"lab": {"mode": "shared", "mtu": mtu}})
    vm = make_vm(broker, "lab")
    wait_link_local(vm)
    network = network_of(broker, "lab")
    advertisement = solicit(vm)
    assert advertisement.mtu == mtu
    assert f"{advertisement.prefix}/64" == network["ipv6Prefix"]
    assert advertisement.dns == network["gateway6"]
    assert advertisement.lifetime_s > 0


def test_host_without_ipv6(make_broker, lab, make_vm):
    lab.host.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
    broker = make_broker()
    vm = make_vm(broker)
    make_vm(broker, "host")
    network = network_of(broker)
    assert "ipv6Prefix" not in network and "gateway6" not in network
    assert "net_ipv6_prefix" not in vm.cable.line
    assert can_ping(vm.namespace, WORLD_ADDRESS)
    assert resolve(vm.namespace, network["gateway"], "host") == [network["gateway"]]
    assert knows(vm.namespace, network["gateway"], "host", "AAAA") == []
    assert broker.log().count("networks are made without IPv6") == 1, "for two networks"
    lab.host.sysctl("net/ipv6/conf/all/forwarding", 1)
    lab.host.sysctl("net/ipv6/conf/all/disable_ipv6", 0)
    with pytest.raises(CommandError):
        vm.namespace.run(["ping", "-c", "1", "-W", "1", WORLD_ADDRESS6])


def test_prefix_that_the_host_uses_is_left_alone(broker, lab):
    with broker.connect() as peer:
        first = peer.call("AcquireNetwork", network="shared")[0]["network"]["ipv6Prefix"]
    assert broker.terminate() == 0
    lab.host.ip("-6", "address", "add", f"{ipaddress.ip_network(first)[7]}/128", "dev", UPLINK, "nodad")
    broker.start()
    with broker.connect() as peer:
        second = peer.call("AcquireNetwork", network="shared")[0]["network"]["ipv6Prefix"]
    assert ipaddress.ip_network(second).network_address == ipaddress.ip_network(first).network_address + (1 << 64)


def test_line_without_network_has_the_nat66_prefix(broker, bin_dir):
    for mode, expected in (("shared", True), ("host", False)):
        cable = Cable(broker, bin_dir, ("--operation-mode", mode), user=MEMBER)
        assert ("vmnet_nat66_prefix" in cable.line) == expected
        assert not any(key.startswith("net_ipv6") for key in cable.line)
        if expected:
            assert f"{cable.line['vmnet_nat66_prefix']}/64" == network_of(broker)["ipv6Prefix"]
        cable.close()
