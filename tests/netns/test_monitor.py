"""Monitor and vmnetctl monitor: what there is and what happens, to those who may know, whatever becomes of anybody."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from lib import frames
from lib.broker import MEMBER, Varlink, VarlinkError
from lib.holder import Holder
from lib.lab import User, is_running, process_name, wait_for
from lib.readiness import readable
from lib.tap_vm import TapVm

OTHER = User(4244, 4244, (100,))
SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/event.schema.json").read_text())
BACKLOG_MAX = 64 << 10  # MONITOR_BACKLOG_MAX


class Watch:
    """One Monitor call, whose state has been told when the constructor returns; events are collected as they are
    waited for."""

    def __init__(self, broker, user=None, **parameters):
        self.connection: Varlink = broker.connect(user)
        self.events = []
        self.connection.send("Monitor", parameters, more=True)
        self.until("ready")
        self.state = [event for event in self.events if event["state"]]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def next(self):
        reply, fds, more = self.connection.reply()
        assert more and not fds and reply.keys() == {"event"}
        event = reply["event"]
        jsonschema.validate(event, SCHEMA)
        self.events.append(event)
        return event

    def until(self, kind, what=None, wanted: Callable = lambda event: True):
        """Reads until there is such an event, and returns it."""
        while True:
            event = self.next()
            if event["kind"] == kind and what in (None, event["what"]) and wanted(event):
                return event


class Ctl:
    """A vmnetctl monitor that runs."""

    def __init__(self, broker, bin_dir, *arguments, user=MEMBER):
        self.process = broker.namespace.popen(
            [bin_dir / "vmnetctl", "monitor", *arguments],
            user=user, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )

    def line(self, pattern):
        for line in self.process.stdout:
            if re.search(pattern, line):
                return line.rstrip("\n")
        raise AssertionError(f"it ended before {pattern}: {self.process.stderr.read()}")

    def close(self):
        self.process.terminate()
        self.process.wait(5)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def monitor(broker, bin_dir):
    """monitor(*arguments, user=): a vmnetctl monitor that runs until the end of the test."""
    running = []

    def start(*arguments, user=MEMBER):
        running.append(Ctl(broker, bin_dir, *arguments, user=user))
        return running[-1]

    yield start
    for ctl in running:
        ctl.close()


def test_the_life_of_a_network_and_a_vm(make_broker):
    broker = make_broker(idle_timeout_s=1)
    with Watch(broker, MEMBER) as watch:
        assert watch.state == []
        with broker.connect(MEMBER) as peer:
            vm = TapVm(peer, hostname="web")
        try:
            assert watch.until("network", "starting")["network"] == "shared"
            running = watch.until("network", "running")
            assert re.fullmatch(r"[\d.]+/24 on bridge vmbr[0-9a-f]{8}", running["text"])
            created = watch.until("interface", "created")
            assert created["network"] == "shared" and created["uid"] == MEMBER.uid and not created["state"]
            assert created["interface"]["hostname"] == "web" and created["interface"]["mac"] == vm.mac
            assert vm.lease() == vm.address
            given = watch.until("lease", "given")
            assert given["lease"] == {"mac": vm.mac, "address": vm.address, "hostname": "web"}
            assert vm.lease() == vm.address
            assert watch.until("lease", "renewed")["lease"]["mac"] == vm.mac
            forwarding = broker.connect(MEMBER)
            forwarding.call("Forward", network="shared", listen="8080", target="web:80")
            assert watch.until("forward", "added")["forward"]["target"] == "web:80"
            assert watch.until("forward", "active")["forward"]["address"] == f"{vm.address}:80"
            forwarding.close()
            assert watch.until("forward", "removed")["uid"] == MEMBER.uid
        finally:
            vm.close()
        gone = watch.until("interface", "gone")
        assert gone["interface"]["interfaceName"] == vm.interface and gone["text"] == "its holder closed it"
        watch.until("network", "lingering")
        assert watch.until("network", "absent")["network"] == "shared"
    times = [event["time"] for event in watch.events]
    assert times == sorted(times) and abs(times[-1] / 1e6 - time.time()) < 60


def test_a_released_lease(broker):
    with broker.connect(MEMBER) as peer:
        vm = TapVm(peer)
    with contextlib.closing(vm), Watch(broker, MEMBER) as watch:
        assert vm.lease() == vm.address
        watch.until("lease", "given")
        fixed = struct.pack(
            "!BBBBIHH4s12x6s10x192xI", 1, 1, 6, 0, 0x77, 0, 0, socket.inet_aton(vm.address), frames.mac_bytes(vm.mac),
            0x63825363,
        )
        gateway = vm.address.rpartition(".")[0] + ".1"
        release = fixed + bytes([53, 1, 7, 54, 4]) + socket.inet_aton(gateway) + bytes([255])
        packet = frames.udp(vm.address, 68, gateway, 67, release)
        (bridge,) = (link["address"] for link in broker.links() if link["ifname"].startswith("vmbr"))
        os.write(vm.tap, bytes(12) + frames.ethernet(bridge, vm.mac, frames.ETHERTYPE_IPV4, packet))
        assert watch.until("lease", "released")["lease"]["address"] == vm.address


def test_what_there_is_comes_first(broker):
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(broker.connect(MEMBER))
        names = set()
        for number in range(3):
            vm = TapVm(peer, hostname=f"vm{number}")
            stack.callback(vm.close)
            names.add(vm.interface)
        peer.call("Forward", network="shared", listen="8080", target="vm1:80")
        peer.call("Forward", network="shared", listen="8081", target="nobody:80")
        with Watch(broker, MEMBER) as watch:
            state = watch.state
        kinds = [event["kind"] for event in state]
        assert kinds == ["network"] + ["interface"] * 3 + ["forward"] * 2 and state[0]["what"] == "running"
        told = {event["interface"]["interfaceName"]: event["what"] for event in state[1:4]}
        assert told == dict.fromkeys(names, "present")
        assert [event["what"] for event in state[4:]] == ["active", "waiting"]
        with Watch(broker, MEMBER, state=False) as watch:
            assert watch.state == []
        with Watch(broker, OTHER) as watch:
            assert [event["kind"] for event in watch.state] == ["network"], "whose VMs and ports these are is nobody's business"
        with Watch(broker) as watch:
            assert len(watch.state) == len(state), "root sees all"
        with Watch(broker, MEMBER, network="host") as watch:
            assert watch.state == []


def test_who_is_told_what(make_broker):
    """What is another's, and what concerns a network of others, is told to nobody but them and root."""
    broker = make_broker(networks={"closed": {"mode": "host", "allow": {"users": [OTHER.uid]}}})
    with Watch(broker, MEMBER) as mine, Watch(broker, OTHER) as theirs, Watch(broker) as roots:
        with broker.connect(OTHER) as peer:
            with contextlib.closing(TapVm(peer, network="closed", hostname="secret")) as vm:
                assert vm.lease() == vm.address
                peer.call("Forward", network="closed", listen="8080", target="secret:80")
                with pytest.raises(VarlinkError, match="NotFound"):
                    peer.call("AcquireNetwork", network="typo")
        for watch in (theirs, roots):
            seen = set()
            while {"network", "interface", "lease", "forward", "refusal"} - seen or ("interface", "gone") not in {
                (event["kind"], event["what"]) for event in watch.events
            }:
                seen.add(watch.next()["kind"])
        with broker.connect(MEMBER) as peer:
            with pytest.raises(VarlinkError, match="NotAllowed"):
                peer.call("AcquireNetwork", network="closed")
        refusal = mine.until("refusal")
        assert refusal["what"] == "NotAllowed" and refusal["uid"] == MEMBER.uid and "closed" in refusal["text"]
        assert [event["kind"] for event in mine.events] == ["ready", "refusal"]
        assert roots.until("refusal", "NotAllowed")["uid"] == MEMBER.uid


