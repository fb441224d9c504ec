"""DNS of a network asks whom the host asks, live: its /etc is a directory of the test's own."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading

import pytest

from lib.lab import INTERNET_ADDRESS, WORLD_ADDRESS, wait_for
from lib.resolver import resolve

SERVERS = {WORLD_ADDRESS: "203.0.113.11", INTERNET_ADDRESS: "198.51.100.22"}  # each answers everything with its own
STUB = "127.0.0.53"  # on the host itself, as systemd-resolved's
STUB_ANSWER = "192.0.2.33"


def serve(sock, answer):
    """Answers every question for an address until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            query, client = sock.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(answer)
            sock.sendto(head + query[12:end] + record, client)


@pytest.fixture
def servers(lab):
    sockets = []
    places = [(lab.internet, address, answer) for address, answer in SERVERS.items()]
    for namespace, address, answer in [*places, (lab.host, STUB, STUB_ANSWER)]:
        sock = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 53))
        threading.Thread(target=serve, args=(sock, answer), daemon=True).start()
        sockets.append(sock)
    yield
    for sock in sockets:
        sock.close()


@pytest.fixture
def etc(lab):
    """What the broker and its dnsmasq see as /etc: without a resolv.conf, until the test makes one."""
    etc = lab.public_directory("etc")
    for name in ("passwd", "group", "nsswitch.conf", "services", "protocols"):
        (etc / name).write_bytes(open(f"/etc/{name}", "rb").read())
    (etc / "vmnet-broker").mkdir()
    return etc


@pytest.fixture
def start(make_broker, etc):
    def start():
        broker = make_broker(start=False)
        script = f"mount --bind {etc} /etc && exec \"$@\""
        broker.command = ["unshare", "-m", "sh", "-ec", script, "sh", *broker.command]
        broker.start()
        return broker

    return start


def write(path, *addresses):
    path.write_text("".join(f"nameserver {address}\n" for address in addresses))


def replace(path, *addresses):
    """As a VPN client does: a new file takes the place of the old one."""
    write(path.with_suffix(".new"), *addresses)
    path.with_suffix(".new").rename(path)


def turn(path, target):
    path.with_suffix(".new").symlink_to(target)
    path.with_suffix(".new").rename(path)


class Asker:
    """Asks a network's DNS for names of the world, each time for another one: nothing is cached."""

    def __init__(self, lab, gateway):
        self.lab, self.gateway, self.count = lab, gateway, 0

    def answer(self):
        self.count += 1
        try:
            return (resolve(self.lab.host, self.gateway, f"n{self.count}.example.com", timeout_s=0.5) or [None])[0]
        except OSError:
            return None

    def wait(self, expected, what):
        wait_for(lambda: self.answer() == expected, 5, what)


def asker(broker, lab, peer):
    return Asker(lab, peer.call("AcquireNetwork", network="shared")[0]["network"]["gateway"])


def test_offline_start_and_every_way_of_change(start, servers, etc, lab):
    path = etc / "resolv.conf"
    broker = start()
    with broker.connect() as peer:
        dns = asker(broker, lab, peer)
        assert dns.answer() is None, "nobody to ask"
        assert resolve(lab.host, dns.gateway, "host.shared.vmnet") == [dns.gateway], "its own names are there"
        write(path, WORLD_ADDRESS)
        dns.wait(SERVERS[WORLD_ADDRESS], "the file appeared")
        write(path, INTERNET_ADDRESS)
        dns.wait(SERVERS[INTERNET_ADDRESS], "it was rewritten")
        replace(path, WORLD_ADDRESS)
        dns.wait(SERVERS[WORLD_ADDRESS], "it was replaced")
        one, two = lab.directory / "one", lab.directory / "two"
        one.mkdir()
        write(one / "stub", INTERNET_ADDRESS)
        turn(path, one / "stub")
        dns.wait(SERVERS[INTERNET_ADDRESS], "it became a link")
        replace(one / "stub", WORLD_ADDRESS)
        dns.wait(SERVERS[WORLD_ADDRESS], "what it leads to was replaced")
        turn(path, two / "deep" / "stub")
        dns.wait(None, "it leads nowhere")
        (two / "deep").mkdir(parents=True)
        write(two / "deep" / "stub", INTERNET_ADDRESS)
        dns.wait(SERVERS[INTERNET_ADDRESS], "that came")
        write(two / "deep" / "stub", STUB)
        dns.wait(STUB_ANSWER, "a stub on the host's loopback")
        path.unlink()
        dns.wait(None, "it was removed")
        replace(path, WORLD_ADDRESS)
        dns.wait(SERVERS[WORLD_ADDRESS], "it is back")
        broker.kill("front")
        assert broker.front_pid
        replace(path, INTERNET_ADDRESS)
        dns.wait(SERVERS[INTERNET_ADDRESS], "a new front follows, too")


def test_start_with_a_link_that_leads_nowhere(start, servers, etc, lab):
    """As before systemd-resolved has started."""
    (etc / "resolv.conf").symlink_to("../nowhere-of-tests/stub-resolv.conf")
    broker = start()
    with broker.connect() as peer:
        dns = asker(broker, lab, peer)
        assert resolve(lab.host, dns.gateway, "host.shared.vmnet") == [dns.gateway]
        turn(etc / "resolv.conf", lab.directory / "late")
        write(lab.directory / "late", WORLD_ADDRESS)
        dns.wait(SERVERS[WORLD_ADDRESS], "the link leads somewhere")


def test_our_own_gateway_is_not_asked(start, servers, etc, lab):
    """resolv.conf of systemd-resolved lists the servers of all links, ours among them."""
    write(etc / "resolv.conf", WORLD_ADDRESS)
    broker = start()
    with broker.connect() as peer:
        dns = asker(broker, lab, peer)
        replace(etc / "resolv.conf", dns.gateway, INTERNET_ADDRESS)
        dns.wait(SERVERS[INTERNET_ADDRESS], "only the other one is asked")
        written = (broker.runtime_dir / "networks" / "shared.resolvers").read_text()
        assert written == f"nameserver {INTERNET_ADDRESS}\n"
    assert broker.terminate() == 0
    assert not os.path.exists(broker.runtime_dir / "networks" / "shared.resolvers")
