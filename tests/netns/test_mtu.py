"""One MTU a network, the same wherever it is told; and what large ones do on the way out to a world of small ones.

A VM here is a namespace with a TAP of its own, and a thread that carries frames between that and the broker's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import frames
from lib.broker import MEMBER, Broker, Varlink, VarlinkError
from lib.lab import UPLINK, WORLD_ADDRESS, Lab, Namespace, is_running, wait_for
from lib.readiness import readable

MTUS = [1280, 1500, 9000, 65520]
VNET_HDR = 12  # bytes in front of a frame of the broker's TAP
OPTION_MTU = 26  # RFC 2132 5.1
MEGABYTE = 1 << 20
IP_MTU_DISCOVER, IP_PMTUDISC_WANT, IP_PMTUDISC_DO = 10, 1, 2  # linux/in.h

# Sends or receives this many bytes over TCP, and says what it got and the largest segment that was used.
TRANSFER = """
import socket, struct, sys
verb, address, port, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if verb == "serve":
    listener = socket.create_server((address, port))
    print("ready", flush=True)
    peer = listener.accept()[0]
else:
    peer = socket.create_connection((address, port), timeout=10)
peer.settimeout(10)
verb = sys.argv[5]
done = 0
if verb == "send":
    peer.sendall(bytes(size))
    peer.shutdown(socket.SHUT_WR)
    peer.recv(1)
    done = size
else:
    while got := len(peer.recv(1 << 16)):
        done += got
