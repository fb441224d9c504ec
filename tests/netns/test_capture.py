"""Capture and vmnetctl capture: what passes on VMs' interfaces, for whoever may see it, read by the programs it is for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field

import pytest

from lib import frames
from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.holder import Holder
from lib.iperf3 import iperf3
from lib.lab import User, children_of, is_running, open_fds, process_name, process_uid, read_proc, stop_process, wait_for
from lib.load import close_together
from lib.readiness import readable
from lib.simulated import SimulatedVm

OTHER = User(4244, 4244, (100,))
INTERFACE, STATISTICS, PACKET, SECTION = 1, 5, 6, 0x0A0D0D0A
PER_USER, OF_USERS = 4, 12  # POLICY_CAPTURES_MAX, POLICY_CAPTURES_OF_USERS


def options(data):
    """Codes to values, of the options at the end of a block."""
    found = {}
    while data:
        code, length = struct.unpack_from("=HH", data)
        if code == 0:
            break
        found[code] = bytes(data[4:4 + length])
        data = data[4 + (length + 3) // 4 * 4:]
    return found


@dataclass
class Packet:
    interface: str
    data: bytes
    original: int
    time_ns: int
    direction: int
    comment: str


@dataclass
class Capture:
    """A pcapng file, read by its specification; only what a capture of ours may have passes."""

    interfaces: list[dict] = field(default_factory=list)  # name, comment, snaplen; of all sections
    packets: list[Packet] = field(default_factory=list)
    statistics: dict[str, tuple[int, int]] = field(default_factory=dict)  # name: received, dropped
    sections: int = 0

    @classmethod
    def read(cls, data):
        self = cls()
        section = []
        data = memoryview(data)
        while data:
            kind, length = struct.unpack_from("=II", data)
            assert length % 4 == 0 and 12 <= length <= len(data), "a block that is cut"
            assert struct.unpack_from("=I", data, length - 4) == (length,)
            body, data = data[8:length - 4], data[length:]
            if kind == SECTION:
                assert struct.unpack_from("=IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
                assert options(body[16:])[4] == b"vmnet-broker"
                self.sections += 1
                section = []
            elif kind == INTERFACE:
                linktype, _, snaplen = struct.unpack_from("=HHI", body)
                told = options(body[8:])
                assert linktype == 1 and told[9] == b"\x09"
                section.append({"name": told[2].decode(), "comment": told.get(1, b"").decode(), "snaplen": snaplen})
                self.interfaces.append(section[-1])
            elif kind == PACKET:
                number, high, low, captured, original = struct.unpack_from("=IIIII", body)
                told = options(body[20 + (captured + 3) // 4 * 4:])
                self.packets.append(Packet(
                    section[number]["name"], bytes(body[20:20 + captured]), original, high << 32 | low,
                    struct.unpack("=I", told[2])[0], told.get(1, b"").decode(),
                ))
            else:
                assert kind == STATISTICS
                number, _, _ = struct.unpack_from("=III", body)
                told = options(body[12:])
                received, dropped = (struct.unpack("=Q", told[code])[0] for code in (4, 5))
                self.statistics[section[number]["name"]] = received, dropped
        return self


def read_stream(stream, begun=b""):
    with stream.makefile("rb") as file:
        return Capture.read(begun + file.read())


class Stream:
    """A Capture call: end() returns what was captured."""

    def __init__(self, broker, user=None, **parameters):
        self.connection = broker.connect(user)
        try:
            reply, fds = self.connection.call("Capture", **parameters)
        except VarlinkError:
            self.connection.close()
            raise
        assert reply["stream"] == 0 and len(fds) == 1
        self.interfaces = reply["interfaces"]
        self.socket = socket.socket(fileno=fds[0])
        self.socket.settimeout(15)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()
        self.connection.close()

    def end(self, begun=b""):
        """begun: what was read already."""
        self.socket.shutdown(socket.SHUT_WR)
        return read_stream(self.socket, begun)

    def rest(self):
        return read_stream(self.socket)


def capture_pids(broker):
    return [pid for pid in children_of(broker.priv_pid) if process_name(pid) == "vmnet-capture"]


def wait_none(broker):
    wait_for(lambda: not capture_pids(broker), 20, "the end of every capture")


@pytest.fixture
def holder(request):
    """holder(network=, on=, **parameters): a VM of MEMBER's whose TAP the test holds."""
    running = []

    def make(network="shared", on=None, **parameters):
        running.append(Holder(on or request.getfixturevalue("broker"), network, **parameters))
        return running[-1]

    yield make
    for one in running:
        one.close()


