"""An ordinary user's broker, part by part: who dies is back or can be started again, and who is not on the way of a
stream between two VMs notices nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from lib.holder import Holder
from lib.lab import WORLD_ADDRESS, Lab, mended_within, wait_for
from lib.resolver import resolve
from lib.rootless import OrdinaryUser, RootlessBroker
from lib.rootless_world import WORLD_NAMES, KernelVm, Stream, prepare_world

GAP_MAX_S = 0.5  # of a stream; the processors are shared
RESTARTED = ("front", "priv", "forwarder", "pasta", "dnsmasq", "pause")
# Whose end is felt by what goes to the world: pasta has the connections.
WORLD_BREAKS = ("pasta",)
# A front that is told to end was told by its user: the broker ends.
ENDING = ("front", signal.SIGTERM)
BACK_S = 1
YOUNG_S = 5
NAMESPACE_LOCK = ("127.118.109.110", 4)  # src/priv/namespace-lock.c
EVERY_PART = ("supervisor", "front", "priv", "forwarder", "pasta", "dnsmasq", "pause")


class Place:
    """Two VMs on one network, that of an ordinary user."""

    def __init__(self, bin_dir):
        self.bin_dir = bin_dir
        self.lab = Lab()
        prepare_world(self.lab)
        self.user = OrdinaryUser(self.lab)
        self.user.write_resolv_conf(WORLD_ADDRESS)
        self.broker = RootlessBroker(self.user, bin_dir)
        self.start()
        self.one = KernelVm(self.broker, bin_dir, "one")
        self.other = KernelVm(self.broker, bin_dir, "other")
        self.broker.wait_uplink()

    def start(self):
        self.broker.start("--idle-timeout", "2")
        self.broker.wait_whole()

    def links(self):
        return sorted((link["ifname"], link["ifindex"]) for link in self.broker.links())

    def wait_serving(self, before):
        """The broker is whole again, has all it had, and does all that it did."""
        self.broker.wait_whole(15, EVERY_PART)
        wait_for(lambda: self.links() == before, 5, f"the links are {before}")
        self.one.reaches(WORLD_ADDRESS, 10)
        assert self.one.ping(self.other.address)

        def names_are_known():
            with contextlib.suppress(OSError):
                return [resolve(self.one.namespace, self.one.gateway, name, timeout_s=1) for name in ("other", "www.example.com")]
            return None

        assert wait_for(names_are_known, 10, "names") == [[self.other.address], [WORLD_NAMES]]
        with self.broker.connect() as peer:
            interfaces = {interface["interfaceName"] for interface in peer.call("ListInterfaces")[0]["interfaces"]}
            assert interfaces == {self.one.interface, self.other.interface}
        third = Holder(self.broker, "shared")
        third.resolve(third.gateway)
        third.close()
        wait_for(lambda: self.links() == before, 5, "the third VM is gone")

    def close(self):
        self.user.close()
        self.lab.close()


@pytest.fixture(scope="module")
def place(bin_dir):
    place = Place(bin_dir)
    yield place
    place.close()


@pytest.fixture
def streams(place, show_on_failure):
    """One from VM to VM and one to the world; at the end, how long each was without a byte."""
    show_on_failure("broker", place.broker.log)
    made = {
        "VM": Stream(place.one.namespace, place.other.namespace, place.other.address),
        "world": Stream(place.one.namespace, place.lab.internet, WORLD_ADDRESS),
        # A cable without anything of ours: how long the machine itself stood still.
        "machine": Stream(place.lab.host, place.lab.internet, WORLD_ADDRESS),
    }
    for stream in made.values():
        stream.wait_flowing()
    yield made
    for stream in made.values():
        stream.end()


def assert_unharmed(streams, *names):
    """Nothing of them was lost, and neither waited long."""
    for name in names:
        streams[name].wait_flowing()
        assert streams[name].gap_s <= GAP_MAX_S + streams["machine"].gap_s, name


@pytest.mark.parametrize(
    ("part", "number"),
    [(part, number) for part in RESTARTED for number in (signal.SIGKILL, signal.SIGTERM) if (part, number) != ENDING],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_part_that_dies_is_back(place, streams, part, number):
    before = place.links()
    pid = place.broker.kill(part, number)
    wait_for(lambda: place.broker.parts().get(part, [pid]) != [pid], 5, f"another {part}")
    place.wait_serving(before)
    assert_unharmed(streams, "VM", *(() if part in WORLD_BREAKS else ("world",)))


def test_a_new_pasta_serves_within_a_second(place, streams):
    before = place.links()
    pids = [place.broker.pid("pasta")]

    def kill():
        # One that lives for long enough is started at once when it dies, and this one shall.
        seen = time.monotonic()
        wait_for(lambda: time.monotonic() - seen > YOUNG_S, YOUNG_S + 5, "it is not young any more")
        place.broker.wait_uplink()
        assert place.broker.kill("pasta") == pids[-1]

    def is_back():
        place.one.reaches(WORLD_ADDRESS, 10, patience_s=0.1)
        pids.append(place.broker.pid("pasta"))
        return pids[-1] != pids[-2]

    for _ in range(2):
        mended_within(BACK_S, kill, is_back, "a new pasta serves")
    place.wait_serving(before)
    assert_unharmed(streams, "VM")


@pytest.mark.parametrize(
    ("part", "number"),
    [("supervisor", signal.SIGKILL), ("supervisor", signal.SIGTERM), ENDING],
    ids=["supervisor SIGKILL", "supervisor SIGTERM", "front SIGTERM"],
)
def test_a_broker_that_ends_leaves_all_in_use_to_the_next(place, streams, part, number):
    before, pause = place.links(), place.broker.pid("pause")
    place.broker.kill(part, number, 15)
    wait_for(lambda: set(place.broker.parts()) == {"pause"}, 10, "all but the pause process end with it")
    assert place.links() == before
    assert place.one.ping(place.other.address)
    place.start()
    assert place.broker.pid("pause") == pause
    place.wait_serving(before)
    assert_unharmed(streams, "VM")


def test_kill_of_everything_of_it(place, streams):
    """The namespace is found by a helper's TAP."""
    before, namespace = place.links(), place.broker.namespace_cookie()
    kill_all(place.broker)
    assert place.one.ping(place.other.address)
    place.start()
    assert place.broker.namespace_cookie() == namespace
    place.wait_serving(before)
    assert_unharmed(streams, "VM")


