"""What the configuration of a network asks for is what its VMs find."""

from __future__ import annotations

import json
import os
import socket
import struct

import pytest

from lib import frames
from lib.broker import MEMBER
from lib.dhcp import VNET_HDR, dhcp_address, leased_address
from lib.lab import WORLD_ADDRESS, command_line, is_running, wait_for
from lib.readiness import readable

MAC = "52:54:00:00:00:01"


def create(peer, **parameters):
    reply, fds = peer.call("CreateInterface", network="lab", **parameters)
    return reply, fds[0]


def answers_dns(lab, server, name):
    """Whether the server has an IPv4 address for a name; None: nobody answers there."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    with lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(2)
        resolver.connect((server, 53))
        try:
            resolver.send(query)
            return struct.unpack("!H", resolver.recv(4096)[6:8])[0] > 0
        except (ConnectionRefusedError, TimeoutError):
            return None


def test_without_dhcp(make_broker, lab):
    broker = make_broker(networks={"lab": {"mode": "host", "dhcp": False}})
    with broker.connect(MEMBER) as peer:
        reply, tap = create(peer, mac=MAC)
        assert reply["address"] and dhcp_address(tap, MAC) is None
        assert answers_dns(lab, reply["network"]["gateway"], "lab.vmnet") is not None


def test_without_dns(make_broker, lab):
    broker = make_broker(networks={"lab": {"mode": "host", "dns": False}})
    with broker.connect(MEMBER) as peer:
        reply, tap = create(peer, mac=MAC)
        assert leased_address(tap, MAC) == reply["address"]
        assert answers_dns(lab, reply["network"]["gateway"], "lab.vmnet") is None


@pytest.mark.parametrize("mode", ["shared", "host"])
def test_without_any_service(make_broker, mode):
    broker = make_broker(networks={"lab": {"mode": mode, "dhcp": False, "dns": False, "ra": False}})
    with broker.connect(MEMBER) as peer:
        reply, tap = create(peer, mac=MAC)
        assert reply["network"]["running"] and dhcp_address(tap, MAC) is None


def test_domain(make_broker, lab):
    broker = make_broker(networks={"lab": {"mode": "host", "domain": "lab.internal"}})
    with broker.connect(MEMBER) as peer:
        reply, tap = create(peer, mac=MAC, hostname="web")
        assert reply["network"]["domain"] == "lab.internal"
        assert leased_address(tap, MAC) == reply["address"]
        assert answers_dns(lab, reply["network"]["gateway"], "web.lab.internal")
        assert not answers_dns(lab, reply["network"]["gateway"], "web.lab.vmnet")


def test_start_end_and_mask(make_broker):
    networks = {"lab": {"mode": "host", "start": "10.77.0.10", "end": "10.77.0.13", "mask": "255.255.254.0"}}
    broker = make_broker(networks=networks)
    with broker.connect(MEMBER) as peer:
        replies = [create(peer)[0] for _ in range(3)]
        network = replies[0]["network"]
        assert (network["subnet"], network["gateway"]) == ("10.77.0.0/23", "10.77.0.10")
        assert network["lastAddress"] == "10.77.0.13"
        assert [reply["address"] for reply in replies] == ["10.77.0.11", "10.77.0.12", "10.77.0.13"]


def lease_time_of(tap, mac):
    """Of a DHCP offer, in seconds (option 51)."""
    fixed = struct.pack("!BBBBIHH16x6s10x192xI", 1, 1, 6, 0, 0x1234, 0, 0x8000, frames.mac_bytes(mac), 0x63825363)
    packet = frames.udp("0.0.0.0", 68, "255.255.255.255", 67, fixed + bytes([53, 1, 1, 255]))
    os.write(tap, bytes(VNET_HDR) + frames.ethernet(frames.BROADCAST, mac, frames.ETHERTYPE_IPV4, packet))
    while readable([tap], 2):
        frame = frames.parse(os.read(tap, 4096)[VNET_HDR:])
        if frame.destination_port != 68:
            continue
        options = frame.payload[240:]
        while options and options[0] != 255:
            if options[0] == 51:
                return struct.unpack("!I", options[2:6])[0]
            options = options[2 + options[1] :]
    raise AssertionError("no offer came")


def test_lease_time(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "lease_time": 4321}})
    with broker.connect(MEMBER) as peer:
        _, tap = create(peer, mac=MAC)
        assert lease_time_of(tap, MAC) == 4321


def test_settings_are_kept_over_a_crash(make_broker, lab):
    broker = make_broker(networks={"lab": {"mode": "host", "domain": "lab.internal", "lease_time": 4321}})
    with broker.connect(MEMBER) as peer:
        _, tap = create(peer, mac=MAC)
        (dnsmasq,) = broker.dnsmasq_pids()
        before = command_line(dnsmasq)
    broker.write_config({})
    broker.kill("front")
    with broker.connect() as root:
        network = root.call("AcquireNetwork", network="lab")[0]["network"]
        assert network["domain"] == "lab.internal"
        assert lease_time_of(tap, MAC) == 4321
    assert before == command_line(*broker.dnsmasq_pids())


def reaches_world(lab, tap, reply, gateway_mac):
    """Whether an echo of the internet comes back to the VM."""
    mac, address = reply["mac"], reply["address"]
    packet = frames.udp(address, 4000, WORLD_ADDRESS, 7, b"hello")
    frame = frames.ethernet(gateway_mac, mac, frames.ETHERTYPE_IPV4, packet)
    os.write(tap, bytes(VNET_HDR) + frame)
    while readable([tap], 1):
        found = frames.parse(os.read(tap, 65550)[VNET_HDR:])
        if found.destination_ip != address:
            continue
        if found.arp_operation == frames.ARP_REQUEST:
            os.write(tap, bytes(VNET_HDR) + frames.arp_reply(mac, address, found.source, found.source_ip))
        elif found.source_ip == WORLD_ADDRESS:
            return True
    return False


def test_uplink_is_the_only_way_out(make_broker, lab):
    (uplink,) = (route["dev"] for route in json.loads(lab.host.ip("-json", "route", "show", "default")))
    lab.host.ip("link", "add", "elsewhere", "type", "bridge")
    lab.internet.start_echo(WORLD_ADDRESS, 7)
    networks = {
        "any": {"mode": "shared"},
        "right": {"mode": "shared", "uplink": uplink},
        "wrong": {"mode": "shared", "uplink": "elsewhere"},
    }
    broker = make_broker(networks=networks)

    def try_all():
        reached = {}
        with broker.connect(MEMBER) as peer:
            for name in networks:
                reply, fds = peer.call("CreateInterface", network=name)
                bridge = next(link for link in broker.links() if link["ifname"] == reply["network"]["bridge"])
                reached[name] = reaches_world(lab, fds[0], reply, bridge["address"])
        return reached

    assert try_all() == {"any": True, "right": True, "wrong": False}
    # Read back from the kernel, whoever makes the rules the next time.
    front = broker.front_pid
    broker.kill()
    wait_for(lambda: not is_running(front), 5, "the end of the front")
    broker.start()
    assert try_all() == {"any": True, "right": True, "wrong": False}
