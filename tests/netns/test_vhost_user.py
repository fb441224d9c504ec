"""The vhost-user device between a front-end by hand and a TAP: messages, frames, hostile guests, ends and returns."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from lib import vhost_user as vu
from lib.frames import ETHERTYPE_IPV4, ethernet, udp
from lib.lab import Lab, wait_for

MAC_VM, MAC_HOST = "52:54:00:00:00:01", "52:54:00:00:00:02"
ETHERTYPE = 0x88B5  # for experiments: nothing else sends it
TAP = "tap0"
TSO = vu.PLAIN | vu.F_GUEST_CSUM | vu.F_GUEST_TSO4 | vu.F_CSUM | vu.F_HOST_TSO4


def frame(number: int, size: int = 60) -> bytes:
    return ethernet(MAC_HOST, MAC_VM, ETHERTYPE, bytes([number]) * (size - 14))


class Cable:
    """A running device, and what the host's side of its TAP sends and gets."""

    def __init__(self, lab: Lab, program: Path, pairs: int) -> None:
        self.namespace = lab.namespace("cable")
        self.namespace.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
        self.namespace.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
        self.path = lab.directory / "vu"
        self.log_path = lab.directory / "cable.log"
        self.command = [program, self.path, TAP, str(pairs)]
        self.start()

    def start(self) -> None:
        self.log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "a") as log:
            self.process: subprocess.Popen[bytes] = self.namespace.popen(self.command, stdout=log, stderr=log)
        self.wait_log("ready")
        self.namespace.ip("link", "set", TAP, "up")
        self.socket = self.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        self.socket.bind((TAP, ETHERTYPE))
        self.socket.settimeout(10)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[self.log_from :]

    def wait_log(self, text: str) -> str:
        def find() -> str | None:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with status {self.process.returncode}:\n{self.log()}")
            return next((line for line in self.log().splitlines() if text in line), None)

        return wait_for(find, 10, f'"{text}" in the log') or ""

    def counters(self) -> dict:
        lines = self.log().count("counters")
        self.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: self.log().count("counters\u0020") > lines, 10, "counters")
        return json.loads(self.log().rpartition("counters ")[2].splitlines()[0])

    def send(self, number: int, size: int = 60) -> bytes:
        data = ethernet(MAC_VM, MAC_HOST, ETHERTYPE, bytes([number]) * (size - 14))
        self.socket.send(data)
        return data

    def send_flow(self, port: int) -> bytes:
        """A flow of its own: the TAP spreads flows, not frames, over its queues."""
        data = ethernet(MAC_VM, MAC_HOST, ETHERTYPE_IPV4, udp("192.0.2.1", port, "192.0.2.2", 9, b""))
        self.socket.sendto(data, (TAP, ETHERTYPE_IPV4))
        return data

    def received(self) -> bytes:
        return self.socket.recv(65536)

    def wait_one_thread(self) -> None:
        """A thread that was joined is in /proc a moment longer."""
        tasks = f"/proc/{self.process.pid}/task"
        wait_for(lambda: len(os.listdir(tasks)) == 1, 5, "the end of every queue's thread")

    def switches(self) -> int:
        """How often any thread woke up."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                total += int(line.split()[1]) if "ctxt_switches" in line else 0
        return total

    def wait_settled(self) -> None:
        """Until what was begun is done: a tenth of a second without anybody waking up."""
        seen, since = self.switches(), time.monotonic()

        def settled() -> bool:
            nonlocal seen, since
            now = self.switches()
            if now != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() > since + 0.1

        wait_for(settled, 5, "an end of what was begun")

    def stop(self) -> None:
        """In good order: a sanitizer's finding fails it."""
        self.socket.close()
        self.process.terminate()
        assert self.process.wait(10) == 0, self.log()


