"""The helper's transports and offload modes, with real TCP and UDP through them: a namespace plays the VM."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import socket
import struct
import time

import pytest

from lib.broker import MEMBER
from lib.cable import Cable
from lib.frames import BROADCAST, ETHERTYPE_IPV4, ethernet, ipv4
from lib.lab import WORLD_ADDRESS, read_proc, stop_process, wait_for
from lib.simulated import HELPER_ARGUMENTS, SimulatedVm

KINDS = {"datagram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM}
CABLES = [(kind, mode) for kind in ("datagram", "stream") for mode in HELPER_ARGUMENTS] + [("vhost-user", "vnet-hdr")]
MTUS = (1280, 9000, 65520)  # the other tests have 1500
SIZE = 4 << 20
SO_SNDBUFFORCE, SO_TIMESTAMPNS = 32, 35


@pytest.fixture
def make_cable(bin_dir, show_on_failure):
    cables = []

    def make(broker, *arguments, programs=bin_dir, **options):
        made = Cable(broker, programs, arguments, **options)
        cables.append(made)
        show_on_failure(f"vmnet-helper {len(cables)}", made.log)
        return made

    yield make
    for made in cables:
        made.close()


@pytest.fixture
def make_vm(make_cable, bin_dir):
    """A simulated VM on a network; its helper logs its counters each second."""
    vms = []

    def make(broker, kind="datagram", mode="plain", network="shared", simulator_arguments=(), programs=bin_dir):
        arguments = ["--network", network, "--stats-interval", "1"]
        if kind == "vhost-user":
            options = {"path": broker.lab.public_directory(f"vu{len(vms)}", MEMBER) / "socket", "path_option": "--vhost-user"}
        else:
            arguments += HELPER_ARGUMENTS[mode]
            options = {"kind": KINDS[kind]}
        made = make_cable(broker, *arguments, programs=programs, **options)
        vms.append(SimulatedVm(made, programs, mode, simulator_arguments))
        return vms[-1]

    yield make
    for vm in vms:
        vm.close()


def receive_all(stream):
    """Until the other side has said that there is no more."""
    received = bytearray()
    while piece := stream.recv(1 << 18):
        received += piece
    return bytes(received)


def send_all(stream, data):
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)


def transfer(client, server, address, streams=1, size_back=SIZE):
    """Random bytes both ways at the same time over some connections, and whether all came as they went."""
    blobs = [(os.urandom(SIZE), os.urandom(size_back)) for _ in range(streams)]
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(4 * streams) as pool:
        listener = stack.enter_context(server.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((address, 0))
        listener.listen(streams)
        jobs = []
        for there, back in blobs:
            one = stack.enter_context(client.socket(socket.AF_INET, socket.SOCK_STREAM))
            one.settimeout(30)
            one.connect(listener.getsockname())
            other = stack.enter_context(listener.accept()[0])
            other.settimeout(30)
            pool.submit(send_all, one, there)
            pool.submit(send_all, other, back)
            jobs += [(there, pool.submit(receive_all, other)), (back, pool.submit(receive_all, one))]
        return all(sent == job.result() for sent, job in jobs)


@pytest.mark.parametrize(("kind", "mode"), CABLES)
def test_tcp_content_both_ways(broker, lab, make_vm, kind, mode):
    """Several streams at once, so that flows interleave, each compared byte for byte."""
    vm = make_vm(broker, kind, mode)
    assert transfer(vm.namespace, lab.internet, WORLD_ADDRESS, streams=3)


@pytest.mark.parametrize(("kind", "mode"), CABLES)
def test_udp_of_all_sizes(broker, lab, make_vm, kind, mode):
    """From the smallest to such as are fragmented."""
    vm = make_vm(broker, kind, mode)
    lab.internet.start_echo()
    with vm.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.settimeout(5)
        datagram.connect((WORLD_ADDRESS, 7))
        for size in (0, 1, 2, 17, 18, 1471, 1472, 1473, 5000, 30000):
            data = os.urandom(size)
            datagram.send(data)
            assert datagram.recv(65536).endswith(data)


@pytest.mark.parametrize(("kind", "mode"), CABLES)
def test_large_frames_are_joined_and_cut(broker, lab, make_vm, kind, mode):
    """Towards the host there are far fewer writes than frames, which shows in the TAP's own packet count."""
    vm = make_vm(broker, kind, mode)
    assert transfer(vm.namespace, lab.internet, WORLD_ADDRESS, size_back=0)
    tap = vm.cable.line["vmnet_interface_name"]
    packets = int(broker.namespace.run(["cat", f"/proc/{broker.process.pid}/net/dev"]).stdout.split(f"{tap}:")[1].split()[1])
    assert packets < SIZE / 1448 / 2, f"{packets} packets for {SIZE} bytes"