@pytest.fixture
def ctl(broker, bin_dir):
    """ctl(*arguments): a vmnetctl capture that runs."""
    running = []

    def start(*arguments, user=MEMBER, on=broker, **options):
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running.append(on.namespace.popen(
            [bin_dir / "vmnetctl", "capture", *arguments],
            user=user, env={"VMNET_BROKER_SOCKET": str(on.socket_path)}, **{**pipe, **options},
        ))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def path(lab):
    """A file that does not exist, in a directory of MEMBER's."""
    return lab.public_directory("captured", MEMBER) / "capture.pcapng"


def tshark(path, *arguments):
    return subprocess.run(
        ["tshark", "-n", "-r", path, *arguments], check=True, capture_output=True, text=True, timeout=120,
    ).stdout.splitlines()


def test_iperf3_between_vms_as_tshark_and_tcpdump_see_it(broker, ctl, bin_dir, path):
    """Every VM is listed, one that came later too, no frame is malformed, and none was missed in silence."""
    with contextlib.ExitStack() as stack:
        vms = []

        def boot(name):
            cable = Cable(broker, bin_dir, ["--network", "shared", "--hostname", name])
            stack.callback(cable.process.wait, 5)
            stack.callback(cable.process.kill)
            vms.append(SimulatedVm(cable, bin_dir))
            stack.callback(vms[-1].close)
            return vms[-1]

        boot("alpha"), boot("beta")
        process = ctl("shared", "-w", path, user=None, text=True)
        wait_for(lambda: path.exists() and path.stat().st_size > 300, 10, "the capture has begun")
        late = boot("gamma")
        server = vms[1]
        server.namespace.start_iperf3(server.cable.address)
        for client in (vms[0], late):
            iperf3(lambda argv: client.namespace.run(argv, timeout=60).stdout, server.cable.address, "-n", "8M")
        vms[0].namespace.run(["ping", "-c", "3", "-i", "0.2", late.cable.address])
        process.send_signal(signal.SIGINT)
        summary, said = process.communicate(timeout=20)
        assert process.returncode == 0 and said == ""
        found = Capture.read(path.read_bytes())
        assert [re.match(r"\w+", one["comment"])[0] for one in found.interfaces] == ["beta", "alpha", "gamma"]
        for vm in vms:
            name = vm.cable.line["vmnet_interface_name"]
            (one,) = (one for one in found.interfaces if one["name"] == name)
            assert one["comment"].endswith(f" {vm.cable.address} {vm.cable.mac} user {MEMBER.uid}")
            packets = [packet for packet in found.packets if packet.interface == name]
            received, dropped = found.statistics[name]
            assert len(packets) == received - dropped > 0
            assert {packet.direction for packet in packets} == {1, 2}
        packets, total, interfaces, dropped = map(int, re.findall(r"\d+", summary))
        assert packets == len(found.packets) and interfaces == 3 and total > 2 * 8 << 20
        assert dropped == sum(drops for _, drops in found.statistics.values())
        assert tshark(path, "-Y", "_ws.malformed || _ws.short") == []
        seen = set(tshark(path, "-T", "fields", "-e", "frame.interface_name"))
        assert seen == {vm.cable.line["vmnet_interface_name"] for vm in vms}
        assert len(tshark(path)) == packets
        result = subprocess.run(["tcpdump", "-n", "-r", path], check=True, capture_output=True, text=True, timeout=120)
        assert len(result.stdout.splitlines()) == packets
        assert oct(path.stat().st_mode & 0o777) == "0o600"
    wait_none(broker)


