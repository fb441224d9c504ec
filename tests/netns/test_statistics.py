"""What was counted: by the kernel, and by helpers, which are asked when somebody asks the broker."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.frames import BROADCAST, ethernet
from lib.lab import User, wait_for
from lib.lan import Lan
from lib.readiness import readable
from lib.tap_vm import VNET_HDR

OTHER = User(4244, 4244, (100,))
EXPERIMENTAL = 0x88B5  # IEEE 802 local experimental type 1: nobody answers


def statistics(broker, user=None, **parameters):
    with broker.connect(user) as peer:
        return peer.call("ListStatistics", **parameters)[0]


def by_name(broker, user=None):
    return {entry["interfaceName"]: entry for entry in statistics(broker, user)["statistics"]}


@pytest.fixture
def attach(broker):
    """attach(user, **parameters): an interface of this process's, closed at the end."""
    opened = []

    def make(user=MEMBER, network="shared", **parameters):
        with broker.connect(user) as peer:
            made, fds = peer.call("CreateInterface", network=network, **parameters)
        opened.extend(fds)
        return made, fds

    yield make
    for fd in opened:
        os.close(fd)


@pytest.fixture
def cable(broker, bin_dir, show_on_failure):
    with contextlib.ExitStack() as stack:

        def make(*arguments, programs=bin_dir, **options):
            made = Cable(broker, programs, arguments or ("--network", "shared"), **options)
            show_on_failure("vmnet-helper", made.log)
            stack.callback(made.close)
            return made

        yield make


def test_kernel_s_counters_by_direction(broker, attach):
    made, (tap,) = attach(hostname="web")
    frame = ethernet(BROADCAST, made["mac"], EXPERIMENTAL, b"x" * 100)
    for _ in range(7):
        os.write(tap, bytes(VNET_HDR) + frame)
    entry = by_name(broker, MEMBER)[made["interfaceName"]]
    assert entry["network"] == "shared" and entry["hostname"] == "web" and entry["uid"] == MEMBER.uid
    assert entry["kernel"]["vmToHost"] == {"packets": 7, "bytes": 7 * len(frame), "drops": 0}
    assert entry["kernel"]["hostToVm"]["packets"] == 0, "a TAP counts what is read from it"
    assert "helper" not in entry, "nobody but us carries its frames"
    # The other direction: another VM's broadcast reaches this one.
    other, (theirs,) = attach()
    sent = ethernet(BROADCAST, other["mac"], EXPERIMENTAL, b"y" * 100)
    for _ in range(5):
        os.write(theirs, bytes(VNET_HDR) + sent)
    received = []
    while received.count(sent) < 5:
        assert readable([tap], 3), "a frame for the VM"
        received.append(os.read(tap, 4096)[VNET_HDR:])
    counted = by_name(broker)[made["interfaceName"]]["kernel"]["hostToVm"]
    assert counted == {"packets": len(received), "bytes": sum(map(len, received)), "drops": 0}


def test_drops_of_a_tap_that_nobody_reads(broker, attach):
    made, _ = attach()
    sender, (theirs,) = attach()
    frame = bytes(VNET_HDR) + ethernet(BROADCAST, sender["mac"], EXPERIMENTAL, b"z" * 60)

    def has_drops():
        for _ in range(500):
            os.write(theirs, frame)
        return by_name(broker)[made["interfaceName"]]["kernel"]["hostToVm"]["drops"] > 0

    wait_for(has_drops, 10, "drops at a full queue")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("build", ["bin_dir", "release_bin_dir"])
def test_a_helper_s_counters(make_broker, request, build, kind):
    """In the release build both ends run behind their filters of system calls."""
    programs = request.getfixturevalue(build)
    broker = make_broker(programs=programs)
    with contextlib.closing(Cable(broker, programs, kind=kind)) as made:
        check_helper_s_counters(broker, made, kind)


