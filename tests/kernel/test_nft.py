"""nftables and forwarding, as the broker relies on them."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

from kernelkit import as_stranger, child_namespace, in_namespace, libc, run_named_test, shell, wait_for

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
OWNED = "create table inet owned { flags owner; }"


class Nft:
    """A libnftables context; whatever it owns is its netlink socket's."""

    library = ctypes.CDLL("libnftables.so.1")
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p

    def __init__(self) -> None:
        self.context = self.library.nft_ctx_new(0)
        assert self.context
        self.library.nft_ctx_buffer_error(self.context)

    def run(self, commands: str) -> str:
        """What it complained of; empty when it did as told."""
        failed = self.library.nft_run_cmd_from_buffer(self.context, commands.encode())
        complaint = self.library.nft_ctx_get_error_buffer(self.context).decode()
        assert bool(failed) == bool(complaint)
        return complaint

    def close(self) -> None:
        self.library.nft_ctx_free(self.context)


def tables() -> list[str]:
    return shell("nft list tables").split("\n")[:-1]


@in_namespace
def test_an_owned_table_vanishes_with_its_process() -> None:
    """And NAT with it, which is why the broker's own has no owner."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        owner = Nft()
        os.write(writer, b"x" if owner.run(OWNED) == "" else b"-")
        while True:
            signal.pause()
    assert os.read(reader, 1) == b"x"
    assert tables() == ["table inet owned"]
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    wait_for(lambda: tables() == [], "the table is gone")


@in_namespace
def test_a_table_is_replaced_in_one_transaction() -> None:
    """A mistake in the new one leaves the old one as it was."""
    nft = Nft()
    replace = "add table inet t\ndelete table inet t\ntable inet t {{ chain {} {{ {} }}; }}"
    assert nft.run(replace.format("first", "")) == ""
    assert nft.run(replace.format("second", "")) == ""
    assert "second" in shell("nft list table inet t")
    assert nft.run(replace.format("third", "jump nowhere")) != ""
    assert "second" in shell("nft list table inet t")
    assert nft.run("add table inet t\ndelete table inet t") == ""
    assert tables() == []


@in_namespace
def test_nft_events_need_a_privileged_bind_only() -> None:
    """An ordinary user may read a socket that somebody else bound, and can change nothing through it."""
    as_stranger(lambda: bind_events(open_events()), errno.EPERM)
    events = open_events()
    bind_events(events)
    shell("nft add table inet news")
    as_stranger(lambda: expect_news(events))


def open_events() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)


def bind_events(events: socket.socket) -> None:
    events.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))


def expect_news(events: socket.socket) -> None:
    events.settimeout(5)
    assert b"news" in events.recv(65536)


@contextlib.contextmanager
def a_vm_and_an_internet() -> Iterator[tuple[str, str]]:
    """A host that masquerades br0's VM out of up0, with forwarding off. Yields the VM and the internet."""
    with child_namespace("vm") as vm, child_namespace("net") as net:
        shell(f"ip link add up0 type veth peer name eth0 netns {net}")
        shell(f"ip link add v0 type veth peer name eth0 netns {vm}")
        shell("ip link add br0 type bridge forward_delay 0; ip link set v0 master br0 up")
        shell("ip addr add 192.168.64.1/24 dev br0; ip link set br0 up")
        shell("ip addr add 198.51.100.2/24 dev up0; ip link set up0 up")
        shell(f"ip -n {vm} addr add 192.168.64.2/24 dev eth0; ip -n {vm} link set eth0 up")
        shell(f"ip -n {vm} route add default via 192.168.64.1")
        shell(f"ip -n {net} addr add 198.51.100.1/24 dev eth0; ip -n {net} link set eth0 up")
        shell(
            "nft 'table ip t { chain p { type nat hook postrouting priority srcnat;"
            " ip saddr 192.168.64.0/24 masquerade; }; }'"
        )
        shell("sysctl -qw net.ipv4.ip_forward=0")
        yield vm, net


def reaches(vm: str, address: str) -> bool:
    command = ["ip", "netns", "exec", vm, "ping", "-c", "1", "-W", "1", address]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def echoes_seen(net: str) -> int:
    counters = shell(f"ip netns exec {net} cat /proc/net/snmp")
    names, values = [line.split() for line in counters.splitlines() if line.startswith("Icmp:")]
    return int(values[names.index("InEchos")])


@in_namespace
def test_forwarding_on_the_bridge_alone_loses_the_replies() -> None:
    """The switch is the incoming interface's, and replies come in by the uplink. The global one may stay off."""
    with a_vm_and_an_internet() as (vm, net):
        wait_for(lambda: reaches(vm, "192.168.64.1"), "the VM reaches its gateway")
        assert not reaches(vm, "198.51.100.1")
        assert echoes_seen(net) == 0
        shell("sysctl -qw net.ipv4.conf.br0.forwarding=1")
        assert not reaches(vm, "198.51.100.1")
        assert echoes_seen(net) == 1
        shell("sysctl -qw net.ipv4.conf.up0.forwarding=1")
        assert reaches(vm, "198.51.100.1")
        assert shell("sysctl -n net.ipv4.ip_forward") == "0\n"


@in_namespace
def test_rt_mtu_is_the_smaller_of_both_ways() -> None:
    """And it only ever makes a segment smaller. So one rule a direction fits a connection to both of its networks."""
    nft = Nft()
    complaint = nft.run(
        "table inet t { chain f { type filter hook forward priority 0;"
        " tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu; }; }"
    )
    nft.close()
    assert complaint == ""
    shell("sysctl -qw net.ipv4.ip_forward=1")
    with child_namespace("small") as small, child_namespace("large") as large:
        for number, (name, mtu) in enumerate(((small, 1400), (large, 9000))):
            shell(f"ip link add v{number} mtu {mtu} type veth peer name e0 mtu 9000 netns {name}")
            shell(f"ip addr add 10.0.{number}.1/24 dev v{number}; ip link set v{number} up")
            shell(f"ip -n {name} addr add 10.0.{number}.2/24 dev e0; ip -n {name} link set e0 up")
            shell(f"ip -n {name} route add default via 10.0.{number}.1")
        for server, client, address in ((large, small, "10.0.1.2"), (small, large, "10.0.0.2")):
            with socket_in(server) as listener, socket_in(client) as caller:
                listener.bind((address, 80))
                listener.listen()
                caller.connect((address, 80))
                with listener.accept()[0] as answerer:
                    # Without IPv4's and TCP's header, and 12 bytes of timestamps.
                    sizes = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for end in (caller, answerer)]
                    assert sizes == [1400 - 52] * 2


def socket_in(name: str) -> socket.socket:
    """A TCP socket of another namespace: one stays where it was made."""
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{name}") as other:
        assert libc.setns(other.fileno(), 0) == 0
        try:
            return socket.socket()
        finally:
            assert libc.setns(own.fileno(), 0) == 0



if __name__ == "__main__":
    run_named_test(globals())
