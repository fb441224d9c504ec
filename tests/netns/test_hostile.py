"""What bad peers send to the broker: an error or a close, and nobody else notices."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time

import pytest

from lib.broker import MEMBER, STRANGER, User, VarlinkError
from lib.lab import stop_process, wait_for
from lib.lingering import Lingering

OTHER = User(4545, 4545, (100,))


def front_fds(broker):
    return len(os.listdir(f"/proc/{broker.front_pid}/fd"))


def serving_time_s(broker):
    started = time.monotonic()
    with broker.connect(OTHER) as peer:
        assert peer.call("AcquireNetwork", network="host")[0]["network"]["name"] == "host"
    return time.monotonic() - started


def assert_others_are_served(broker, within_s=1.0):
    """Once in three times at least: a machine that stands still for a moment says nothing about the front."""
    assert any(serving_time_s(broker) < within_s for _ in range(3))


@pytest.fixture
def bystander(broker):
    """Somebody who holds a network and must not lose it, and a front that must stay the same process."""
    with broker.connect(OTHER) as peer:
        for network in ("host", "shared"):
            peer.call("AcquireNetwork", network=network)
        front, fds = broker.front_pid, front_fds(broker)
        yield peer
        assert_others_are_served(broker)
        assert peer.call("AcquireNetwork", network="host")[0]["network"]["running"]
        assert broker.front_pid == front, "the front did not die"
        wait_for(lambda: front_fds(broker) <= fds, 5, "no fd is left behind")


def closed_or_error(peer):
    """The connection ends, or the next message is an error."""
    try:
        message, fds = peer.receive()
    except (EOFError, ConnectionError):
        return True
    assert not fds
    return "error" in message


GARBAGE = [
    b"\0",
    b"x\0",
    b"{}\0",
    b"[]\0",
    b"null\0",
    b'"AcquireNetwork"\0',
    b'{"method": 5}\0',
    b'{"method": "x"}\0',
    b'{"method": "no.such.Interface.Method"}\0',
    b'{"method": "org.vmnet.Broker.NoSuch"}\0',
    b'{"method": "org.vmnet.Broker.AcquireNetwork"}\0',
    b'{"method": "org.vmnet.Broker.AcquireNetwork", "parameters": []}\0',
    b'{"method": "org.vmnet.Broker.AcquireNetwork", "parameters": {}}\0',
    b'{"method": "org.vmnet.Broker.AcquireNetwork", "parameters": {"network": 5}}\0',
    b'{"method": "org.vmnet.Broker.AcquireNetwork", "parameters": {"network": "\\u0000"}}\0',
    b'{"method": "a", "method": "b"}\0',
    b'{"method": "org.vmnet.Broker.AcquireNetwork", "parameters": {"network": "\xff\xfe"}}\0',
    b'{"a":' * 200 + b"1" + b"}" * 200 + b"\0",
    b"[" * 60000 + b"\0",
    b"\xff" * 1000 + b"\0",
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:60]))
def test_garbage(broker, bystander, data):
    with broker.connect(MEMBER) as peer:
        peer.send_bytes(data)
        assert closed_or_error(peer)


def test_errors_name_what_is_wrong(broker, bystander):
    with broker.connect(MEMBER) as peer:
        for method, name in (
            ("org.vmnet.Broker.NoSuch", "org.varlink.service.MethodNotFound"),
            ("org.example.Thing.Do", "org.varlink.service.InterfaceNotFound"),
            ("AcquireNetwork", "org.vmnet.Broker.InvalidRequest"),
        ):
            with pytest.raises(VarlinkError) as caught:
                peer.call(method)
            assert caught.value.error == name
        assert "network" in caught.value.parameters["reason"]


def test_oversized_message(broker, bystander):
    with broker.connect(MEMBER) as peer:
        with pytest.raises((EOFError, ConnectionError, TimeoutError)):
            for _ in range(64):
                peer.send_bytes(b" " * 65536)
            peer.receive()


def test_message_of_just_the_limit(broker, bystander):
    with broker.connect(MEMBER) as peer:
        call = json.dumps({"method": "org.vmnet.Broker.AcquireNetwork", "parameters": {"network": "host"}}).encode()
        peer.send_bytes(call.ljust(65535) + b"\0")
        assert peer.reply()[0]["network"]["name"] == "host"
        peer.send_bytes(call.ljust(65536) + b"\0")
        assert closed_or_error(peer)


def test_slow_request_is_ended(broker, bystander):
    with broker.connect(MEMBER) as peer:
        peer.send_bytes(b'{"method"')
        started = time.monotonic()
        with pytest.raises((EOFError, ConnectionError)):
            while True:
                peer.socket.settimeout(0.5)
                try:
                    peer.receive()
                except TimeoutError:
                    assert time.monotonic() - started < 10
                    peer.send_bytes(b" ")
        assert 3 <= time.monotonic() - started < 10


def test_request_byte_by_byte_works(broker, bystander):
    with broker.connect(MEMBER) as peer:
        for byte in b'{"method":"org.vmnet.Broker.AcquireNetwork","parameters":{"network":"host"}}\0':
            peer.send_bytes(bytes([byte]))
        assert peer.reply()[0]["network"]["name"] == "host"


def test_half_a_request_and_gone(broker, bystander):
    for size in (1, 10, 70):
        with broker.connect(MEMBER) as peer:
            peer.send_bytes(b'{"method":"org.vmnet.Broker.AcquireNetwork","parameters":{"network":"shared"}}\0'[:size])
    with broker.connect(MEMBER) as peer:
        peer.send("AcquireNetwork", {"network": "shared"})


def test_many_requests_at_once_are_answered_in_order(broker, bystander):
    with broker.connect(MEMBER) as peer:
        for index in range(40):
            peer.send("AcquireNetwork", {"network": ("shared", "host")[index % 2]})
        names = [peer.reply()[0]["network"]["name"] for _ in range(40)]
        assert names == ["shared", "host"] * 20


def test_oneway_gets_no_answer(broker, bystander):
    with broker.connect(MEMBER) as peer:
        peer.send("AcquireNetwork", {"network": "shared"}, oneway=True)
        peer.send("ListNetworks", {})
        networks = {network["name"]: network for network in peer.reply()[0]["networks"]}
        assert networks["shared"]["running"]


def test_peer_that_does_not_read(broker, bystander):
    with broker.connect(MEMBER) as peer:
        peer.socket.settimeout(2)
        call = json.dumps({"method": "org.vmnet.Broker.ListNetworks"}).encode() + b"\0"
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(20000):
                peer.send_bytes(call * 10)


def test_fds_that_nobody_asked_for(broker, bystander):
    with broker.connect(MEMBER) as peer:
        ends = [os.pipe() for _ in range(8)]
        fds = [fd for end in ends for fd in end]
        peer.send("AcquireNetwork", {"network": "host"}, fds)
        try:
            peer.reply()
        except (VarlinkError, EOFError):
            pass
    for fd in fds:
        os.close(fd)


def test_too_many_fds(broker, bystander):
    with broker.connect(MEMBER) as peer:
        fds = [os.dup(0) for _ in range(64)]
        try:
            peer.send("AcquireNetwork", {"network": "host"}, fds)
            assert closed_or_error(peer)
        except ConnectionError:
            pass
        for fd in fds:
            os.close(fd)


def test_flood_of_fds_on_one_message(broker, bystander):
    """A message that never ends but brings fds with each byte must not fill the front's table."""
    with broker.connect(MEMBER) as peer:
        with pytest.raises((ConnectionError, EOFError)):
            for _ in range(2000):
                socket.send_fds(peer.socket, [b" "], [0, 0, 0, 0])
            peer.receive()


