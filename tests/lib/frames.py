"""Ethernet frames by hand, for tests that put frames on a TAP or a socket and look at what comes out."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

BROADCAST = "ff:ff:ff:ff:ff:ff"
ARP_REQUEST, ARP_REPLY = 1, 2
ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86DD
PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_ICMPV6 = 1, 6, 17, 58
ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST = 0, 8
MINIMUM = 60  # without the frame check sequence


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def in6(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: str, source: str, ethertype: int, payload: bytes) -> bytes:
    """A frame, padded to the minimum."""
    frame = mac_bytes(destination) + mac_bytes(source) + struct.pack("!H", ethertype) + payload
    return frame.ljust(MINIMUM, b"\0")


def arp(operation: int, source_mac: str, source_ip: str, target_mac: str, target_ip: str, destination: str) -> bytes:
    body = struct.pack("!HHBBH", 1, ETHERTYPE_IPV4, 6, 4, operation)
    body += mac_bytes(source_mac) + socket.inet_aton(source_ip) + mac_bytes(target_mac) + socket.inet_aton(target_ip)
    return ethernet(destination, source_mac, ETHERTYPE_ARP, body)


def arp_request(source_mac: str, source_ip: str, target_ip: str) -> bytes:
    return arp(ARP_REQUEST, source_mac, source_ip, "00:00:00:00:00:00", target_ip, BROADCAST)


def arp_reply(source_mac: str, source_ip: str, target_mac: str, target_ip: str) -> bytes:
    return arp(ARP_REPLY, source_mac, source_ip, target_mac, target_ip, target_mac)


def ipv4(source: str, destination: str, protocol: int, payload: bytes, ttl: int = 64) -> bytes:
    """A packet: no options, not to be fragmented."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, ttl, protocol, 0)
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def udp(source: str, source_port: int, destination: str, destination_port: int, data: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram."""
    length = 8 + len(data)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", PROTOCOL_UDP, length)
    ports = struct.pack("!HHH", source_port, destination_port, length)
    total = checksum(pseudo + ports + b"\0\0" + data) or 0xFFFF
    return ipv4(source, destination, PROTOCOL_UDP, ports + struct.pack("!H", total) + data)


def icmp_echo(source: str, destination: str, identifier: int, sequence: int, data: bytes = b"vmnet") -> bytes:
    """An IPv4 packet with an echo request."""
    rest = struct.pack("!HH", identifier, sequence) + data
    total = checksum(struct.pack("!BBH", ICMP_ECHO_REQUEST, 0, 0) + rest)
    return ipv4(source, destination, PROTOCOL_ICMP, struct.pack("!BBH", ICMP_ECHO_REQUEST, 0, total) + rest)


def ipv6(source: str, destination: str, next_header: int, payload: bytes, hops: int = 255) -> bytes:
    """A packet; payload begins with what next_header says, extension headers too."""
    header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, hops)
    return header + in6(source) + in6(destination) + payload


def _pseudo6(source: str, destination: str, protocol: int, length: int) -> bytes:
    return in6(source) + in6(destination) + struct.pack("!II", length, protocol)


def icmpv6(source: str, destination: str, kind: int, rest: bytes) -> bytes:
    """A message as payload for ipv6(); rest is what follows the checksum."""
    pseudo = _pseudo6(source, destination, PROTOCOL_ICMPV6, 4 + len(rest))
    total = checksum(pseudo + struct.pack("!BBH", kind, 0, 0) + rest)
    return struct.pack("!BBH", kind, 0, total) + rest


def udp6(source: str, source_port: int, destination: str, destination_port: int, data: bytes) -> bytes:
    """An IPv6 packet with a UDP datagram."""
    length = 8 + len(data)
    ports = struct.pack("!HHH", source_port, destination_port, length)
    total = checksum(_pseudo6(source, destination, PROTOCOL_UDP, length) + ports + b"\0\0" + data) or 0xFFFF
    return ipv6(source, destination, PROTOCOL_UDP, ports + struct.pack("!H", total) + data)


def tcp6_syn(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    """An IPv6 packet that asks for a connection."""

    def segment(total: int) -> bytes:
        return struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 0, 5 << 4, 2, 65535, total, 0)

    total = checksum(_pseudo6(source, destination, PROTOCOL_TCP, 20) + segment(0))
    return ipv6(source, destination, PROTOCOL_TCP, segment(total))


def link_local(mac: str) -> str:
    """The IPv6 address that follows from a MAC (RFC 4291, appendix A)."""
    m = mac_bytes(mac)
    identifier = bytes([m[0] ^ 2]) + m[1:3] + b"\xff\xfe" + m[3:]
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + identifier)


def tagged(frame: bytes, identifier: int, ethertype: int = 0x8100) -> bytes:
    """The frame with a VLAN tag (IEEE 802.1Q)."""
    return frame[:12] + struct.pack("!HH", ethertype, identifier) + frame[12:]


@dataclass(frozen=True)
class Frame:
    """What parse() found; fields that a frame doesn't have are None."""

    destination: str
    source: str
    ethertype: int
    payload: bytes  # of the innermost layer known
    arp_operation: int | None = None
    arp_source_mac: str | None = None
    source_ip: str | None = None  # of ARP too
    destination_ip: str | None = None
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None


def parse(frame: bytes) -> Frame:
    """Takes a frame apart: ARP, IPv4 and in it ICMP, UDP and TCP ports. Checks no checksum."""
    destination, source = mac_text(frame[:6]), mac_text(frame[6:12])
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    body = frame[14:]
    if ethertype == ETHERTYPE_ARP and len(body) >= 28:
        return Frame(
            destination,
            source,
            ethertype,
            body,
            arp_operation=struct.unpack_from("!H", body, 6)[0],
            arp_source_mac=mac_text(body[8:14]),
            source_ip=socket.inet_ntoa(body[14:18]),
            destination_ip=socket.inet_ntoa(body[24:28]),
        )
    if ethertype == ETHERTYPE_IPV4 and len(body) >= 20:
        return _parse_ipv4(destination, source, body)
    return Frame(destination, source, ethertype, body)


def _parse_ipv4(destination: str, source: str, packet: bytes) -> Frame:
    header_size = (packet[0] & 15) * 4
    (total,) = struct.unpack_from("!H", packet, 2)
    payload, protocol = packet[header_size:total], packet[9]
    source_port = destination_port = icmp_type = None
    if protocol in (PROTOCOL_UDP, PROTOCOL_TCP) and len(payload) >= 8:
        source_port, destination_port = struct.unpack_from("!HH", payload)
        if protocol == PROTOCOL_UDP:
            payload = payload[8:]
    elif protocol == PROTOCOL_ICMP and payload:
        icmp_type = payload[0]
    return Frame(
        destination,
        source,
        ETHERTYPE_IPV4,
        payload,
        source_ip=socket.inet_ntoa(packet[12:16]),
        destination_ip=socket.inet_ntoa(packet[16:20]),
        protocol=protocol,
        source_port=source_port,
        destination_port=destination_port,
        icmp_type=icmp_type,
    )
