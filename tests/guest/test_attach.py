"""Every way to attach, with real guests: what comes through must be what was sent, whoever the two ends are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading

import pytest

from lib import qemukit
from lib.broker import MEMBER
from lib.lab import WORLD_ADDRESS, wait_for
from lib.vm import ATTACH

KINDS = ("socket", "stream", "vhost-user", "native", "native with 2 queues")
DATA_SIZE = 4 << 20
# The guest's: not from /dev/urandom, for which the kernel first collects entropy, once for longer than a minute.
MAKE_DATA = f"seq 1 1000000 | head -c {DATA_SIZE} >/run/data; stat -c %s /run/data; sha256sum </run/data"
PORT = 4000
ICMP_AND_IP_HEADER = 28


@pytest.fixture
def start_vm(make_vm):
    """start_vm(broker, name, kind, **options): a VM that has the address which was reserved for it."""

    def start(broker, name, kind, **options):
        vm = make_vm(broker, name, kind, **options)
        vm.guest.wait_ready()
        assert vm.guest.address() == vm.address
        return vm

    return start


class Peer:
    """A TCP server in a namespace: sends data to who connects, or receives until the other one has ended."""

    def __init__(self, namespace, address, data=b""):
        self._listener = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.settimeout(60)
        self._listener.bind((address, 0))
        self._listener.listen(1)
        self.port = self._listener.getsockname()[1]
        self.received = b""
        self._thread = threading.Thread(target=self._serve, args=(data,))
        self._thread.start()

    def _serve(self, data):
        with contextlib.suppress(OSError), self._listener, self._listener.accept()[0] as stream:
            stream.settimeout(60)
            if data:
                stream.sendall(data)
                return
            while chunk := stream.recv(1 << 20):
                self.received += chunk

    def join(self):
        self._thread.join(60)
        assert not self._thread.is_alive()


def first_word(text):
    return text.split()[0]


def make_data(vm):
    """In its guest's /run/data; returns the checksum."""
    size, checksum, _ = vm.guest.check(MAKE_DATA, 60).split()
    assert int(size) == DATA_SIZE
    return checksum


def download(vm, namespace, address):
    """The world's data arrive in the guest as they are."""
    data = os.urandom(DATA_SIZE)
    peer = Peer(namespace, address, data)
    received = vm.guest.check(f"nc {address} {peer.port} </dev/null | sha256sum", 60)
    peer.join()
    assert first_word(received) == hashlib.sha256(data).hexdigest()


def upload(vm, namespace, address):
    """And the guest's data in the world."""
    peer = Peer(namespace, address)
    sent = make_data(vm)
    vm.guest.check(f"nc {address} {peer.port} </run/data", 60)
    peer.join()
    assert len(peer.received) == DATA_SIZE
    assert sent == hashlib.sha256(peer.received).hexdigest()


def send_to(receiver, sender):
    """From guest to guest."""
    # An nc whose own input ends says so to the other one, which then goes before it has sent everything.
    receive = f"exec 3<>/run/silence; nc -l -p {PORT} <&3 >/run/new; mv /run/new /run/received"
    receiver.guest.check(f"mkfifo /run/silence; ({receive}) >/dev/null 2>&1 & true")
    listening = f"grep -qi ':{PORT:04x} 0*:0000 0A ' /proc/net/tcp /proc/net/tcp6"
    receiver.guest.check(f"until {listening}; do usleep 20000; done", 10)
    sent = make_data(sender)
    sender.guest.check(f"nc {receiver.address} {PORT} </run/data", 60)
    receiver.guest.check("until [ -e /run/received ]; do usleep 20000; done", 60)
    assert int(receiver.guest.check("stat -c %s /run/received")) == DATA_SIZE
    assert first_word(receiver.guest.check("sha256sum /run/received; rm /run/received")) == sent


def gateway(vm):
    # As the original has it: the address of the host with its subnet's name.
    return vm.line["net_ipv4_subnet"]


@pytest.mark.parametrize("kind", [*KINDS, "tap"])
def test_address_and_data(broker, start_vm, lab, kind):
    vm = start_vm(broker, "alpha", kind)
    assert vm.mac in vm.guest.check("ip link show eth0")
    assert ("helper" in vm.pids()) == (not kind.startswith("native") and kind != "tap")
    vm.guest.check(f"ping -c 3 -i 0.2 -W 5 {gateway(vm)}")
    lab.host.run(["ping", "-c", "1", "-W", "5", vm.address])
    download(vm, lab.internet, WORLD_ADDRESS)
    upload(vm, lab.internet, WORLD_ADDRESS)
    upload(vm, lab.host, gateway(vm))
    download(vm, lab.host, gateway(vm))
    assert "dropped" not in broker.log()