def test_frames_as_they_were(broker, holder):
    """Times, directions, lengths, a VLAN tag that the kernel takes out, checksums that are not there yet."""
    one, two = holder(hostname="one"), holder(hostname="two")
    with Stream(broker, MEMBER, network="shared") as stream:
        assert stream.interfaces == 2
        plain = one.datagram(b"plain".ljust(60))  # shorter ones are padded before anybody sees them
        tagged = frames.ethernet(two.mac, one.mac, 0x8100, struct.pack("!HH", 7, 0x88B5) + b"tagged".ljust(60))
        data = b""

        def copies(marker):
            """What was captured of a frame: as it came in and as it went out."""
            nonlocal data
            while True:
                data += stream.socket.recv(65536)
                with contextlib.suppress(AssertionError, struct.error):
                    found = [packet for packet in Capture.read(data).packets if marker in packet.data]
                    if len(found) == 2:
                        return sorted(found, key=lambda packet: packet.time_ns)

        def is_stamped_by_the_kernel(number):
            """Within the sending, and not when it was read."""
            one.send(one.datagram(b"warm-up %d." % number))
            sent = time.time_ns()
            return all(packet.time_ns <= sent for packet in copies(b"warm-up %d." % number))

        # net_enable_timestamp() has a worker do it, a moment after the capture has begun.
        assert any(map(is_stamped_by_the_kernel, range(1000)))
        before = time.time_ns()
        one.send(plain)
        one.send(tagged)
        pairs = {plain: copies(b"plain"), tagged: copies(b"tagged")}
        after = time.time_ns()
        assert stream.end(data).statistics.keys() == {one.name, two.name}
    for frame, (into, out) in pairs.items():
        assert into.interface == one.name and into.direction == 1 and out.interface == two.name and out.direction == 2
        for packet in (into, out):
            assert packet.data == frame and packet.original == len(frame) and packet.comment == ""
            assert before <= packet.time_ns <= after


def test_large_frames_say_what_they_are(broker, holder, bin_dir):
    cable = Cable(broker, bin_dir, ["--network", "shared"])
    vm = SimulatedVm(cable, bin_dir)
    try:
        with Stream(broker, MEMBER, interface=cable.line["vmnet_interface_name"], snaplen=128) as stream:
            vm.namespace.start_iperf3(cable.address)
            broker.namespace.run(["iperf3", "-c", cable.address, "-n", "4M"], timeout=60)
            found = stream.end()
    finally:
        vm.close()
        cable.process.kill()
        cable.process.wait(5)
    large = [packet for packet in found.packets if packet.original > 1518]
    assert large and all(packet.comment.startswith("larger than the MTU: not yet cut") for packet in large if packet.direction == 2)
    assert any("checksum not filled in yet" in packet.comment for packet in large)
    assert max(len(packet.data) for packet in found.packets) == 128 and found.interfaces[0]["snaplen"] == 128


def test_count_and_duration(broker, holder, ctl, path):
    vm = holder()
    process = ctl(vm.name, "-w", path, "--count", "5", "--snaplen", "64", text=True)
    wait_for(path.exists, 10, "the capture has begun")
    for _ in range(20):
        vm.send(vm.datagram(b"x" * 500))
    summary, _ = process.communicate(timeout=10)
    assert summary.startswith("5 packets of ") and summary.endswith(" on 1 interfaces, 0 dropped\n")
    found = Capture.read(path.read_bytes())
    assert len(found.packets) == 5 and all(len(packet.data) <= 64 for packet in found.packets)
    assert found.statistics.keys() == {vm.name}
    started = time.monotonic()
    process = ctl("shared", "--duration", "1", "--json")
    data, said = process.communicate(timeout=10)
    assert process.returncode == 0 and 1 <= time.monotonic() - started < 5
    assert Capture.read(data).interfaces[0]["name"] == vm.name
    assert json.loads(said).keys() == {"packets", "bytes", "interfaces", "dropped"}
    wait_none(broker)


