"""The forwarder of networks without root: sockets that are passed in, led on to a VM by TCP and UDP."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import re
import resource
import signal
import socket
import struct
import termios
import threading
from pathlib import Path

import pytest

from lib.broker import MEMBER
from lib.forwarder import ADD, BEGIN, END, MAGIC, OTHER_VM, REQUEST, VM, VM6, Forward, Forwarder, is_readable
from lib.lab import INTERNET_ADDRESS, UPLINK, UPLINK_ADDRESS, UPLINK_ADDRESS6, User, is_running, read_proc, stop_process, wait_for

PORT = 80
WEB = Forward(("0.0.0.0", 8080), (VM, PORT))
WEB6 = Forward(("::", 8080), (VM6, PORT))
DNS = Forward(("0.0.0.0", 5353), (VM, 53), "udp")
DNS6 = Forward(("::", 5353), (VM6, 53), "udp")
MEGABYTES = bytes(random.Random(1).randbytes(8 << 20))


@pytest.fixture
def make_forwarder(lab, bin_dir, show_on_failure):
    """make_forwarder(prefix): a running one; it must not have ended by itself."""
    made = []

    def make(prefix=None, program=bin_dir / "vmnet-broker"):
        forwarder = Forwarder(lab, program, prefix)
        show_on_failure("forwarder", forwarder.log)
        made.append(forwarder)
        return forwarder

    yield make
    for forwarder in made:
        is_alive = is_running(forwarder.process.pid)
        forwarder.close()
        assert is_alive or forwarder.process.returncode == -9
        assert "ERROR" not in forwarder.log()


@pytest.fixture
def forwarder(make_forwarder):
    return make_forwarder()


@pytest.fixture
def front(forwarder):
    with forwarder.front() as front:
        yield front


def connect(namespace, address, port, timeout_s=10):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = namespace.socket(family, socket.SOCK_STREAM)
    stream.settimeout(timeout_s)
    stream.connect((address, port))
    return stream


def listen(namespace, address=VM, port=PORT):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = namespace.socket(family, socket.SOCK_STREAM)
    listener.settimeout(10)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(1024)
    return listener


def accept(listener):
    stream, _ = listener.accept()
    stream.settimeout(10)
    return stream


def join(forwarder, listener, address="127.0.0.1", port=8080, namespace=None):
    """A client's connection, and the same one as the VM has it."""
    client = connect(namespace or forwarder.lab.host, address, port)
    return client, accept(listener)


def read_all(stream):
    pieces = []
    while piece := stream.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def say(client, vm, text=b"hello"):
    """Whether the two are joined: a word and its answer."""
    client.sendall(text)
    heard = b""
    while len(heard) < len(text):
        heard += vm.recv(1000)
    vm.sendall(heard[::-1])
    answer = b""
    while len(answer) < len(text):
        answer += client.recv(1000)
    return heard == text and answer == text[::-1]


def is_refused(namespace, address, port):
    with contextlib.suppress(ConnectionRefusedError):
        connect(namespace, address, port).close()
        return False
    return True


# TCP


@pytest.mark.parametrize(
    ("address", "vm_address", "is_remote"),
    [("127.0.0.1", VM, False), (UPLINK_ADDRESS, VM, True), ("::1", VM6, False), (UPLINK_ADDRESS6, VM6, True)],
)
def test_megabytes_go_both_ways_at_once(forwarder, front, address, vm_address, is_remote):
    assert front.declare(WEB, WEB6) == 2
    listener = listen(forwarder.vm, vm_address)
    client, vm = join(forwarder, listener, address, namespace=forwarder.lab.internet if is_remote else None)

    def send(stream, data):
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)

    back = MEGABYTES[::-1]
    senders = [threading.Thread(target=send, args=args) for args in ((client, MEGABYTES), (vm, back))]
    received = {}
    readers = [
        threading.Thread(target=lambda name=name, stream=stream: received.update({name: read_all(stream)}))
        for name, stream in (("vm", vm), ("client", client))
    ]
    for thread in senders + readers:
        thread.start()
    for thread in senders + readers:
        thread.join(60)
    assert hashlib.sha256(received["vm"]).digest() == hashlib.sha256(MEGABYTES).digest()
    assert hashlib.sha256(received["client"]).digest() == hashlib.sha256(back).digest()


