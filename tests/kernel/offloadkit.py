"""The offloads' driver, a bridge between two TAPs that shows what the kernel does, and large frames to feed them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import select
import struct
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from kernelkit import DEADLINE_S, IFF_VNET_HDR, open_tap, shell

IFF_NAPI = 0x0010
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x02, 0x04, 0x20, 0x40

HEADER = struct.Struct("=BBHHHHH")
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 3, 4, 5, 0x80

FIN, SYN, PSH, ACK, ECE, CWR = 0x01, 0x02, 0x08, 0x10, 0x40, 0x80
TCP, UDP = 6, 17
ETHERNET = bytes.fromhex("525400000001525400000002")
MARKER = ETHERNET + b"\x88\xb5" + b"marker".ljust(46, b"\0")


def ones_sum(data: bytes) -> int:
    """Not complemented; not zero but for zeros."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass
class Spec:
    """A frame; zero is a default that makes sense."""

    ipv6: bool = False
    udp: bool = False
    tags: int = 0
    ip_options: int = 0
    tcp_options: int = 0
    flags: int = ACK
    traffic: int = 0
    ident: int = 0
    df: bool = True
    sequence: int = 1
    acknowledged: int = 1
    window: int = 512
    flow: int = 0
    payload: bytes = b""
    partial: bool = False

    def network(self) -> int:
        return 14 + 4 * self.tags

    def transport(self) -> int:
        return self.network() + (40 if self.ipv6 else 20) + self.ip_options

    def protocol(self) -> int:
        return UDP if self.udp else TCP

    def transport_header(self) -> bytes:
        ports = struct.pack("!HH", 40000 + self.flow, 5201)
        if self.udp:
            return ports + struct.pack("!HH", 8 + len(self.payload), 0)
        words = ((20 + self.tcp_options) // 4 << 12) | self.flags
        header = struct.pack("!IIHHHH", self.sequence, self.acknowledged, words, self.window, 0, 0)
        return ports + header + b"\1" * self.tcp_options

    def addresses(self) -> bytes:
        if self.ipv6:
            return bytes.fromhex("fd000000000000000000000000000001fd0000000000000000000000000000") + bytes([self.flow])
        return bytes([10, 0, 0, 1, 10, 0, 1, self.flow])

    def ip_header(self, length: int) -> bytes:
        if self.ipv6:
            first = (6 << 28) | (self.traffic << 20) | 0x12345
            next_header = 60 if self.ip_options else self.protocol()
            header = struct.pack("!IHBB", first, self.ip_options + length, next_header, 64) + self.addresses()
            if self.ip_options:
                options = bytes([1, self.ip_options - 4]) + bytes(self.ip_options - 4)  # one PadN
                header += bytes([self.protocol(), self.ip_options // 8 - 1]) + options
            return header
        words = (0x45 + self.ip_options // 4, self.traffic, 20 + self.ip_options + length, self.ident)
        header = struct.pack("!BBHHHBBH", *words, 0x4000 if self.df else 0, 64, self.protocol(), 0)
        header += self.addresses() + b"\1" * self.ip_options
        return header[:10] + struct.pack("!H", ones_sum(header) ^ 0xFFFF) + header[12:]

    def build(self) -> bytes:
        tags = b"".join(struct.pack("!HH", 0x8100 if i + 1 == self.tags else 0x88A8, 7 + i) for i in range(self.tags))
        body = self.transport_header() + self.payload
        pseudo = self.addresses() + struct.pack("!HH", self.protocol(), len(body))
        checksum = ones_sum(pseudo) if self.partial else ones_sum(pseudo + body) ^ 0xFFFF
        if self.udp and checksum == 0:
            checksum = 0xFFFF
        place = 6 if self.udp else 16
        body = body[:place] + struct.pack("!H", checksum) + body[place + 2 :]
        ethertype = struct.pack("!H", 0x86DD if self.ipv6 else 0x0800)
        return ETHERNET + tags + ethertype + self.ip_header(len(body)) + body

    def header(self, gso_size: int) -> bytes:
        """As the kernel describes the frame when it is to be cut."""
        gso_type = GSO_UDP_L4 if self.udp else GSO_TCPV6 if self.ipv6 else GSO_TCPV4
        if not self.udp and self.flags & CWR:
            gso_type |= GSO_ECN
        headers = self.transport() + len(self.transport_header())
        return HEADER.pack(NEEDS_CSUM, gso_type, headers, gso_size, self.transport(), 6 if self.udp else 16, 0)


def random_spec(dice: random.Random, udp: bool, size_max: int = 64000) -> tuple[Spec, int]:
    """A large frame to be cut, and its gso_size; all of it what a host could send in a network of MTU 1500."""
    spec = Spec(ipv6=dice.random() < 0.5, udp=udp, tags=dice.choice((0, 0, 0, 1, 2)), partial=True)
    if dice.random() < 0.3:
        spec.ip_options = dice.choice((8, 16, 24) if spec.ipv6 else (4, 8, 40))
    if not udp:
        spec.tcp_options = dice.choice((0, 12, 12, 20, 40))
        spec.flags = ACK | sum(flag for flag in (FIN, PSH, ECE, CWR) if dice.random() < 0.4)
    spec.traffic = dice.randrange(256)
    spec.ident = dice.randrange(65536)
    spec.df = dice.random() < 0.7
    spec.sequence = dice.choice((dice.randrange(2**32), 2**32 - dice.randrange(1, 60000)))
    largest = 1500 - (len(spec.build()) - spec.network())
    gso_size = dice.choice((largest, largest, dice.randrange(1, largest)))
    segments_max = 64 if udp else 900  # the TAP's queue takes 1000
    size = dice.randrange(gso_size + 1, min(size_max, gso_size * segments_max))
    if dice.random() < 0.2:
        size = max(2, size // gso_size) * gso_size
    spec.payload = dice.randbytes(size)
    return spec, gso_size


def next_segment(flow: Spec, flags: int, payload: bytes) -> Spec:
    segment = replace(flow, flags=flags, payload=payload)
    flow.sequence = (flow.sequence + len(payload)) % 2**32
    flow.ident = (flow.ident + 1) % 2**16
    return segment


def steady_segment(dice: random.Random, flow: Spec) -> Spec:
    return next_segment(flow, ACK, dice.randbytes(1420))


def random_segment(dice: random.Random, flow: Spec) -> Spec:
    """The flow's next: mostly a full one, at times whatever TCP does else. Advances the flow."""
    if dice.random() < 0.06:
        flow.acknowledged += 1
    if dice.random() < 0.04:
        flow.window += 1
    if dice.random() < 0.03:
        flow.traffic ^= 2
    if dice.random() < 0.03:
        flow.sequence = (flow.sequence + 1448) % 2**32
    if dice.random() < 0.03 and not flow.df:
        flow.ident += 2
    flags = dice.choices((0, PSH, FIN, ECE, SYN), (40, 3, 1, 1, 1))[0]
    payload = dice.randbytes(dice.choices((1420, dice.randrange(1420), 0), (40, 3, 2))[0])
    return next_segment(flow, ACK | flags, payload)


def random_segments(dice: random.Random) -> list[Spec]:
    """A batch, in which a few flows are mixed."""
    flows = []
    for number in range(dice.randrange(1, 5)):
        flow = Spec(ipv6=dice.random() < 0.5, df=dice.random() < 0.5, flow=number, tcp_options=dice.choice((0, 12)))
        flow.ident = dice.randrange(2**16 - 200)
        flow.sequence = dice.randrange(2**32)
        flows.append(flow)
    if dice.random() < 0.2:  # nothing happens, until IP can't say how long the joined frame is
        return [steady_segment(dice, flows[0]) for _ in range(59)]
    return [random_segment(dice, dice.choice(flows)) for _ in range(dice.randrange(2, 60))]


@dataclass
class Gathered:
    frame: bytes
    header: bytes
    frame_count: int


class Driver:
    """tests/kernel/offload-driver.c, which runs one of the functions over a batch."""

    FUNCTIONS = ("segment", "coalesce", "pass", "complete", "rebuild")

    def __init__(self) -> None:
        build = Path(os.environ["VMNET_BIN"])
        found = sorted(build.rglob("offload-driver"), key=lambda path: len(path.parts))
        assert found, f"offload-driver isn't in {build} or below; build first"
        self.process = subprocess.Popen([found[0].resolve()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _take(self, size: int) -> bytes:
        assert self.process.stdout
        data = self.process.stdout.read(size)
        assert len(data) == size, "the driver ended"
        return data

    def run(self, function: str, frames: list[tuple[bytes, bytes]], mtu: int = 1500) -> tuple[list[Gathered], int]:
        """Frames are (header, frame); returns what is gathered, and the number of drops."""
        request = struct.pack("=III", self.FUNCTIONS.index(function), mtu, len(frames))
        for header, frame in frames:
            request += struct.pack("=I", len(frame)) + header + frame
        assert self.process.stdin
        self.process.stdin.write(request)
        self.process.stdin.flush()
        drops, count = struct.unpack("=II", self._take(8))
        gathered = []
        for _ in range(count):
            length, frame_count = struct.unpack("=II", self._take(8))
            header = self._take(HEADER.size)
            gathered.append(Gathered(self._take(length), header, frame_count))
        return gathered, drops

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(DEADLINE_S) == 0


def segment_count(header: bytes, frame: bytes) -> int:
    """How many frames were joined to it; no options or tags are in it but TCP's."""
    gso_size, start = HEADER.unpack(header)[3:5]
    payload = len(frame) - start - (frame[start + 12] >> 4) * 4
    return -(-payload // gso_size) if gso_size else 1


class Bridge:
    """Two TAPs on a bridge: what is written to one is read from the other, after the kernel worked on it."""

    def __init__(self, offloads: int = 0, flags: int = 0, mtu: int = 1500) -> None:
        # Neighbour discovery and multicast queries would come between.
        for place in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{place}/disable_ipv6").write_text("1")
        shell("ip link add bridge0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0")
        self.near = self._tap("near", mtu, flags)
        self.far = self._tap("far", mtu, 0)
        fcntl.ioctl(self.far, TUNSETOFFLOAD, offloads)
        shell(f"ip link set bridge0 mtu {mtu} up")
        self._wait_until_forwarding()

    @staticmethod
    def _tap(name: str, mtu: int, flags: int) -> int:
        fd = open_tap(name, IFF_VNET_HDR | flags)
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER.size))
        shell(f"ip link set {name} mtu {mtu} master bridge0 up")
        return fd

    def _wait_until_forwarding(self) -> None:
        end = time.monotonic() + DEADLINE_S
        while not self._read(0.05):
            assert time.monotonic() < end, "the bridge doesn't forward"
            self.write(bytes(HEADER.size), MARKER)
        self._read_to_marker()
        while self._read(0.05):
            pass

    def write(self, header: bytes, frame: bytes) -> bool:
        """False when the kernel refuses the header."""
        try:
            assert os.write(self.near, header + frame) == len(header) + len(frame)
        except OSError as error:
            assert error.errno == errno.EINVAL
            return False
        return True

    def let_near_join(self) -> None:
        """The kernel joins (GRO) what write_at_once() writes: the near TAP is polled by a thread, which waits."""
        mounted = "mount -t sysfs sysfs /sys && echo 1 >/sys/class/net/near/threaded"
        shell(f"unshare --mount sh -c '{mounted}'")
        self.processor = min(os.sched_getaffinity(0))
        names = {}
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                names[path] = path.read_text()
        pollers = [int(path.parent.name) for path, name in names.items() if name.startswith("napi/near-")]
        assert pollers, "the TAP has no thread that polls"
        for pid in (0, *pollers):
            os.sched_setaffinity(pid, {self.processor})

    def write_at_once(self, frames: list[bytes]) -> list[tuple[bytes, bytes]]:
        """The thread that polls shares our processor and sees none of them before it sees all; returns what comes."""
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        try:
            for frame in frames:
                self.write(bytes(HEADER.size), frame)
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        joined: list[tuple[bytes, bytes]] = []
        while sum(segment_count(*gathered) for gathered in joined) < len(frames):
            data = self._read(DEADLINE_S)
            assert data, "frames got lost"
            joined.append((data[: HEADER.size], data[HEADER.size :]))
        # A marker before this would have been in the same round, and that ends with what is joined.
        return joined + self._read_to_marker()

    def _read(self, timeout_s: float) -> bytes:
        if not select.select([self.far], [], [], timeout_s)[0]:
            return b""
        return os.read(self.far, 70000)

    def _read_to_marker(self) -> list[tuple[bytes, bytes]]:
        self.write(bytes(HEADER.size), MARKER)
        frames = []
        while True:
            data = self._read(DEADLINE_S)
            assert data, "the marker got lost"
            header, frame = data[: HEADER.size], data[HEADER.size :]
            if frame == MARKER:
                return frames
            frames.append((header, frame))

    def pass_through(self, header: bytes, frame: bytes) -> list[tuple[bytes, bytes]]:
        """All that comes out as (header, frame)."""
        assert self.write(header, frame), f"the kernel refuses {header.hex()}"
        return self._read_to_marker()
