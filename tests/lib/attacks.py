"""What a hostile VM sends: docs/security.md has the table of it."""

from __future__ import annotations

import itertools
import struct

from . import frames
from .frames import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    arp,
    ethernet,
    ipv6,
    tagged,
    udp,
)

UNKNOWN_MAC, MULTICAST6, ALL_NODES = "52:54:00:99:99:99", "33:33:00:00:00:01", "ff02::1"

# Unlike each other, and in no frame by chance.
markers = (f"marker-{number:06}.".encode() for number in itertools.count())


def ip_frame(packet, source, destination=BROADCAST):
    return ethernet(destination, source, ETHERTYPE_IPV4, packet)


def ip6_frame(packet, source):
    return ethernet(MULTICAST6, source, ETHERTYPE_IPV6, packet)


def datagram(source_ip, marker, source_port=9, destination_port=9):
    return udp(source_ip, source_port, "255.255.255.255", destination_port, marker)


def message6(kind, rest, source=None, before=b""):
    """An ICMPv6 message to everybody; before: a hop-by-hop header of 8 bytes."""
    source = source or "fe80::1"
    payload = frames.icmpv6(source, ALL_NODES, kind, rest)
    if before:
        return ipv6(source, ALL_NODES, 0, bytes([58]) + before + payload)
    return ipv6(source, ALL_NODES, 58, payload)


def advertisement(marker):
    """A router advertisement (RFC 4861 4.2), its options what the test looks for."""
    return struct.pack("!BBHII", 64, 0, 1800, 0, 0) + marker


def announce(address, mac):
    """A gratuitous ARP: a request for oneself, as a sender's MAC says (RFC 5227 3)."""
    return lambda a, v, m: [
        arp(operation, mac(a, v), address(a, v), UNKNOWN_MAC, address(a, v), BROADCAST)[:42] + m for operation in (1, 2)
    ]


def odd_arp(a, v, marker):
    """Linux takes hardware type 6 for Ethernet, too."""
    frame = arp(2, a.mac, a.gateway, UNKNOWN_MAC, a.gateway, BROADCAST)[:42]
    return [frame[:14] + b"\0\6" + frame[16:] + marker]


def gateway6(holder):
    return frames.link_local(holder.gateway_mac)


def discover(mac):
    """DHCPDISCOVER (RFC 2131 2), its answer broadcast."""
    head = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16) + frames.mac_bytes(mac).ljust(16, b"\0")
    return head + bytes(192) + b"\x63\x82\x53\x63" + bytes([53, 1, 1, 255])


PRIORITY_TAG = 0
HOP_BY_HOP = bytes([0, 1, 4, 0, 0, 0, 0])