@pytest.fixture
def make_cable(lab, show_on_failure):
    made = []

    def make(pairs: int = 1) -> Cable:
        setting = os.environ["VMNET_BIN"]
        program = next(path for path in Path(setting).rglob("vhost-user-cable") if path.is_file())
        cable = Cable(lab, program, pairs)
        made.append(cable)
        show_on_failure("vhost-user-cable", cable.log)
        return cable

    yield make
    for cable in made:
        if cable.process.poll() is None:
            cable.stop()


@pytest.fixture
def cable(make_cable):
    return make_cable()


@pytest.fixture
def make_front_end():
    made = []

    def make(cable: Cable, pairs: int = 1) -> vu.FrontEnd:
        front_end = vu.FrontEnd(cable.path, pairs)
        made.append(front_end)
        return front_end

    yield make
    for front_end in made:
        front_end.close()


@pytest.fixture
def front_end(cable, make_front_end):
    return make_front_end(cable)


def check_both_ways(cable: Cable, front_end: vu.FrontEnd, number: int = 1) -> None:
    front_end.send_frame(frame(number))
    assert cable.received() == frame(number)
    sent = cable.send(number)
    assert front_end.receive_frame()[1] == sent


# Messages


def test_negotiation(cable, front_end):
    front_end.connect()
    features = front_end.ask(vu.GET_FEATURES)
    assert features & TSO == TSO
    assert not features & vu.F_PACKED
    assert front_end.ask(vu.GET_PROTOCOL_FEATURES) & 0xF == vu.PROTOCOL_MQ | vu.PROTOCOL_REPLY_ACK
    front_end.introduce()
    assert front_end.ask(vu.GET_MAX_MEM_SLOTS) >= 32
    assert front_end.tell(vu.NET_SET_MTU, struct.pack("<Q", 1500)) == 0
    assert front_end.tell(vu.NET_SET_MTU, struct.pack("<Q", 9000)) != 0
    cable.wait_log(f"pid {os.getpid()}")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ((vu.SET_FEATURES, struct.pack("<Q", vu.F_PACKED)), "SET_FEATURES: features 0x400000000 were not offered"),
        ((vu.SET_PROTOCOL_FEATURES, struct.pack("<Q", 1 << 1)), "SET_PROTOCOL_FEATURES: features 0x2 were not"),
        ((vu.SET_VRING_NUM, struct.pack("<II", 0, 3)), "SET_VRING_NUM: a ring of 3 entries"),
        ((vu.SET_VRING_NUM, struct.pack("<II", 2, 256)), "queue pair 2 of 1: give the helper more --queues"),
        ((vu.SET_VRING_KICK, struct.pack("<Q", 0x100)), "would have to be polled"),
        ((vu.SET_VRING_KICK, struct.pack("<Q", 0)), "the fd does not match the flags"),
        ((vu.ADD_MEM_REG, bytes(40)), "a memory region without its file"),
        ((6, bytes(16)), "message of type 6"),
        ((vu.SET_FEATURES, bytes(4)), "message of type 2 with 4 bytes"),
        ((vu.SET_FEATURES, bytes(8), (), 2), "message of type 2"),
    ],
)
def test_refused(cable, front_end, message, reason):
    """Such a front-end is sent away, with a reason, and the next one may come."""
    front_end.connect()
    front_end.send(*message)
    front_end.wait_gone()
    cable.wait_log(reason)
    front_end.start()
    check_both_ways(cable, front_end)


def test_ring_outside_of_memory(cable, front_end):
    front_end.connect()
    front_end.introduce()
    front_end.rings[0].avail += vu.MEMORY_SIZE
    with pytest.raises((vu.Gone, AssertionError)):
        front_end.start_ring(0)
    cable.wait_log("SET_VRING_KICK: the ring is not where the front-end says")


def test_front_end_that_does_not_read(cable, front_end, make_front_end):
    """It fills its own socket, and is sent away: nobody waits for it."""
    front_end.connect()
    front_end.socket.settimeout(5)
    with pytest.raises(vu.Gone):
        for _ in range(1_000_000):
            front_end.send(vu.GET_FEATURES)
    cable.wait_log("GET_FEATURES: the answer")
    other = make_front_end(cable)
    other.start()
    check_both_ways(cable, other)