def check_helper_s_counters(broker, made, kind):
    frame = ethernet(BROADCAST, made.mac, EXPERIMENTAL, b"x" * 200)
    for _ in range(10):
        made.socket.send((len(frame).to_bytes(4, "big") if kind == socket.SOCK_STREAM else b"") + frame)

    def counted():
        (entry,) = statistics(broker, MEMBER)["statistics"]
        # They are asked one behind the other, and a helper that a busy machine keeps from answering is left out.
        known = [entry[source]["vmToHost"]["packets"] for source in ("kernel", "helper") if source in entry]
        return entry if known == [10, 10] else None

    entry = wait_for(counted, 10, "10 frames counted")
    assert entry["helper"]["vmToHost"] == entry["kernel"]["vmToHost"] == {"packets": 10, "bytes": 10 * len(frame), "drops": 0}


def test_helpers_are_found_again_by_the_next_broker(broker, cable):
    made = cable()
    frame = ethernet(BROADCAST, made.mac, EXPERIMENTAL, b"x" * 200)
    for part in ("front", "priv"):
        made.socket.send(frame)
        broker.kill(part)
        if part == "priv":
            broker.start()
        made.socket.send(frame)

    def counted():
        (entry,) = statistics(broker, MEMBER)["statistics"]
        return entry.get("helper", {}).get("vmToHost", {}).get("packets") == 4

    wait_for(counted, 10, "all that the helper carried since its start")


def test_an_ordinary_user_s_own_broker(make_rootless, bin_dir):
    """Its kernel counters are those of the networks' namespace."""
    broker = make_rootless()
    broker.start()
    made = Cable(broker, bin_dir, user=broker.member)
    try:
        frame = ethernet(BROADCAST, made.mac, EXPERIMENTAL, b"x" * 200)
        for _ in range(10):
            made.socket.send(frame)

        def counted():
            (entry,) = statistics(broker)["statistics"]
            return [entry[source]["vmToHost"]["packets"] for source in ("kernel", "helper") if source in entry] == [10, 10]

        wait_for(counted, 10, "10 frames counted")
    finally:
        made.close()
    assert broker.terminate() == 0


def test_time_makes_rates(broker, attach):
    attach()
    first, second = statistics(broker)["time"], statistics(broker)["time"]
    now = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
    assert first <= second <= now < first + 10_000


def test_who_may_know(broker, attach):
    mine, _ = attach()
    theirs, _ = attach(OTHER)
    assert by_name(broker, MEMBER).keys() == {mine["interfaceName"]}
    assert by_name(broker, OTHER).keys() == {theirs["interfaceName"]}
    assert by_name(broker).keys() == {mine["interfaceName"], theirs["interfaceName"]}
    with broker.connect(MEMBER) as peer:
        for name in (theirs["interfaceName"], "vmtapffffffff", "lo"):
            with pytest.raises(VarlinkError) as error:
                peer.call("ServeCounters", interfaceName=name)
            assert error.value.name == "NotFound" and name in error.value.parameters["reason"]


def test_more_than_one_answer_has(broker, attach):
    names = sorted(attach(None)[0]["interfaceName"] for _ in range(70))
    page = statistics(broker)
    assert [entry["interfaceName"] for entry in page["statistics"]] == names[:64] and page["more"]
    rest = statistics(broker, after=names[63])
    assert [entry["interfaceName"] for entry in rest["statistics"]] == names[64:] and not rest["more"]
    assert all("kernel" in entry for entry in page["statistics"] + rest["statistics"])