def test_a_pipe_into_tcpdump(broker, holder, ctl):
    vm = holder()
    process = ctl("shared", "-w", "-")
    with subprocess.Popen(
        ["tcpdump", "-n", "-l", "-c", "1", "-A", "-r", "-", "udp"], stdin=process.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as reader:
        process.stdout.close()
        while not readable([reader.stdout], 0.1):
            vm.send(vm.datagram(b"through the pipe"))
        assert b"through the pipe" in reader.stdout.read()
        process.stdout = None
    # It has what it wanted; the next packets end the writer, and its capture.
    def ended():
        vm.send(vm.datagram(b"nobody reads this"))
        return process.poll() is not None

    wait_for(ended, 10, "the end of vmnetctl, whose reader has gone")
    assert process.returncode == 1 and b"Broken pipe" in process.stderr.read()
    wait_none(broker)


def test_who_may_see_what(make_broker, lab):
    """His own interfaces, and nobody else's: not by its name, not by its network, not one that comes later."""
    broker = make_broker(networks={"closed": {"mode": "host", "allow": {"users": [OTHER.uid]}}, "open": {"mode": "host"}})
    taps = []

    def attach(user, network="open", **parameters):
        with broker.connect(user) as peer:
            reply, fds = peer.call("CreateInterface", network=network, **parameters)
        taps.extend(fds)
        return reply["interfaceName"]

    try:
        mine, theirs = attach(MEMBER), attach(OTHER)
        attach(OTHER, "closed")
        for error, parameters in (
            ("NotFound", {"interface": theirs}),
            ("NotFound", {"interface": "vmtap00000000"}),
            ("NotFound", {"interface": "up0"}),
            ("NotFound", {"network": "typo"}),
            ("NotFound", {"network": "host"}),
            ("NotAllowed", {"network": "closed"}),
            ("InvalidRequest", {}),
            ("InvalidRequest", {"network": "open", "interface": mine}),
            ("InvalidRequest", {"network": "open", "snaplen": 63}),
            ("InvalidRequest", {"network": "open", "snaplen": 262145}),
            ("InvalidRequest", {"network": "open", "count": 0}),
            ("InvalidRequest", {"interface": "x" * 40}),
        ):
            with pytest.raises(VarlinkError) as refusal:
                Stream(broker, MEMBER, **parameters)
            assert refusal.value.name == error, parameters
        with Stream(broker, MEMBER, network="open") as own, Stream(broker, network="open") as roots:
            assert own.interfaces == 1 and roots.interfaces == 2
            later, theirs_later = attach(MEMBER), attach(OTHER)
            attach(OTHER, "closed")
            assert {one["name"] for one in own.end().interfaces} == {mine, later}
            assert {one["name"] for one in roots.end().interfaces} == {mine, theirs, later, theirs_later}
        with Stream(broker, interface=theirs) as roots:
            attach(MEMBER)
            assert [one["name"] for one in roots.end().interfaces] == [theirs], "an interface is captured alone"
    finally:
        close_together(taps)


def test_no_more_than_so_many(broker, holder):
    holder()
    with contextlib.ExitStack() as stack:
        for _ in range(PER_USER):
            stack.enter_context(Stream(broker, MEMBER, network="shared"))
        with pytest.raises(VarlinkError, match="QuotaExceeded"):
            Stream(broker, MEMBER, network="shared")
        for number in range(4):
            stack.enter_context(Stream(broker, network="shared"))
        wait_for(lambda: len(capture_pids(broker)) == PER_USER + 4, 5, "all of them run")
        again = stack.enter_context(broker.connect())
        for _ in range(20):
            _, fds = again.call("Capture", network="shared")
            close_together(fds)
    wait_none(broker)


def test_what_the_process_is(make_broker, holder, release_bin_dir):
    """Nobody in particular: no capability, no way to one, few system calls, no other fd than its own; and it works so."""
    broker = make_broker(programs=release_bin_dir)  # builds with sanitizers filter no system calls
    vm = holder(on=broker)
    with Stream(broker, MEMBER, network="shared") as stream:
        (pid,) = wait_for(lambda: capture_pids(broker), 5, "it runs")

        def sockets():
            return [link for link in open_fds(pid).values() if link.startswith("socket:")]

        wait_for(lambda: len(sockets()) == 4, 5, "orders, output, network, one interface: no more and no less")
        status = read_proc(pid, "status").decode()
        assert process_uid(pid) == 65534 and "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
        for which in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert re.search(rf"{which}:\t0+\n", status)
        vm.send(vm.datagram(b"seen"))
        assert any(b"seen" in packet.data for packet in stream.end().packets)
    wait_none(broker)


def test_its_interface_goes(broker, holder, ctl):
    vm = holder()
    with Stream(broker, MEMBER, interface=vm.name) as stream:
        vm.send(vm.datagram(b"the last"))
        vm.close()
        found = stream.rest()
        assert any(b"the last" in packet.data for packet in found.packets) and found.statistics.keys() == {vm.name}
    vm = holder()
    process = ctl(vm.name, text=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: capture_pids(broker), 10, "the capture has begun")
    wait_for(lambda: len(os.listdir(f"/proc/{capture_pids(broker)[0]}/fd")) >= 6, 5, "it listens")
    vm.close()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0 and f"capture: {vm.name} has gone" in said
    wait_none(broker)


def test_its_network_goes(make_broker, holder):
    """Interfaces may come and go; the bridge is what counts, whoever removes it."""
    broker = make_broker(idle_timeout_s=1)
    vm = holder(on=broker)
    with Stream(broker, MEMBER, network="shared") as stream:
        vm.close()
        found = stream.rest()
        assert found.statistics.keys() == {vm.name} and not broker.links()
    first = holder(on=broker)
    with Stream(broker, MEMBER, network="shared") as stream:
        broker.namespace.ip("link", "delete", first.bridge)
        stream.rest()
    wait_none(broker)


def test_links_that_are_down_for_a_while(broker, holder):
    """Down is not gone: it goes on when they are up again."""
    vm = holder()
    with Stream(broker, MEMBER, network="shared") as network, Stream(broker, MEMBER, interface=vm.name) as interface:
        for link in (vm.bridge, vm.name):
            broker.namespace.ip("link", "set", link, "down")
        for link in (vm.name, vm.bridge):
            broker.namespace.ip("link", "set", link, "up")
        for stream in (network, interface):
            data = b""
            while b"again" not in data:
                vm.send(vm.datagram(b"again"))
                if readable([stream.socket], 0.1):
                    piece = stream.socket.recv(65536)
                    assert piece, "it ended"
                    data += piece
            assert stream.end(data).statistics.keys() == {vm.name}


def test_a_reader_that_does_not_read(broker, holder):
    """The kernel drops for it and counts; nobody else waits; it ends when it is told to, and when its reader goes."""
    vm = holder()
    with Stream(broker, MEMBER, interface=vm.name) as stalled:
        sent = 0
        frame = vm.datagram(b"y" * 1400)
        for _ in range(40_000):
            vm.send(frame)
            sent += 1
        with Stream(broker, MEMBER, interface=vm.name) as quick:
            vm.send(frame)
            assert quick.end().packets
        found = stalled.end()
        received, dropped = found.statistics[vm.name]
        assert received >= sent and dropped > 0 and len(found.packets) == received - dropped
    stalled = Stream(broker, MEMBER, interface=vm.name)
    for _ in range(20_000):
        vm.send(frame)
    stalled.connection.close()  # the broker ends it, though nobody reads
    wait_none(broker)
    stalled.close()
    stalled = Stream(broker, MEMBER, interface=vm.name)
    for _ in range(20_000):
        vm.send(frame)
    stalled.socket.close()
    wait_none(broker)
    stalled.close()


def queued_bytes_allowed(broker):
    """What the packet sockets of all captures may hold, as the kernel counts it."""
    listed = broker.namespace.run(["ss", "-0", "-m", "-n"]).stdout
    return [int(size) for size in re.findall(r",rb(\d+),", listed)]


def test_readers_that_do_not_read_keep_nobody_else_from_a_vm(broker, holder):
    """What waits for them is bounded: fds that the kernel counts as priv's, and its memory. And nothing of it is missing."""
    vm = holder()
    before = {vm.name}
    _, most = resource.prlimit(broker.priv_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(broker.priv_pid, resource.RLIMIT_NOFILE, (128, most))  # systemd gives it 1024, for thousands of VMs
    with contextlib.ExitStack() as stack:
        taps = []
        stack.callback(lambda: close_together(taps))
        stalled = [stack.enter_context(Stream(broker, MEMBER, network="shared")) for _ in range(PER_USER)]
        frame = vm.datagram(b"y" * 1400)
        for _ in range(10_000):
            vm.send(frame)
        with broker.connect(MEMBER) as peer:
            for _ in range(45):
                reply, fds = peer.call("CreateInterface", network="shared")
                taps += fds
                before.add(reply["interfaceName"])
        with broker.connect() as peer:
            taps += peer.call("CreateInterface", network="shared")[1]
        assert sum(queued_bytes_allowed(broker)) < PER_USER * (300 << 20)
        for stream in stalled:
            assert stream.end().statistics.keys() == before


def test_the_queues_of_those_that_come_and_go_are_as_large_as_ever(broker, holder):
    vm = holder()
    with Stream(broker, MEMBER, network="shared") as stream:
        wait_for(lambda: len(queued_bytes_allowed(broker)) == 2, 5, "network and interface")
        first = max(queued_bytes_allowed(broker))
        for _ in range(8):
            other = holder()
            other.close()
            wait_for(lambda: len(queued_bytes_allowed(broker)) == 2, 5, "the end of the other one")
        holder()
        wait_for(lambda: sorted(queued_bytes_allowed(broker))[1:] == [first] * 2, 5, "two large queues")
        assert vm.name in stream.end().statistics


@pytest.mark.parametrize("part", ["front", "priv"])
def test_a_restart_of_the_broker(broker, holder, ctl, path, part):
    """vmnetctl goes on with a new section; nothing of the old broker's stays."""
    vm = holder(hostname="web")
    process = ctl("shared", "-w", path, text=True)
    wait_for(lambda: path.exists() and path.stat().st_size > 100, 10, "the capture has begun")
    old = capture_pids(broker)
    assert len(old) == 1
    broker.kill(part)
    wait_for(lambda: not any(map(is_running, old)), 5, "the end of the old capture")
    if part == "priv":
        broker.start()
    wait_for(lambda: capture_pids(broker) or process.poll() is not None, 10, "the next capture")
    assert process.poll() is None, process.stderr.read()

    def has_packet():
        vm.send(vm.datagram(b"behind the restart"))
        return b"behind the restart" in path.read_bytes()

    wait_for(has_packet, 10, "packets again")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0 and "the broker has gone; what passes until it is back is missing" in said
    found = Capture.read(path.read_bytes())
    assert found.sections == 2 and [one["name"] for one in found.interfaces] == [vm.name] * 2
    assert len(tshark(path)) == len(found.packets)
    wait_none(broker)


def test_what_was_cut_off_is_not_in_the_file(broker, holder, ctl, path):
    """A broker that is killed while vmnetctl does not read: the process has written a part of a packet."""
    vm = holder()
    process = ctl("shared", "-w", path, text=True)
    wait_for(lambda: path.exists() and path.stat().st_size > 100, 10, "the capture has begun")
    stop_process(process.pid)
    frame = vm.datagram(b"z" * 30_000)
    for _ in range(1_000):
        vm.send(frame)
    broker.kill("priv")
    wait_none(broker)
    broker.start()
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: capture_pids(broker), 10, "the next capture")

    def has_packet():
        vm.send(vm.datagram(b"behind the restart"))
        return b"behind the restart" in path.read_bytes()

    wait_for(has_packet, 10, "packets again")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=10)
    found = Capture.read(path.read_bytes())
    assert process.returncode == 0 and found.sections == 2 and len(found.packets) > 100
    assert int(re.match(r"\d+", said)[0]) == len(found.packets)