# Frames


@pytest.mark.parametrize("features", [vu.PLAIN, TSO, vu.PLAIN & ~vu.F_EVENT_INDEX, vu.PLAIN & ~vu.F_PROTOCOL])
def test_frames(cable, front_end, features):
    front_end.start(features)
    for number in range(1, 40):
        check_both_ways(cable, front_end, number)
    counters = cable.counters()
    assert counters == {"host->vm": [39, 39 * 60, 0], "vm->host": [39, 39 * 60, 0], "stopped": 0}


def test_memory_slots(cable, front_end):
    """Memory that comes and goes piece by piece, while frames pass."""
    front_end.start(protocol=vu.PROTOCOL_REPLY_ACK | vu.PROTOCOL_MEM_SLOTS)
    check_both_ways(cable, front_end, 1)
    assert front_end.tell(vu.REM_MEM_REG, bytes(8) + front_end.region()) == 0
    assert front_end.tell(vu.ADD_MEM_REG, bytes(8) + front_end.region(), (front_end.file,)) == 0
    check_both_ways(cable, front_end, 2)
    with pytest.raises(vu.Gone):
        front_end.tell(vu.ADD_MEM_REG, bytes(8) + front_end.region(), (front_end.file,))
        front_end.ask(vu.GET_FEATURES)
    cable.wait_log("ADD_MEM_REG: memory region")


def test_large_frame_to_host(cable, front_end):
    """A TCP segment of 4000 bytes, which the guest wants cut, arrives whole where nobody has to cut it."""
    front_end.start(TSO)
    payload = bytes(range(250)) * 16
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0) + bytes(8)
    packet += struct.pack("!HHIIHHHH", 1, 2, 0, 0, 0x5010, 100, 0, 0) + payload
    data = ethernet(MAC_HOST, MAC_VM, 0x0800, packet)
    header = struct.pack("<BBHHHHH", 1, 1, 54, 1000, 34, 16, 0)
    packets = cable.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    packets.bind((TAP, 0x0800))
    packets.settimeout(10)
    # Larger than one buffer of the fixture: two behind one another.
    ring = front_end.rings[1]
    at = ring.buffer(0)
    front_end.memory[at : at + 12 + len(data)] = header + data
    ring.describe(0, vu.GUEST_BASE + at, 12 + len(data))
    ring.give(0)
    ring.notify()
    ring.take()
    assert len(packets.recv(65536)) == len(data)
    packets.close()


def test_bad_header_is_dropped(cable, front_end):
    """The kernel refuses what contradicts itself; the next frame passes."""
    front_end.start()
    front_end.send_frame(frame(1), struct.pack("<BBHHHHH", 1, 9, 0, 0, 5000, 5000, 0))
    front_end.send_frame(frame(2))
    assert cable.received() == frame(2)
    assert cable.counters()["vm->host"] == [1, 60, 1]


def test_frames_wait_for_buffers(cable, front_end):
    """A guest that gives none for a while gets them later, and the other direction does not wait with them."""
    front_end.connect()
    front_end.introduce()
    for index in range(2):
        front_end.start_ring(index)
        front_end.enable_ring(index)
    sent = [cable.send(number) for number in range(1, 11)]
    front_end.send_frame(frame(99))
    assert cable.received() == frame(99)
    front_end.give_buffers(0, 64)
    for data in sent:
        assert front_end.receive_frame()[1] == data


def test_disabled_rings(cable, front_end):
    """A disabled ring takes nothing from the TAP, and throws the guest's frames away."""
    front_end.start()
    check_both_ways(cable, front_end, 1)
    front_end.enable_ring(1, False)
    front_end.send_frame(frame(2))
    front_end.enable_ring(1)
    front_end.send_frame(frame(3))
    assert cable.received() == frame(3)
    front_end.enable_ring(0, False)
    sent = cable.send(4)
    front_end.send_frame(frame(5))
    assert not front_end.rings[0].has_used()
    front_end.enable_ring(0)
    assert front_end.receive_frame()[1] == sent


