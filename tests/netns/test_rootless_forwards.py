"""Forwards of an ordinary user's own broker: by its forwarder, as root of nothing."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.lab import UPLINK_ADDRESS, UPLINK_ADDRESS6, all_pids, process_name, process_uid, wait_for
from lib.simulated import SimulatedVm

PORT = 80


@pytest.fixture
def own(make_broker):
    return make_broker(user=MEMBER, group=None, front_user=None, arguments=["--rootless"])


@pytest.fixture
def boot(own, bin_dir, show_on_failure):
    """boot(hostname): within the context there is such a VM, with an echo server on port 80."""

    @contextlib.contextmanager
    def booted(hostname):
        cable = Cable(own, bin_dir, ["--network", "shared", "--hostname", hostname])
        show_on_failure(f"helper of {hostname}", cable.log)
        vm = SimulatedVm(cable, bin_dir)
        vm.namespace.start_echo(cable.address, PORT)
        yield vm
        cable.process.kill()
        cable.process.wait(5)
        vm.close()

    return booted


@pytest.fixture
def vm(boot):
    with boot("web") as vm:
        yield vm


@pytest.fixture
def peer(own):
    """A connection of MEMBER's, which holds forwards."""
    with own.connect(MEMBER) as peer:
        yield peer


def forward(peer, listen, target="web:80", **options):
    return peer.call("Forward", network="shared", listen=listen, target=target, **options)[0]["forward"]


def ask(namespace, address, port, kind=socket.SOCK_STREAM):
    """Whose address the VM sees, and what it answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.socket(family, kind) as opened:
        opened.settimeout(5)
        opened.connect((address, port))
        opened.send(b"hello")
        peer, _, text = opened.recv(1000).decode().split()
        return peer, text


def answers(*arguments):
    with contextlib.suppress(OSError):
        return ask(*arguments)[1] == "hello"
    return False


def find(broker, name):
    """The processes of this name that were started by the broker's user."""
    return [pid for pid in all_pids() if process_name(pid) == name and process_uid(pid) == MEMBER.uid]


def test_a_port_leads_to_a_vm_from_everywhere(own, vm, peer):
    forward(peer, "8080")
    forward(peer, "127.0.0.1:8081")
    forward(peer, "5353", protocol="udp")
    host, internet, gateway = own.namespace, own.lab.internet, vm.cable.gateway
    assert ask(host, "127.0.0.1", 8080) == (gateway, "hello")
    assert ask(host, UPLINK_ADDRESS, 8080) == (gateway, "hello")
    assert ask(internet, UPLINK_ADDRESS, 8080) == (gateway, "hello")
    assert ask(host, "127.0.0.1", 8081) == (gateway, "hello")
    assert not answers(internet, UPLINK_ADDRESS, 8081)
    assert ask(internet, UPLINK_ADDRESS, 5353, socket.SOCK_DGRAM) == (gateway, "hello")
    (own_forwarder,) = find(own, "vmnet-forwarder")
    assert os.stat(f"/proc/{own_forwarder}/ns/net").st_ino != os.stat(host.path).st_ino


def test_ipv6_leads_there_too(own, vm, peer):
    """From ::1 as well, where rules of the kernel cannot lead on."""
    address = forward(peer, "[::]:8080", "web:80")["address"].rpartition(":")[0].strip("[]")
    vm.namespace.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
    vm.namespace.start_echo(address, PORT)
    assert ask(own.namespace, "::1", 8080)[1] == "hello"
    assert ask(own.lab.internet, UPLINK_ADDRESS6, 8080)[1] == "hello"
    assert not answers(own.namespace, "127.0.0.1", 8080)


def find_forward(peer, number):
    return next(one for one in peer.call("ListForwards")[0]["forwards"] if one["id"] == number)


def test_what_cannot_be_listened_on_is_refused(own, vm, peer, boot):
    with pytest.raises(VarlinkError) as refused:
        forward(peer, "80")
    assert 'or have root run "sysctl net.ipv4.ip_unprivileged_port_start=80"' in refused.value.parameters["reason"]
    with pytest.raises(VarlinkError) as refused:
        forward(peer, "192.0.2.1:8080")
    assert "tcp 192.0.2.1:8080 is no address of this host: choose one that is" in refused.value.parameters["reason"]
    assert peer.call("ListForwards")[0]["forwards"] == []
    # One that waited, and whose port a program took meanwhile, is there and does not lead anywhere.
    waiting = forward(peer, "9090", "later:80")
    with own.namespace.inside(lambda: socket.create_server(("0.0.0.0", 9090))), boot("later"):
        wait_for(lambda: "0.0.0.0:9090 is taken by a program" in own.log(), 10, "the failure")
        assert "address" not in find_forward(peer, waiting["id"])
        forward(peer, "8088")
        with pytest.raises(VarlinkError) as refused:
            forward(peer, "192.0.2.1:8080")
        assert "192.0.2.1:8080" in refused.value.parameters["reason"]
    forward(peer, "8080")
    assert answers(own.namespace, "127.0.0.1", 8080)
    own.namespace.sysctl("net/ipv4/ip_unprivileged_port_start", 80)
    forward(peer, "80")
    assert answers(own.namespace, "127.0.0.1", 80)


def test_a_port_that_comes_free_is_listened_on(own, peer, boot):
    """By nobody's doing but that of the program that had it."""
    waiting = forward(peer, "9090", "later:80")
    with own.namespace.inside(lambda: socket.create_server(("0.0.0.0", 9090))) as program, boot("later"):
        wait_for(lambda: "0.0.0.0:9090 is taken by a program" in own.log(), 10, "the failure")
        program.close()
        wait_for(lambda: "address" in find_forward(peer, waiting["id"]), 10, "the forward")
        assert answers(own.namespace, "127.0.0.1", 9090)


def test_connections_outlive_the_front(own, vm):
    with own.connect(MEMBER) as holder:
        forward(holder, "8080", pin=True)
    with own.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.settimeout(10)
        stream.connect(("127.0.0.1", 8080))
        own.kill("front")
        assert own.front_pid
        stream.sendall(b"hello")
        assert stream.recv(1000).decode().endswith(" hello")
    assert answers(own.namespace, "127.0.0.1", 8080)
    with own.connect(MEMBER) as peer:
        (there,) = peer.call("ListForwards")[0]["forwards"]
        peer.call("RemoveForward", id=there["id"])
    assert not answers(own.namespace, "127.0.0.1", 8080)


def test_a_forwarder_that_died_is_replaced(own, vm, peer):
    forward(peer, "8080")
    forward(peer, "5353", protocol="udp")
    (before,) = find(own, "vmnet-forwarder")
    os.kill(before, 9)
    wait_for(lambda: answers(own.namespace, "127.0.0.1", 8080), 10, "the TCP forward again")
    wait_for(lambda: answers(own.namespace, "127.0.0.1", 5353, socket.SOCK_DGRAM), 10, "the UDP forward again")
    (after,) = find(own, "vmnet-forwarder")
    assert after != before