def test_a_killed_vmnetctl_leaves_nothing(broker, holder, ctl):
    holder()
    process = ctl("shared", stdout=subprocess.DEVNULL)
    wait_for(lambda: capture_pids(broker), 10, "the capture has begun")
    process.kill()
    wait_none(broker)


@pytest.mark.parametrize("arguments, said", [
    ((), "capture: say which network or interface; vmnetctl networks and vmnetctl interfaces list them"),
    (("typo",), 'network "typo" does not exist; there are: host, shared'),
    (("host",), 'network "host" does not run: there is nothing to capture; start a VM on it first'),
    (("vmtap00000000",), 'there is no interface "vmtap00000000" of yours'),
    (("shared", "--snaplen", "63"), "bytes from 64 to 262144"),
    (("shared", "--count", "0"), "a number of packets from 1 to"),
    (("shared", "--duration", "0"), "seconds from 1 to"),
    (("shared", "-w", "/nowhere/x"), "capture: /nowhere/x could not be opened: No such file or directory"),
])
def test_what_it_cannot_do(broker, holder, ctl, arguments, said):
    holder()
    process = ctl(*arguments, text=True)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 1 and output == "" and said in errors
    wait_none(broker)


def test_a_terminal_is_no_place_for_packets(broker, holder, ctl):
    holder()
    master, slave = os.openpty()
    process = ctl("shared", stdout=slave, text=True)
    os.close(slave)
    _, errors = process.communicate(timeout=10)
    os.close(master)
    assert process.returncode == 1 and "vmnetctl capture ... | tcpdump -n -r -" in errors