def test_pause_dies_while_there_is_no_broker(place, streams):
    before = place.links()
    place.broker.kill("supervisor")
    wait_for(lambda: set(place.broker.parts()) == {"pause"}, 10, "all but the pause process end with it")
    place.broker.kill("pause")
    place.start()
    place.wait_serving(before)
    assert_unharmed(streams, "VM")


def test_a_priv_that_takes_its_time_to_die_is_waited_for(place, streams):
    """Another holds priv's lock of the namespace when the next broker begins, as a dying priv on a busy machine."""
    before = place.links()
    place.broker.kill("supervisor")
    wait_for(lambda: set(place.broker.parts()) == {"pause"}, 10, "all but the pause process end with it")
    dying = place.broker.inside.socket(socket.AF_INET, socket.SOCK_STREAM)
    dying.bind(NAMESPACE_LOCK)
    place.broker.start("--idle-timeout", "2", wait=False)
    wait_for(lambda: "priv" in place.broker.parts(), 5, "the next priv")
    time_to_die = threading.Timer(1, dying.close)
    time_to_die.start()
    place.broker.wait_whole(15, EVERY_PART)
    time_to_die.join()
    place.wait_serving(before)
    assert_unharmed(streams, "VM")


@pytest.mark.parametrize("victim", ["helper", "client"])
def test_a_vm_that_dies_takes_its_own_along(place, streams, victim):
    before = place.links()
    if victim == "helper":
        vm = KernelVm(place.broker, place.bin_dir, "third")
        interface = vm.interface
        os.kill(vm.cable.process.pid, signal.SIGKILL)
    else:
        command = [place.bin_dir / "vmnet-client", "--network", "shared", "--", "sleep", "infinity"]
        process = place.user.popen(command, stdout=subprocess.PIPE, text=True)
        interface = json.loads(process.stdout.readline())["vmnet_interface_name"]
        process.kill()
    wait_for(lambda: interface not in dict(place.links()), 5, "the end of its TAP")
    place.wait_serving(before)
    assert_unharmed(streams, "VM", "world")


