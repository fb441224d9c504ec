"""A VM program that takes a TAP by its name only, and the VM in it: run under vmnet-client --attach tap.

It answers ARP for $VMNET_ADDRESS, and pings. It imports nothing of the tests, as its user may not reach them.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
VNET_HDR = 10  # bytes in front of a frame, as on any TAP that was just made


def open_by_name(name: str, flags: int = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) -> int:
    """An fd of the TAP of this network namespace; OSError says what the kernel has against it."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(tap)
        raise
    return tap


def answer_to(frame: bytes, mac: bytes, address: bytes) -> bytes | None:
    """What a machine with this MAC and IPv4 address sends when the frame comes; None: nothing."""
    ends = frame[6:12] + mac
    if frame[12:22] == b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" and frame[38:42] == address:
        return ends + frame[12:20] + b"\x00\x02" + mac + address + frame[22:32]
    if frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[30:34] == address and frame[34] == 8:
        (checksum,) = struct.unpack_from("!H", frame, 36)
        total = checksum + 0x0800  # the type is in its word (RFC 1624)
        checksum = (total & 0xFFFF) + (total >> 16)
        addresses = address + frame[26:30]
        return ends + frame[12:26] + addresses + b"\0\0" + struct.pack("!H", checksum) + frame[38:]
    return None


def main() -> None:
    mac = bytes.fromhex(os.environ["VMNET_MAC_ADDRESS"].replace(":", ""))
    address = socket.inet_aton(os.environ["VMNET_ADDRESS"])
    tap = open_by_name(os.environ["VMNET_INTERFACE_NAME"])
    print("ready", os.getpid(), "VMNET_FD" in os.environ, "VMNET_QUEUES" in os.environ, flush=True)
    while True:
        data = os.read(tap, 65600)
        answer = answer_to(data[VNET_HDR:], mac, address)
        if answer:
            os.write(tap, bytes(VNET_HDR) + answer)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"tap_program: {error}")