def test_another_call(cable, front_end):
    """QEMU changes the call at any time, to mask interrupts; none gets lost by that."""
    front_end.start()
    ring = front_end.rings[0]
    for number in range(1, 20):
        sent = cable.send(number)
        old, ring.call = ring.call, os.eventfd(0, os.EFD_NONBLOCK)
        assert front_end.tell(vu.SET_VRING_CALL, struct.pack("<Q", 0), (ring.call,)) == 0
        os.close(old)
        assert front_end.receive_frame()[1] == sent


def test_two_pairs(make_cable, make_front_end):
    """What the guest does not use gets no frames: with a second pair on, and off again, all of them arrive."""
    cable = make_cable(pairs=2)
    front_end = make_front_end(cable, pairs=2)
    front_end.start(vu.PLAIN | vu.F_MQ)
    assert front_end.ask(vu.GET_QUEUE_NUM) >= 2
    for number in range(1, 30):
        check_both_ways(cable, front_end, number)
    for index in (2, 3):
        front_end.start_ring(index)
        front_end.enable_ring(index)
    front_end.give_buffers(1, 64)
    front_end.send_frame(frame(50), pair=1)
    assert cable.received() == frame(50)
    sent = {cable.send_flow(port) for port in range(1, 41)}
    got = {"0": set(), "1": set()}
    for _ in range(len(sent)):
        pair = wait_for(lambda: next((p for p in got if front_end.rings[2 * int(p)].has_used()), None), 10, "frames")
        got[pair].add(front_end.receive_frame(pair=int(pair))[1])
    assert got["0"] | got["1"] == sent
    assert got["0"] and got["1"]
    for index in (2, 3):
        front_end.enable_ring(index, False)
        front_end.stop_ring(index)
    for port in range(1, 41):
        assert cable.send_flow(port) == front_end.receive_frame()[1]


@pytest.mark.parametrize("connections", [1, 2])
def test_pair_that_is_not_enabled(make_cable, make_front_end, connections):
    """A front-end may set up all pairs that the device has, and enable those that the guest uses: only these get frames."""
    cable = make_cable(pairs=2)
    front_end = make_front_end(cable, pairs=2)
    for _ in range(connections):
        front_end.disconnect()
        front_end.start(vu.PLAIN | vu.F_MQ)
        for index in (2, 3):
            front_end.start_ring(index)
    for port in range(1, 41):
        sent = cable.send_flow(port)
        assert front_end.receive_frame()[1] == sent


# Hostile guests


def loop(ring):
    ring.describe(0, vu.GUEST_BASE + ring.buffer(0), 100, vu.NEXT, 0)
    ring.give(0)


def outside(ring):
    ring.describe(0, vu.GUEST_BASE + vu.MEMORY_SIZE - 10, 100)
    ring.give(0)


def no_such_head(ring):
    ring.give(5000)


def jump(ring):
    ring.show(ring.given + vu.RING_SIZE + 1)


def wrong_direction(ring):
    ring.describe(0, vu.GUEST_BASE + ring.buffer(0), 100, vu.WRITE)
    ring.give(0)


@pytest.mark.parametrize("attack", [loop, outside, no_such_head, jump, wrong_direction])
def test_hostile_guest(cable, front_end, attack):
    """Its queue stops and is counted; the other one and the connection go on; its driver's next start mends it."""
    front_end.start()
    check_both_ways(cable, front_end, 1)
    ring = front_end.rings[1]
    attack(ring)
    ring.notify()
    assert "queue 0 (vm->host) stopped, the guest broke it: " in cable.wait_log("broken")
    wait_for(ring.has_failed, 10, "the error event")
    assert cable.counters()["stopped"] == 1
    sent = cable.send(2)
    assert front_end.receive_frame()[1] == sent
    # Its driver is loaded again.
    front_end.stop_ring(1)
    front_end.memory[ring.descriptors : ring.descriptors + vu.RING_PAGES] = bytes(vu.RING_PAGES)
    ring.given = ring.taken = 0
    front_end.start_ring(1)
    front_end.enable_ring(1)
    check_both_ways(cable, front_end, 3)
    assert cable.log().count("broken:") == 1