def test_an_end_of_sending_is_passed_on_by_itself(forwarder, front):
    front.declare(WEB)
    idle = forwarder.fd_count()
    client, vm = join(forwarder, listen(forwarder.vm))
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_all(vm) == b"question"
    vm.sendall(b"answer")
    vm.close()
    assert read_all(client) == b"answer"
    client.close()
    forwarder.wait_for_fds(idle + 2)  # but for one pipe that is kept


def test_an_answer_before_the_end_of_the_question_arrives(forwarder, front):
    """A server that refuses an upload answers and closes: what it did not read resets the connection."""
    front.declare(WEB)
    client, vm = join(forwarder, listen(forwarder.vm))
    client.sendall(MEGABYTES[: 1 << 20])
    assert vm.recv(1000)
    vm.sendall(b"too large")
    vm.close()
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1000):
            heard += piece
    assert heard == b"too large"


def test_a_client_whose_vm_refuses_is_reset(forwarder, front):
    front.declare(WEB)
    idle = forwarder.fd_count()
    with pytest.raises(ConnectionResetError):
        connect(forwarder.lab.host, "127.0.0.1", 8080).recv(1)
    forwarder.wait_for_fds(idle)


def test_a_client_that_goes_while_the_vm_is_asked_leaves_nothing(forwarder, front):
    front.declare(WEB.to("10.77.0.99", PORT))  # nobody has this address: connecting lasts
    idle = forwarder.fd_count()
    client = connect(forwarder.lab.host, "127.0.0.1", 8080)
    forwarder.wait_for_fds(idle + 2)
    reset(client)
    forwarder.wait_for_fds(idle)


@pytest.mark.parametrize("who", ["client", "vm"])
def test_a_reset_is_passed_on(forwarder, front, who):
    front.declare(WEB)
    idle = forwarder.fd_count()
    client, vm = join(forwarder, listen(forwarder.vm))
    assert say(client, vm)
    breaks, hears = (client, vm) if who == "client" else (vm, client)
    reset(breaks)
    with pytest.raises(ConnectionResetError):
        hears.recv(1)
    forwarder.wait_for_fds(idle + 2)


def fill(stream):
    """Sends MEGABYTES, over and over, until nothing of it is taken for a while; how many bytes were."""
    stream.settimeout(0.5)
    taken = 0
    with contextlib.suppress(TimeoutError):
        while taken < 100 << 20:
            taken += stream.send(memoryview(MEGABYTES)[taken % len(MEGABYTES) :])
    stream.settimeout(10)
    return taken