def test_a_disk_that_is_full(broker, holder, ctl):
    holder()
    process = ctl("shared", "-w", "/dev/full", user=None, text=True)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1 and "could not be written to /dev/full: No space left on device" in errors
    wait_none(broker)


def test_without_root(make_rootless):
    """A user's own broker, nobody of which has root: the process of a capture is his, in his namespaces."""
    broker = make_rootless()
    broker.start()
    with broker.connect() as peer:
        reply, fds = peer.call("CreateInterface", network="shared", hostname="web")
        try:
            parameters, streams = peer.call("Capture", network="shared")
            assert parameters["interfaces"] == 1
            with socket.socket(fileno=streams[0]) as stream:
                stream.settimeout(15)
                frame = frames.ethernet(frames.BROADCAST, reply["mac"], 0x88B5, b"without root".ljust(60))
                os.write(fds[reply["queues"][0]], bytes(12) + frame)
                data = b""
                while b"without root" not in data:
                    data += stream.recv(65536)
                stream.shutdown(socket.SHUT_WR)
                found = read_stream(stream, data)
        finally:
            close_together(fds)
    assert found.interfaces[0]["comment"].startswith("web ")
    assert [packet.direction for packet in found.packets if b"without root" in packet.data] == [1]
    assert found.statistics.keys() == {reply["interfaceName"]}
