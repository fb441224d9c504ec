"""TAPs: how long they live, who may join them, and what the holder of an fd can do to them."""

import errno
import fcntl
import json
import os
import signal
import socket
import struct

from kernelkit import (
    IFF_MULTI_QUEUE,
    IFF_VNET_HDR,
    TUNSETOWNER,
    TUNSETPERSIST,
    as_stranger,
    in_namespace,
    link_exists,
    open_tap,
    run_named_test,
    set_mac,
    shell,
    wait_for,
)

RTMGRP_LINK = 1
RTM_NEWLINK = 16
NLMSG_HEADER = struct.Struct("=IHHII")
LINK_HEADER = struct.Struct("=BxHiII")
IFLA_ADDRESS = 1
IFLA_LINKINFO = 18
IFLA_INFO_DATA = 2
IFLA_TUN_PERSIST = 6
NEIGHBOUR_MAC = bytes.fromhex("525400000002")


class LinkEvents:
    """What rtnetlink tells of links from now on."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self.socket.bind((0, RTMGRP_LINK))
        self.socket.settimeout(5)

    def wait_for(self, index: int, attribute: tuple[int, ...], value: bytes) -> None:
        """Until a NEWLINK of that link has it, or the time-out fails the test."""
        while True:
            message = self.socket.recv(65536)
            while message:
                length, kind, *_ = NLMSG_HEADER.unpack_from(message)
                body = message[NLMSG_HEADER.size : length]
                message = message[(length + 3) & ~3 :]
                if kind != RTM_NEWLINK or LINK_HEADER.unpack_from(body)[2] != index:
                    continue
                if find_attribute(body[LINK_HEADER.size :], attribute) == value:
                    return


def find_attribute(data: bytes, path: tuple[int, ...]) -> bytes | None:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if kind & 0x3FFF == path[0]:
            value = data[4:length]
            return find_attribute(value, path[1:]) if path[1:] else value
        data = data[(length + 3) & ~3 :]
    return None


def index_of(name: str) -> int:
    return socket.if_nametoindex(name)


@in_namespace
def test_a_tap_vanishes_with_its_last_fd() -> None:
    first = open_tap("t0", IFF_MULTI_QUEUE)
    second = open_tap("t0", IFF_MULTI_QUEUE)
    third = os.dup(second)
    os.close(first)
    os.close(second)
    assert link_exists("t0")
    os.close(third)
    wait_for(lambda: not link_exists("t0"), "t0 is gone")


@in_namespace
def test_a_tap_vanishes_with_the_process_that_holds_it() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        open_tap("t0")
        os.write(writer, b"x")
        while True:
            signal.pause()
    assert os.read(reader, 1) == b"x"
    assert link_exists("t0")
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    wait_for(lambda: not link_exists("t0"), "t0 is gone")


@in_namespace
def test_a_multi_queue_tap_without_owner_is_anybodys() -> None:
    _fd = open_tap("t0", IFF_MULTI_QUEUE)
    as_stranger(lambda: open_tap("t0", IFF_MULTI_QUEUE))


@in_namespace
def test_a_multi_queue_tap_of_root_cannot_be_joined() -> None:
    fd = open_tap("t0", IFF_MULTI_QUEUE)
    fcntl.ioctl(fd, TUNSETOWNER, 0)
    as_stranger(lambda: open_tap("t0", IFF_MULTI_QUEUE), errno.EPERM)


@in_namespace
def test_a_single_queue_tap_in_use_cannot_be_joined() -> None:
    _fd = open_tap("t0")
    as_stranger(lambda: open_tap("t0"), errno.EBUSY)


@in_namespace
def test_a_holder_changes_the_mac_and_it_shows() -> None:
    fd = open_tap("t0")
    fcntl.ioctl(fd, TUNSETOWNER, 0)
    events = LinkEvents()
    as_stranger(lambda: set_mac(fd, "t0", NEIGHBOUR_MAC))
    events.wait_for(index_of("t0"), (IFLA_ADDRESS,), NEIGHBOUR_MAC)


@in_namespace
def test_a_holder_makes_it_persistent_and_it_shows() -> None:
    fd = open_tap("t0")
    fcntl.ioctl(fd, TUNSETOWNER, 0)
    index = index_of("t0")
    shell("ip link set t0 up")
    events = LinkEvents()
    as_stranger(lambda: fcntl.ioctl(fd, TUNSETPERSIST, 1))
    events.wait_for(index, (IFLA_LINKINFO, IFLA_INFO_DATA, IFLA_TUN_PERSIST), b"\x01")
    os.close(fd)
    assert link_exists("t0")


@in_namespace
def test_a_holder_takes_a_neighbours_static_entry_away() -> None:
    """Even from locked ports that learn nothing: the bridge counts a port's own MAC as local."""
    first, _second = open_tap("t1"), open_tap("t2")
    shell("ip link add br0 type bridge forward_delay 0 mcast_snooping 0; ip link set br0 up")
    for name in ("t1", "t2"):
        shell(f"ip link set {name} master br0; bridge link set dev {name} learning off locked on")
        shell(f"ip link set {name} up")
    shell("bridge fdb replace 52:54:00:00:00:02 dev t2 master static sticky")
    assert fdb_ports("52:54:00:00:00:02") == {"t2"}
    as_stranger(lambda: set_mac(first, "t1", NEIGHBOUR_MAC))
    wait_for(lambda: fdb_ports("52:54:00:00:00:02") == {"t1"}, "the entry moved to t1")


@in_namespace
def test_a_bridges_mtu_is_pinned_by_a_change_only() -> None:
    """And an unpinned one follows its ports: so the broker creates its bridges one byte off and changes them then."""
    shell("ip link add loose mtu 9000 type bridge")
    shell("ip link add pinned mtu 9001 type bridge; ip link set pinned mtu 9000")
    for bridge in ("loose", "pinned"):
        fd = open_tap("t0")
        shell(f"ip link set t0 mtu 9000 master {bridge}")
        os.close(fd)
        wait_for(lambda: not link_exists("t0"), "t0 is gone")
    wait_for(lambda: mtu_of("loose") == 1500, "loose is back at 1500")
    assert mtu_of("pinned") == 9000


@in_namespace
def test_tun_excl_never_joins() -> None:
    iff_tun_excl = 0x8000
    _fd = open_tap("t0", IFF_MULTI_QUEUE | IFF_VNET_HDR)
    try:
        open_tap("t0", IFF_MULTI_QUEUE | IFF_VNET_HDR | iff_tun_excl)
    except OSError as error:
        assert error.errno == errno.EBUSY
    else:
        raise AssertionError("a second queue was opened")
    _other = open_tap("t1", iff_tun_excl)
    assert link_exists("t1")


def fdb_ports(mac: str) -> set[str]:
    entries = json.loads(shell("bridge -json fdb show br br0"))
    return {entry["ifname"] for entry in entries if entry["mac"] == mac}


def mtu_of(name: str) -> int:
    return int(json.loads(shell(f"ip -json link show dev {name}"))[0]["mtu"])


if __name__ == "__main__":
    run_named_test(globals())