@pytest.mark.parametrize(
    ("one", "other"), [("stream", "vhost-user"), ("socket", "native with 2 queues"), ("vhost-user", "native")]
)
def test_kinds_reach_each_other(broker, start_vm, one, other):
    alpha, beta = start_vm(broker, "alpha", one), start_vm(broker, "beta", other)
    for sender, receiver in ((alpha, beta), (beta, alpha)):
        sender.guest.check(f"ping -c 3 -i 0.2 -W 5 {receiver.name}")
        send_to(receiver, sender)


@pytest.mark.parametrize("mtu", [9000, 65520])
@pytest.mark.parametrize("kind", KINDS)
def test_jumbo_frames(make_broker, start_vm, lab, kind, mtu):
    broker = make_broker(networks={"jumbo": {"mode": "shared", "mtu": mtu}})
    vm = start_vm(broker, "alpha", kind, network="jumbo")
    assert vm.line["vmnet_mtu"] == mtu
    wait_for(lambda: f"mtu {mtu} " in vm.guest.check("ip link show eth0"), 5, "the guest's MTU")
    # iputils' ping: a shell of busybox prefers its own, which can't forbid fragments.
    largest = ("/usr/bin/ping", "-M", "do", "-s", str(mtu - ICMP_AND_IP_HEADER), "-c", "3", "-i", "0.2", "-W", "5")
    vm.guest.check(f"{' '.join(largest)} {gateway(vm)}")
    lab.host.run([*largest, vm.address])
    upload(vm, lab.host, gateway(vm))
    download(vm, lab.host, gateway(vm))


def test_mtu_is_known_without_dhcp(make_broker, make_vm):
    """By the device itself."""
    broker = make_broker(networks={"jumbo": {"mode": "host", "mtu": 9000}})
    for name, kind in (("alpha", "native"), ("beta", "stream"), ("gamma", "vhost-user")):
        vm = make_vm(broker, name, kind, network="jumbo", dhcp=False)
        vm.guest.wait_ready()
        wait_for(lambda: "mtu 9000 " in vm.guest.check("ip link show eth0"), 5, f"the MTU of {kind}")


@pytest.mark.parametrize(("options", "with_helper"), [((), False), (("--stats-interval", "60"), True)])
def test_kind_that_qemu_gets_by_default(broker, start_vm, options, with_helper):
    vm = start_vm(broker, "alpha", "of QEMU's own", options=options)
    assert ("helper" in vm.pids()) == with_helper
    netdev = "stream,id=vmnet0" if with_helper else "tap,id=vmnet0"
    assert any(netdev in word for word in vm.command_line("qemu"))
    vm.guest.check(f"ping -c 1 -W 5 {gateway(vm)}")


# -S: the guest itself never runs, so that 7.2 can do it with vhost-user as well.
ASK_MONITOR = 'printf "info network\\ninfo memdev\\nquit\\n" | "$@" -S -nodefaults -display none -monitor stdio'


@pytest.mark.parametrize("which", ["installed", "new"])
@pytest.mark.parametrize("kind", [*KINDS, "tap"])
@pytest.mark.parametrize("mtu", [1500, 65520])
def test_every_qemu_takes_the_options(make_broker, bin_dir, new_qemu, kind, which, mtu):
    emulator = {"installed": qemukit.INSTALLED, "new": new_qemu}[which]
    broker = make_broker(networks={"wide": {"mode": "host", "mtu": mtu}})
    result = broker.namespace.run(
        [bin_dir / "vmnet-client", "--qemu", "--network", "wide", *ATTACH[kind], "--"]
        + ["sh", "-c", ASK_MONITOR, "sh", *emulator.command, "-machine", "q35,accel=tcg", "-m", "size=96"],
        user=MEMBER, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "qemu" not in result.stderr, "no warning"
    assert "vmnet0: index=0" in result.stdout
    assert ("vmnet0: index=1" in result.stdout) == ("2 queues" in kind)
    assert ("share: true" in result.stdout) == (kind == "vhost-user")
    if kind == "vhost-user":
        assert f"size:  {96 << 20}\n" in result.stdout.replace("\r", "")
