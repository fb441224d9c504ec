"""TAPs that a VM program opens by name: whose they are, how they end, and what their holders can do to them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess

import pytest

from lib import frames, tap_program
from lib.broker import MEMBER, STRANGER, VarlinkError
from lib.frames import ETHERTYPE_IPV4, ethernet, icmp_echo
from lib.lab import User, is_running, open_fds, stop_process, wait_for
from lib.lan import Lan
from lib.named_tap import PLAIN, NamedHolder, header_size, open_tap, wait_forwarding
from lib.tap_program import IFF_NO_PI, IFF_TAP

NETWORKS = {
    "open": {"mode": "shared"},
    "both": {"mode": "shared", "lock_mac": True, "isolation": True},
}
IDLE_S = 1
IFF_MULTI_QUEUE = 0x0100
SIOCSIFHWADDR = 0x8924
TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x400454CB, 0x400454CC, 0x400454CE
OTHER = User(4444, 4444, MEMBER.groups)


@pytest.fixture
def broker(make_broker):
    return make_broker(networks=NETWORKS, idle_timeout_s=IDLE_S)


@pytest.fixture
def name(broker):
    """name(network, **parameters): a NamedHolder, closed at the end."""
    holders = []

    def make(network="open", **parameters):
        holders.append(NamedHolder(broker, network, **parameters))
        return holders[-1]

    yield make
    for holder in holders:
        holder.close()


def wait_nothing_left(broker):
    wait_for(lambda: not broker.links(), 10, "the end of interface and network")
    wait_for(lambda: broker.leftovers().files == ["lock", "socket"], 3, "the end of the records")
    assert not broker.tables() and not broker.dnsmasq_pids()


def reaches_gateway(holder):
    return holder.pings(holder.gateway, holder.resolve(holder.gateway))


# Opening it


def test_it_waits_for_its_owner(broker, name):
    holder = name()
    assert holder.reply["heldByConnection"]
    link = holder.link()
    tun = link["linkinfo"]["info_data"]
    assert tun["persist"] and not tun["multi_queue"]
    owner = broker.namespace.run_with_sysfs(["cat", f"/sys/class/net/{holder.name}/owner"]).stdout
    assert int(owner) == MEMBER.uid
    assert link["ifalias"].split("/")[3:] == ["tap", f"named,{MEMBER.uid}", "open"]
    assert "UP" in link["flags"] and "NO-CARRIER" in link["flags"]
    holder.open()
    assert "LOWER_UP" in holder.link()["flags"]
    assert reaches_gateway(holder)
    with broker.connect(MEMBER) as peer:
        (mine,) = peer.call("ListInterfaces")[0]["interfaces"]
    assert mine["interfaceName"] == holder.name and mine["named"] and mine["queues"] == 1


@pytest.mark.parametrize("flags", [IFF_TAP, PLAIN, tap_program.IFF_VNET_HDR | PLAIN])
def test_its_flags_are_those_of_who_opens_it(broker, name, flags):
    """And the header's size that of any new TAP, whatever the broker's other TAPs have."""
    holder = name()
    tap = open_tap(broker, holder.name, flags=flags)
    assert header_size(tap) == 10
    wait_forwarding(holder)
    before = b"" if flags & IFF_NO_PI else bytes(2) + struct.pack("!H", frames.ETHERTYPE_ARP)
    before += bytes(10) if flags & tap_program.IFF_VNET_HDR else b""
    os.write(tap, before + frames.arp_request(holder.mac, holder.address, holder.gateway))
    os.set_blocking(tap, False)

    def answered():
        with contextlib.suppress(BlockingIOError):
            return frames.parse(os.read(tap, 4096)[len(before) :]).arp_operation == frames.ARP_REPLY
        return False

    wait_for(answered, 5, "the gateway's answer")
    os.close(tap)


def test_others_cannot_open_it(broker, name):
    holder = name()
    for user in (STRANGER, OTHER):
        with pytest.raises(OSError) as refused:
            open_tap(broker, holder.name, user)
        assert refused.value.errno == errno.EPERM, user
    with pytest.raises(OSError) as refused:
        open_tap(broker, holder.name, flags=PLAIN | IFF_MULTI_QUEUE)
    assert refused.value.errno == errno.EINVAL
    holder.open()
    with pytest.raises(OSError) as refused:
        open_tap(broker, holder.name)
    assert refused.value.errno == errno.EBUSY, "one program at a time"
    assert reaches_gateway(holder)


def test_root_s_is_root_s(broker, name):
    holder = name(user=None)
    with pytest.raises(OSError) as refused:
        open_tap(broker, holder.name, MEMBER)
    assert refused.value.errno == errno.EPERM
    os.close(open_tap(broker, holder.name, User(0)))


def test_it_can_be_opened_again(broker, name):
    """A VM program that is started anew in the same lease."""
    holder = name().open()
    assert reaches_gateway(holder)
    os.close(holder.queues.pop())
    wait_for(lambda: "NO-CARRIER" in holder.link()["flags"], 3, "no carrier without a program")
    holder.open()
    assert reaches_gateway(holder)


@pytest.mark.parametrize("parameter", ["queues", "vhost"])
def test_what_only_fds_can_have_is_refused(broker, parameter):
    with broker.connect(MEMBER) as peer, pytest.raises(VarlinkError) as refused:
        peer.call("CreateInterface", network="open", named=True, **{parameter: {"queues": 2, "vhost": True}[parameter]})
    assert refused.value.name == "InvalidRequest"
    assert refused.value.parameters["reason"].endswith(f"leave out {parameter}")


def test_on_a_bridge_of_the_host(make_broker, lab):
    lan = Lan(lab, "bridge")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=IDLE_S)
    holder = NamedHolder(broker, "lan").open()
    holder.send(frames.arp_request(holder.mac, "10.99.0.77", "10.99.0.1"))
    assert any(frames.parse(frame).arp_operation == frames.ARP_REPLY for frame in holder.received())
    holder.peer.socket.shutdown(2)
    wait_for(lambda: not broker.links(), 5, "its end")
    holder.close()


def test_a_macvtap_link_has_no_such_thing(make_broker, lab):
    lan = Lan(lab, "nic")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}))
    with broker.connect(MEMBER) as peer, pytest.raises(VarlinkError) as refused:
        peer.call("CreateInterface", network="lan", named=True)
    assert refused.value.name == "CreateFailure" and f"{lan.uplink} is no bridge" in refused.value.parameters["reason"]
    assert not broker.links()


# What keeps its port


def test_lock_and_isolation_hold(broker, name):
    one, other = name("both").open(), name("both").open()
    gateway = one.resolve(one.gateway)
    alias = one.link()["ifalias"].split("/")[4]
    assert alias == f"isolated,named,{MEMBER.uid},lock,{one.mac},{one.address}"
    assert one.pings(one.gateway, gateway)
    one.send(one.datagram(b"isolated", other.address, other.mac))
    spoofed = icmp_echo(other.address, one.gateway, 7, 1)
    one.send(ethernet(gateway, other.mac, ETHERTYPE_IPV4, spoofed))
    assert one.pings(one.gateway, gateway)
    assert not any(b"isolated" in frame for frame in other.received(0.2))
    assert other.pings(other.gateway, other.resolve(other.gateway)), "its entry is where it was"


@pytest.mark.parametrize("part", ["front", "priv"])
def test_lock_and_isolation_outlive_the_broker(broker, part, lab):
    with Program(broker, lab, "both") as program:
        before = program.link()
        broker.kill(part)
        if part == "priv":
            broker.namespace.run(["nft", "flush", "ruleset"])
            broker.start()
        wait_adopted(broker, program)
        assert program.link()["ifalias"] == before["ifalias"]
        rules = broker.namespace.run(["nft", "list", "ruleset"]).stdout
        assert program.interface in rules and program.line["vmnet_mac_address"] in rules


# Its end


class Program:
    """vmnet-client --attach tap -- tap_program.py"""

    def __init__(self, broker, lab, network="open", bin_dir=None):
        self.broker = broker
        script = lab.directory / "tap_program.py"
        shutil.copy(tap_program.__file__, script)
        self.client = broker.namespace.popen(
            [broker.command[0].replace("vmnet-broker", "vmnet-client"), "--network", network, "--hostname", "web"]
            + ["--attach", "tap", "--", "/usr/bin/python3", script],
            user=MEMBER,
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path), "VMNET_FD": "99", "VMNET_QUEUES": "99"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.line = json.loads(self.client.stdout.readline())
        ready, pid, has_fd, has_queues = self.client.stdout.readline().split()
        assert (ready, has_fd, has_queues) == ("ready", "False", "False"), "those of an outer client are not for it"
        self.pid = int(pid)
        wait_forwarding(self)

    @property
    def interface(self):
        return self.line["vmnet_interface_name"]

    def link(self):
        return next((link for link in self.broker.links() if link["ifname"] == self.interface), None)

    def answers(self):
        """Whether the VM answers the host."""
        command = ["ping", "-c1", "-W5", self.line["vmnet_ipv4_address"]]
        return self.broker.namespace.run(command, check=False).returncode == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.kill()
        self.client.wait(5)


def wait_adopted(broker, program):
    wait_for(lambda: f"adopted interface {program.interface} of user {MEMBER.uid}" in broker.log(), 10, "adoption")

    def listed():
        with contextlib.suppress(ConnectionError, EOFError, VarlinkError), broker.connect(MEMBER) as peer:
            return [entry["named"] for entry in peer.call("ListInterfaces")[0]["interfaces"]]
        return None

    assert wait_for(listed, 5, "the interface is listed") == [True]


@pytest.mark.parametrize("victim", ["program", "program TERM", "client", "client TERM"])
def test_it_ends_with_program_and_client(broker, lab, victim):
    with Program(broker, lab) as program:
        assert program.answers()
        number = signal.SIGTERM if "TERM" in victim else signal.SIGKILL
        os.kill(program.client.pid if "client" in victim else program.pid, number)
        program.client.wait(10)
        wait_for(lambda: not is_running(program.pid), 5, "the program's end")
        wait_nothing_left(broker)


@pytest.mark.parametrize("part", ["front", "priv", "TERM", "front, then priv"])
@pytest.mark.parametrize("victim", ["program", "client"])
def test_it_outlives_the_broker_and_ends_with_its_process(broker, lab, part, victim):
    with Program(broker, lab) as program:
        assert program.answers()
        index = program.link()["ifindex"]
        for killed in part.split(", then "):
            if killed == "TERM":
                assert broker.terminate() == 0
            else:
                broker.kill(killed)
            assert program.answers()
            if killed != "front":
                broker.start()
            wait_adopted(broker, program)
        assert program.answers() and program.link()["ifindex"] == index
        os.kill(program.client.pid if victim == "client" else program.pid, signal.SIGKILL)
        program.client.wait(10)
        wait_nothing_left(broker)


def test_one_whose_process_ended_meanwhile_is_swept(broker, lab):
    with Program(broker, lab) as program:
        broker.kill("priv")
        os.kill(program.client.pid, signal.SIGKILL)
        wait_for(lambda: not is_running(program.pid), 5, "the guard ends the program")
        assert program.link(), "the kernel keeps it by itself"
        broker.start()
        wait_nothing_left(broker)
    wait_for(lambda: "the process that had it made has ended" in broker.log(), 10, "the log says why")


def test_one_that_nobody_opened_ends_with_its_connection(broker, name):
    holder = name()
    assert holder.link()
    holder.end()
    wait_nothing_left(broker)


def test_it_is_taken_from_a_program_that_outlives_its_lease(broker, name):
    holder = name().open()
    assert reaches_gateway(holder)
    holder.end()
    wait_nothing_left(broker)
    with pytest.raises(OSError):
        os.write(holder.queues[0], bytes(100))


# What its holder does


def change_mac(tap, name):
    fcntl.ioctl(tap, SIOCSIFHWADDR, struct.pack("16sH6s10x", name.encode(), 1, bytes.fromhex("525400aabb99")))


TAMPERING = {
    "address": change_mac,
    "owner": lambda tap, _: fcntl.ioctl(tap, TUNSETOWNER, STRANGER.uid),
    "group": lambda tap, _: fcntl.ioctl(tap, TUNSETGROUP, MEMBER.groups[0]),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_undone(broker, name, what):
    neighbour, holder = name().open(), name().open()
    TAMPERING[what](holder.queues[0], holder.name)
    wait_for(lambda: not holder.link(), 10, "the TAP is taken away")
    said = f"deleted interface {holder.name} of user {MEMBER.uid}: its holder"
    wait_for(lambda: said in broker.log(), 10, "the log says why")
    assert neighbour.link() and reaches_gateway(neighbour)


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_while_the_broker_is_away(broker, lab, what):
    with Program(broker, lab) as program:
        broker.kill("priv")
        stop_process(program.pid)
        tap = steal_fd(program.pid)
        TAMPERING[what](tap, program.interface)
        broker.start()
        wait_for(lambda: not program.link(), 5, "the TAP is taken away")
        wait_for(lambda: f"deleted interface {program.interface}" in broker.log(), 10, "the log says so")
        os.close(tap)


def steal_fd(pid):
    """The program's own fd of the TAP."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    (number,) = (fd for fd, link in open_fds(pid).items() if link == "/dev/net/tun")
    stolen = libc.syscall(438, pidfd, number, 0)  # pidfd_getfd
    os.close(pidfd)
    assert stolen >= 0, os.strerror(ctypes.get_errno())
    return stolen