def test_refused_monitors(make_broker):
    broker = make_broker(networks={"closed": {"mode": "host", "allow": {"users": [OTHER.uid]}}})
    with broker.connect(MEMBER) as peer:
        for name, parameters in (
            ("NotFound", {"network": "typo"}),
            ("NotAllowed", {"network": "closed"}),
            ("InvalidRequest", {"network": "../x"}),
            ("InvalidRequest", {"state": 1}),
            ("InvalidRequest", {"nothing": True}),
        ):
            with pytest.raises(VarlinkError, match=name):
                next(peer.stream("Monitor", **parameters))
        with pytest.raises(VarlinkError, match="org.varlink.service.ExpectedMore"):
            peer.call("Monitor")
        peer.call("AcquireNetwork", network="shared")


def test_tampering(broker):
    with contextlib.closing(Holder(broker, "shared")) as holder, Watch(broker, MEMBER) as watch:
        request = struct.pack("16sH6s", holder.name.encode(), 1, bytes.fromhex("525400999999"))
        fcntl.ioctl(holder.queues[0], 0x8924, request)  # SIOCSIFHWADDR
        warning = watch.until("warning", "tampering")
        assert warning["interface"]["interfaceName"] == holder.name and "address" in warning["text"]
        assert watch.until("interface", "gone")["text"] == warning["text"]