def test_sockets_that_are_none(broker, bystander):
    with broker.connect(MEMBER) as peer:
        reader, writer = os.pipe()
        for fds, sockets in (([reader], [0]), ([writer], [0]), ([], [0]), ([reader], [1])):
            with pytest.raises(VarlinkError) as caught:
                peer.call("EnlargeSocketBuffers", fds=fds, sockets=sockets)
            assert caught.value.name == "InvalidRequest"
        os.close(reader)
        os.close(writer)


def test_connections_of_one_user_are_limited(broker, bystander):
    peers = []
    for _ in range(64):
        peers.append(broker.connect(MEMBER))
        assert peers[-1].call("ListNetworks")[0]["networks"]
    refused = broker.connect(MEMBER)
    with pytest.raises(VarlinkError) as caught:
        refused.reply()
    assert caught.value.name == "QuotaExceeded" and "64" in caught.value.parameters["reason"]
    with pytest.raises((EOFError, ConnectionError)):
        refused.receive()
    assert_others_are_served(broker)
    peers.pop().close()

    def served():
        try:
            with broker.connect(MEMBER) as peer:
                return peer.call("ListNetworks")[0]["networks"]
        except (EOFError, ConnectionError, VarlinkError):
            return None

    wait_for(served, 3, "a place is free again")
    for peer in peers:
        peer.close()