@pytest.mark.parametrize("mtu", MTUS)
@pytest.mark.parametrize(("kind", "mode"), CABLES)
def test_mtu(make_broker, make_vm, kind, mode, mtu):
    """The largest frame passes both ways without being fragmented, and TCP uses it."""
    broker = make_broker(networks={"jumbo": {"mode": "shared", "mtu": mtu}})
    vm = make_vm(broker, kind, mode, network="jumbo")
    assert vm.cable.line["vmnet_mtu"] == mtu
    gateway = vm.cable.gateway
    vm.namespace.run(["ping", "-c", "1", "-W", "3", "-M", "do", "-s", str(mtu - 28), gateway])
    assert transfer(vm.namespace, broker.namespace, gateway)


@pytest.mark.parametrize("kind", ["datagram", "stream"])
def test_tagged_frame_of_the_full_mtu(broker, make_cable, kind):
    """A VLAN tag is no part of the MTU, in either direction."""
    ends = []
    for _ in range(2):
        made = make_cable(broker, "--network", "host", kind=KINDS[kind])
        if kind == "stream":
            made.socket = Framed(made.socket)
        made.resolve(made.gateway)
        ends.append(made)
    body = struct.pack("!HH", 5, 0x88B5) + os.urandom(1500)
    ends[0].socket.send(ethernet(BROADCAST, ends[0].mac, 0x8100, body))
    assert ends[1].receive(lambda frame: frame.ethertype == 0x8100).payload == body


@pytest.mark.parametrize(("kind", "mode"), CABLES)
def test_two_vms_of_different_kinds(broker, make_vm, kind, mode):
    """Frames between two cables, each with what its VM can do."""
    one = make_vm(broker, kind, mode)
    other = make_vm(broker, "datagram" if kind == "stream" else "stream", "plain")
    assert transfer(one.namespace, other.namespace, other.cable.address)


@pytest.mark.parametrize(("kind", "mode"), CABLES)
def test_sandbox_allows_what_a_cable_needs(make_broker, release_bin_dir, make_vm, kind, mode):
    """Sanitizers need system calls of their own, so the helper filters them in other builds only."""
    broker = make_broker(programs=release_bin_dir)
    vm = make_vm(broker, kind, mode, programs=release_bin_dir)
    assert transfer(vm.namespace, broker.namespace, vm.cable.gateway)
    assert b"Seccomp:\t2" in read_proc(vm.cable.process.pid, "status")


# The stream's own


@pytest.fixture
def place(lab):
    """A directory that the helper's user can write to."""
    return lab.public_directory("sockets", MEMBER)


def connect_stream(path):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(5)
    stream.connect(str(path))
    return stream


