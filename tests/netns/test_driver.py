"""A tool for VMs that was written for the original vmnet-helper, unchanged: docs/vm-tools.md tells what it relies on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest

from lib import frames, minikube_driver
from lib.broker import MEMBER
from lib.dhcp import discover
from lib.frames import ARP_REPLY, ICMP_ECHO_REPLY, arp_request, ethernet, icmp_echo, parse
from lib.lab import wait_for

GATEWAY = "192.168.64.1"


class Machine:
    """One of its VMs: the driver's directory, and a VM program that connects to the socket there."""

    def __init__(self, broker, bin_dir, name):
        self.broker = broker
        self.directory = broker.lab.public_directory(name, MEMBER)
        self.script = broker.lab.directory / "minikube_driver.py"
        shutil.copy(minikube_driver.__file__, self.script)
        self.helper = bin_dir / "vmnet-helper"
        self.socket = None
        self.mac = None

    def driver(self, *words, check=True):
        """One run of the tool; nothing of it stays but the helper."""
        result = self.broker.namespace.run(
            ["/usr/bin/python3", self.script, self.helper, self.directory, *words],
            user=MEMBER, check=check, env={"VMNET_BROKER_SOCKET": str(self.broker.socket_path)},
        )  # fmt: skip
        return result.stdout.strip() if check else result

    def start(self, *options):
        self.mac, start, end, mask = self.driver("start", *options).split()
        return start, end, mask

    @property
    def pid(self):
        return int((self.directory / "vmnet-helper.pid").read_text())

    def boot(self, first=b"VFKT"):
        """The VM program: vfkit sends its magic first, krunkit nothing."""
        path = self.directory / "vm.sock"
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(str(path))
        os.chmod(path, 0o777)
        self.socket.connect(str(self.directory / "vmnet-helper.sock"))
        if first:
            self.socket.send(first)

    def receive(self, wanted):
        while True:
            frame = parse(self.socket.recv(70000))
            if wanted(frame):
                return frame

    def lease(self):
        """The address that DHCP gives it."""
        self.socket.send(discover(self.mac))
        answer = self.receive(lambda frame: frame.destination_port == 68)
        return socket.inet_ntoa(answer.payload[16:20])

    def ping(self, address):
        self.socket.send(arp_request(self.mac, address, GATEWAY))
        gateway = self.receive(lambda frame: frame.arp_operation == ARP_REPLY and frame.source_ip == GATEWAY)
        echo = icmp_echo(address, GATEWAY, 7, 1)
        self.socket.send(ethernet(gateway.arp_source_mac, self.mac, frames.ETHERTYPE_IPV4, echo))
        self.receive(lambda frame: frame.icmp_type == ICMP_ECHO_REPLY and frame.source_ip == GATEWAY)

    def close(self):
        if self.socket:
            self.socket.close()


@pytest.fixture
def machine(broker, bin_dir):
    """machine(name): one of the tool's VMs."""
    machines = []

    def make(name="minikube"):
        machines.append(Machine(broker, bin_dir, name))
        return machines[-1]

    yield make
    for made in machines:
        made.driver("kill")
        made.close()


def interfaces(broker):
    return [link["ifname"] for link in broker.links() if link["ifname"].startswith("vmtap")]


def test_version(machine):
    assert machine().driver("version")


@pytest.mark.parametrize("options", [(), ("--offloading",)])
@pytest.mark.parametrize("first", [b"VFKT", None])
def test_life_of_a_machine(broker, machine, options, first):
    made = machine()
    assert made.driver("state") == "Stopped"
    assert made.start(*options) == (GATEWAY, "192.168.64.254", "255.255.255.0")
    assert made.driver("state") == "Running"
    assert oct((made.directory / "vmnet-helper.sock").stat().st_mode & 0o777) == "0o600"
    made.boot(first)
    made.ping(made.lease())
    assert len(interfaces(broker)) == 1
    made.driver("stop")
    wait_for(lambda: made.driver("state") == "Stopped", 5, "the helper's end")
    assert not (made.directory / "vmnet-helper.sock").exists()
    wait_for(lambda: not interfaces(broker), 3, "the interface's end")
    assert "ERROR" not in (made.directory / "vmnet-helper.log").read_text()