def test_library_tells_of_the_limit_of_connections(broker, bystander, lab, bin_dir):
    peers = [broker.connect(MEMBER) for _ in range(64)]
    assert all(peer.call("ListNetworks")[0]["networks"] for peer in peers)
    for _ in range(10):  # the refusal may come before the call is sent, or while
        client = lab.host.run(
            [bin_dir / "client", "shared"],
            user=MEMBER,
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
            check=False,
        )
        assert client.stdout == "fail acquire 7\n" and "64 connections" in client.stderr
    for peer in peers:
        peer.close()


def test_random_bytes(broker, bystander):
    generator = random.Random(20240229)
    call = b'{"method":"org.vmnet.Broker.CreateInterface","parameters":{"network":"host","queues":2,"sockets":[0]}}\0'
    for _ in range(300):
        data = bytearray(call)
        for _ in range(generator.randint(1, 6)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        with broker.connect(MEMBER) as peer:
            try:
                peer.send_bytes(bytes(data))
                peer.socket.shutdown(socket.SHUT_WR)
                while True:
                    _, fds = peer.receive()
                    for fd in fds:
                        os.close(fd)
            except (EOFError, ConnectionError):
                pass


def test_introspection(broker, bystander):
    with broker.connect(MEMBER) as peer:
        info, _ = peer.call("org.varlink.service.GetInfo")
        assert {"org.vmnet.Broker", "org.varlink.service"} <= set(info["interfaces"])
        for key in ("vendor", "product", "version", "url"):
            assert isinstance(info[key], str)
        text = peer.call("org.varlink.service.GetInterfaceDescription", interface="org.vmnet.Broker")[0]["description"]
        assert "method CreateInterface(" in text and "error QuotaExceeded" in text
        with pytest.raises(VarlinkError) as caught:
            peer.call("org.varlink.service.GetInterfaceDescription", interface="org.example.Thing")
        assert caught.value.error == "org.varlink.service.InterfaceNotFound"


def test_stranger_cannot_even_connect(broker, bystander):
    with pytest.raises(PermissionError):
        broker.connect(STRANGER)


ACQUIRE = b'{"method":"org.vmnet.Broker.AcquireNetwork","parameters":{"network":"host"}}\0'
ENLARGE = b'{"method":"org.vmnet.Broker.EnlargeSocketBuffers","parameters":{"sockets":[0]}}\0'


@pytest.mark.parametrize(
    ("data", "copies", "nested"),
    [(ACQUIRE, 1, False), (ACQUIRE, 64, False), (ENLARGE, 1, False), (ENLARGE, 1, True), (b"{", 1, False)],
    ids=["not asked for", "too many", "no AF_UNIX socket", "in the queue of a good socket", "of half a request"],
)
def test_fd_that_takes_its_time_to_close_stalls_nobody(broker, bystander, lab, data, copies, nested):
    lingering = Lingering(lab)
    front = broker.front_pid
    with broker.connect(MEMBER) as peer:
        stop_process(front)  # so that the front gets the last fd
        fds = [lingering.socket.fileno()] * copies
        if nested:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            socket.send_fds(near, [b"x"], fds)
            socket.send_fds(peer.socket, [data], [far.fileno()])
            near.close()
            far.close()
        else:
            socket.send_fds(peer.socket, [data], fds)
        lingering.socket.close()
    os.kill(front, signal.SIGCONT)
    assert_others_are_served(broker, within_s=3)
    lingering.close()
