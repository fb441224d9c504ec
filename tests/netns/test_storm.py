"""The broker is killed with -9 every two seconds while VMs stream and clients come and go.

VMNET_STORM_SECONDS makes it longer than what every run has time for; two minutes are the figure to reach.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import signal
import socket
import threading
import time
import uuid

import pytest

from lib import load
from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.dhcp import dhcp_address
from lib.lab import WORLD_ADDRESS, User, children_of, is_running, process_name, wait_for
from lib.simulated import SimulatedVm

STORM_S = float(os.environ.get("VMNET_STORM_SECONDS", "20"))
KILL_EVERY_S = 2
CLIENTS = 20
VM_KINDS = ("datagram", "stream", "stream", "vhost-user")
CHUNK = 256 << 10
AGAIN_S = 20  # after the last kill, in which what was refused must succeed: a front that died young is started later
ANSWER_S = 15  # the longest that a client waits for one answer
IDLE_S = 1
NETWORKS = {"one": {"mode": "shared"}, "two": {"mode": "host"}, "three": {"mode": "shared"}}
PARTS = ("front", "priv")
RUNNING_FILES = ["lock", "socket"]
# A connection that ends is an answer, too: whoever killed the broker cut it.
CUT = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, FileNotFoundError, EOFError)
CLEAN_REFUSALS = {"CreateFailure", "InternalError", "Conflict", "QuotaExceeded"}


class Stream:
    """TCP from a VM to the world, one chunk after the other, each acknowledged with the checksum of all so far."""

    def __init__(self, vm, world):
        self.chunks = 0
        self.problem = None
        self._ending = threading.Event()
        self._listener = world.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((WORLD_ADDRESS, 0))
        self._listener.listen(1)
        client = vm.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(20)
        self._threads = [
            threading.Thread(target=self._note_problem, args=(function, *arguments))
            for function, *arguments in ((self._serve,), (self._send, client, self._listener.getsockname()))
        ]
        for thread in self._threads:
            thread.start()

    def _note_problem(self, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001
            self.problem = self.problem or error

    def _serve(self):
        self._listener.settimeout(20)
        digest = hashlib.sha256()
        with self._listener, self._listener.accept()[0] as stream:
            stream.settimeout(20)
            left = CHUNK
            while data := stream.recv(min(left, CHUNK)):
                digest.update(data)
                left -= len(data)
                if not left:
                    stream.sendall(digest.digest())
                    left = CHUNK

    def _send(self, client, address):
        digest = hashlib.sha256()
        with client:
            client.connect(address)
            while not self._ending.is_set():
                data = random.randbytes(64) * (CHUNK // 64)
                digest.update(data)
                client.sendall(data)
                answer = client.recv(32, socket.MSG_WAITALL)
                assert answer == digest.digest(), "what arrived is not what was sent"
                self.chunks += 1

    def end(self):
        self._ending.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a stream hangs"
        assert self.problem is None, f"after {self.chunks} chunks: {self.problem!r}"


class Client:
    """Comes, makes an interface with always the same id, uses it, and goes; over and over."""

    def __init__(self, broker, number, ending):
        self.broker = broker
        self.number = number
        self.ending = ending
        self.user = User(6000 + number % 5, 6000 + number % 5, (100,))
        self.random = random.Random(number)
        self.identity = str(uuid.UUID(int=number + 1))
        self.known = {}  # network: MAC and address, which must stay
        self.created = self.cut = self.leased = 0
        self.refused = {}
        self.problem = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.ending.is_set():
                self._come_and_go()
        except Exception as error:  # noqa: BLE001
            self.problem = error

    def _come_and_go(self):
        network = self.random.choice(sorted(NETWORKS))
        deadline = None
        while not self._try_once(network):
            # On a busy machine two seconds may be too short for anything; without kills they are not.
            if self.ending.is_set():
                deadline = deadline or time.monotonic() + AGAIN_S
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nothing but refusals for {AGAIN_S} s after the storm: {self.refused}")
            time.sleep(0.02)  # between two tries

    def _try_once(self, network):
        try:
            with self.broker.connect(self.user) as peer:
                peer.socket.settimeout(ANSWER_S)
                if self.random.random() < 0.5:
                    peer.call("AcquireNetwork", network=network)
                self._use(*peer.call("CreateInterface", network=network, interfaceId=self.identity))
        except CUT:
            self.cut += 1
            return False
        except VarlinkError as error:
            assert error.name in CLEAN_REFUSALS, error
            reason = error.parameters["reason"]
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return False
        return True

    def _use(self, reply, fds):
        """Whatever happens to the broker now, the interface works: it has its address and the network its server."""
        try:
            self.created += 1
            identity = reply["mac"], reply["address"]
            assert self.known.setdefault(reply["network"]["name"], identity) == identity, "another address than before"
            address = dhcp_address(fds[0], reply["mac"])
            assert address in (None, reply["address"]), f"DHCP says {address}, the broker {reply['address']}"
            self.leased += address is not None
        finally:
            for fd in fds:
                os.close(fd)

    def end(self):
        self.thread.join(AGAIN_S + ANSWER_S)
        assert not self.thread.is_alive(), "a client hangs"
        if self.problem:
            raise AssertionError(f"client {self.number}: {self.problem!r}") from self.problem


def kill_part(broker, part):
    """-9. What a service manager would start again is started again."""
    if part == "front":
        broker.kill("front")
        return
    front = broker.front_pid
    servers = broker.dnsmasq_pids()
    if part == "both":
        with contextlib.suppress(ProcessLookupError):
            os.kill(front, signal.SIGKILL)
    broker.kill("priv")
    wait_for(lambda: not any(map(is_running, [front, *servers])), 10, "what belonged to priv ends with it")
    broker.start()


@pytest.fixture
def make_vm(bin_dir):
    made = []

    def make(broker, kind, number):
        if kind == "vhost-user":
            directory = broker.lab.public_directory(f"vu{number}", MEMBER)
            options = {"path": directory / "socket", "path_option": "--vhost-user"}
        else:
            options = {"kind": {"datagram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}[kind]}
        cable = Cable(broker, bin_dir, ["--network", "one"], **options)
        made.append(cable)
        vm = SimulatedVm(cable, bin_dir)
        made.append(vm)
        return vm

    yield make
    for one in reversed(made):
        one.close()


def fds_of(broker):
    """Not dnsmasq's, which depend on the addresses that the bridge had when it started."""
    return {part: len(os.listdir(f"/proc/{pid}/fd")) for part, pid in load.parts_of(broker).items() if part in PARTS}