def test_memory_cut_away(cable, front_end):
    """Buffers that the front-end cut away are no crash: they lose frames."""
    front_end.start()
    ring = front_end.rings[1]
    at = vu.MEMORY_SIZE - 4096
    ring.describe(0, vu.GUEST_BASE + at, 100)
    front_end.memory.flush()
    os.truncate(front_end.file, at)
    ring.give(0)
    ring.notify()
    ring.take()
    assert cable.counters()["vm->host"] == [0, 0, 1]
    os.truncate(front_end.file, vu.MEMORY_SIZE)
    check_both_ways(cable, front_end)


# Ends and returns


def test_front_end_returns(cable, front_end):
    """What came in between was for the guest before, and is not delivered to the next one."""
    front_end.start()
    check_both_ways(cable, front_end, 1)
    front_end.disconnect()
    cable.wait_log("disconnected: the front-end has gone")
    cable.wait_one_thread()
    for number in range(10, 20):
        cable.send(number)
    front_end.start()
    check_both_ways(cable, front_end, 2)
    assert cable.counters()["host->vm"][2] == 10


def test_stop_and_start(cable, front_end):
    """As at every reset of the guest: the position of a ring that was stopped is where it goes on."""
    front_end.start()
    for number in range(1, 6):
        check_both_ways(cable, front_end, number)
        bases = [front_end.stop_ring(index) for index in range(2)]
        assert bases == [number, number]
        cable.wait_one_thread()
        for index in range(2):
            front_end.start_ring(index, bases[index])
            front_end.enable_ring(index)


def test_helper_killed(cable, front_end):
    """Killed with -9 and started again: the rings go on where the guest's memory says."""
    front_end.start()
    for number in range(1, 6):
        check_both_ways(cable, front_end, number)
    cable.process.kill()
    cable.process.wait(10)
    front_end.disconnect()
    cable.start()
    front_end.start()
    for number in range(6, 12):
        check_both_ways(cable, front_end, number)


def test_tap_deleted(cable, front_end):
    front_end.start()
    check_both_ways(cable, front_end)
    cable.namespace.ip("link", "delete", TAP)
    assert cable.process.wait(10) == 1
    assert "ended: cannot go on" in cable.log()


@pytest.mark.parametrize("is_connected", [False, True])
def test_tap_deleted_without_guest(cable, front_end, is_connected):
    """Though no queue's thread is there that could notice; frames that nobody takes are no news."""
    if is_connected:
        front_end.start()
        check_both_ways(cable, front_end)
        assert [front_end.stop_ring(index) for index in range(2)] == [1, 1]
    cable.send(1)
    cable.namespace.ip("link", "delete", TAP)
    assert cable.process.wait(10) == 1
    assert "ended: cannot go on" in cable.log()


def check_idle(cable: Cable) -> None:
    cable.wait_settled()
    before = cable.switches()
    end = time.monotonic() + 3
    wait_for(lambda: time.monotonic() > end, 10, "three seconds")
    assert cable.switches() - before <= 2  # our own look may cost one


def test_idle(cable, front_end):
    """Nobody wakes up where nothing happens: neither with a guest nor without."""
    cable.send(1)
    check_idle(cable)
    front_end.start()
    check_both_ways(cable, front_end)
    check_idle(cable)


def test_idle_without_buffers(cable, front_end):
    """Frames that wait for a guest without buffers are nothing to do either."""
    front_end.connect()
    front_end.introduce()
    for index in range(2):
        front_end.start_ring(index)
        front_end.enable_ring(index)
    for number in range(1, 10):
        cable.send(number)
    check_idle(cable)