@pytest.mark.parametrize("death", ["stop", "kill", "crash"])
def test_the_same_machine_comes_back(broker, machine, death):
    """The same interface id: the same MAC and address, however it ended before, and others in between."""
    made, other = machine(), machine("other")
    made.start()
    made.boot()
    before = made.mac, made.lease()
    if death == "crash":
        os.kill(made.pid, signal.SIGSEGV)
    else:
        made.driver(death)
    wait_for(lambda: made.driver("state") == "Stopped", 10, "the helper's end")
    wait_for(lambda: not interfaces(broker), 3, "the interface's end")
    other.start()
    other.boot()
    assert other.lease() != before[1]
    made.close()
    made.start()
    made.boot()
    assert (made.mac, made.lease()) == before
    made.ping(before[1])


def test_a_machine_outlives_the_broker(broker, machine):
    made = machine()
    made.start()
    made.boot()
    address = made.lease()
    for part in ("front", "priv"):
        broker.kill(part)
        made.ping(address)
        assert made.driver("state") == "Running"
        if part == "priv":
            broker.start()
    wait_for(broker.dnsmasq_pids, 10, "DHCP is back")
    made.socket.settimeout(0.5)

    def gets_it_again():
        with contextlib.suppress(TimeoutError):
            return made.lease() == address
        return False

    wait_for(gets_it_again, 10, "the same lease")


# In the place of a VM program: sends a frame, and stays.
VM_PROGRAM = """
import socket, sys, time
own, helper = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(own)
s.connect(helper)
s.send(b"VFKT")
s.send(bytes.fromhex("ffffffffffff 525400aabb01 88b5") + bytes(46))
print("sent", flush=True)
time.sleep(1000)
"""


def test_a_helper_ends_with_its_vm_program(broker, machine):
    """minikube does not tell it; the original waits for ever."""
    made = machine()
    made.start()
    program = broker.namespace.popen(
        ["/usr/bin/python3", "-c", VM_PROGRAM, made.directory / "vm.sock", made.directory / "vmnet-helper.sock"],
        user=MEMBER, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout.readline() == "sent\n"
    (interface,) = interfaces(broker)
    # Before, it would not know who sends.
    wait_for(lambda: received_bytes(broker, interface) > 0, 5, "its frame is on the network")
    program.kill()
    wait_for(lambda: made.driver("state") == "Stopped", 10, "the helper's end")
    wait_for(lambda: not interfaces(broker), 3, "the interface's end")


def received_bytes(broker, interface):
    shown = json.loads(broker.namespace.ip("-json", "-statistics", "link", "show", interface))
    return shown[0]["stats64"]["rx"]["bytes"]


def test_a_machine_that_cannot_start(broker, machine):
    """No line, the pipe's end, a reason in the log that a person can act on, and nothing left."""
    made = machine()
    blocker = made.directory / "vmnet-helper.sock.lock"
    blocker.mkdir()
    result = made.driver("start", check=False)
    assert result.returncode == 1 and result.stdout == ""
    assert "EOF" in result.stderr and "ERROR" in result.stderr and str(blocker) in result.stderr
    assert made.driver("state") == "Stopped"
    blocker.rmdir()
    made.start()
    made.boot()
    made.ping(made.lease())


def test_one_machine_twice(broker, machine):
    """A second helper for a path that is in use is refused; the first goes on."""
    made = machine()
    made.start()
    made.boot()
    address = made.lease()
    first = made.pid
    result = made.driver("start", check=False)
    assert result.returncode == 1 and "ERROR" in result.stderr
    (made.directory / "vmnet-helper.pid").write_text(str(first))
    assert made.driver("state") == "Running"
    made.ping(address)
