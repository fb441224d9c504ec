"""A vhost-user front-end and a guest's driver by hand: memory, rings and messages, well or badly made.

FrontEnd speaks the messages of QEMU's docs/interop/vhost-user.rst; Ring is the driver's side of a split virtqueue
(virtio 1.2, section 2.7) in shared memory, and nothing keeps a test from writing nonsense into it.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from pathlib import Path

from lib.readiness import readable

from .lab import wait_for

MEMORY_SIZE = 4 << 20
GUEST_BASE = 0x100000000  # addresses of the guest and of the front-end are not the same, to show mistakes
USER_BASE = 0x7F0000000000
RING_SIZE = 256
RING_PAGES = 0x4000  # descriptors, avail and used ring of one ring
BUFFER_SIZE = 2048
NEXT, WRITE, INDIRECT = 1, 2, 4

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 16, 17, 18
NET_SET_MTU, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 20, 36, 37, 38
VERSION, REPLY, NEED_REPLY = 1, 4, 8
PROTOCOL_MQ, PROTOCOL_REPLY_ACK, PROTOCOL_NET_MTU, PROTOCOL_MEM_SLOTS = 1 << 0, 1 << 3, 1 << 4, 1 << 15

F_CSUM, F_GUEST_CSUM, F_MTU, F_GUEST_TSO4, F_GUEST_TSO6 = 1 << 0, 1 << 1, 1 << 3, 1 << 7, 1 << 8
F_HOST_TSO4, F_HOST_TSO6, F_MRG_RXBUF, F_MQ = 1 << 11, 1 << 12, 1 << 15, 1 << 22
F_INDIRECT, F_EVENT_INDEX, F_PROTOCOL, F_VERSION_1, F_PACKED = 1 << 28, 1 << 29, 1 << 30, 1 << 32, 1 << 34
PLAIN = F_VERSION_1 | F_MRG_RXBUF | F_INDIRECT | F_EVENT_INDEX | F_PROTOCOL
HEADER_SIZE = 12


class Gone(Exception):
    """The back-end closed the connection."""


class Ring:
    """The driver's side of one ring. Its buffers are fixed: one of BUFFER_SIZE bytes a descriptor."""

    def __init__(self, front_end: FrontEnd, index: int) -> None:
        self.memory = front_end.memory
        self.index = index
        self.descriptors = index * (RING_PAGES + RING_SIZE * BUFFER_SIZE)
        self.avail = self.descriptors + 0x1000
        self.used = self.descriptors + 0x2000
        self.buffers = self.descriptors + RING_PAGES
        self.kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.failure = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.given = self.taken = 0

    def close(self) -> None:
        for fd in (self.kick, self.call, self.failure):
            os.close(fd)

    def buffer(self, number: int) -> int:
        """Where a buffer begins in the memory."""
        return self.buffers + number % RING_SIZE * BUFFER_SIZE

    def describe(self, number: int, address: int, size: int, flags: int = 0, following: int = 0) -> None:
        """Writes a descriptor; address is the guest's."""
        struct.pack_into("<QIHH", self.memory, self.descriptors + 16 * number, address, size, flags, following)

    def give(self, head: int) -> None:
        """Puts a chain into the avail ring and shows it, without a kick."""
        struct.pack_into("<H", self.memory, self.avail + 4 + self.given % RING_SIZE * 2, head)
        self.given = (self.given + 1) & 0xFFFF
        self.show(self.given)

    def show(self, index: int) -> None:
        struct.pack_into("<H", self.memory, self.avail + 2, index)

    def notify(self) -> None:
        os.eventfd_write(self.kick, 1)

    def used_index(self) -> int:
        return struct.unpack_from("<H", self.memory, self.used + 2)[0]

    def take(self, deadline_s: float = 10) -> tuple[int, int]:
        """The next used chain, waited for by its call: head and size."""
        deadline = time.monotonic() + deadline_s
        struct.pack_into("<H", self.memory, self.avail + 4 + 2 * RING_SIZE, self.taken)  # used event
        while self.used_index() == self.taken:
            if not readable([self.call], deadline - time.monotonic()):
                raise TimeoutError(f"ring {self.index}: nothing used in {deadline_s} s")
            os.eventfd_read(self.call)
        head, size = struct.unpack_from("<II", self.memory, self.used + 4 + self.taken % RING_SIZE * 8)
        self.taken = (self.taken + 1) & 0xFFFF
        return head, size

    def has_used(self) -> bool:
        return self.used_index() != self.taken

    def has_failed(self) -> bool:
        return bool(readable([self.failure], 0))


