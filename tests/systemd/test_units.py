"""The broker as systemd's two services: who may connect, how they start, end, die and are replaced under a running VM."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time

import pytest

from lib import verbs
from lib.broker import acting_as
from lib.lab import User, wait_for
from lib.machine import FRONT, PRIV, SOCKET
from lib.streaming import streaming

FORWARDED = 7007
PRIV_SOCKET = "/run/vmnet-broker/priv"
VERB_PATIENCE_S = 10  # of the front, for an answer of priv's
UNITS = ("vmnet-broker.socket", FRONT, "vmnet-broker-priv.socket", PRIV)
PRIVS_CAPABILITIES = {"cap_kill", "cap_setgid", "cap_setuid", "cap_net_admin", "cap_net_bind_service", "cap_net_raw"}


def acquire(machine, user, network="shared"):
    """A connection of user's that holds the network."""
    peer = machine.connect(user)
    peer.network = peer.call("AcquireNetwork", network=network)[0]["network"]
    return peer


def status_field(machine, unit, name):
    text = machine.path(f"/proc/{machine.pid(unit)}/status").read_text()
    return re.search(rf"^{name}:\s*(.*)$", text, re.M)[1]


# Starting and ending


def test_socket_starts_it_for_members_and_it_ends_when_idle(machine):
    subnets = []
    for _ in range(2):
        assert [machine.show(unit, "ActiveState") for unit in (FRONT, PRIV)] == ["inactive", "inactive"]
        client = machine.run(["vmnet-client", "--network", "shared", "--", "env"], user="alice")
        assert re.search(r"^VMNET_NETWORK=shared$", client.stdout, re.M)
        subnets.append(re.search(r"^VMNET_ADDRESS=(.*)\.\d+$", client.stdout, re.M)[1])
        for unit in (FRONT, PRIV):
            wait_for(lambda unit=unit: machine.show(unit, "ActiveState") == "inactive", 20, f"{unit} ends, idle")
            assert machine.show(unit, "Result") == "success"
    assert subnets[0] == subnets[1], "the subnet is remembered"


def test_a_helper_is_asked_for_its_counters(machine):
    """Its socket is made and found within what the front's unit allows."""
    client = machine.popen(
        ["vmnet-client", "--network", "shared", "--attach", "socket", "--", "cat"], user="alice",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        assert "vmnet_mac_address" in client.stdout.readline()

        def counted():
            with machine.connect(machine.alice) as peer:
                entries = peer.call("ListStatistics")[0]["statistics"]
            return [entry for entry in entries if "helper" in entry and "kernel" in entry]

        (entry,) = wait_for(counted, 10, "an answer of the helper")
        machine.run(["systemctl", "restart", FRONT])
        (again,) = wait_for(counted, 20, "an answer to the next front")
        assert again["interfaceName"] == entry["interfaceName"]
    finally:
        client.communicate(timeout=20)


def test_only_members_may_connect(machine):
    named = f"VMNET_BROKER_SOCKET={SOCKET}"  # or mallory would get a broker of his own
    command = ["env", named, "vmnet-client", "--network", "shared", "--", "true"]
    client = machine.run(command, user="mallory", check=False)
    assert client.returncode == 1 and "usermod --append --groups vmnet" in client.stderr
    assert machine.show(FRONT, "ActiveState") == "inactive"


def test_privileges(machine):
    with acquire(machine, machine.alice):
        front = machine.run(["id", "-u", "vmnet-broker"]).stdout.strip()
        assert set(status_field(machine, FRONT, "Uid").split()) == {front}
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status_field(machine, FRONT, name), 16) == 0
        for unit in (FRONT, PRIV):
            assert status_field(machine, unit, "NoNewPrivs") == "1"
        bounding = machine.show(PRIV, "CapabilityBoundingSet").split()
        assert set(bounding) == PRIVS_CAPABILITIES
        (dnsmasq,) = machine.dnsmasq_pids()
        uids = re.search(r"^Uid:\s*(.*)$", machine.path(f"/proc/{dnsmasq}/status").read_text(), re.M)[1]
        assert set(uids.split()) == {front}


def exposure(machine, unit):
    text = machine.run(["systemd-analyze", "--no-pager", "security", unit]).stdout
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", text)[1])


def test_hardening_as_systemd_counts_it(machine):
    figures = {unit: exposure(machine, unit) for unit in (FRONT, PRIV)}
    print(figures)
    assert figures[FRONT] <= 2.0
    assert figures[PRIV] <= 3.0


def test_systemd_finds_nothing_to_complain_about(machine):
    files = [f"/usr/lib/systemd/system/{unit}" for unit in UNITS]
    verified = machine.run(["systemd-analyze", "verify", "--man=no", *files], check=False)
    assert verified.returncode == 0 and not verified.stderr


