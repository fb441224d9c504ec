"""priv's verbs as bytes, from what src/priv/verbs.h says, and a connection that may send anything."""

from __future__ import annotations

import array
import ipaddress
import os
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[2] / "src"
_HEADER = (_SOURCE / "priv/verbs.h").read_text()


def _number(name: str, text: str = _HEADER) -> int:
    """The value of a #define: a number, or one number shifted by another."""
    found = re.search(rf"^#define {name}\s+\(?(0x[0-9a-f]+|\d+)u?(?: << (\d+))?", text, re.M)
    assert found, f"no number {name} in the header"
    return int(found[1], 0) << int(found[2] or 0)


def _asserted_size(name: str) -> int:
    found = re.search(rf"static_assert\(sizeof\(struct {name}\) == (\d+)", _HEADER)
    assert found, f"no size of struct {name} in the header"
    return int(found[1])


MAGIC = _number("VERB_MAGIC")
BURST = _number("VERB_BURST")
QUEUES_MAX = _number("VERB_QUEUES_MAX")
SOCKETS_MAX = _number("VERB_SOCKETS_MAX")
FORWARDS_MAX = _number("VERB_FORWARDS_MAX")
CAPTURES_MAX = _number("CAPTURES_MAX", (_SOURCE / "priv/captures.h").read_text())
SNAPLEN_MIN = _number("VERB_SNAPLEN_MIN")
SNAPLEN_MAX = _number("VERB_SNAPLEN_MAX")
COMMENT_SIZE = _number("VERB_CAPTURE_COMMENT")
BUFFER_MAX = _number("VERB_BUFFER_MAX")
MTU_MIN = _number("VERB_MTU_MIN")
MTU_MAX = _number("VERB_MTU_MAX")
DETAIL_SIZE = _number("VERB_DETAIL_SIZE")
NETWORK_SIZE = _number("NETWORK_NAME_SIZE", (_SOURCE / "base/text.h").read_text())
REQUEST_SIZE = _asserted_size("verb_request")
REPLY_SIZE = _asserted_size("verb_reply")

# "CREATE_BRIDGE" and so on to their numbers: the enum has no gaps.
VERBS = {name: number for number, name in enumerate(re.findall(r"^\tVERB_(\w+),$", _HEADER, re.M))}
COUNT = VERBS.pop("COUNT")

SHARED, HOST = 0, 1  # enum network_mode
DOMAIN_SIZE = NETWORK_SIZE + 8  # NETWORK_DOMAIN_SIZE
SERVICE_ALL = 7  # VERB_SERVICE_ALL
PORT_ISOLATED, PORT_LOCKED, PORT_NAMED = 1, 2, 4  # enum verb_port
UNTIL_NETWORK, UNTIL_INTERFACE = 0, 1  # enum verb_capture_end

_HEAD = struct.Struct("=III")
_REPLY = struct.Struct(f"=IIIiI{DETAIL_SIZE}s")
assert _REPLY.size == REPLY_SIZE


def name_field(network: str | bytes) -> bytes:
    """A network's name as its field; bytes fill the field just as they are."""
    data = network.encode() if isinstance(network, str) else network
    assert len(data) <= NETWORK_SIZE, "the field cannot hold more"
    return data.ljust(NETWORK_SIZE, b"\0")


def request(verb: str | int, body: bytes = b"", sequence: int = 0, magic: int = MAGIC) -> bytes:
    number = VERBS[verb] if isinstance(verb, str) else verb
    return (_HEAD.pack(magic, number, sequence) + body).ljust(REQUEST_SIZE, b"\0")


def create_bridge(network: str | bytes, subnet: str, mode: int = SHARED, mtu: int = 1500) -> bytes:
    """subnet may have host bits and any prefix length from 0 to 255."""
    address, _, prefix_length = subnet.partition("/")
    packed = ipaddress.ip_address(address).packed
    head = struct.pack(f"={NETWORK_SIZE}sBBx4s", name_field(network), mode, int(prefix_length), packed)
    body = head + struct.pack("=II8x16x", 0, mtu)
    return request("CREATE_BRIDGE", body)


