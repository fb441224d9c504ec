"""A resolver that asks one server one question (RFC 1035), so that a test sees what that server says and nothing else."""

from __future__ import annotations

import ipaddress
import socket
import struct

from .lab import Namespace

TYPES = {"A": 1, "PTR": 12, "AAAA": 28}
NAME_ERROR = 3


class NoSuchName(Exception):
    """The server says that there is no such name."""


def _encode_name(name: str) -> bytes:
    labels = (label.encode() for label in name.rstrip(".").split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _decode_name(message: bytes, offset: int) -> tuple[str, int]:
    labels = []
    after = None
    while message[offset]:
        if message[offset] >= 0xC0:
            after = after or offset + 2
            offset = struct.unpack_from("!H", message, offset)[0] & 0x3FFF
            continue
        labels.append(message[offset + 1 : offset + 1 + message[offset]].decode())
        offset += 1 + message[offset]
    return ".".join(labels), after or offset + 1


def _decode_record(message: bytes, offset: int) -> tuple[int, str, int]:
    """Type, value and where the next record begins."""
    _, offset = _decode_name(message, offset)
    kind, _, _, size = struct.unpack_from("!HHIH", message, offset)
    data, end = message[offset + 10 : offset + 10 + size], offset + 10 + size
    if kind == TYPES["PTR"]:
        return kind, _decode_name(message, offset + 10)[0], end
    return kind, str(ipaddress.ip_address(data)) if len(data) in (4, 16) else data.hex(), end


def resolve(namespace: Namespace, server: str, name: str, kind: str = "A", timeout_s: float = 3) -> list[str]:
    """Values of that kind. NoSuchName; OSError when no answer comes."""
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + _encode_name(name) + struct.pack("!HH", TYPES[kind], 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with namespace.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        client.sendto(query, (server, 53))
        message = client.recv(4096)
    _, flags, _, count, _, _ = struct.unpack_from("!HHHHHH", message)
    if flags & 0xF == NAME_ERROR:
        raise NoSuchName(name)
    if flags & 0xF:
        raise OSError(f"{server} answered {name} {kind} with code {flags & 0xF}")
    offset, values = len(query), []
    for _ in range(count):
        found, value, offset = _decode_record(message, offset)
        if found == TYPES[kind]:
            values.append(value)
    return values


def resolve_address(namespace: Namespace, server: str, address: str) -> list[str]:
    """Names of an address, either family."""
    return resolve(namespace, server, ipaddress.ip_address(address).reverse_pointer, "PTR")


def knows(namespace: Namespace, server: str, name: str, kind: str = "A", timeout_s: float = 3) -> list[str]:
    """As resolve(), but a name that does not exist has no values."""
    try:
        return resolve(namespace, server, name, kind, timeout_s)
    except NoSuchName:
        return []