def test_frames_that_are_dropped(broker):
    """A VM that does not read: its TAP's queue is full at some time."""
    with contextlib.closing(Holder(broker, "shared")) as silent, contextlib.closing(Holder(broker, "shared")) as sender:
        with Watch(broker, MEMBER) as watch:
            for _ in range(3000):
                sender.send(sender.datagram(b"x" * 100))
            warning = watch.until("warning", "drops", lambda event: event["interface"]["interfaceName"] == silent.name)
            assert re.fullmatch(r"\d+ frames were dropped within 5 s", warning["text"])


def test_the_configuration(broker):
    with Watch(broker) as roots, Watch(broker, MEMBER) as mine:
        broker.write_config({"good": {"mode": "host"}, "bad": {"mode": "shard"}})
        roots.until("configuration", "read")
        mistake = roots.until("configuration", "mistake")
        assert mistake["network"] == "bad" and '"shard"' in mistake["text"]
        mine.until("configuration", "read")
        broker.write_config("{")
        assert "networks.json:1:1" in roots.until("configuration", "mistake", lambda event: "network" not in event)["text"]


def test_names_of_vms_are_no_trouble(broker):
    """Words that dnsmasq's own complaints have, in a name that another user's VM told."""
    with Watch(broker, MEMBER) as watch, broker.connect(OTHER) as peer:
        with contextlib.closing(TapVm(peer, hostname="failover-error")) as vm:
            assert vm.lease() == vm.address
        watch.until("network", "lingering")
        assert {event["kind"] for event in watch.events} <= {"ready", "network"}
        assert "failover" not in json.dumps(watch.events)


def test_dnsmasq_that_ended(broker):
    with broker.connect(MEMBER) as peer, Watch(broker, MEMBER) as watch:
        peer.call("AcquireNetwork", network="shared")
        broker.kill("dnsmasq")
        assert "dnsmasq ended" in watch.until("warning", "dhcp")["text"]


def test_a_bridge_that_somebody_removed(broker):
    with broker.connect(MEMBER) as peer, Watch(broker, MEMBER) as watch:
        network = peer.call("AcquireNetwork", network="shared")[0]["network"]
        broker.namespace.ip("link", "delete", network["bridge"])
        assert watch.until("warning", "bridge")["network"] == "shared"
        watch.until("network", "absent")
        watch.until("network", "running")


def flood(broker, count):
    """So many events for MEMBER, and each answered: the broker waits for nobody."""
    with broker.connect(MEMBER) as peer:
        for number in range(count):
            with pytest.raises(VarlinkError):
                peer.call("AcquireNetwork", network="x", mode="y" * 400 + str(number))


def test_a_reader_that_stops(broker):
    """It is told how many events it missed, in their place; the others have them all, and the broker stays small."""
    with Watch(broker, MEMBER) as stopped, Watch(broker, MEMBER) as reads:
        done = 0
        while done < 200 or readable([stopped.connection.socket], 0) and done < 2000:
            flood(broker, 100)
            for _ in range(100):
                reads.until("refusal")
            done += 100
        told = 0
        missed = None
        while not missed:
            event = stopped.next()
            told += event["kind"] == "refusal"
            missed = event if event["kind"] == "missed" else None
        assert missed["count"] == done - told and missed["count"] > 0
        assert "missed" not in {event["kind"] for event in reads.events}
        flood(broker, 1)
        stopped.until("refusal")
        size = sum(len(json.dumps(event)) for event in stopped.events)
        assert size < 4 * BACKLOG_MAX + (1 << 20)