print(done, peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
"""


class Vm:
    """A namespace that is attached to a network as a VM would be."""

    def __init__(self, lab: Lab, peer: Varlink, network: str, name: str) -> None:
        self.reply, fds = peer.call("CreateInterface", network=network, hostname=name)
        self.tap = fds[self.reply["queues"][0]]
        self.address = self.reply["address"]
        self.network = self.reply["network"]
        self.namespace = lab.namespace(name)
        self._own = self.namespace.open_tap("eth0", vnet_hdr=False)
        self._stop, self._stopper = os.pipe()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Sets it up as DHCP would, and lets frames through."""
        ip, prefix = self.namespace.ip, self.network["subnet"].partition("/")[2]
        ip("link", "set", "eth0", "address", self.reply["mac"], "mtu", str(self.network["mtu"]))
        ip("address", "add", f"{self.address}/{prefix}", "dev", "eth0")
        ip("route", "add", "default", "via", self.network["gateway"])
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        os.set_blocking(self._own, False)
        while self._stop not in (ready := readable([self.tap, self._own, self._stop])):
            with contextlib.suppress(BlockingIOError):
                while self.tap in ready:
                    os.write(self._own, os.read(self.tap, 1 << 17)[VNET_HDR:])
            with contextlib.suppress(BlockingIOError):
                while self._own in ready:
                    os.write(self.tap, bytes(VNET_HDR) + os.read(self._own, 1 << 17))

    def close(self) -> None:
        os.close(self._stopper)
        if self._thread:
            self._thread.join(5)
        for fd in (self.tap, self._own, self._stop):
            os.close(fd)


@contextlib.contextmanager
def vm_on(lab: Lab, broker: Broker, network: str, name: str = "vm") -> Iterator[Vm]:
    with broker.connect(MEMBER) as peer:
        vm = Vm(lab, peer, network, name)
        try:
            vm.start()
            yield vm
        finally:
            vm.close()


def transfer(
    listener: Namespace, address: str, caller: Namespace, to_listener: bool, port: int, size: int = MEGABYTE
) -> int:
    """Moves size bytes over TCP, to whoever listens or from it: the segment size at the end, in bytes."""
    verbs = ("receive", "send") if to_listener else ("send", "receive")
    argv = ["/usr/bin/python3", "-c", TRANSFER]
    arguments = [address, str(port), str(size)]
    server = listener.popen([*argv, "serve", *arguments, verbs[0]], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    client = caller.run([*argv, "call", *arguments, verbs[1]])
    server_says = server.stdout.readline().split()
    assert server.wait(10) == 0
    done, segment = map(int, (server_says if verbs[0] == "send" else client.stdout.split()))
    received = int((server_says if verbs[0] == "receive" else client.stdout.split())[0])
    assert done == received == size
    return segment


def told_by_dhcp(vm: Vm) -> int:
    """The MTU in dnsmasq's offer, asked for over the broker's TAP itself."""
    mac = frames.mac_bytes(vm.reply["mac"])
    fixed = struct.pack("!BBBBIHH16x6s10x192xI", 1, 1, 6, 0, 0x1234, 0, 0x8000, mac, 0x63825363)
    packet = frames.udp("0.0.0.0", 68, "255.255.255.255", 67, fixed + bytes([53, 1, 1, 255]))
    discover = bytes(VNET_HDR) + frames.ethernet(frames.BROADCAST, vm.reply["mac"], frames.ETHERTYPE_IPV4, packet)

    def offer() -> bytes | None:
        os.write(vm.tap, discover)
        while readable([vm.tap], 1):
            frame = frames.parse(os.read(vm.tap, 1 << 17)[VNET_HDR:])
            if frame.destination_port == 68 and frame.payload[28:34] == mac:
                return frame.payload[240:]
        return None

    options = wait_for(offer, 10, "an offer")
    while options[0] != OPTION_MTU:
        assert options[0] != 255, "no option 26"
        options = options[2 + options[1] :]
    assert options[1] == 2
    return struct.unpack("!H", options[2:4])[0]


def told_by_client(broker: Broker, bin_dir: Path, network: str) -> list[int]:
    """The JSON line of a native interface (MTU, and the largest frame without its header) and the environment."""
    argv = [bin_dir / "vmnet-client", "--network", network, "--attach", "native", "--", "sh", "-c", "echo $VMNET_MTU"]
    env = {"VMNET_BROKER_SOCKET": str(broker.socket_path)}
    line, variable = broker.namespace.run(argv, user=MEMBER, env=env).stdout.splitlines()
    return [json.loads(line)["vmnet_mtu"], json.loads(line)["vmnet_max_packet_size"] - 14, int(variable)]


def listed(peer: Varlink, network: str) -> int:
    networks = peer.call("ListNetworks")[0]["networks"]
    return next(entry["mtu"] for entry in networks if entry["name"] == network)


def assert_agreed(broker: Broker, lab: Lab, bin_dir: Path, peer: Varlink, mtu: int, name: str) -> Vm:
    """Whoever tells the MTU of network "net" tells this one. The VM, which is not started, is the caller's."""
    vm = Vm(lab, peer, "net", name)
    links = {link["ifname"]: link["mtu"] for link in broker.links()}
    assert links[vm.network["bridge"]] == links[vm.reply["interfaceName"]] == mtu
    assert vm.network["mtu"] == listed(peer, "net") == mtu
    assert peer.call("AcquireNetwork", network="net")[0]["network"]["mtu"] == mtu
    assert told_by_dhcp(vm) == mtu
    assert told_by_client(broker, bin_dir, "net") == [mtu] * 3
    return vm


@pytest.mark.parametrize("mtu", MTUS)
@pytest.mark.parametrize("mode", ["shared", "host"])
def test_everybody_is_told_the_same(make_broker, lab, bin_dir, mode, mtu):
    broker = make_broker(networks={"net": {"mode": mode, "mtu": mtu}})
    with broker.connect(MEMBER) as peer:
        assert listed(peer, "net") == mtu, "before it runs, too"
        assert listed(peer, "shared") == listed(peer, "host") == 1500
        assert_agreed(broker, lab, bin_dir, peer, mtu, "vm").close()
        # The bridge keeps it when its last port has gone.
        wait_for(lambda: len(broker.links()) == 1, 5, "only the bridge is left")
        assert broker.links()[0]["mtu"] == mtu
        assert_agreed(broker, lab, bin_dir, peer, mtu, "again").close()


def restart(broker: Broker, end: str) -> None:
    front = broker.front_pid
    if end == "front killed":
        broker.kill("front")  # priv starts another
        return
    if end == "terminated":
        assert broker.terminate() == 0
    else:
        broker.kill("priv")
    wait_for(lambda: not is_running(front), 5, "the front ends with priv")
    broker.start()


@pytest.mark.parametrize("end", ["terminated", "priv killed", "front killed"])
@pytest.mark.parametrize("mtu", [1280, 9000, 65520])
def test_a_running_network_keeps_its_mtu(make_broker, lab, bin_dir, mtu, end):
    """Its VMs have it; what the configuration says now comes with the next bridge."""
    broker = make_broker(networks={"net": {"mode": "shared", "mtu": mtu}}, idle_timeout_s=1)
    with broker.connect(MEMBER) as peer:
        old = Vm(lab, peer, "net", "old")
    broker.write_config({"net": {"mode": "shared", "mtu": 4000}})
    restart(broker, end)
    with broker.connect(MEMBER) as peer:
        assert_agreed(broker, lab, bin_dir, peer, mtu, "new").close()
    assert told_by_dhcp(old) == mtu
    assert "goes on with what it was made with; configured otherwise, and so when it is next made: mtu" in broker.log()
    old.close()
    wait_for(lambda: not broker.links(), 10, "the network is gone")
    with broker.connect(MEMBER) as peer:
        assert_agreed(broker, lab, bin_dir, peer, 4000, "next").close()


@pytest.mark.parametrize("mtu", [1279, 65521, -1, "1500", 1500.5])
def test_an_impossible_mtu_takes_its_network_out(make_broker, mtu):
    broker = make_broker(networks={"bad": {"mode": "host", "mtu": mtu}, "good": {"mode": "host", "mtu": 9000}})
    with broker.connect(MEMBER) as peer:
        with pytest.raises(VarlinkError) as caught:
            peer.call("AcquireNetwork", network="bad")
        assert caught.value.name == "CreateFailure"
        reason = f"networks.json: bad.mtu: {json.dumps(mtu)}: a number of bytes from 1280 to 65520"
        assert reason in caught.value.parameters["reason"] and reason in broker.log()
        assert peer.call("AcquireNetwork", network="good")[0]["network"]["mtu"] == 9000


def pings(namespace: Namespace, address: str, size: int, fragment: bool = False) -> bool:
    """Whether an IPv4 packet of size bytes gets there and back, in one piece unless it may be in several."""
    how = "dont" if fragment else "do"
    argv = ["ping", "-c", "1", "-W", "5", "-M", how, "-s", str(size - 28), address]
    return namespace.run(argv, check=False).returncode == 0


@pytest.mark.parametrize("mode", ["shared", "host"])
@pytest.mark.parametrize("mtu", MTUS)
def test_full_frames_pass_whole(make_broker, lab, mtu, mode):
    broker = make_broker(networks={"net": {"mode": mode, "mtu": mtu}})
    with vm_on(lab, broker, "net", "one") as one, vm_on(lab, broker, "net", "two") as two:
        for sender, address in (
            (one.namespace, two.address),
            (one.namespace, one.network["gateway"]),
            (lab.host, two.address),
        ):
            assert pings(sender, address, mtu)
            assert not pings(sender, address, mtu + 1)
        # TCP makes no segment larger than half of what its peer has ever had room for.
        least = min(mtu - 60, 16384)
        assert transfer(two.namespace, two.address, one.namespace, True, 5001) > least
        assert transfer(lab.host, one.network["gateway"], one.namespace, True, 5002) > least
        assert transfer(lab.host, one.network["gateway"], one.namespace, False, 5003) > least


def path_mtu(namespace: Namespace) -> int | None:
    """What was learnt of the way to the world; None: nothing."""
    words = namespace.ip("route", "get", WORLD_ADDRESS).split()
    return int(words[words.index("mtu") + 1]) if "mtu" in words else None


@pytest.mark.parametrize("mtu", [9000, 65520])
def test_a_large_mtu_finds_its_way_to_a_world_of_small_ones(make_broker, lab, mtu):
    """UDP and the like: the host says what fits, or cuts what may be cut."""
    broker = make_broker(networks={"net": {"mode": "shared", "mtu": mtu}})
    lab.internet.start_echo()
    with vm_on(lab, broker, "net") as vm:
        assert pings(vm.namespace, WORLD_ADDRESS, 1500) and path_mtu(vm.namespace) is None
        assert pings(vm.namespace, WORLD_ADDRESS, mtu, fragment=True), "cut, as it may be"
        with vm.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(5)
            sender.connect((WORLD_ADDRESS, 7))
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            sender.send(bytes(mtu - 28))
            wait_for(lambda: path_mtu(vm.namespace) == 1500, 5, "the VM is told of 1500")
            sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_WANT)
            with contextlib.suppress(OSError):  # the news, once
                sender.recv(1)
            sender.send(bytes(mtu - 1000))
            assert sender.recv(1 << 16).endswith(bytes(mtu - 1000))


def narrow_the_uplink(lab: Lab, mtu: int) -> None:
    """As with PPPoE or a VPN: frames of more are lost on their way in, and nobody tells the sender.

    veth lets what is not segmented yet pass whatever its MTU, so the sender must segment.
    """
    lab.internet.run(["ethtool", "-K", "in0", "tso", "off", "gso", "off", "gro", "off"])
    lab.host.run(["ethtool", "-K", UPLINK, "tso", "off", "gso", "off", "gro", "off"])
    lab.host.ip("link", "set", UPLINK, "mtu", str(mtu))


@pytest.mark.parametrize("mtu", [1500, 65520])
@pytest.mark.parametrize("outward", [True, False], ids=["out", "in"])
def test_tcp_passes_a_narrow_uplink(make_broker, lab, mtu, outward):
    """What the host itself reaches, its VMs reach: they can't know of the uplink's MTU, so their SYNs are told it."""
    broker = make_broker(networks={"net": {"mode": "shared", "mtu": mtu}})
    narrow_the_uplink(lab, 1400)
    with vm_on(lab, broker, "net") as vm:
        assert transfer(lab.internet, WORLD_ADDRESS, vm.namespace, outward, 5001) <= 1360
        assert path_mtu(vm.namespace) is None, "nothing had to be sent again"
