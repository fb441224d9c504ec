"""IPv6 in real guests: an address from the advertisement, names, and the world through NAT66."""

from __future__ import annotations

import ipaddress

import pytest

from lib.iperf3 import iperf3
from lib.lab import UPLINK_ADDRESS6, WORLD_ADDRESS6, wait_for


def network_of(broker):
    with broker.connect() as peer:
        return next(network for network in peer.call("ListNetworks")[0]["networks"] if network["name"] == "shared")


def own_address(vm, prefix):
    """The address that the guest's kernel made itself."""

    def look():
        shown = vm.guest.check("ip -6 addr show dev eth0 scope global")
        words = [] if "tentative" in shown else shown.split()
        found = [words[i + 1].split("/")[0] for i, word in enumerate(words) if word == "inet6"]
        return [address for address in found if ipaddress.ip_address(address) in prefix]

    return wait_for(look, 20, f"an address of {vm.name}")[0]


@pytest.mark.parametrize("attach", ["native", "socket", "stream", "vhost-user"])
def test_guest_has_address_route_names_and_the_world(broker, lab, make_vm, attach):
    lab.internet.start_iperf3(WORLD_ADDRESS6)
    lab.internet.start_echo(WORLD_ADDRESS6)
    one, two = make_vm(broker, "alpha", attach), make_vm(broker, "beta", "native")
    one.guest.wait_ready()
    two.guest.wait_ready()
    network = network_of(broker)
    prefix = ipaddress.ip_network(network["ipv6Prefix"])
    address, other = own_address(one, prefix), own_address(two, prefix)
    assert one.line["net_ipv6_prefix"] == str(prefix.network_address)
    assert "default via fe80::" in one.guest.check("ip -6 route show default")
    wait_for(lambda: one.guest.run(f"ping -6 -c 1 -W 2 {network['gateway6']}")[0] == 0, 10, "the gateway answers")
    one.guest.check(f"ping -6 -c 1 -W 5 {other}")
    lab.host.run(["ping", "-6", "-c", "1", "-W", "5", address])
    one.guest.check(f"ping -6 -c 1 -W 5 {WORLD_ADDRESS6}")
    report = iperf3(lambda words: one.guest.run(" ".join(words))[1], WORLD_ADDRESS6, "-6", "-t", "1")
    assert report["end"]["sum_received"]["bits_per_second"] > 10e6
    seen = one.guest.check(f"echo hello | nc -w 3 {WORLD_ADDRESS6} 7")
    assert seen.split()[0] == UPLINK_ADDRESS6, "the world sees the host"
    # dnsmasq pings the address before it gives it out.
    wait_for(lambda: one.guest.run("ping -6 -c 1 -W 2 beta")[0] == 0, 20, "the sibling by name")
    one.guest.check("ping -6 -c 1 -W 5 beta.shared.vmnet")
    one.guest.check("ping -6 -c 1 -W 5 host.shared.vmnet")