def networks_with_files(broker):
    return {path.name.partition(".")[0] for path in broker.runtime_dir.glob("networks/*")}


def assert_nothing_leaked(broker, vms, tables):
    """One network with the streaming VMs is left: exactly its links, processes, rules and records."""
    wait_for(lambda: len(broker.links()) == 1 + len(vms), 30, "only the VMs' network is left")
    names = {vm.cable.line["vmnet_interface_name"] for vm in vms}
    assert {link["ifname"] for link in broker.links() if link.get("master")} == names
    for kind in ("json", "counters"):
        wait_for(lambda kind=kind: len(list(broker.runtime_dir.glob(f"interfaces/*.{kind}"))) == len(vms), 10, f"as many .{kind} as VMs")
    assert len(list(broker.runtime_dir.glob("interfaces/*"))) == 2 * len(vms)
    wait_for(lambda: networks_with_files(broker) == {"one"}, 10, "files of the one network alone")
    assert sorted(broker.tables()) == sorted(tables)
    wait_for(lambda: len(broker.dnsmasq_pids()) == 1, 10, "one dnsmasq")
    assert sorted(children_of(broker.priv_pid)) == sorted([broker.front_pid, *broker.dnsmasq_pids()])
    ours = [pid for pid in broker.namespace.pids() if process_name(pid) in ("vmnet-broker", "dnsmasq")]
    assert sorted(ours) == sorted([broker.priv_pid, *children_of(broker.priv_pid)]), "no process of an earlier life"


def test_storm_of_kills(make_broker, make_vm, lab):
    broker = make_broker(networks=NETWORKS, idle_timeout_s=IDLE_S)
    vms = [make_vm(broker, kind, number) for number, kind in enumerate(VM_KINDS)]
    fds, tables = fds_of(broker), broker.tables()
    streams = [Stream(vm, lab.internet) for vm in vms]
    ending = threading.Event()
    clients = [Client(broker, number, ending) for number in range(CLIENTS)]
    started, kills = time.monotonic(), 0
    try:
        wait_for(lambda: all(stream.chunks for stream in streams), 10, "every VM streams")
        for part in itertools.cycle(("front", "priv", "front", "both")):
            kills += 1
            due = started + kills * KILL_EVERY_S
            if due > started + STORM_S:
                break
            before = [stream.chunks for stream in streams]
            wait_for(lambda due=due: time.monotonic() >= due, KILL_EVERY_S + 1, "the next kill's time")
            kill_part(broker, part)
            problem = next((one.problem for one in (*streams, *clients) if one.problem), None)
            assert problem is None, f"after kill {kills}, of {part}: {problem!r}"
            wait_for(
                lambda before=before: all(now.chunks > then for now, then in zip(streams, before, strict=True)),
                10,
                f"every VM has moved by kill {kills}, of {part}",
            )
    finally:
        ending.set()
    for client in clients:
        client.end()
    for stream in streams:
        stream.end()
    refused = {}
    for client in clients:
        for reason, count in client.refused.items():
            refused[reason] = refused.get(reason, 0) + count
    print(
        f"{kills} kills; chunks {[stream.chunks for stream in streams]}; interfaces {sum(c.created for c in clients)}, "
        f"leases {sum(c.leased for c in clients)}, cut {sum(c.cut for c in clients)}, refused {refused}"
    )
    assert all(client.created for client in clients)
    assert_nothing_leaked(broker, vms, tables)
    load.wait_idle(broker)
    assert fds_of(broker) == fds, "as many fds as at first"
    for vm in vms:
        vm.close()
        vm.cable.close()
    wait_for(lambda: broker.leftovers().files == RUNNING_FILES, 20, "the end of every record")
    left = broker.leftovers()
    assert not left.links and not left.tables and not left.dnsmasq, left