def test_a_state_longer_than_what_may_wait(make_broker):
    """It comes whole: a part of it is made whenever the reader has taken what waited."""
    broker = make_broker(networks={"large": {"mode": "host", "subnet": "10.5.0.0/20"}})
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(broker.connect(MEMBER))
        fds = []
        stack.callback(lambda: [os.close(fd) for fd in fds])
        names = set()
        for _ in range(450):
            made, received = peer.call("CreateInterface", network="large")
            names.add(made["interfaceName"])
            fds += received
        late = stack.enter_context(broker.connect(MEMBER))
        late.send("Monitor", {}, more=True)
        peer.call("ListNetworks")
        watch = stack.enter_context(Watch(broker, MEMBER))
        told = [event["interface"]["interfaceName"] for event in watch.state if event["kind"] == "interface"]
        assert sorted(told) == sorted(names)
        waiting = struct.unpack("i", fcntl.ioctl(late.socket, termios.FIONREAD, bytes(4)))[0]
        assert waiting < 300 * len(names), "more has come than fits in between, so nothing was left for later"
        told = []
        while len(told) < len(names):
            event = late.reply()[0]["event"]
            told += [event["interface"]["interfaceName"]] if event["kind"] == "interface" else []
        assert sorted(told) == sorted(names)


@pytest.mark.parametrize("part", ["front", "priv"])
def test_a_restart_of_the_broker(broker, monitor, part):
    with broker.connect(MEMBER) as peer:
        vm = TapVm(peer, hostname="web")
    with contextlib.closing(vm):
        ctl = monitor("--json")
        events = []

        def until(kind, what):
            while True:
                event = json.loads(ctl.process.stdout.readline())
                jsonschema.validate(event, SCHEMA)
                events.append(event)
                if (event["kind"], event["what"]) == (kind, what):
                    return event

        until("ready", "ready")
        broker.kill(part)
        until("connection", "lost")
        if part == "priv":
            broker.start()
        until("connection", "restored")
        assert until("interface", "present")["interface"]["hostname"] == "web"
        until("ready", "ready")
    until("interface", "gone")


def test_lines_for_people(broker, monitor):
    ctl = monitor("--no-state", user=None)
    wait_for(lambda: len(os.listdir(f"/proc/{ctl.process.pid}/fd")) > 5, 5, "vmnetctl is connected")
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", network="shared")
        with contextlib.closing(TapVm(peer, hostname="web")) as vm:
            line = ctl.line(rf"interface\s+created\s+shared\s+{vm.interface} web {re.escape(vm.address)} {vm.mac} user {MEMBER.uid}$")
            assert re.match(r"\d\d:\d\d:\d\d\.\d{3}  interface      created    shared            vmtap", line)
        ctl.line(r"interface\s+gone\s+.* user \d+: its holder closed it$")
        with pytest.raises(VarlinkError):
            peer.call("AcquireNetwork", network="shared", **{"\x1b[31m\u009bx": 1})
        line = ctl.line("refusal")
        assert "\x1b" not in line and "\u009b" not in line and "unknown parameter" in line


def test_a_network_that_is_none(ctl_result):
    result = ctl_result("monitor", "typo")
    assert result.returncode == 1 and 'network "typo" does not exist; there are: host, shared' in result.stderr


@pytest.fixture
def ctl_result(broker, bin_dir):
    return lambda *arguments: broker.namespace.run(
        [bin_dir / "vmnetctl", *arguments],
        user=MEMBER, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)}, check=False, timeout=20,
    )


def test_a_killed_monitor_is_forgotten(make_broker, bin_dir):
    """Its connection goes with it, and the broker that has nothing else to do ends."""
    broker = make_broker(idle_timeout_s=3, arguments=["--exit-when-idle"])
    front = broker.front_pid
    ctl = Ctl(broker, bin_dir)
    try:
        wait_for(lambda: process_name(ctl.process.pid) == "vmnetctl", 5, "vmnetctl runs")
        os.kill(ctl.process.pid, signal.SIGKILL)
        wait_for(lambda: not is_running(front), 20, "the end of a broker without peers")
        assert broker.process.wait(10) == 0
    finally:
        ctl.close()