def test_without_persistence_it_ends_with_its_fd(broker, name):
    """No harm in that: so do all others."""
    holder = name().open()
    fcntl.ioctl(holder.queues[0], TUNSETPERSIST, 0)
    assert reaches_gateway(holder)
    os.close(holder.queues.pop())
    wait_for(lambda: not holder.link(), 3, "the TAP's end")
    with broker.connect(MEMBER) as peer:
        wait_for(lambda: not peer.call("ListInterfaces")[0]["interfaces"], 3, "it is released")
    assert "deleted interface" not in broker.log()


# vmnet-client


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--queues", "2"), "a TAP that is opened by its name has one"),
        (("--stats-interval", "1"), "--stats-interval excludes --attach native and tap"),
        (("--vnet-hdr",), "need --attach socket or stream"),
    ],
)
def test_options_that_have_no_meaning_are_refused(broker, bin_dir, options, word):
    result = broker.namespace.run(
        [bin_dir / "vmnet-client", "--network", "open", "--attach", "tap", *options, "--", "true"],
        user=MEMBER, check=False, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
    )  # fmt: skip
    assert result.returncode == 1 and word in result.stderr


# Without root


def test_an_ordinary_user_s_own_broker(make_rootless, lab):
    """A name means something inside its namespace only: outside it is refused with what to do, inside it works."""
    broker = make_rootless()
    broker.start()
    script = broker.directory / "tap_program.py"
    shutil.copy(tap_program.__file__, script)
    command = [broker.bin_dir / "vmnet-client", "--network", "shared", "--attach", "tap", "--", "/usr/bin/python3", script]
    refused = broker.owner.run(command, check=False)
    assert refused.returncode == 1 and "vmnetctl exec -- vmnet-client --attach tap" in refused.stderr
    broker.wait_uplink()
    client = broker.owner.popen(
        [broker.bin_dir / "vmnetctl", "exec", "--", *command], stdout=subprocess.PIPE, text=True
    )
    line = json.loads(client.stdout.readline())
    assert client.stdout.readline().startswith("ready ")
    assert broker.inside.run(["ping", "-c3", "-i0.3", "-W5", line["vmnet_ipv4_address"]]).returncode == 0
    (link,) = [link for link in broker.links() if link["ifname"] == line["vmnet_interface_name"]]
    assert link["ifalias"].split("/")[4] == "named,0"
    broker.kill("front")
    wait_for(lambda: f"adopted interface {link['ifname']}" in broker.log(), 10, "adoption")
    assert broker.inside.run(["ping", "-c3", "-i0.3", "-W5", line["vmnet_ipv4_address"]]).returncode == 0
    client.terminate()
    client.wait(10)
    wait_for(lambda: link["ifname"] not in [one["ifname"] for one in broker.links()], 5, "the TAP's end")
    assert broker.terminate() == 0
    broker.wait_nothing_left()