class FrontEnd:
    """One connection, with memory and rings that outlive it: as a VM's outlive its back-end."""

    def __init__(self, path: Path, pairs: int = 1) -> None:
        self.path = path
        self.file = os.memfd_create("guest")
        os.truncate(self.file, MEMORY_SIZE)
        self.memory = mmap.mmap(self.file, MEMORY_SIZE)
        self.rings = [Ring(self, index) for index in range(2 * pairs)]
        self.socket: socket.socket | None = None
        self.protocol = 0

    def close(self) -> None:
        self.disconnect()
        for ring in self.rings:
            ring.close()
        self.memory.close()
        os.close(self.file)

    def connect(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(self.path))

    def disconnect(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None

    # Messages

    def send(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = VERSION) -> None:
        assert self.socket
        message = struct.pack("<III", request, flags, len(payload)) + payload
        try:
            socket.send_fds(self.socket, [message], list(fds))
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None

    def _receive(self, size: int) -> bytes:
        assert self.socket
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Gone
            data += piece
        return data

    def reply(self, request: int) -> bytes:
        found, flags, size = struct.unpack("<III", self._receive(12))
        assert (found, flags) == (request, VERSION | REPLY)
        return self._receive(size)

    def ask(self, request: int, payload: bytes = b"") -> int:
        self.send(request, payload)
        return struct.unpack("<Q", self.reply(request))[0]

    def tell(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> int:
        """Sends a message and waits until it was carried out; its result, 0 when all is well."""
        if not self.protocol & PROTOCOL_REPLY_ACK:
            self.send(request, payload, fds)
            self.ask(GET_FEATURES)
            return 0
        self.send(request, payload, fds, VERSION | NEED_REPLY)
        return struct.unpack("<Q", self.reply(request))[0]

    def region(self) -> bytes:
        return struct.pack("<QQQQ", GUEST_BASE, MEMORY_SIZE, USER_BASE, 0)

    def introduce(self, features: int = PLAIN, protocol: int = PROTOCOL_REPLY_ACK | PROTOCOL_MQ) -> None:
        """Features and memory: all before the rings."""
        offered = self.ask(GET_FEATURES)
        assert not features & ~offered, f"{features & ~offered:#x} isn't offered"
        assert not protocol & ~self.ask(GET_PROTOCOL_FEATURES)
        self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", protocol))
        self.protocol = protocol
        assert self.tell(SET_OWNER) == 0
        assert self.tell(SET_FEATURES, struct.pack("<Q", features)) == 0
        if protocol & PROTOCOL_MEM_SLOTS:
            assert self.tell(ADD_MEM_REG, bytes(8) + self.region(), (self.file,)) == 0
        else:
            assert self.tell(SET_MEM_TABLE, struct.pack("<II", 1, 0) + self.region(), (self.file,)) == 0

    def place(self, ring: Ring) -> bytes:
        at = (USER_BASE + ring.descriptors, USER_BASE + ring.used, USER_BASE + ring.avail)
        return struct.pack("<IIQQQQ", ring.index, 0, *at, 0)

    def start_ring(self, index: int, base: int | None = None) -> None:
        """As QEMU does it; base, when a back-end died, is the used index."""
        ring = self.rings[index]
        base = ring.used_index() if base is None else base
        number = struct.pack("<Q", index)
        assert self.tell(SET_VRING_NUM, struct.pack("<II", index, RING_SIZE)) == 0
        assert self.tell(SET_VRING_BASE, struct.pack("<II", index, base)) == 0
        assert self.tell(SET_VRING_ADDR, self.place(ring)) == 0
        assert self.tell(SET_VRING_ERR, number, (ring.failure,)) == 0
        assert self.tell(SET_VRING_CALL, number, (ring.call,)) == 0
        assert self.tell(SET_VRING_KICK, number, (ring.kick,)) == 0

    def enable_ring(self, index: int, is_enabled: bool = True) -> None:
        assert self.tell(SET_VRING_ENABLE, struct.pack("<II", index, is_enabled)) == 0

    def stop_ring(self, index: int) -> int:
        """Returns where it stopped."""
        self.send(GET_VRING_BASE, struct.pack("<II", index, 0))
        found, base = struct.unpack("<II", self.reply(GET_VRING_BASE))
        assert found == index
        return base

    def start(self, features: int = PLAIN, protocol: int = PROTOCOL_REPLY_ACK | PROTOCOL_MQ, pairs: int = 1) -> None:
        """Everything a driver's start brings about, with half a ring of buffers for frames."""
        self.connect()
        self.introduce(features, protocol)
        for index in range(2 * pairs):
            self.start_ring(index)
            if features & F_PROTOCOL:
                self.enable_ring(index)
        for pair in range(pairs):
            ring = self.rings[2 * pair]
            if ring.given == 0:
                self.give_buffers(pair, RING_SIZE // 2)

    # Frames

    def give_buffers(self, pair: int, count: int) -> None:
        ring = self.rings[2 * pair]
        for _ in range(count):
            number = ring.given % RING_SIZE
            ring.describe(number, GUEST_BASE + ring.buffer(number), BUFFER_SIZE, WRITE)
            ring.give(number)
        ring.notify()

    def send_frame(self, frame: bytes, header: bytes = bytes(HEADER_SIZE), pair: int = 0) -> None:
        """Header and frame in descriptors of their own, and waits until the device is done with them."""
        ring = self.rings[2 * pair + 1]
        number = 2 * ring.given % RING_SIZE
        at = ring.buffer(number)
        self.memory[at : at + len(header) + len(frame)] = header + frame
        ring.describe(number, GUEST_BASE + at, len(header), NEXT, number + 1)
        ring.describe(number + 1, GUEST_BASE + at + len(header), len(frame))
        ring.give(number)
        ring.notify()
        assert ring.take() == (number, 0)

    def receive_frame(self, deadline_s: float = 10, pair: int = 0) -> tuple[bytes, bytes]:
        """The next frame with its header, put together from its buffers, which are given again."""
        ring = self.rings[2 * pair]
        data = b""
        count = 1
        while count > 0:
            head, size = ring.take(deadline_s)
            piece = self.memory[ring.buffer(head) : ring.buffer(head) + size]
            if not data:
                count = struct.unpack_from("<H", piece, 10)[0]
            data += piece
            count -= 1
            self.give_buffers(pair, 1)
        return data[:HEADER_SIZE], data[HEADER_SIZE:]

    def wait_gone(self, deadline_s: float = 10) -> None:
        """Until the back-end has closed the connection."""

        def is_gone() -> bool:
            try:
                self.ask(GET_FEATURES)
            except Gone:
                return True
            return False

        wait_for(is_gone, deadline_s, "end of the connection")
