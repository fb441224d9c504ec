"""A DHCP client of one exchange, for tests that hold a VM's TAP."""

from __future__ import annotations

import os
import socket
import struct

from lib.readiness import readable

from . import frames

VNET_HDR = 12  # bytes in front of a TAP's frame


def discover(mac: str) -> bytes:
    """A frame to which the answer is the lease."""
    fixed = struct.pack("!BBBBIHH16x6s10x192xI", 1, 1, 6, 0, 0x1234, 0, 0x8000, frames.mac_bytes(mac), 0x63825363)
    options = bytes([53, 1, 1, 80, 0, 255])  # DHCPDISCOVER, rapid commit (RFC 4039)
    packet = frames.udp("0.0.0.0", 68, "255.255.255.255", 67, fixed + options)
    return frames.ethernet(frames.BROADCAST, mac, frames.ETHERTYPE_IPV4, packet)


def leased_address(tap: int, mac: str) -> str | None:
    """As a client that asks again each second, ten times."""
    return next(filter(None, (dhcp_address(tap, mac) for _ in range(10))), None)


def dhcp_address(tap: int, mac: str) -> str | None:
    """The address that a DHCP client with this MAC is given within a second; None: no answer."""
    os.write(tap, bytes(VNET_HDR) + discover(mac))
    while readable([tap], 1):
        frame = frames.parse(os.read(tap, 4096)[VNET_HDR:])
        if frame.destination_port == 68 and frame.payload[28:34] == frames.mac_bytes(mac):
            return socket.inet_ntoa(frame.payload[16:20])
    return None