# Between the two


def test_priv_serves_the_fronts_user_only(machine):
    with acquire(machine, machine.alice):
        with pytest.raises(PermissionError):
            connect_to_priv(machine, machine.alice)
        priv = machine.pid(PRIV)
        # Root may open every socket. Its turn comes when there is no front, and the next front's after it.
        intruder = connect_to_priv(machine, User(0))
        kill_front(machine)
        with contextlib.closing(intruder), pytest.raises((EOFError, ConnectionResetError)):
            intruder.receive()
        wait_until_active(machine, FRONT)
        assert machine.pid(PRIV) == priv
        assert "refused a connection" in machine.log()


def test_one_front_at_a_time(machine):
    front_user = User(*(int(machine.run(["id", option, "vmnet-broker"]).stdout) for option in ("-u", "-g")))
    with acquire(machine, machine.alice):
        second = connect_to_priv(machine, front_user)
        second.send(verbs.request("GET_INSTANCE"))
        machine.run(["systemctl", "reload", FRONT])  # the first one is well, and the second still waits
        second.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.receive()
        second.socket.settimeout(30)
        kill_front(machine)
        reply = second.receive()
        assert reply.result == 0
        instance = machine.path("/var/lib/vmnet-broker/instance").read_text()
        assert reply.value == int(instance, 16)
        assert machine.show(FRONT, "ActiveState") == "activating", "now the new front waits"
        second.close()
        wait_until_active(machine, FRONT)


def connect_to_priv(machine, user):
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as end:
        with machine.beside(PRIV_SOCKET) as name, acting_as(user):
            end.connect(name)
        return verbs.Verbs(end.detach())


def kill_front(machine):
    machine.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", FRONT])


def wait_until_active(machine, unit):
    wait_for(lambda: machine.show(unit, "ActiveState") == "active", 20, f"{unit} is active")


def test_a_front_that_waits_for_priv_does_not_keep_it_from_starting(machine):
    """systemd starts a priv that died only when the front, which needs it, has ended."""
    with acquire(machine, machine.alice):
        before = {unit: machine.pid(unit) for unit in BOTH}
        machine.run(["systemctl", "kill", "--signal=STOP", "--kill-whom=main", PRIV])
        kill_front(machine)
        wait_for(lambda: machine.pid(FRONT) not in (0, before[FRONT]), 10, "another front")
        queue = ["ss", "--no-header", "--unix", "--listening", "src", PRIV_SOCKET]
        wait_for(lambda: machine.run(queue).stdout.split()[2] == "1", 10, "it is in priv's queue")
        machine.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", PRIV])
        started = time.monotonic()
        new_pids(machine, PRIV, before)
        wait_until_active(machine, FRONT)
        assert time.monotonic() - started < VERB_PATIENCE_S


# Under a running VM

def new_pids(machine, unit, before):
    """After a death or a restart: another main process, which is ready."""
    wait_for(lambda: machine.pid(unit) not in (0, before[unit]), 30, f"another process of {unit}")
    wait_until_active(machine, unit)


def kill(unit):
    return lambda machine: machine.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit])


def systemctl(verb, *units):
    return lambda machine: machine.run(["systemctl", verb, *units])


BOTH = {FRONT, PRIV}
# What is done, and which services have another process afterwards.
EVENTS = {
    "kill -9 of the front": (kill(FRONT), {FRONT}),
    "kill -9 of priv": (kill(PRIV), BOTH),
    "restart of the front": (systemctl("restart", FRONT), {FRONT}),
    "restart of priv": (systemctl("restart", PRIV), BOTH),
    "restart of both": (systemctl("restart", FRONT, PRIV), BOTH),
    "reload": (systemctl("reload", FRONT), set()),
    "restart of the socket": (systemctl("restart", "vmnet-broker.socket"), {FRONT}),
}


def describe(machine, user):
    """The network as a new client finds it."""
    with acquire(machine, user) as peer:
        return peer.network


@pytest.mark.parametrize("event", EVENTS)
def test_a_running_vm_does_not_notice(machine, vm, event):
    act, replaced = EVENTS[event]
    network = describe(machine, machine.alice)
    before = {unit: machine.pid(unit) for unit in BOTH}
    dnsmasq = machine.dnsmasq_pids()
    with streaming(machine, vm):
        act(machine)
        for unit in replaced:
            new_pids(machine, unit, before)
        assert describe(machine, machine.alice) == network
    for unit in BOTH - replaced:
        assert machine.pid(unit) == before[unit]
    assert (machine.dnsmasq_pids() == dnsmasq) == (PRIV not in replaced), "dnsmasq lives as long as priv"
    vm.stop()
    assert wait_for(vm.lease, 10, "DHCP answers") == vm.address
    with machine.connect(machine.alice) as peer:
        (interface,) = peer.call("ListInterfaces")[0]["interfaces"]
        assert (interface["interfaceName"], interface["address"]) == (vm.interface, vm.address)