# By name: the frames, and whether they are dropped without lock_mac, too. a is who sends, v the victim: their mac,
# address and gateway, and the sender's gateway_mac; m is a marker.
ATTACKS = {
    "another VM's MAC": (lambda a, v, m: [ip_frame(datagram(a.address, m), v.mac)], False),
    "an unknown MAC": (lambda a, v, m: [ip_frame(datagram(a.address, m), UNKNOWN_MAC)], False),
    "the gateway's MAC": (lambda a, v, m: [ip_frame(datagram(a.address, m), a.gateway_mac)], True),
    "another VM's IPv4 address": (lambda a, v, m: [ip_frame(datagram(v.address, m), a.mac)], False),
    "a foreign IPv4 address": (lambda a, v, m: [ip_frame(datagram("203.0.113.9", m), a.mac)], False),
    "the gateway's IPv4 address": (lambda a, v, m: [ip_frame(datagram(a.gateway, m), a.mac)], True),
    "no IPv4 address, and no DHCP": (lambda a, v, m: [ip_frame(datagram("0.0.0.0", m), a.mac)], False),
    "ARP for another VM's address": (announce(lambda a, v: v.address, lambda a, v: a.mac), False),
    "ARP for the gateway": (announce(lambda a, v: a.gateway, lambda a, v: a.mac), True),
    "ARP for the gateway, of an odd type": (odd_arp, True),
    "ARP with another VM's MAC inside": (
        lambda a, v, m: [ethernet(BROADCAST, a.mac, ETHERTYPE_ARP, announce(
            lambda a, v: a.address, lambda a, v: v.mac)(a, v, m)[0][14:])],
        False,
    ),
    "DHCP in another VM's name": (
        lambda a, v, m: [
            ip_frame(udp("0.0.0.0", 68, "255.255.255.255", 67, discover(v.mac) + m), a.mac),
            ip_frame(udp(a.address, 68, "255.255.255.255", 67, discover(v.mac) + m), a.mac),
        ],
        False,
    ),
    "rogue DHCP": (lambda a, v, m: [ip_frame(datagram(a.address, m, 67, 68), a.mac)], True),
    "rogue DHCP from another port": (lambda a, v, m: [ip_frame(datagram(a.address, m, 6767, 68), a.mac)], True),
    "rogue DHCPv6": (
        lambda a, v, m: [
            ip6_frame(frames.udp6("fe80::5", port, ALL_NODES, 546, m), a.mac) for port in (547, 5470)
        ],
        True,
    ),
    "rogue router advertisement": (lambda a, v, m: [ip6_frame(message6(134, advertisement(m)), a.mac)], True),
    "rogue router advertisement behind a header": (
        lambda a, v, m: [ip6_frame(message6(134, advertisement(m), before=HOP_BY_HOP), a.mac)],
        True,
    ),
    "rogue router advertisement behind tags": (
        lambda a, v, m: [
            tagged(ip6_frame(message6(134, advertisement(m)), a.mac), PRIORITY_TAG),
            tagged(tagged(ip6_frame(message6(134, advertisement(m)), a.mac), PRIORITY_TAG), PRIORITY_TAG),
            tagged(tagged(ip6_frame(message6(134, advertisement(m)), a.mac), PRIORITY_TAG), PRIORITY_TAG, 0x88A8),
        ],
        True,
    ),
    "ICMP redirect": (
        lambda a, v, m: [ip_frame(frames.ipv4(a.address, v.address, 1, b"\5\1" + bytes(6) + m), a.mac, v.mac)],
        True,
    ),
    "ICMPv6 redirect": (lambda a, v, m: [ip6_frame(message6(137, bytes(36) + m), a.mac)], True),
    "neighbour advertisement for the gateway": (
        lambda a, v, m: [
            ip6_frame(message6(136, bytes(4) + frames.in6(gateway6(a)) + b"\2\1" + frames.mac_bytes(a.mac) + m), a.mac)
        ],
        True,
    ),
    "the gateway's IPv6 address": (
        lambda a, v, m: [ip6_frame(frames.udp6(gateway6(a), 9, ALL_NODES, 9, m), a.mac)],
        True,
    ),
    "a foreign IPv6 address": (
        lambda a, v, m: [ip6_frame(frames.udp6("2001:db8::5", 9, ALL_NODES, 9, m), a.mac)],
        False,
    ),
    "another VM's MAC over IPv6": (
        lambda a, v, m: [ip6_frame(frames.udp6("fe80::5", 9, ALL_NODES, 9, m), v.mac)],
        False,
    ),
    "BPDU": (lambda a, v, m: [ethernet("01:80:c2:00:00:00", a.mac, 39, b"\x42\x42\3" + m)], True),
    "LLDP": (lambda a, v, m: [ethernet("01:80:c2:00:00:0e", a.mac, 0x88CC, m)], True),
    "a VLAN tag": (lambda a, v, m: [tagged(ip_frame(datagram(a.address, m), a.mac), 7)], False),
    "another ethertype": (lambda a, v, m: [ethernet(BROADCAST, a.mac, 0x88B5, m)], False),
}
