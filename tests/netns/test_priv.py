"""A front that an attacker has taken over: whatever it asks of priv, it gets no further than the verbs allow.

priv is the real one; its front (captured-front.c) hands its end of the verbs' socket to the test. Around it is a host
with links, rules and files that are none of its business.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import verbs
from lib.broker import MEMBER
from lib.frames import ARP_REPLY, arp_request, parse
from lib.lab import UPLINK, Lab, User, children_of, command_line, is_running, process_name, process_uid, read_proc, stop_process, wait_for
from lib.lingering import Lingering
from lib.readiness import readable, writable
from lib.verbs import Reply, Verbs

NOBODY = User(65534)
INSTANCE, OTHER_INSTANCE = 0x0123ABCD, 0x99887766
FRONT_PATIENCE_S = 10  # how long priv lets a front go on that shall end
DNSMASQ_PATIENCE_S = 2
EXEC_PATIENCE_S = 2
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# Networks of the front itself, which it may make.
OURS, OURS_TAP = "blue", 0x00B10E00
VM_MAC = "52:54:00:00:00:09"
SCM_MAX_FD = 253  # what the kernel lets one message carry (net/scm.h)


def fnv1a(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def bridge_hash(network: str, instance: int = INSTANCE) -> int:
    return fnv1a(struct.pack(">I", instance) + network.encode())


def bridge_name(network: str, instance: int = INSTANCE) -> str:
    return f"vmbr{bridge_hash(network, instance):08x}"


def tap_name(number: int) -> str:
    return f"vmtap{number:08x}"


def count_fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_s(pid: int) -> float:
    fields = read_proc(pid, "stat").rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


class Captured:
    """priv with a captured front: call() asks whatever the test likes."""

    def __init__(self, lab: Lab, program: Path) -> None:
        self.lab = lab
        self.directory = lab.public_directory("priv")
        self.state_dir = self.directory / "state"
        self.runtime_dir = self.directory / "run"
        self.runtime_dir.mkdir()
        for path in (self.state_dir, self.runtime_dir / "networks"):
            path.mkdir()
            os.chown(path, NOBODY.uid, NOBODY.gid)
        self.log_path = self.directory / "log"
        self._listener = socket.socket(socket.AF_UNIX)
        control = self.directory / "control"
        self._listener.bind(str(control))
        control.chmod(0o666)
        self._listener.listen()
        directories = (str(self.state_dir), str(self.runtime_dir), str(control))
        with open(self.log_path, "w") as log:
            self.process = lab.host.popen([program, str(INSTANCE), *directories], stdout=log, stderr=log)
        self._control: socket.socket | None = None
        self.verbs: Verbs
        self.accept_front()

    @property
    def pid(self) -> int:
        return self.process.pid

    def accept_front(self, deadline_s: float = 30) -> None:
        """Waits for a front, the next one too, and takes its end of the verbs' socket."""
        self._drop_front()
        self._listener.settimeout(deadline_s)
        self._control, _ = self._listener.accept()
        self._control.settimeout(30)
        credentials = self._control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.front_pid, uid, _ = struct.unpack("3i", credentials)
        assert uid == NOBODY.uid
        _, fds, _, _ = socket.recv_fds(self._control, 1, 1, socket.MSG_CMSG_CLOEXEC)
        self.verbs = Verbs(fds[0])

    def _drop_front(self) -> None:
        if self._control:
            self._control.close()
            self.verbs.close()

    def call(self, data: bytes, fds: list[int] | tuple[int, ...] = ()) -> Reply:
        return self.verbs.call(data, fds)

    def demand(self, data: bytes, fds: list[int] | tuple[int, ...] = ()) -> Reply:
        """A verb that the front may use."""
        reply = self.call(data, fds)
        assert reply.result >= 0, f"{errno.errorcode[-reply.result]}: {reply.detail}"
        return reply

    def refused(self, number: int, data: bytes, fds: list[int] | tuple[int, ...] = ()) -> Reply:
        """A verb that gets this error, with words for a person."""
        reply = self.call(data, fds)
        assert reply.result == -number, (
            f"{data!r}: {errno.errorcode.get(-reply.result, reply.result)} {reply.detail!r}, "
            f"not {errno.errorcode[number]}"
        )
        assert reply.value == 0 and reply.detail and reply.detail.isprintable()
        return reply

    def dnsmasq_pids(self) -> list[int]:
        return [pid for pid in children_of(self.pid) if process_name(pid) == "dnsmasq"]

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")
        return ""

    def terminate(self, deadline_s: float) -> int:
        self.process.terminate()
        return self.process.wait(deadline_s)

    def _end(self) -> None:
        try:
            self.terminate(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def close(self) -> None:
        if self.process.poll() is None:
            self._end()
        self._drop_front()
        self._listener.close()
        assert self.process.returncode == 0 and "Sanitizer" not in self.log(), self.log()


def without_the_kernels_clocks(value: Any) -> Any:
    """What `ip -json` shows, but for timers, carriers (noted up to a second later) and what former ports left."""
    if isinstance(value, dict):
        moving = {key for key in value if key.endswith("_timer") or key.startswith("tso_max_")}
        moving |= {"operstate", "fdb_n_learned"}
        return {key: without_the_kernels_clocks(inner) for key, inner in value.items() if key not in moving}
    if isinstance(value, list):
        return [without_the_kernels_clocks(inner) for inner in value if inner not in ("NO-CARRIER", "LOWER_UP")]
    return value


class World:
    """What belongs to others: the host's LAN, another program's bridge with a running VM, another broker's links."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ip = lab.host.ip
        for which in ("all", "default"):
            lab.host.sysctl(f"net/ipv6/conf/{which}/accept_dad", 0)  # or addresses would change by themselves
        self.ip("-6", "address", "flush", "dev", UPLINK, "scope", "link")
        self._make_lan()
        self._make_bridge_with_vm()
        self._make_links_with_our_names()
        self._make_other_instance()
        self._make_tables()
        self.canary = lab.directory / "canary"
        self.canary.write_text("mine\n")
        self.bound = lab.directory / "unix"
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(self.bound))

    def _make_lan(self) -> None:
        self.ip("address", "add", "192.168.1.2/24", "dev", UPLINK)
        self.ip("address", "add", "10.8.0.1", "peer", "10.9.0.2/32", "dev", UPLINK)
        self.ip("route", "add", "10.99.0.0/16", "via", "192.168.1.1")
        self.ip("route", "add", "172.20.0.0/16", "via", "192.168.1.1", "table", "100")
        self.ip("route", "add", "blackhole", "172.24.7.0/24")
        self.ip("rule", "add", "to", "172.20.0.0/16", "table", "100")

    def _add_bridge(self, name: str, *options: str) -> None:
        self.ip("link", "add", name, *options, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")

    def _make_bridge_with_vm(self) -> None:
        self._add_bridge("br-lan")
        self.ip("address", "add", "172.16.5.1/24", "dev", "br-lan")
        self.ip("link", "set", "br-lan", "up")
        self.vm = self.lab.host.open_tap("tap-vm", vnet_hdr=False)
        self.ip("link", "set", "tap-vm", "master", "br-lan")

    def _make_links_with_our_names(self) -> None:
        """Names as ours, but no tag, or another network's, or another kind's."""
        self._add_bridge(bridge_name("untagged"))
        ours = struct.pack(">BBI", 0xFE, 0x77, bridge_hash("serving")).hex(":")
        self._add_bridge(bridge_name("serving"), "address", ours)
        self.ip("link", "set", bridge_name("serving"), "up")
        self.ip("link", "add", bridge_name("nobridge"), "type", "veth", "peer", "name", tap_name(0xD0))
        self._add_bridge(bridge_name("swapped"), "alias", f"vmnet/1/{INSTANCE:08x}/bridge/shared/someone")
        self._add_bridge(bridge_name("kind"), "alias", f"vmnet/1/{INSTANCE:08x}/tap/-/kind")
        self._add_bridge(bridge_name("version"), "alias", f"vmnet/2/{INSTANCE:08x}/bridge/shared/version")
        self._add_bridge("br-alt")
        self.ip("link", "property", "add", "dev", "br-alt", "altname", bridge_name("alternative"))
        self.ip("link", "property", "add", "dev", "br-alt", "altname", tap_name(0xA17))
        self._add_bridge(tap_name(0xD1), "alias", f"vmnet/1/{INSTANCE:08x}/bridge/shared/x")
        self.ip("tuntap", "add", "dev", tap_name(0xF00), "mode", "tap")

    def _make_other_instance(self) -> None:
        tag = f"vmnet/1/{OTHER_INSTANCE:08x}"
        for name in (bridge_name("theirs"), bridge_name("theirs", OTHER_INSTANCE)):
            self._add_bridge(name, "alias", f"{tag}/bridge/shared/theirs")
            self.ip("link", "set", name, "up")
        self.ip("address", "add", "192.168.200.1/24", "dev", bridge_name("theirs"))
        self.ip("tuntap", "add", "dev", tap_name(0xBAD), "mode", "tap", "multi_queue")
        self.ip("link", "set", tap_name(0xBAD), "alias", f"{tag}/tap/-/theirs")
        self.ip("link", "set", tap_name(0xBAD), "master", bridge_name("theirs"), "up")

    def _make_tables(self) -> None:
        rules = f"""
            add table inet filter
            add chain inet filter input {{ type filter hook input priority 0; }}
            add rule inet filter input tcp dport 25 drop
            add table ip nat
            add chain ip nat out {{ type nat hook postrouting priority 100; }}
            add rule ip nat out oifname {UPLINK} masquerade
            add table inet vmnet_{OTHER_INSTANCE:08x}
            add chain inet vmnet_{OTHER_INSTANCE:08x} forward {{ type filter hook forward priority 0; }}
        """
        self.lab.host.run(["nft", "-f", "-"], input=rules)

    def traffic_flows(self) -> bool:
        """The other program's VM reaches its host."""
        os.write(self.vm, arp_request("52:54:00:00:00:01", "172.16.5.9", "172.16.5.1"))
        deadline = time.monotonic() + 5
        while readable([self.vm], deadline - time.monotonic()):
            frame = parse(os.read(self.vm, 2048))
            if frame.arp_operation == ARP_REPLY and frame.source_ip == "172.16.5.1":
                return True
        return False

    def links(self) -> Any:
        return without_the_kernels_clocks(json.loads(self.ip("-json", "-details", "link", "show")))

    def _switches(self) -> dict[str, bytes]:
        def read() -> dict[str, bytes]:
            found = {}
            for path in Path("/proc/sys/net").rglob("*"):
                with contextlib.suppress(OSError):
                    if path.is_file() and path.name != "nf_conntrack_count":
                        found[str(path)] = path.read_bytes()
            return found

        return self.lab.host.inside(read)

    def _files(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: sorted(os.listdir(name)) for name in ("/", "/etc", "/var/lib/misc")}
        for path in (*self.lab.directory.rglob("*"), Path("/etc/passwd")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
        return found

    def snapshot(self) -> dict[str, Any]:
        return {
            "links": self.links(),
            "addresses": without_the_kernels_clocks(json.loads(self.ip("-json", "address", "show"))),
            "routes": [
                self.ip(family, "route", "show", "table", "all").replace("linkdown ", "") for family in ("-4", "-6")
            ],
            "rules": [self.ip(family, "rule", "show") for family in ("-4", "-6")],
            "nft": self.lab.host.run(["nft", "-s", "list", "ruleset"]).stdout,
            "switches": self._switches(),
            "processes": sorted((pid, process_name(pid), process_uid(pid)) for pid in self.lab.host.pids()),
            "files": self._files(),
        }


@pytest.fixture(scope="session")
def captured_front() -> Path:
    """The program, below VMNET_BIN; other builds may lie below this one: the nearest is meant."""
    build = Path(os.environ["VMNET_BIN"]).resolve()
    found = sorted(build.rglob("captured-front"), key=lambda path: len(path.parts))
    if not found:
        pytest.fail(f"captured-front isn't in {build} or below; build first", pytrace=False)
    return found[0]


@pytest.fixture
def captured(
    lab: Lab, captured_front: Path, show_on_failure: Callable[[str, Callable[[], str]], None]
) -> Iterator[Captured]:
    captured = Captured(lab, captured_front)
    show_on_failure("captured-front", captured.log)
    yield captured
    captured.close()


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


@pytest.fixture
def unchanged(world: World, captured: Captured) -> Iterator[World]:
    """A network of our own with a VM and DHCP beside all that is foreign; after the test all must be as it was."""
    captured.demand(verbs.create_bridge(OURS, "10.55.0.0/24"))
    tap = captured.demand(verbs.create_tap(OURS, OURS_TAP))
    dnsmasq = captured.demand(verbs.on_network("START_DNSMASQ", OURS))
    captured.demand(verbs.request("APPLY_NAT"))
    wait_serving(dnsmasq.fds[1])
    assert world.traffic_flows()
    before, fds = world.snapshot(), count_fds(captured.pid)
    yield world
    # What is asked last is answered last: nothing is under way any more.
    captured.demand(verbs.request("SETTLE"))
    # Of a capture's process it hears last: the kernel closes its sockets one by one before.
    wait_for(lambda: count_fds(captured.pid) == fds, 5, "priv has the fds that it had")
    after = world.snapshot()
    for what in before:
        assert after[what] == before[what], f"{what} changed"
    assert world.traffic_flows()
    assert captured.process.poll() is None and is_running(captured.front_pid)
    for reply in (tap, dnsmasq):
        reply.close()


def wait_serving(log: int) -> None:
    """dnsmasq has made its files and reads its configuration no more."""
    text = b""

    def serving() -> bool:
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            text += os.read(log, 4096)
        return b"started, version" in text

    wait_for(serving, 10, "dnsmasq serves")


# Bridges


SUBNETS = [
    ("192.168.1.0/24", errno.EADDRINUSE),  # the LAN
    ("192.168.1.128/25", errno.EADDRINUSE),  # a part of it
    ("192.168.0.0/16", errno.EADDRINUSE),  # more than it
    ("192.168.1.0/30", errno.EADDRINUSE),
    ("10.8.0.0/24", errno.EADDRINUSE),  # one end of a tunnel
    ("10.9.0.0/24", errno.EADDRINUSE),  # the other end
    ("172.16.5.0/24", errno.EADDRINUSE),  # another program's bridge
    ("192.168.200.0/24", errno.EADDRINUSE),  # another broker's network
    ("10.55.0.0/24", errno.EADDRINUSE),  # our own
    ("10.99.3.0/24", errno.EADDRINUSE),  # a route
    ("10.0.0.0/8", errno.EADDRINUSE),
    ("172.20.1.0/24", errno.EADDRINUSE),  # a route of another table
    ("172.24.7.0/24", errno.EADDRINUSE),  # one that leads nowhere
    ("8.8.8.0/24", errno.EINVAL),  # public
    ("203.0.113.0/24", errno.EINVAL),
    ("172.32.0.0/16", errno.EINVAL),
    ("100.64.0.0/24", errno.EINVAL),
    ("127.0.0.0/24", errno.EINVAL),
    ("169.254.0.0/24", errno.EINVAL),
    ("224.0.0.0/24", errno.EINVAL),
    ("0.0.0.0/8", errno.EINVAL),
    ("0.0.0.0/0", errno.EINVAL),
    ("192.0.0.0/8", errno.EINVAL),  # more than the private part
    ("172.16.0.0/11", errno.EINVAL),
    ("10.77.0.1/24", errno.EINVAL),  # host bits
    ("10.77.0.128/24", errno.EINVAL),
    ("10.77.0.0/0", errno.EINVAL),
    ("10.77.0.0/7", errno.EINVAL),
    ("10.77.0.0/31", errno.EINVAL),
    ("10.77.0.0/32", errno.EINVAL),
    ("10.77.0.0/33", errno.EINVAL),
    ("10.77.0.0/64", errno.EINVAL),
    ("10.77.0.0/255", errno.EINVAL),
]


def test_bridge_over_a_subnet_that_is_not_free(unchanged, captured):
    for subnet, error in SUBNETS:
        captured.refused(error, verbs.create_bridge("evil", subnet))


def test_bridge_with_impossible_settings(unchanged, captured):
    for mtu in (0, 1, 68, verbs.MTU_MIN - 1, verbs.MTU_MAX + 1, 65536, 2**31, 2**32 - 1):
        captured.refused(errno.EINVAL, verbs.create_bridge("evil", "10.77.0.0/24", mtu=mtu))
    for mode in (verbs.HOST + 1, 127, 255):
        captured.refused(errno.EINVAL, verbs.create_bridge("evil", "10.77.0.0/24", mode=mode))


def test_bridge_of_a_name_that_is_taken(unchanged, captured):
    for network in (OURS, "untagged", "serving", "nobridge", "swapped", "kind", "version", "theirs", "alternative"):
        captured.refused(errno.EEXIST, verbs.create_bridge(network, "10.77.0.0/24"))


# The others of a network's verbs say the same of names that are not the front's.
NETWORKS_OF_OTHERS = [
    "missing", "untagged", "serving", "nobridge", "swapped", "someone", "kind", "version", "theirs", "alternative",
]  # fmt: skip
NAMES = [
    b"",
    b"\0",
    b"\0etc/passwd",
    b".",
    b"..",
    b".hidden",
    b"-o",
    b"--conf-file=/etc/passwd",
    b"../canary",
    b"../../../etc/passwd",
    b"/etc/passwd",
    b"a/b",
    b"a/../../canary",
    b"a b",
    b"a\nb",
    b"a\tb",
    b"a\x1b[31m",
    b"a;b",
    b"a,b",
    b'a"b',
    b"a'b",
    b"a%sb%n",
    b"$(id)",
    b"`id`",
    b"{ }",
    b"*",
    b"a\x7f",
    b"\xc3\xa9",
    b"\xff" * verbs.NETWORK_SIZE,
    b"a" * verbs.NETWORK_SIZE,  # not terminated
    b"a" * (verbs.NETWORK_SIZE - 1) + b"/",
    b"../" * (verbs.NETWORK_SIZE // 3),
]


def verbs_on(network):
    yield verbs.create_tap(network, 1)
    for verb in ("DELETE_BRIDGE", "START_DNSMASQ", "STOP_DNSMASQ"):
        yield verbs.on_network(verb, network)


def test_names_that_are_paths_or_none_at_all(unchanged, captured):
    for name in NAMES:
        for data in (verbs.create_bridge(name, "10.77.0.0/24"), *verbs_on(name)):
            captured.refused(errno.EINVAL, data)


def test_what_follows_a_names_end_is_not_read(unchanged, captured):
    name = b"missing\0/../../canary"
    for data in verbs_on(name):
        reply = captured.call(data)
        assert reply.result in (-errno.ENOENT, -errno.ESRCH) and "canary" not in reply.detail


def test_networks_of_others(unchanged, captured):
    for network in NETWORKS_OF_OTHERS:
        for verb, error in (
            ("DELETE_BRIDGE", errno.ENOENT),
            ("START_DNSMASQ", errno.ENOENT),
            ("STOP_DNSMASQ", errno.ESRCH),
        ):
            captured.refused(error, verbs.on_network(verb, network))


def test_bridge_in_use_stays(unchanged, captured):
    for _ in range(3):
        captured.refused(errno.EBUSY, verbs.on_network("DELETE_BRIDGE", OURS))


# TAPs


def test_tap_on_a_network_of_others(unchanged, captured):
    for network in NETWORKS_OF_OTHERS:
        for queues in (1, verbs.QUEUES_MAX):
            captured.refused(errno.ENOENT, verbs.create_tap(network, 1, queues))


def test_tap_with_impossible_queues(unchanged, captured):
    for queues in (0, verbs.QUEUES_MAX + 1, 256, 2**31, 2**32 - 1):
        captured.refused(errno.EINVAL, verbs.create_tap(OURS, 1, queues))


def test_ports_that_cannot_be(unchanged, captured):
    """Not of a kind that there is; locked to a MAC that is ours or nobody's, to an address of another, or of nobody."""
    for port in (8, 15, 2**31, 2**32 - 1):
        captured.refused(errno.EINVAL, verbs.create_tap(OURS, 1, 1, port, VM_MAC, "10.55.0.9"))
    for mac in ("00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "fe:77:00:00:00:01", "fe:76:00:00:00:01"):
        for port in (verbs.PORT_LOCKED, verbs.PORT_LOCKED | verbs.PORT_ISOLATED):
            captured.refused(errno.EINVAL, verbs.create_tap(OURS, 1, 1, port, mac, "10.55.0.9"))
    for address in ("0.0.0.0", "10.55.0.0", "10.55.0.1", "10.55.0.255", "10.55.1.9", "127.0.0.1", "198.51.100.1"):
        captured.refused(errno.EINVAL, verbs.create_tap(OURS, 1, 1, verbs.PORT_LOCKED, VM_MAC, address))
    for network in NETWORKS_OF_OTHERS:
        captured.refused(errno.ENOENT, verbs.create_tap(network, 1, 1, verbs.PORT_LOCKED, VM_MAC, "10.55.0.9"))
    taken = verbs.create_tap(OURS, OURS_TAP, 1, verbs.PORT_LOCKED, VM_MAC, "10.55.0.9")
    captured.refused(errno.EEXIST, taken)


def test_locked_tap_leaves_nothing(unchanged, captured):
    number = 0x10C
    for port in (verbs.PORT_ISOLATED, verbs.PORT_LOCKED, verbs.PORT_ISOLATED | verbs.PORT_LOCKED):
        captured.demand(verbs.create_tap(OURS, number, 1, port, VM_MAC, "10.55.0.9")).close()
        captured.demand(verbs.request("SETTLE"))
        wait_for(lambda: tap_name(number) not in captured.lab.host.ip("link"), 5, "the TAP is gone")
    captured.demand(verbs.request("APPLY_GUARD"))
    captured.demand(verbs.request("APPLY_NAT"))  # or tables were in another order


def test_named_taps_that_cannot_be(unchanged, captured):
    """Of nobody, and so everybody's; of several queues, which any program of the owner's could join."""
    captured.refused(errno.EINVAL, verbs.create_tap(OURS, 1, 1, verbs.PORT_NAMED, owner=2**32 - 1))
    for queues in (0, 2, verbs.QUEUES_MAX):
        captured.refused(errno.EINVAL, verbs.create_tap(OURS, 1, queues, verbs.PORT_NAMED, owner=MEMBER.uid))
    for network in NETWORKS_OF_OTHERS:
        captured.refused(errno.ENOENT, verbs.create_tap(network, 1, 1, verbs.PORT_NAMED, owner=MEMBER.uid))
    captured.refused(errno.EEXIST, verbs.create_tap(OURS, OURS_TAP, 1, verbs.PORT_NAMED, owner=MEMBER.uid))


def test_named_tap_stays_until_it_is_deleted(unchanged, captured):
    number = 0x10D
    reply = captured.demand(verbs.create_tap(OURS, number, 1, verbs.PORT_NAMED, owner=MEMBER.uid))
    assert reply.fds == [] and reply.result == 0
    shown = json.loads(captured.lab.host.ip("-json", "-details", "link", "show", tap_name(number)))[0]
    assert shown["linkinfo"]["info_data"]["persist"] and "UP" in shown["flags"]
    assert shown["ifalias"].split("/")[4] == f"named,{MEMBER.uid}"
    captured.refused(errno.EBUSY, verbs.on_network("DELETE_BRIDGE", OURS))
    captured.demand(verbs.delete_tap(number))
    assert tap_name(number) not in captured.lab.host.ip("link")


def test_tap_of_a_number_that_is_taken(unchanged, captured):
    for number in (OURS_TAP, 0xA17, 0xBAD, 0xF00, 0xD0, 0xD1):
        for queues in (1, verbs.QUEUES_MAX):
            captured.refused(errno.EEXIST, verbs.create_tap(OURS, number, queues))


def test_taps_of_others(unchanged, captured):
    for number in (0, 0xA17, 0xBAD, 0xF00, 0xD0, 0xD1, 2**32 - 1):
        captured.refused(errno.ENOENT, verbs.delete_tap(number))


# Captures


def capture_pids(captured):
    return [pid for pid in children_of(captured.pid) if "--role=capture" in command_line(pid)]


def wait_no_capture(captured):
    wait_for(lambda: not capture_pids(captured), 10, "the end of every capture")


def test_captures_that_cannot_be(unchanged, captured):
    for end in (2, 255, 2**32 - 1):
        captured.refused(errno.EINVAL, verbs.start_capture(OURS, end))
    for snaplen in (0, verbs.SNAPLEN_MIN - 1, verbs.SNAPLEN_MAX + 1, 2**32 - 1):
        captured.refused(errno.EINVAL, verbs.start_capture(OURS, snaplen=snaplen))
    for network in NETWORKS_OF_OTHERS:
        captured.refused(errno.ENOENT, verbs.start_capture(network))
    for number in (0, 1, 2**32 - 1):
        captured.refused(errno.ESRCH, verbs.capture_interface(number, OURS_TAP))
        captured.refused(errno.ESRCH, verbs.end_capture(number))
    assert capture_pids(captured) == []


def test_a_capture_has_no_interface_of_others(unchanged, captured):
    """Not by a number, not by another network's capture; and its process ends with its reader."""
    reply = captured.demand(verbs.start_capture(OURS))
    for number in (0, 0xA17, 0xBAD, 0xF00, 0xD0, 0xD1, 2**32 - 1):
        captured.refused(errno.ENOENT, verbs.capture_interface(reply.value, number))
    for comment in (b"\n", b"x\x7f", b"\xff", b"x" * verbs.COMMENT_SIZE):
        captured.refused(errno.EINVAL, verbs.capture_interface(reply.value, OURS_TAP, comment))
    captured.demand(verbs.capture_interface(reply.value, OURS_TAP, b"mine"))
    other = captured.demand(verbs.start_capture("elsewhere", verbs.UNTIL_INTERFACE))
    captured.refused(errno.ESRCH, verbs.capture_interface(other.value, OURS_TAP))
    reply.close()
    other.close()
    wait_no_capture(captured)


def test_captures_are_few_and_keep_no_place(unchanged, captured):
    """One that was stopped by whoever shares its user is no reason to refuse the next one."""
    replies = [captured.demand(verbs.start_capture(OURS)) for _ in range(verbs.CAPTURES_MAX)]
    captured.refused(errno.ENOSPC, verbs.start_capture(OURS))

    def all_of_them():
        """One that is just becoming another program has no command line."""
        pids = capture_pids(captured)
        return pids if len(pids) == verbs.CAPTURES_MAX else None

    stopped = wait_for(all_of_them, 5, "the processes of all captures")
    for pid in stopped:
        stop_process(pid)
    for reply in replies:
        captured.demand(verbs.end_capture(reply.value))
        captured.refused(errno.ESRCH, verbs.end_capture(reply.value))
    replies += [captured.demand(verbs.start_capture(OURS)) for _ in range(verbs.CAPTURES_MAX)]
    assert not set(stopped) & set(capture_pids(captured))
    for reply in replies:
        reply.close()
    wait_no_capture(captured)


def test_a_capture_ends_with_its_front(captured, world):
    captured.demand(verbs.create_bridge("blue", "10.55.0.0/24"))
    reply = captured.demand(verbs.start_capture("blue"))
    assert len(capture_pids(captured)) == 1
    os.kill(captured.front_pid, signal.SIGKILL)
    captured.accept_front()
    wait_no_capture(captured)
    reply.close()


# dnsmasq


def test_dnsmasq_starts_once(unchanged, captured):
    pids = captured.dnsmasq_pids()
    for _ in range(3):
        reply = captured.demand(verbs.on_network("START_DNSMASQ", OURS))
        assert [reply.value] == pids and len(reply.fds) == 2, "the one that runs, a pidfd, its log"
        reply.close()
    assert captured.dnsmasq_pids() == pids


# NAT


def test_rules_follow_the_kernel_only(unchanged, captured):
    """The verb has no argument: nothing in its bytes gets into the rules."""
    for body in (b"", b"\xff" * 64, b"flush ruleset\n", b"delete table inet filter\n"):
        captured.demand(verbs.request("APPLY_NAT", body))


# Sockets


@pytest.fixture
def strangers(unchanged, lab):
    """An fd of each kind that is no AF_UNIX socket."""
    with contextlib.ExitStack() as stack:

        def keep(fd):
            stack.callback(os.close, fd)
            return fd

        def sock(*kind):
            return stack.enter_context(lab.host.socket(*kind)).fileno()

        reader, writer = os.pipe()
        yield {
            "tcp": sock(socket.AF_INET, socket.SOCK_STREAM),
            "tcp6": sock(socket.AF_INET6, socket.SOCK_STREAM),
            "udp": sock(socket.AF_INET, socket.SOCK_DGRAM),
            "packet": sock(socket.AF_PACKET, socket.SOCK_RAW),
            "netlink": sock(socket.AF_NETLINK, socket.SOCK_RAW),
            "reader": keep(reader),
            "writer": keep(writer),
            "file": keep(os.open(unchanged.canary, os.O_RDWR)),
            "directory": keep(os.open(lab.directory, os.O_RDONLY)),
            "socket's path": keep(os.open(unchanged.bound, os.O_PATH)),
            "memfd": keep(os.memfd_create("evil")),
            "epoll": stack.enter_context(select.epoll()).fileno(),
            "eventfd": keep(os.eventfd(0)),
            "null": keep(os.open("/dev/null", os.O_RDWR)),
            "tun": keep(os.open("/dev/net/tun", os.O_RDWR)),
            "namespace": keep(os.open(lab.host.path, os.O_RDONLY)),
            "pidfd": keep(os.pidfd_open(os.getpid())),
        }


def buffers(fd: int) -> tuple[int, int]:
    with socket.socket(fileno=os.dup(fd)) as copy:
        return tuple(copy.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF))


@pytest.fixture
def pair():
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    yield ends
    for end in ends:
        end.close()


def test_buffers_of_what_is_no_unix_socket(captured, pair, strangers):
    sockets = [strangers[name] for name in ("tcp", "tcp6", "udp", "packet", "netlink")] + [pair[0].fileno()]
    before = [buffers(fd) for fd in sockets]
    for fd in strangers.values():
        for fds in ([fd], [fd, fd], [pair[0].fileno(), fd], [fd, pair[0].fileno()]):
            for size in (0, 1 << 20, 2**32 - 1):
                captured.refused(errno.EINVAL, verbs.force_buffers(size), fds)
    assert [buffers(fd) for fd in sockets] == before


def test_buffers_of_too_many_sockets(unchanged, captured, pair):
    before = buffers(pair[0].fileno())
    for count, error in ((0, errno.EINVAL), (3, errno.EINVAL), (16, errno.EINVAL), (17, errno.EBADMSG)):
        captured.refused(error, verbs.force_buffers(1 << 20), [pair[0].fileno()] * count)
    assert buffers(pair[0].fileno()) == before


def test_buffers_are_capped(unchanged, captured, pair):
    for size in (verbs.BUFFER_MAX + 1, 2**31 - 1, 2**31, 2**32 - 1):
        reply = captured.demand(verbs.force_buffers(size), [end.fileno() for end in pair])
        assert reply.value == 2 * verbs.BUFFER_MAX  # the kernel doubles it for its bookkeeping
        for end in pair:
            assert buffers(end.fileno()) == (2 * verbs.BUFFER_MAX, 2 * verbs.BUFFER_MAX)


def test_impossible_counts_of_vhost(unchanged, captured):
    for count in (0, verbs.QUEUES_MAX + 1, 16, 2**16, 2**31, 2**32 - 1):
        captured.refused(errno.EINVAL, verbs.open_vhost(count))


# Forwards


SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def memory_file(content: bytes, seals: int = SEALS) -> int:
    fd = os.memfd_create("forwards", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def forward_rules(lab):
    listed = lab.host.run(["nft", "list", "tables"]).stdout
    found = re.search(r"inet (vmnet_forwards_\w+)", listed)
    return lab.host.run(["nft", "list", "table", "inet", found[1]]).stdout if found else ""


def ask_forwards(captured, content: bytes, count: int | None = None, **options):
    fd = memory_file(content, **options)
    try:
        size = len(verbs.forward("10.0.0.1"))
        return captured.call(verbs.apply_forwards(len(content) // size if count is None else count), [fd])
    finally:
        os.close(fd)


FOREIGN_TARGETS = (
    "10.55.0.0", "10.55.0.1", "10.55.0.255", "127.0.0.1", "198.51.100.1", "198.51.100.2", "8.8.8.8", "0.0.0.0",
    "255.255.255.255", "224.0.0.1", "::1", "2001:db8:51::1", "fe80::1", "ff02::1",
)


def test_forwards_lead_to_vms_of_ours_only(unchanged, captured, lab):
    for target in FOREIGN_TARGETS:
        reply = ask_forwards(captured, verbs.forward(target))
        assert (reply.result, reply.value) == (0, 0), target
        assert not forward_rules(lab), target
    for listen, port, protocol in ((None, 53, 6), (None, 53, 17), (None, 67, 17), ("10.55.0.1", 53, 17)):
        reply = ask_forwards(captured, verbs.forward("10.55.0.7", 80, listen, port, protocol))
        assert (reply.result, reply.value) == (0, 0) and not forward_rules(lab)
    both = verbs.forward("10.55.0.7") + verbs.forward("8.8.8.8", listen_port=8081)
    reply = ask_forwards(captured, both)
    assert (reply.result, reply.value) == (0, 1)
    assert "10.55.0.7 . 80" in forward_rules(lab) and "8.8.8.8" not in forward_rules(lab)
    assert ask_forwards(captured, b"").result == 0
    assert not forward_rules(lab)


def test_malformed_forwards_change_nothing(unchanged, captured, lab):
    good = verbs.forward("10.55.0.7")
    assert ask_forwards(captured, good).result == 0
    before = forward_rules(lab)
    assert before
    for content in (
        verbs.forward("10.55.0.8", protocol=1), verbs.forward("10.55.0.8", protocol=255),
        verbs.forward("10.55.0.8", listen_port=0), verbs.forward("10.55.0.8", target_port=0),
        verbs.forward("10.55.0.8", is_ipv6=2), verbs.forward("2001:db8::1", is_ipv6=0),
        good + good, good + verbs.forward("10.55.0.9"),
    ):
        assert ask_forwards(captured, content).result == -errno.EINVAL
        assert forward_rules(lab) == before
    for count in (2, 1000, verbs.FORWARDS_MAX, verbs.FORWARDS_MAX + 1, 2**31, 2**32 - 1):
        assert ask_forwards(captured, good, count).result == -errno.EINVAL
    for seals in (0, fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SHRINK):
        assert ask_forwards(captured, good, seals=seals).result == -errno.EINVAL
    captured.refused(errno.EINVAL, verbs.apply_forwards(0))
    for kind in ("pipe", "device", "socket"):
        fds = {"pipe": os.pipe, "device": lambda: [os.open("/dev/zero", os.O_RDONLY)],
               "socket": lambda: [one.detach() for one in socket.socketpair()]}[kind]()
        reply = captured.call(verbs.apply_forwards(1), [fds[0]])
        assert reply.result == -errno.EINVAL, kind
        for fd in fds:
            os.close(fd)
    assert forward_rules(lab) == before
    assert ask_forwards(captured, b"").result == 0


def test_as_many_forwards_as_there_can_be(unchanged, captured, lab):
    many = [verbs.forward("10.55.0.7", listen_port=1024 + number) for number in range(verbs.FORWARDS_MAX)]
    begin = time.monotonic()
    reply = ask_forwards(captured, b"".join(many))
    assert (reply.result, reply.value) == (0, verbs.FORWARDS_MAX)
    assert time.monotonic() - begin < 5, "the front waits for it, and all its clients"
    assert ask_forwards(captured, b"").result == 0


# Requests that are none


def test_when_root_s_fds_on_their_way_are_too_many(unchanged, captured):
    """The kernel lets priv pass none then (unix(7), ETOOMANYREFS), which is an answer, and not the front's fault."""
    most = 64
    resource.prlimit(captured.pid, resource.RLIMIT_NOFILE, (most, most))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for _ in range(most + 1):
            socket.send_fds(ours, [b"x"], [ours.fileno()])
        captured.refused(errno.ETOOMANYREFS, verbs.create_tap(OURS, 1))
    for fd in wait_for(lambda: captured.call(verbs.create_tap(OURS, 1)).fds, 5, "what was on its way is gone"):
        os.close(fd)


def test_unknown_verbs(unchanged, captured):
    for number in (verbs.COUNT, verbs.COUNT + 1, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1):
        for body in (b"", verbs.name_field(OURS), b"\xff" * 64):
            captured.refused(errno.EOPNOTSUPP, verbs.request(number, body))


def test_wrong_beginnings(unchanged, captured):
    name = verbs.name_field(OURS)
    for magic in (0, 1, verbs.MAGIC + 1, verbs.MAGIC ^ 0x80000000, socket.htonl(verbs.MAGIC), 2**32 - 1):
        for verb in verbs.VERBS:
            captured.refused(errno.EBADMSG, verbs.request(verb, name, magic=magic))


def test_every_size(unchanged, captured):
    """Size 0 is the end of the stream, see below."""
    for verb in ("DELETE_BRIDGE", "STOP_DNSMASQ", "APPLY_NAT", "SETTLE"):
        data = verbs.on_network(verb, OURS).ljust(200, b"\xff")
        for size in (*range(1, 201), 4096, 65536):
            if size != verbs.REQUEST_SIZE:
                captured.refused(errno.EBADMSG, data.ljust(size, b"\xff")[:size])


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 18, 19, 100, SCM_MAX_FD])
def test_fds_with_any_verb(captured, strangers, count):
    kinds = [*strangers.values(), captured.verbs.socket.fileno()]
    fds = [kinds[index % len(kinds)] for index in range(count)]
    for verb in verbs.VERBS:
        error = errno.EINVAL if count <= 16 else errno.EBADMSG
        captured.refused(error, verbs.on_network(verb, OURS), fds)
    for size in (1, verbs.REQUEST_SIZE - 1, verbs.REQUEST_SIZE + 1, 4096):
        captured.refused(errno.EBADMSG, b"\xff" * size, fds)
    if count <= 16:
        captured.refused(errno.EOPNOTSUPP, verbs.request(verbs.COUNT), fds)


def test_an_empty_message_is_the_end_of_that_front(captured, world):
    """A front says no more after its end, and one that lives on regardless is ended."""
    reply = captured.demand(verbs.create_bridge(OURS, "10.55.0.0/24"))
    front, fds = captured.front_pid, count_fds(captured.pid)
    before = world.links()
    sent = time.monotonic()
    captured.verbs.socket.sendmsg([b""])
    captured.verbs.send(verbs.on_network("DELETE_BRIDGE", OURS))
    wait_for(lambda: not is_running(front), FRONT_PATIENCE_S + 5, "end of the front")
    assert time.monotonic() - sent > FRONT_PATIENCE_S - 1
    captured.accept_front()
    captured.demand(verbs.request("SETTLE"))
    assert world.links() == before and reply.value in {link["ifindex"] for link in before}
    wait_for(lambda: count_fds(captured.pid) == fds, 5, "as many fds as before")


# Floods

FLOOD = 20_000
# Three that change nothing: nothing to do, the kernel to ask, no such verb.
HARMLESS = [verbs.request("SETTLE"), verbs.delete_tap(0xDEAD), verbs.request(verbs.COUNT)]


def harmless(sequence):
    data = HARMLESS[sequence % len(HARMLESS)]
    return data[:8] + struct.pack("=I", sequence) + data[12:]


class Flood(threading.Thread):
    """Asks as fast as it can, until it has asked count times or priv is gone."""

    def __init__(self, captured, count):
        super().__init__(daemon=True)
        self.verbs, self.count = captured.verbs, count
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            for sequence in range(self.count):
                self.verbs.send(harmless(sequence))


def test_flood_is_answered_in_order_and_paced(unchanged, captured):
    pid = captured.pid
    cpu, started = cpu_s(pid), time.monotonic()
    flood = Flood(captured, FLOOD)
    for sequence in range(FLOOD):
        reply = captured.verbs.receive()
        assert reply.sequence == sequence and reply.result in (0, -errno.ENOENT, -errno.EOPNOTSUPP)
    flood.join()
    took = time.monotonic() - started
    rate = (FLOOD - verbs.BURST) / took
    print(f"{rate:.0f} requests a second after the first burst, {(cpu_s(pid) - cpu) / took:.0%} of a processor")
    assert rate < 1.1 * verbs.BURST
    assert cpu_s(pid) - cpu < 0.5 * took, "priv mostly sleeps"


def test_sigterm_in_a_flood(captured):
    """Also when the front stays: here it is stopped, and only SIGKILL ends it."""
    Flood(captured, 2**32)
    for _ in range(verbs.BURST + 200):  # by now it is slowed
        captured.verbs.receive()
    stop_process(captured.front_pid)
    asked = time.monotonic()
    assert captured.terminate(FRONT_PATIENCE_S + 5) == 0
    assert time.monotonic() - asked > FRONT_PATIENCE_S - 1


def fill(captured):
    """Asks and reads no answer until priv takes no more; returns how often."""
    count = 0
    captured.verbs.socket.setblocking(False)
    while writable([captured.verbs.socket], 1):
        with contextlib.suppress(BlockingIOError):
            captured.verbs.send(harmless(count))
            count += 1
    captured.verbs.socket.settimeout(30)
    return count


def test_front_that_reads_no_answers(unchanged, captured):
    count = fill(captured)
    assert count > 100
    cpu, waited = cpu_s(captured.pid), time.monotonic()
    assert not writable([captured.verbs.socket], 1)
    assert cpu_s(captured.pid) - cpu < 0.2 * (time.monotonic() - waited), "priv sleeps"
    # None is lost.
    for sequence in range(count):
        assert captured.verbs.receive().sequence == sequence


def test_sigterm_when_no_answer_is_read(captured):
    fill(captured)
    assert captured.terminate(FRONT_PATIENCE_S / 2) == 0


def test_answers_that_nobody_reads_are_no_leak(captured, world):
    """TAPs in replies of a front that died go with it."""
    captured.demand(verbs.create_bridge(OURS, "10.55.0.0/24"))
    fds, before = count_fds(captured.pid), world.links()
    for number in range(40):
        captured.verbs.send(verbs.create_tap(OURS, number, 1 + number % verbs.QUEUES_MAX))
    wait_for(lambda: len(world.links()) == len(before) + 40, 10, "all TAPs")
    os.kill(captured.front_pid, signal.SIGKILL)
    captured.accept_front()
    captured.demand(verbs.request("SETTLE"))
    wait_for(lambda: world.links() == before, 10, "end of the TAPs")
    wait_for(lambda: count_fds(captured.pid) == fds, 5, "as many fds as before")


# What the front's user may do to the others


ATTACKER = """
import ctypes, json, os, resource, signal, sys

libc = ctypes.CDLL(None, use_errno=True)
ATTACH, SEIZE = 16, 0x4206
PIDFD_GETFD = 438

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")

def read_memory(pid):
    class Part(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    mine = ctypes.create_string_buffer(1)
    with open(f"/proc/{pid}/maps" if os.access(f"/proc/{pid}/maps", os.R_OK) else "/proc/self/maps") as maps:
        address = int(next(maps).split("-")[0], 16)
    here, there = Part(ctypes.addressof(mine), 1), Part(address, 1)
    checked(libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0))

ATTACKS = {
    "signal 0": lambda pid: os.kill(pid, 0),
    "SIGSTOP": lambda pid: os.kill(pid, signal.SIGSTOP),
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "SIGKILL": lambda pid: os.kill(pid, signal.SIGKILL),
    "pidfd": lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL),
    "limits": lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1)),
    "attach": lambda pid: checked(libc.ptrace(ATTACH, pid, None, None)),
    "seize": lambda pid: checked(libc.ptrace(SEIZE, pid, None, None)),
    "its memory": read_memory,
    "its memory's file": lambda pid: open(f"/proc/{pid}/mem", "r+b"),
    "its environment": lambda pid: open(f"/proc/{pid}/environ", "rb").read(),
    "its fd": lambda pid: checked(libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), 0, 0)),
    "its fd's file": lambda pid: os.open(f"/proc/{pid}/fd/0", os.O_RDONLY),
    "its program": lambda pid: os.readlink(f"/proc/{pid}/exe"),
}

results = {}
for name in sys.argv[2:]:
    try:
        ATTACKS[name](int(sys.argv[1]))
        results[name] = 0
    except OSError as error:
        results[name] = error.errno
print(json.dumps(results))
"""
SIGNALS = ["signal 0", "SIGSTOP", "SIGTERM", "SIGKILL", "pidfd", "limits"]
TRACES = [
    "its memory", "its memory's file", "its environment", "its fd", "its fd's file", "its program", "attach", "seize",
]  # fmt: skip


def attack(lab, pid, names):
    """What each attempt by a process of the front's user comes to: 0 or errno. Unlike the front it may call anything."""
    result = lab.host.run([sys.executable, "-c", ATTACKER, str(pid), *names], user=NOBODY)
    return json.loads(result.stdout)


def test_front_cannot_touch_priv_nor_trace_dnsmasq(unchanged, captured, lab):
    (dnsmasq,) = captured.dnsmasq_pids()
    assert process_uid(dnsmasq) == NOBODY.uid
    no = {errno.EPERM, errno.EACCES}
    for pid, names in ((captured.pid, SIGNALS + TRACES), (dnsmasq, TRACES)):
        results = attack(lab, pid, names)
        assert set(results) == set(names) and set(results.values()) <= no, results
    # The same attempts work on a process that has nothing more than the front.
    with lab.host.popen(["sleep", "60"], user=NOBODY) as victim:
        wait_for(lambda: process_name(victim.pid) == "sleep", 5, "the victim")
        results = attack(lab, victim.pid, ["signal 0", *TRACES[:-1]])
        assert set(results.values()) == {0}, results
        victim.kill()


def test_front_has_nothing(captured):
    status = dict(line.split(":\t", 1) for line in read_proc(captured.front_pid, "status").decode().splitlines())
    for which in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[which], 16) == 0
    assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].split() == []
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


DELETE_TABLE = """
import os, socket, struct, sys

NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE, NFTA_TABLE_NAME, NFPROTO_INET = 10, 2, 1, 1
BEGIN, END, REQUEST, ACK = 16, 17, 1, 4

def message(kind, flags, family, resource, payload=b""):
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body

name = sys.argv[2].encode() + b"\\0"
attribute = struct.pack("=HH", 4 + len(name), NFTA_TABLE_NAME) + name.ljust(-(-len(name) // 4) * 4, b"\\0")
batch = message(BEGIN, REQUEST, 0, NFNL_SUBSYS_NFTABLES)
batch += message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE, REQUEST | ACK, NFPROTO_INET, 0, attribute)
batch += message(END, REQUEST, 0, NFNL_SUBSYS_NFTABLES)
netlink = socket.socket(fileno=int(sys.argv[1]))
netlink.settimeout(5)
try:
    netlink.send(batch)
    while True:
        reply = netlink.recv(8192)
        if struct.unpack_from("=H", reply, 4)[0] == 2:  # NLMSG_ERROR, 0 for done
            print(-struct.unpack_from("=i", reply, 16)[0])
            break
except OSError as error:
    print(error.errno)
"""


def delete_table(lab, netlink, table, user):
    """errno of the attempt over this socket."""
    command = [sys.executable, "-c", DELETE_TABLE, str(netlink), table]
    return int(lab.host.run(command, user=user, pass_fds=[netlink]).stdout)


def test_nft_events_can_only_be_read(unchanged, captured, lab):
    reply = captured.demand(verbs.request("OPEN_NFT_EVENTS"))
    (netlink,) = reply.fds
    assert delete_table(lab, netlink, f"vmnet_{OTHER_INSTANCE:08x}", NOBODY) == errno.EPERM
    # The same bytes from root do it: here to a table made for that.
    lab.host.run(["nft", "add", "table", "inet", "scratch"])
    with lab.host.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as own:
        assert delete_table(lab, own.fileno(), "scratch", None) == 0
    reply.close()


# What takes its time


def give(lingering: Lingering, captured: Captured, data: bytes, copies: int = 1, nested: bool = False) -> None:
    """Sends it so that priv has the last fd. Nested: in the queue of a socket that is sent."""
    stop_process(captured.pid)
    wait_for(lambda: b") T" in read_proc(captured.pid, "stat"), 5, "priv is stopped")
    fds = [lingering.socket.fileno()] * copies
    if nested:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        captured.verbs.send(data, [far.fileno()])
        near.close()
        far.close()
    else:
        captured.verbs.send(data, fds)
    lingering.socket.close()
    os.kill(captured.pid, signal.SIGCONT)


@pytest.fixture
def lingering(lab):
    lingering = Lingering(lab)
    yield lingering
    lingering.close()


@pytest.mark.parametrize(
    ("data", "copies", "nested", "error"),
    [
        (verbs.request("SETTLE"), 1, False, errno.EINVAL),
        (verbs.force_buffers(1), 2, False, errno.EINVAL),
        (verbs.request("SETTLE"), SCM_MAX_FD, False, errno.EBADMSG),
        (verbs.force_buffers(1), 1, True, 0),
    ],
    ids=["refused", "no AF_UNIX socket", "dropped by the kernel", "in the queue of a good socket"],
)
def test_fd_that_takes_its_time_to_close(captured, lingering, data, copies, nested, error):
    give(lingering, captured, data, copies, nested)
    captured.verbs.socket.settimeout(5)
    assert captured.verbs.receive().result == -error
    captured.demand(verbs.request("SETTLE"))


def test_fd_that_takes_its_time_when_the_front_ends(captured, lingering):
    """priv closes what the front sent and it did not receive any more."""
    captured.verbs.socket.sendmsg([b""])
    give(lingering, captured, verbs.request("SETTLE"))
    os.kill(captured.front_pid, signal.SIGKILL)
    captured.accept_front(5)
    captured.demand(verbs.request("SETTLE"))


def test_sigterm_when_every_dnsmasq_is_stopped(captured):
    """The front may send signals to dnsmasq: it is the same user. That must not add up."""
    count = 6
    for index in range(count):
        captured.demand(verbs.create_bridge(f"n{index}", f"10.55.{index}.0/24"))
        captured.demand(verbs.on_network("START_DNSMASQ", f"n{index}")).close()
    for pid in captured.dnsmasq_pids():
        stop_process(pid)
    asked = time.monotonic()
    assert captured.terminate(DNSMASQ_PATIENCE_S * count + 5) == 0
    assert time.monotonic() - asked < DNSMASQ_PATIENCE_S * count / 2


STOPPER = """
import os, signal, sys

known = set()
children = open(f"/proc/{sys.argv[1]}/task/{sys.argv[1]}/children")
known.update(children.read().split())
print("ready", flush=True)
while True:
    children.seek(0)
    for child in children.read().split():
        if child not in known:
            try:
                os.kill(int(child), signal.SIGSTOP)
                known.add(child)
            except PermissionError:
                pass
            except ProcessLookupError:
                known.add(child)
"""


def test_child_that_is_stopped_before_it_is_dnsmasq(captured, lab):
    """From the moment it is the front's user until it is another program: priv waits for that, but not for ever."""
    captured.demand(verbs.create_bridge(OURS, "10.55.0.0/24"))
    command = [sys.executable, "-c", STOPPER, str(captured.pid)]
    stopper = lab.host.popen(command, user=NOBODY, stdout=subprocess.PIPE)
    assert stopper.stdout.readline() == b"ready\n"
    captured.verbs.socket.settimeout(5 * EXEC_PATIENCE_S)

    def stopped_before_exec():
        """Or after it, or not at all: that is up to the scheduler."""
        asked = time.monotonic()
        captured.demand(verbs.on_network("START_DNSMASQ", OURS)).close()
        took = time.monotonic() - asked
        captured.call(verbs.on_network("STOP_DNSMASQ", OURS))
        return took > EXEC_PATIENCE_S / 2

    wait_for(stopped_before_exec, 100, "a child that was stopped in time")
    captured.demand(verbs.request("SETTLE"))