def on_network(verb: str, network: str | bytes) -> bytes:
    """DELETE_BRIDGE, STOP_DNSMASQ, or START_DNSMASQ with all services."""
    if verb == "START_DNSMASQ":
        return start_dnsmasq(network)
    return request(verb, name_field(network))


def start_dnsmasq(
    network: str | bytes, services: int = SERVICE_ALL, lease_s: int = 600, last_offset: int = 0, domain: bytes = b""
) -> bytes:
    form = f"={NETWORK_SIZE}s{DOMAIN_SIZE}s2xIII"
    return request("START_DNSMASQ", struct.pack(form, name_field(network), domain, services, lease_s, last_offset))


def create_tap(
    network: str | bytes,
    number: int,
    queues: int = 1,
    port: int = 0,
    mac: str = "00:00:00:00:00:00",
    address: str = "0.0.0.0",
    owner: int = 0,
) -> bytes:
    """mac and address are those of a locked port, owner is that of a named one."""
    head = struct.pack(f"={NETWORK_SIZE}s3xI16xII", name_field(network), number, queues, port)
    locked = socket.inet_aton(address) + bytes.fromhex(mac.replace(":", ""))
    return request("CREATE_TAP", head + locked + struct.pack("=2xI", owner))


def delete_tap(number: int) -> bytes:
    return request("DELETE_TAP", struct.pack("=I", number))


def open_vhost(count: int) -> bytes:
    return request("OPEN_VHOST", struct.pack("=I", count))


def apply_forwards(count: int) -> bytes:
    """Needs an fd of a memory file with so many forward() records."""
    return request("APPLY_FORWARDS", struct.pack("=II", count, 1))


def forward(
    target: str, target_port: int = 80, listen: str | None = None, listen_port: int = 8080, protocol: int = 6,
    is_ipv6: int | None = None,
) -> bytes:
    """listen None: every address of the host."""
    packed = ipaddress.ip_address(target).packed
    is_ipv6 = int(len(packed) == 16) if is_ipv6 is None else is_ipv6
    at = ipaddress.ip_address(listen).packed if listen else b""
    return struct.pack("=BBHH16s16s", is_ipv6, protocol, listen_port, target_port, at, packed)


def start_capture(network: str | bytes, end: int = UNTIL_NETWORK, snaplen: int = SNAPLEN_MAX, count: int = 0) -> bytes:
    body = struct.pack(f"={NETWORK_SIZE}s3xIII", name_field(network), end, snaplen, count)
    return request("START_CAPTURE", body)


def capture_interface(capture: int, number: int, comment: bytes = b"") -> bytes:
    return request("CAPTURE_INTERFACE", struct.pack(f"=II{COMMENT_SIZE}s", capture, number, comment))


def end_capture(capture: int) -> bytes:
    return request("END_CAPTURE", struct.pack("=I", capture))


def force_buffers(size: int) -> bytes:
    return request("FORCE_BUFFERS", struct.pack("=I", size))


@dataclass
class Reply:
    verb: int
    sequence: int
    result: int  # 0 or negative errno
    value: int
    detail: str
    fds: list[int]  # the caller's

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


class Verbs:
    """The front's end of the verbs' socket."""

    def __init__(self, fd: int, timeout_s: float = 30) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(timeout_s)

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        assert self.socket.sendmsg([data], rights) == len(data)

    def receive(self) -> Reply:
        """The next reply, whose form is checked. EOFError when priv closed the socket."""
        data, fds, flags, _ = socket.recv_fds(self.socket, REPLY_SIZE + 1, 32, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise EOFError("priv closed the verbs' socket")
        assert len(data) == REPLY_SIZE and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        magic, verb, sequence, result, value, detail = _REPLY.unpack(data)
        text, end, _ = detail.partition(b"\0")
        assert magic == MAGIC and end, "a reply begins with the magic number and its detail ends with a NUL"
        assert result >= 0 or not fds, "a refusal carries no fds"
        return Reply(verb, sequence, result, value, text.decode(), fds)

    def call(self, data: bytes, fds: Sequence[int] = ()) -> Reply:
        self.send(data, fds)
        return self.receive()