@pytest.mark.parametrize("unit", [FRONT, PRIV])
def test_one_that_hangs_is_replaced(machine, vm, unit):
    """The watchdog's patience is cut from 30 s to one; a stopped process answers SIGABRT only when it is killed."""
    machine.drop_in(unit, "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n", "watchdog")
    machine.run(["systemctl", "restart", unit])
    before = {unit: machine.pid(unit)}
    try:
        with streaming(machine, vm):
            machine.run(["systemctl", "kill", "--signal=STOP", "--kill-whom=main", unit])
            new_pids(machine, unit, before)
            assert describe(machine, machine.alice)["running"]
        assert "Watchdog timeout" in machine.log()
    finally:
        machine.drop_in(unit, "", "watchdog")
        machine.run(["systemctl", "restart", unit])


def test_stop_leaves_what_is_used_and_takes_the_rest_away(machine, vm):
    with acquire(machine, machine.alice, "host"):
        bridges = machine.run(["ip", "-brief", "link", "show", "type", "bridge"]).stdout
        assert len(bridges.splitlines()) == 2
        with streaming(machine, vm):
            machine.run(["systemctl", "stop", FRONT])
            wait_for(lambda: machine.show(PRIV, "ActiveState") == "inactive", 10, "priv ends with its front")
            bridges = machine.run(["ip", "-brief", "link", "show", "type", "bridge"]).stdout
            assert len(bridges.splitlines()) == 1
    assert describe(machine, machine.alice)["running"], "the next client starts it, and it takes the network up"


def network_names(peer):
    return [network["name"] for network in peer.call("ListNetworks")[0]["networks"]]


def test_reload_reads_the_configuration_and_says_what_is_wrong(machine):
    file = machine.path("/etc/vmnet-broker/networks.json")
    file.parent.mkdir(exist_ok=True)
    try:
        with acquire(machine, machine.alice) as peer:
            before = machine.pid(FRONT)
            file.write_text('{"lab": {"mode": "hots"}}')
            machine.run(["systemctl", "reload", FRONT])
            wait_for(lambda: "networks.json: lab.mode" in machine.log(), 5, "the mistake is named")
            wait_until_active(machine, FRONT)
            file.write_text('{"lab": {"mode": "host"}}')
            machine.run(["systemctl", "reload", FRONT])
            wait_for(lambda: "lab" in network_names(peer), 5, "the new network is known to an old connection")
            wait_until_active(machine, FRONT)
            assert machine.pid(FRONT) == before
    finally:
        file.unlink()


# Upgrade


def version_of(machine, unit):
    """Of the program that runs, not of the one that is installed."""
    return machine.run([f"/proc/{machine.pid(unit)}/exe", "--version"]).stdout.splitlines()[0]


def are_back(machine):
    with contextlib.suppress(AssertionError):  # one that is just being started has no program yet
        return not any(version_of(machine, unit).endswith("+upgrade") for unit in BOTH)
    return False


@pytest.fixture
def forward(machine, vm):
    """A pinned one to vm, and the port; UDP."""
    words = ["vmnetctl", "forward", "--json"]
    machine.run([*words, "--udp", "--pin", str(FORWARDED), "web:7"], user="alice")
    yield FORWARDED
    listed = json.loads(machine.run([*words, "--list"], user="alice").stdout)
    for number in re.findall(r'"number": (\d+)', json.dumps(listed)):
        machine.run(["vmnetctl", "forward", "--remove", number], user="alice")


def test_upgrade_by_one_restart(machine, vm, forward, package_build, upgrade_build):
    before = {unit: machine.pid(unit) for unit in BOTH}
    assert not any(version_of(machine, unit).endswith("+upgrade") for unit in BOTH)
    try:
        with streaming(machine, vm):
            machine.install(upgrade_build)
            machine.run(["systemctl", "restart", FRONT])
            for unit in BOTH:
                new_pids(machine, unit, before)
            assert all(version_of(machine, unit).endswith("+upgrade") for unit in BOTH)
            assert describe(machine, machine.alice)["running"]
        with streaming(machine, vm, "127.0.0.1", forward):
            pass  # a new flow needs the forward's rule
        vm.stop()
        assert wait_for(vm.lease, 10, "DHCP answers") == vm.address
        vm.start()
    finally:
        machine.install(package_build)
        with streaming(machine, vm):
            machine.run(["systemctl", "restart", FRONT])
            wait_for(lambda: are_back(machine), 20, "back again")