class Framed:
    """A stream that looks like a datagram socket: each frame behind its length."""

    def __init__(self, stream):
        self.stream = stream
        self.settimeout = stream.settimeout
        self.close = stream.close
        self.fileno = stream.fileno

    def send(self, frame):
        self.stream.sendall(struct.pack("!I", len(frame)) + frame)

    def recv(self, _size):
        (length,) = struct.unpack("!I", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.stream.recv(size - len(data))
            assert piece, "the helper closed the stream"
            data += piece
        return data


def test_stream_path(broker, make_cable, place):
    """--stream PATH takes one client; the path stays, and a second one is refused."""
    path = place / "stream.sock"
    made = make_cable(broker, "--stream", str(path), path=path, path_option=None)
    assert oct(path.stat().st_mode)[-3:] == "600"
    made.socket = Framed(connect_stream(path))
    made.ping(made.gateway, via=made.gateway)
    with pytest.raises(ConnectionRefusedError):
        connect_stream(path)
    assert path.exists()
    made.socket.close()
    assert made.wait_end() == 0
    assert not path.exists()


def test_sigterm_while_waiting_for_a_stream_client(broker, make_cable, place):
    path = place / "stream.sock"
    made = make_cable(broker, "--stream", str(path), path=path, path_option=None)
    assert made.end() == 0
    assert not path.exists()


def test_stream_ends_with_its_vm(broker, make_cable):
    made = make_cable(broker, "--network", "shared", kind=socket.SOCK_STREAM)
    made.socket.close()
    assert made.wait_end() == 0


@pytest.mark.parametrize("length", [65551, 1 << 31, 0xFFFFFFFF])
def test_garbage_on_a_stream_ends_with_a_reason(broker, make_cable, length):
    made = make_cable(broker, "--network", "shared", kind=socket.SOCK_STREAM)
    made.socket.send(struct.pack("!I", length) + bytes(100))
    assert made.wait_end() == 1
    assert "length" in made.log()


def test_half_a_frame_holds_up_nothing(broker, make_cable):
    """The VM wrote half a frame and stopped: the other direction goes on."""
    made = make_cable(broker, "--network", "shared", kind=socket.SOCK_STREAM)
    framed = Framed(made.socket)
    made.socket = framed
    assert made.resolve(made.gateway)
    framed.stream.send(struct.pack("!I", 1000) + bytes(10))
    broker.namespace.run(["ping", "-c", "1", "-W", "1", made.address], check=False)
    assert made.receive(lambda frame: frame.destination_ip == made.address)


# Under load


@pytest.mark.parametrize(("kind", "mode"), [("datagram", "plain"), ("stream", "plain"), ("stream", "vnet-hdr")])
def test_vm_that_stops_reading(broker, lab, make_vm, kind, mode):
    """Eight streams each way while the VM does not read for a second at a time: the other direction stays alive, what
    does not fit is counted, and SIGTERM is obeyed at once."""
    vm = make_vm(broker, kind, mode, simulator_arguments=("--stall-every", "2", "--stall", "1"))
    lab.internet.start_iperf3()
    load = vm.namespace.popen(["iperf3", "-c", WORLD_ADDRESS, "--bidir", "-P", "8", "-t", "6"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        flooding = pool.submit(flood, broker.namespace, (vm.cable.address, 9), 5)
        delay = longest_delay(vm, broker, seconds=5)
        flooding.result()
    load.kill()
    load.wait(5)
    assert wait_for(lambda: vm.cable.stats()[-1]["host"]["drops"] > 0, 5, "counted drops")
    begun = time.monotonic()
    vm.cable.process.send_signal(signal.SIGTERM)
    assert vm.cable.process.wait(5) == 0
    assert time.monotonic() - begun < 0.8
    assert delay < 0.8, f"vm->host stood still for {delay:.3f} s"


def endless_cutting(source, destination):
    """A frame of 64 KiB behind a virtio-net header that asks for TCP segments of one byte."""
    header = struct.pack("<BBHHHHH", 1, 1, 54, 1, 34, 16, 1)
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 100, 0, 0)
    return header + ethernet(destination, source, ETHERTYPE_IPV4, ipv4("10.0.0.1", "10.0.0.2", 6, tcp + bytes(65000)))


def packets_from(cable):
    """How many frames its TAP has taken."""
    devices = read_proc(cable.process.pid, "net/dev").decode()
    return int(devices.split(f"{cable.line['vmnet_interface_name']}:")[1].split()[1])


def test_sigterm_while_the_kernel_cuts(broker, make_cable):
    """For an interface without offloads it does so within the write to the TAP, and a batch may have many such frames."""
    with broker.connect(MEMBER) as peer:
        native, fds = peer.call("CreateInterface", network="host")
    made = make_cable(broker, "--network", "host", "--vnet-hdr")
    made.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 32 << 20)
    stop_process(made.process.pid)
    frame = endless_cutting(made.mac, native["mac"])
    # More than ten seconds of cutting.
    for _ in range(200):
        made.socket.send(frame)
    before = packets_from(made)
    made.process.send_signal(signal.SIGCONT)
    wait_for(lambda: packets_from(made) > before, 5, "the first frame of many")
    begun = time.monotonic()
    assert made.end() == 0
    took = time.monotonic() - begun
    for fd in fds:
        os.close(fd)
    assert took < 2, f"{took:.3f} s"


def longest_delay(vm, broker, seconds):
    """Sends a UDP datagram each millisecond from the VM to the host; the longest that one was on its way, in s.

    The kernel says when each came: this process may itself wait for a CPU."""
    longest = 0.0
    with broker.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        receiver.bind((vm.cable.gateway, 9))
        receiver.settimeout(0.01)
        count = 0
        with concurrent.futures.ThreadPoolExecutor() as pool:
            sending = pool.submit(send_times, vm.namespace, receiver.getsockname(), seconds)
            while not sending.done():
                with contextlib.suppress(TimeoutError):
                    data, ancillary, *_ = receiver.recvmsg(64, 64)
                    came_s, came_ns = struct.unpack("qq", ancillary[0][2])
                    longest = max(longest, came_s + came_ns / 1e9 - struct.unpack("d", data)[0])
                    count += 1
            sending.result()
    assert count > 100 * seconds, f"{count} datagrams came"
    return longest


def send_times(namespace, address, seconds):
    end = time.monotonic() + seconds
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while time.monotonic() < end:
            sender.sendto(struct.pack("d", time.time()), address)
            time.sleep(0.001)


def flood(namespace, address, seconds):
    end = time.monotonic() + seconds
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while time.monotonic() < end:
            sender.sendto(bytes(1400), address)


def context_switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        for line in read_proc(pid, f"task/{task}/status").decode().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


@pytest.mark.parametrize("kind", ["datagram", "stream"])
def test_idle_helper_sleeps(broker, make_cable, kind):
    """Nothing comes, so nothing wakes: no timer, no polling."""
    made = make_cable(broker, "--network", "host", kind=KINDS[kind])

    def is_quiet_for(seconds):
        before = context_switches(made.process.pid)
        time.sleep(seconds)
        return context_switches(made.process.pid) == before

    # The bridge port's own start (IGMP and neighbour discovery of the host) comes first.
    assert wait_for(lambda: is_quiet_for(2), 30, "two quiet seconds")