def test_nothing_is_left_after_the_last_vm(place):
    """The last test of this place: its VMs end, then its broker."""
    place.one.end()
    place.other.end()
    wait_for(lambda: not place.links(), 15, "the end of the network")
    assert place.broker.terminate() == 0
    place.broker.wait_nothing_left()


def kill_all(broker):
    """Nobody may see the others go first, and put things in order or start them anew."""
    pids = [pid for part in EVERY_PART for pid in broker.parts().get(part, [])]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    wait_for(lambda: not broker.parts(), 5, "the end of every process of the broker")


def test_a_namespace_that_nobody_but_a_file_holds_is_found(make_rootless):
    """As a client of the library keeps it: an fd of the namespace itself, and no TAP."""
    broker = make_rootless()
    broker.start()
    peer = broker.connect()
    peer.call("AcquireNetwork", network="shared")
    namespace, links = broker.namespace_cookie(), broker.links()
    keeper = broker.owner.popen(
        ["sh", "-c", "exec 3<$0; echo ready; exec sleep infinity", f"/proc/{broker.pid('pause')}/ns/net"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout.readline() == "ready\n"
    kill_all(broker)
    peer.close()
    broker.start("--idle-timeout", "5", "--exit-when-idle")
    broker.wait_whole()
    assert broker.namespace_cookie() == namespace
    assert [link["ifindex"] for link in broker.links()] == [link["ifindex"] for link in links]
    assert broker.process.wait(20) == 0
    keeper.kill()
    keeper.wait(5)
    broker.wait_nothing_left()


# What a killed broker has until the kernel took its files, which is later than /proc forgets its command line: the lock,
# and a socket that takes connections. It goes with a connection: all at once, or the lock with one, the socket with the next.
DYING = """
import fcntl, os, select, socket, sys
os.makedirs(sys.argv[1], mode=0o700, exist_ok=True)
os.chdir(sys.argv[1])
lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
listener = socket.socket(socket.AF_UNIX)
listener.bind("socket")
listener.listen()
print("ready", flush=True)
listener.settimeout(10)
if "lock" in sys.argv:
    listener.accept()[0].close()
    os.close(lock)
select.select([listener], [], [], 10)
"""


@pytest.mark.parametrize("goes_first", ["lock", "both"])
def test_a_dying_one_is_not_another_one(make_rootless, goes_first):
    """Its socket takes connections still, and nobody will ever answer there."""
    broker = make_rootless()
    dying = broker.owner.popen(
        [sys.executable, "-c", DYING, broker.runtime_dir, goes_first], stdout=subprocess.PIPE, text=True
    )
    assert dying.stdout.readline() == "ready\n"
    broker.start(wait=False)
    assert dying.wait(15) == 0
    broker.wait_whole()
    Holder(broker, "shared").close()
    assert broker.terminate() == 0
    broker.wait_nothing_left()


def test_vms_that_outlive_everything_end_it(make_rootless, bin_dir):
    """No broker and no pause process: the last TAP takes the namespace along, and the next broker starts from nothing."""
    broker = make_rootless()
    broker.start()
    holder = Holder(broker, "shared")
    before = broker.namespace_cookie()
    kill_all(broker)
    holder.close()
    broker.start("--idle-timeout", "5", "--exit-when-idle")
    broker.wait_whole()
    assert broker.namespace_cookie() != before
    second = Holder(broker, "shared")
    second.resolve(second.gateway)
    assert len(broker.links()) == 2
    second.close()
    assert broker.process.wait(20) == 0
    broker.wait_nothing_left()