def test_who_does_not_read_holds_up_himself_only(forwarder, front):
    front.declare(WEB)
    listener = listen(forwarder.vm)
    stuck, slow_vm = join(forwarder, listener)
    taken = fill(stuck)
    assert taken < 64 << 20  # what sockets and a pipe hold
    assert say(*join(forwarder, listener))
    slow_vm.sendall(b"the other direction")
    assert stuck.recv(100) == b"the other direction"
    stuck.shutdown(socket.SHUT_WR)
    expected = (MEGABYTES * (taken // len(MEGABYTES) + 1))[:taken]
    assert hashlib.sha256(read_all(slow_vm)).digest() == hashlib.sha256(expected).digest()


def wait_until_taken(stream):
    """Until all that was sent is in the other side's queue (SIOCOUTQ, tcp(7)), whether it is read or not."""

    def unsent():
        return struct.unpack("i", fcntl.ioctl(stream, termios.TIOCOUTQ, bytes(4)))[0]

    wait_for(lambda: unsent() == 0, 10, "all bytes are on the other side")


@pytest.mark.parametrize("kibibytes", range(5120, 5760, 128))
def test_one_that_is_reset_holds_up_no_other(forwarder, front, kibibytes):
    """Two have more to move than fits a turn, one of them ends in the middle of it, and new ones come at once."""
    for namespace in (forwarder.lab.host, forwarder.inside, forwarder.vm):
        for name in ("rmem", "wmem"):
            namespace.sysctl(f"net/ipv4/tcp_{name}", "4096 33554432 33554432")
    front.declare(WEB)
    listener = listen(forwarder.vm)
    broken, broken_vm = join(forwarder, listener)
    other, other_vm = join(forwarder, listener)
    fill(broken_vm)  # so that there is something to tell a client that has gone
    stop_process(forwarder.process.pid)
    broken.sendall(MEGABYTES[: kibibytes << 10])
    wait_until_taken(broken)
    reset(broken)
    other.sendall(MEGABYTES)
    waiting = [connect(forwarder.lab.host, "127.0.0.1", 8080) for _ in range(200)]
    os.kill(forwarder.process.pid, signal.SIGCONT)
    heard = 0
    while heard < len(MEGABYTES):
        heard += len(other_vm.recv(1 << 20))
    for client in waiting:
        client.close()


def test_a_thousand_connections(forwarder, front):
    raise_own_limit()
    front.declare(WEB)
    idle = forwarder.fd_count()
    listener = listen(forwarder.vm)
    pairs = [join(forwarder, listener) for _ in range(1000)]
    forwarder.wait_for_fds(idle + 2000)
    assert all(say(client, vm, f"number {i}".encode()) for i, (client, vm) in enumerate(pairs))
    assert forwarder.fd_count() <= idle + 2000 + 2 * 32  # idle connections have no pipes
    for client, vm in pairs:
        client.close()
        vm.close()
    wait_for(lambda: forwarder.fd_count() <= idle + 2 * 32, 10, "the end of all connections")


def raise_own_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def try_join(forwarder, listener):
    """join(), or None where the client is reset."""
    try:
        client = connect(forwarder.lab.host, "127.0.0.1", 8080)
        wait_for(lambda: is_readable(client, 0) or is_readable(listener, 0), 10, "an end or a beginning")
        return (client, accept(listener)) if is_readable(listener, 0) else None
    except ConnectionResetError:
        return None


@pytest.mark.parametrize("directory", ["bin_dir", "release_bin_dir"])
def test_beyond_the_limit_connections_are_reset(make_forwarder, request, directory):
    """Where a process may have few files the limit follows from that; it is told once, also without sanitizers."""
    program = request.getfixturevalue(directory) / "vmnet-broker"
    forwarder = make_forwarder(["prlimit", "--nofile=2200"], program)
    with forwarder.front() as front:
        front.declare(WEB)
        listener = listen(forwarder.vm)
        found = [try_join(forwarder, listener) for _ in range(400)]
        pairs = [pair for pair in found if pair]
        assert 100 < len(pairs) < 200
        assert all(say(client, vm) for client, vm in pairs)
        assert forwarder.log().count("as many as may") == 1
        for client, vm in pairs:
            client.close()
            vm.close()
        wait_for(lambda: forwarder.fd_count() < 100, 10, "the end of all connections")
        assert say(*join(forwarder, listener))


# The list


def test_a_changed_target_is_for_new_connections(forwarder, front):
    front.declare(WEB)
    one, other = listen(forwarder.vm), listen(forwarder.vm, OTHER_VM)
    before = join(forwarder, one)
    assert front.declare(WEB.to(OTHER_VM, PORT)) == 1
    after = join(forwarder, other)
    assert say(*before)
    assert say(*after)


def test_connections_go_on_when_their_forward_ends(forwarder, front):
    front.declare(WEB, DNS)
    pair = join(forwarder, listen(forwarder.vm))
    assert front.declare(DNS) == 1
    assert is_refused(forwarder.lab.host, "127.0.0.1", 8080)
    assert say(*pair)


def test_a_front_that_dies_takes_nothing_with_it(forwarder):
    listener = listen(forwarder.vm)
    with forwarder.front() as front:
        front.declare(WEB, WEB6)
        before = join(forwarder, listener)
    between = join(forwarder, listener)
    with forwarder.front() as front:
        # It dies before its END: what it has not said yet stays, too.
        assert front.call(BEGIN) == 0
        assert front.add(WEB) == 0
    with forwarder.front() as front:
        assert front.declare(WEB, WEB6) == 2
        after = join(forwarder, listener)
        assert all(say(*pair) for pair in (before, between, after))
        assert front.declare(WEB) == 1
        assert is_refused(forwarder.lab.host, "::1", 8080)


def test_fronts_are_served_one_after_the_other(forwarder):
    first = forwarder.front()
    first.declare(WEB)
    second = forwarder.front()
    second.socket.send(struct.pack("=IIII", MAGIC, BEGIN, 1, 0).ljust(REQUEST.size, b"\0"))
    first.declare(WEB, DNS)
    assert not is_readable(second.socket, 0.2)
    first.close()
    assert is_readable(second.socket, 10)
    second.close()


def test_a_process_of_another_user_is_sent_away(forwarder):
    as_stranger = forwarder.lab.host.run(
        ["/usr/bin/python3", "-c", STRANGER, os.fspath(forwarder.path)], user=User(4244), check=False
    )
    assert as_stranger.stdout.strip() == "sent away", as_stranger.stderr
    assert "another user" in forwarder.log()
    with forwarder.front() as front:
        assert front.declare(WEB) == 1


STRANGER = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(10)
s.connect(sys.argv[1])
try:
    s.send(bytes(64))
    print(s.recv(1000) or "sent away")
except (BrokenPipeError, ConnectionResetError):
    print("sent away")
"""


def sockets_with_faults(namespace):
    """(what is wrong, a forward, a socket that it does not go with)."""
    tcp = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.setblocking(False)
    tcp.bind(("0.0.0.0", 8080))
    yield "does not listen", WEB, tcp
    udp = DNS.open(namespace)
    yield "another kind", WEB, udp
    yield "another address", DNS.to(VM, 53), Forward(("127.0.0.1", 5353), (VM, 53), "udp").open(namespace)
    connected = Forward(("0.0.0.0", 5354), (VM, 53), "udp")
    opened = connected.open(namespace)
    opened.connect(("127.0.0.1", 9))
    yield "is bound to another", connected, opened  # connecting chose the address
    listening = Forward(("127.0.0.1", 5355), (VM, 53), "udp")
    opened = listening.open(namespace)
    opened.connect(("127.0.0.1", 9))
    yield "is connected", listening, opened
    blocking = Forward(("0.0.0.0", 8081), (VM, 80))
    opened = blocking.open(namespace)
    opened.setblocking(True)
    yield "blocks", blocking, opened
    both = namespace.socket(socket.AF_INET6, socket.SOCK_STREAM)
    both.setblocking(False)
    both.bind(("::", 8082))
    both.listen(1)
    yield "takes IPv4", Forward(("::", 8082), (VM6, 80)), both
    yield "is of another kind", WEB, namespace.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def test_what_is_malformed_changes_nothing(forwarder, front):
    front.declare(Forward(("0.0.0.0", 8088), (VM, PORT)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe, open(os.devnull) as null:
        idle = forwarder.fd_count()
        for what, forward, opened in sockets_with_faults(forwarder.lab.host):
            with opened:
                record = struct.pack("=IIII", MAGIC, ADD, 7, 0) + forward.pack()
                result, detail = front.exchange(record.ljust(REQUEST.size, b"\0"), [opened.fileno()])
            assert result == -errno.EINVAL
            assert what in detail
        good = (struct.pack("=IIII", MAGIC, ADD, 7, 0) + WEB.pack()).ljust(REQUEST.size, b"\0")
        for record, fds in (
            (b"x", []),
            (good[:-1], []),
            (good + b"x", []),
            (b"\0" + good[1:], []),
            (struct.pack("=II", MAGIC, 3).ljust(REQUEST.size, b"\0"), []),
            (struct.pack("=II", MAGIC, 1 << 31).ljust(REQUEST.size, b"\0"), []),
            (struct.pack("=II", MAGIC, BEGIN).ljust(REQUEST.size, b"\0"), [null.fileno()]),
            (struct.pack("=II", MAGIC, END).ljust(REQUEST.size, b"\0"), [null.fileno()]),
            (good, [probe.fileno()] * 100),
        ):
            assert front.exchange(record, fds)[0] == -errno.EBADMSG
        for record, fds in (
            (struct.pack("=II", MAGIC, END).ljust(REQUEST.size, b"\0"), []),
            (good, [null.fileno(), null.fileno()]),
            (good, [null.fileno()]),
            (struct.pack("=II", MAGIC, ADD).ljust(REQUEST.size, b"\0"), []),
        ):
            assert front.exchange(record, fds)[0] == -errno.EINVAL
        for target in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"):
            assert front.call(ADD, WEB.to(target, 80)) == -errno.EINVAL
        for target in ("::", "::1", "ff02::1", "fe80::1", "::ffff:10.77.0.2"):
            assert front.call(ADD, WEB6.to(target, 80)) == -errno.EINVAL
        assert forwarder.fd_count() == idle
    assert front.call(ADD, WEB) == -errno.ENOENT
    assert front.declare(WEB) == 1
    with WEB6.open(forwarder.lab.host) as opened:
        assert front.call(ADD, WEB6, [opened.fileno()]) == 0
        assert front.call(ADD, WEB6, [opened.fileno()]) == -errno.EEXIST


# UDP


def open_datagrams(namespace, family=socket.AF_INET, address=None):
    opened = namespace.socket(family, socket.SOCK_DGRAM)
    opened.settimeout(10)
    if address:
        opened.bind(address)
    return opened


def ask(client, server, text):
    """Whether client's packet gets to the VM's server and its answer back."""
    client.send(text)
    heard, peer = server.recvfrom(2000)
    server.sendto(heard[::-1], peer)
    return heard == text and client.recv(2000) == text[::-1]


def connected(namespace, address, port=5353):
    opened = open_datagrams(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET)
    opened.connect((address, port))
    return opened


def test_udp_clients_get_their_own_answers(forwarder, front):
    front.declare(DNS)
    server = open_datagrams(forwarder.vm, address=(VM, 53))
    clients = [connected(forwarder.lab.host, "127.0.0.1") for _ in range(50)]
    for i, client in enumerate(clients):
        client.send(f"question {i}".encode())
    questions = [server.recvfrom(100) for _ in clients]
    assert len({peer for _, peer in questions}) == len(clients)
    for text, peer in reversed(questions):
        server.sendto(b"answer to " + text, peer)
    for i, client in enumerate(clients):
        assert client.recv(100) == f"answer to question {i}".encode()
    assert ask(clients[0], server, b"")
    assert ask(clients[0], server, MEGABYTES[:1400])


@pytest.mark.parametrize("size", [1, 65507])
def test_udp_packets_of_every_size(forwarder, front, size):
    front.declare(DNS)
    server = open_datagrams(forwarder.vm, address=(VM, 53))
    client = connected(forwarder.lab.host, "127.0.0.1")
    text = MEGABYTES[:size]
    client.send(text)
    heard, peer = server.recvfrom(70000)
    assert heard == text
    server.sendto(heard[::-1], peer)
    assert client.recv(70000) == text[::-1]


def test_udp_answers_come_from_the_address_that_was_asked(forwarder, front):
    """A connected client takes them from no other; the host has several."""
    front.declare(DNS, DNS6)
    host, internet = forwarder.lab.host, forwarder.lab.internet
    host.ip("address", "add", "198.51.100.77/24", "dev", UPLINK)
    host.ip("address", "add", "2001:db8:51::77/64", "dev", UPLINK, "nodad")
    link_local = re.search(r"inet6 (fe80::\S+)/", host.ip("address", "show", "dev", UPLINK))[1]
    wait_for(lambda: "tentative" not in host.ip("-6", "address", "show", "dev", UPLINK), 10, "link-local address")
    server = open_datagrams(forwarder.vm, address=(VM, 53))
    server6 = open_datagrams(forwarder.vm, socket.AF_INET6, (VM6, 53))
    for address in (UPLINK_ADDRESS, "198.51.100.77"):
        assert ask(connected(internet, address), server, b"hello")
    index = internet.inside(lambda: socket.if_nametoindex("in0"))
    for address in ((UPLINK_ADDRESS6, 5353), ("2001:db8:51::77", 5353), (link_local, 5353, 0, index)):
        client = open_datagrams(internet, socket.AF_INET6)
        client.connect(address)
        assert ask(client, server6, b"hello")
    # One client's socket, two addresses of the host: each answers for itself.
    client = open_datagrams(internet, address=(INTERNET_ADDRESS, 4000))
    for address in (UPLINK_ADDRESS, "198.51.100.77"):
        client.sendto(b"hello", (address, 5353))
        heard, peer = server.recvfrom(100)
        server.sendto(heard, peer)
        assert client.recvfrom(100)[1] == (address, 5353)


def test_udp_flows_end_when_asked(forwarder, front):
    front.declare(DNS)
    one = open_datagrams(forwarder.vm, address=(VM, 53))
    other = open_datagrams(forwarder.vm, address=(OTHER_VM, 53))
    old = connected(forwarder.lab.host, "127.0.0.1")
    assert ask(old, one, b"before")
    assert front.declare(DNS.to(OTHER_VM, 53)) == 1
    assert ask(old, one, b"goes on")
    assert ask(connected(forwarder.lab.host, "127.0.0.1"), other, b"new one")
    assert front.declare(DNS.to(OTHER_VM, 53), ends_flows=True) == 1
    assert ask(old, other, b"led elsewhere")
    idle = forwarder.fd_count()
    assert front.declare() == 0
    forwarder.wait_for_fds(idle - 3)  # both flows and what listened
    with Forward(("0.0.0.0", 5353), (VM, 53), "udp").open(forwarder.lab.host):
        pass  # the port is free


def test_udp_after_a_refusal(forwarder, front):
    """A VM where nothing listens yet says so (ICMP); the next packet has to go all the same."""
    front.declare(DNS)
    client = connected(forwarder.lab.host, "127.0.0.1")
    client.send(b"nobody")
    wait_for(lambda: "IcmpOutDestUnreachs" in forwarder.vm.run(["nstat", "-as"]).stdout, 10, "the refusal")
    server = open_datagrams(forwarder.vm, address=(VM, 53))
    assert ask(client, server, b"somebody")


def test_udp_peers_beyond_the_limit_end_the_oldest(make_forwarder):
    forwarder = make_forwarder(["prlimit", "--nofile=2200"])
    raise_own_limit()
    with forwarder.front() as front:
        front.declare(DNS)
        server = open_datagrams(forwarder.vm, address=(VM, 53))
        first = connected(forwarder.lab.host, "127.0.0.1")
        assert ask(first, server, b"first")
        files = forwarder.fd_count()
        clients = [connected(forwarder.lab.host, "127.0.0.1") for _ in range(500)]
        assert all(ask(client, server, b"hello") for client in clients)
        assert 200 < forwarder.fd_count() - files < 400
        assert ask(first, server, b"first again")
        assert ask(clients[-1], server, b"last again")


# The process


def test_it_has_no_privilege(make_forwarder, release_bin_dir):
    forwarder = make_forwarder(program=release_bin_dir / "vmnet-broker")
    with forwarder.front() as front:
        front.declare(WEB)
    status = read_proc(forwarder.process.pid, "status").decode()
    for key in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
        assert re.search(rf"^{key}:\s*0+$", status, re.M), status
    assert re.search(r"^NoNewPrivs:\s*1$", status, re.M)
    if "VMNET_RELEASE_BIN" in os.environ:
        assert re.search(r"^Seccomp:\s*2$", status, re.M)


def test_without_sanitizers_all_of_it_works_under_seccomp(make_forwarder, release_bin_dir):
    forwarder = make_forwarder(["prlimit", "--nofile=2200"], program=release_bin_dir / "vmnet-broker")
    with forwarder.front() as front:
        front.declare(WEB, WEB6, DNS, DNS6)
        listener = listen(forwarder.vm)
        pairs = [join(forwarder, listener) for _ in range(50)]
        assert all(say(*pair) for pair in pairs)
        with pytest.raises(ConnectionResetError):
            connect(forwarder.lab.host, "::1", 8080).recv(1)
        for address, server_address in (("127.0.0.1", VM), ("::1", VM6)):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = open_datagrams(forwarder.vm, family, (server_address, 53))
            assert ask(connected(forwarder.lab.host, address), server, b"hello")
        assert front.declare(WEB, ends_flows=True) == 1
        assert say(*pairs[0])
        pairs[0][0].shutdown(socket.SHUT_WR)
        assert pairs[0][1].recv(1) == b""


def test_a_killed_one_leaves_nothing(forwarder, front):
    front.declare(WEB, DNS)
    client, vm = join(forwarder, listen(forwarder.vm))
    assert say(client, vm)
    forwarder.process.kill()
    forwarder.process.wait(10)
    for stream in (client, vm):
        with contextlib.suppress(ConnectionResetError):
            assert stream.recv(1) == b""
    for forward in (WEB, DNS):
        forward.open(forwarder.lab.host).close()  # the ports are free


# The front's side


@pytest.fixture
def apply(forwarder):
    return apply_with(forwarder)


def apply_with(forwarder, user=None):
    """apply(*forwards, ends_flows=): what forwarder_apply() returns, and its detail."""
    program = next(path for path in Path(os.environ["VMNET_BIN"]).rglob("forwarder-front") if path.is_file())

    def run(*forwards, ends_flows=False, wrapper=()):
        words = [word for forward in forwards for word in forward.split()]
        flows = "end" if ends_flows else "keep"
        result = forwarder.lab.host.run([*wrapper, program, forwarder.path, flows, *words], user=user)
        count, _, detail = result.stdout.strip().partition(" ")
        return int(count), detail

    return run


def test_the_front_applies_a_list(forwarder, apply):
    listener, listener6 = listen(forwarder.vm), listen(forwarder.vm, VM6)
    tcp, tcp6 = f"tcp 0.0.0.0:8080 {VM}:80", f"tcp [::]:8080 [{VM6}]:80"
    udp = f"udp 127.0.0.1:5353 {VM}:53"
    assert apply(tcp, tcp6, udp) == (3, "")
    pairs = [join(forwarder, listener), join(forwarder, listener6, "::1")]
    server = open_datagrams(forwarder.vm, address=(VM, 53))
    assert ask(connected(forwarder.lab.host, "127.0.0.1"), server, b"hello")
    # Another front's, which kept nothing of the first.
    assert apply(tcp, tcp6, udp) == (3, "")
    # The port moves to another address, where it could not be while the other listens.
    assert apply(f"tcp 127.0.0.1:8080 {VM}:80", udp) == (2, "")
    assert is_refused(forwarder.lab.host, UPLINK_ADDRESS, 8080)
    pairs.append(join(forwarder, listener))
    assert all(say(*pair) for pair in pairs)
    assert apply() == (0, "")
    assert is_refused(forwarder.lab.host, "127.0.0.1", 8080)


def test_the_front_says_why_a_port_cannot_be_had(forwarder, apply):
    good = f"tcp 0.0.0.0:8080 {VM}:80"
    with Forward(("0.0.0.0", 9090), (VM, 80)).open(forwarder.lab.host):
        count, detail = apply(f"tcp 0.0.0.0:9090 {VM}:80", good)
    assert count == 1
    assert "tcp 0.0.0.0:9090 is taken by a program of the host" in detail
    count, detail = apply(good, f"udp 192.0.2.1:9090 {VM}:80")
    assert count == 1
    assert "udp 192.0.2.1:9090 is no address of this host" in detail
    count, detail = apply(good, f"udp 0.0.0.0:9090 {VM}:80", "tcp 0.0.0.0:7 127.0.0.1:7")
    assert count == 2
    assert detail == "the forwarder: a forward is malformed"


def test_a_front_without_a_forwarder(forwarder, apply):
    """It has gone, or stopped: the front is told, and does not wait for ever."""
    forwarder.listener.shutdown(socket.SHUT_RD)
    forwarder.process.kill()
    forwarder.process.wait(10)
    os.unlink(forwarder.path)
    gone = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gone.bind(os.fspath(forwarder.path))
    gone.listen(1)
    answer = threading.Thread(target=lambda: gone.accept()[0].close())
    answer.start()
    count, detail = apply(f"tcp 0.0.0.0:8080 {VM}:80")
    answer.join(10)
    assert count < 0
    assert "the forwarder does not answer" in detail


def test_all_of_it_as_an_ordinary_user(make_forwarder, bin_dir):
    """The forwarder in a user namespace of its owner, the front outside: nobody is root."""
    drop = User(MEMBER.uid).prefix()
    forwarder = make_forwarder([*drop, "unshare", "--user", "--map-root-user", "--keep-caps"])
    assert re.search(rf"^Uid:\s*{MEMBER.uid}\s", read_proc(forwarder.process.pid, "status").decode(), re.M)
    as_user = apply_with(forwarder, User(MEMBER.uid))
    assert as_user(f"tcp 0.0.0.0:8080 {VM}:80") == (1, "")
    assert say(*join(forwarder, listen(forwarder.vm)))
    count, detail = as_user(f"tcp 0.0.0.0:80 {VM}:80", f"tcp 0.0.0.0:8080 {VM}:80")
    assert count == 1
    assert detail == (
        "tcp 0.0.0.0:80 is for root: choose a higher port, or have root run "
        '"sysctl net.ipv4.ip_unprivileged_port_start=80"'
    )
    forwarder.lab.host.sysctl("net/ipv4/ip_unprivileged_port_start", 80)
    assert as_user(f"tcp 0.0.0.0:80 {VM}:80") == (1, "")