GARBAGE = {
    "silence": None,
    "nothing": b"",
    "no JSON": b"\xff\0{",
    "another object": b'{"hostToVm": 1}',
    "too much": json.dumps({side: {"packets": 1, "bytes": 1, "drops": 1} for side in ("hostToVm", "vmToHost")}).encode().ljust(4000),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_hostile_helper_hurts_itself_alone(broker, attach, cable, answer):
    mine, _ = attach(OTHER)
    honest = cable()
    with broker.connect(OTHER) as peer:
        _, (fd,) = peer.call("ServeCounters", interfaceName=mine["interfaceName"])
    with socket.socket(fileno=fd) as listener:
        listener.listen(16)
        listener.settimeout(5)
        with broker.connect() as asker:
            asker.send("ListStatistics", {})
            if answer is not None:
                connection, _ = listener.accept()
                with connection:
                    if answer:
                        connection.send(answer)
            entries = {entry["interfaceName"]: entry for entry in asker.reply()[0]["statistics"]}
        assert "helper" not in entries[mine["interfaceName"]] and "kernel" in entries[mine["interfaceName"]]
        carried = next(entry for name, entry in entries.items() if name != mine["interfaceName"])
        assert "helper" in carried, honest.log()


def test_nobody_waits_for_a_silent_helper(broker, attach):
    mine, _ = attach()
    with broker.connect(MEMBER) as peer:
        _, (fd,) = peer.call("ServeCounters", interfaceName=mine["interfaceName"])

    def is_answered_first():
        """Seen once is enough: this process may sleep for longer than the broker waits."""
        with broker.connect() as asker, broker.connect() as bystander:
            asker.send("ListStatistics", {})
            bystander.call("ListNetworks")
            return not readable([asker.socket], 0)

    with socket.socket(fileno=fd) as listener:
        listener.listen(16)
        wait_for(is_answered_first, 15, "an answer while the helper is waited for")


def test_who_asks_may_go_before_the_answer(broker, attach):
    mine, _ = attach()
    with broker.connect(MEMBER) as peer:
        _, (fd,) = peer.call("ServeCounters", interfaceName=mine["interfaceName"])
    with socket.socket(fileno=fd) as listener:
        listener.listen(1)
        for _ in range(10):
            with broker.connect(MEMBER) as peer:
                peer.send("ListStatistics", {})
        assert by_name(broker, MEMBER)[mine["interfaceName"]]["kernel"]


def test_a_helper_without_a_client_does_not_hold_up_anybody(broker, cable, tmp_path):
    directory = broker.lab.public_directory("vm", MEMBER)
    cable("--network", "shared", path=directory / "vm.sock")
    started = time.monotonic()
    for _ in range(20):
        (entry,) = statistics(broker, MEMBER)["statistics"]
        assert "kernel" in entry and "helper" not in entry
    assert time.monotonic() - started < 8, "each would take half a second if it were asked"


def test_sockets_end_with_their_interfaces(broker, cable):
    interfaces = broker.runtime_dir / "interfaces"
    first, second = cable(), cable()
    sockets = [path for path in interfaces.iterdir() if path.suffix == ".counters"]
    assert len(sockets) == 2 and all(path.stat().st_mode & 0o777 == 0o600 for path in sockets)
    assert first.end() == 0
    wait_for(lambda: len(list(interfaces.iterdir())) == 2, 5, "the first one's record and socket are gone")
    broker.kill()
    second.process.kill()
    second.process.wait(5)
    broker.start()
    wait_for(lambda: not list(interfaces.iterdir()), 5, "the next broker sweeps the second one's")


def test_directions_of_a_macvtap_link(lab, make_broker, bin_dir):
    """Its kernel counters are the other way round: what it sends comes from the VM."""
    lan = Lan(lab, "nic")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}))
    made = Cable(broker, bin_dir, ("--network", "lan"))
    try:
        frame = ethernet(BROADCAST, made.mac, EXPERIMENTAL, b"x" * 200)
        for _ in range(50):
            made.socket.send(frame)
        # The LAN's server sends something now and then, though never this much.
        entry = wait_for(
            lambda: next((e for e in by_name(broker).values() if e["kernel"]["vmToHost"]["packets"] >= 50), None), 10, "50 frames"
        )
        assert entry["network"] == "lan" and entry["kernel"]["hostToVm"]["packets"] < 40

        def carried():
            (entry,) = by_name(broker).values()
            return entry.get("helper", {}).get("vmToHost", {}).get("packets")

        wait_for(lambda: carried() == 50, 10, "what the helper carried")
    finally:
        made.close()
