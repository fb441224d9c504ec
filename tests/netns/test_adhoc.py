"""Ad-hoc networks: what --operation-mode, --start-address, --end-address and --subnet-mask make."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.lab import WORLD_ADDRESS, User, wait_for
from lib.simulated import SimulatedVm

OTHER = User(4444, 4444, (100,))  # another user whom the broker serves
IDLE_S = 1
RANGE = ("192.168.200.1", "192.168.200.254", "255.255.255.0")
NAME = "shared-192.168.200.1-24-254"


def options(addresses=RANGE, mode=None):
    start, end, mask = addresses
    return (
        *(("--operation-mode", mode) if mode else ()),
        *("--start-address", start, "--end-address", end, "--subnet-mask", mask),
    )


def parameters(addresses=RANGE, mode="shared"):
    start, end, mask = addresses
    return {"mode": mode, "startAddress": start, "endAddress": end, "subnetMask": mask}


@pytest.fixture
def cable(bin_dir, show_on_failure):
    """cable(broker, *arguments): a helper, killed at the end."""
    cables = []

    def make(broker, *arguments, **more):
        made = Cable(broker, bin_dir, arguments, **more)
        cables.append(made)
        show_on_failure(f"vmnet-helper {len(cables)}", made.log)
        return made

    yield make
    for made in cables:
        made.close()


@pytest.fixture
def run(bin_dir):
    """run(broker, program, *arguments): a program that ends by itself."""

    def start(broker, program, *arguments):
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        transport = ("--fd", str(two.fileno())) if program == "vmnet-helper" else ()
        result = broker.namespace.run(
            [bin_dir / program, *transport, *arguments],
            user=MEMBER,
            check=False,
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
            pass_fds=[two.fileno()],
            timeout=20,
        )
        one.close()
        two.close()
        return result

    return start


def listed(broker):
    with broker.connect(MEMBER) as peer:
        return {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}


@pytest.mark.parametrize("mode", [None, "shared", "host"])
@pytest.mark.parametrize(
    "addresses",
    [
        RANGE,
        ("10.200.0.1", "10.200.0.254", "255.255.255.0"),
        ("172.16.200.1", "172.16.200.254", "255.255.255.0"),
        ("192.168.200.1", "192.168.200.2", "255.255.255.252"),
        ("192.168.200.253", "192.168.200.254", "255.255.255.252"),
        ("192.168.200.10", "192.168.200.20", "255.255.255.0"),
    ],
    ids=lambda addresses: f"{addresses[0]}-{addresses[1]}",
)
def test_addresses_are_echoed_exactly(broker, cable, addresses, mode):
    made = cable(broker, *options(addresses, mode))
    line = made.line
    assert (line["vmnet_start_address"], line["vmnet_end_address"], line["vmnet_subnet_mask"]) == addresses
    assert "net_ipv4_subnet" not in line
    start, end = map(ipaddress.ip_address, addresses[:2])
    assert start < ipaddress.ip_address(line["vmnet_ipv4_address"]) <= end
    assert made.resolve(addresses[0]), "the host has the start address"
    network = listed(broker)[line["vmnet_network"]]
    assert (network["mode"], network["gateway"], network["lastAddress"]) == (mode or "shared", *addresses[:2])
    assert network["running"] and len(line["vmnet_network"]) <= 32


@pytest.mark.parametrize("attach", ["native", "socket", "stream", "vhost-user"])
def test_echoed_by_the_client_in_every_attach_kind(broker, run, attach):
    result = run(broker, "vmnet-client", *options(), "--attach", attach, "--", "sh", "-c", "echo $VMNET_NETWORK")
    assert result.returncode == 0, result.stderr
    line, network = result.stdout.splitlines()
    line = json.loads(line)
    assert (line["vmnet_start_address"], line["vmnet_end_address"], line["vmnet_subnet_mask"]) == RANGE
    assert network == NAME


def test_lease_and_nat_below_the_top(lab, broker, cable, bin_dir):
    """Addresses above the end are nobody's: a VM that took one by hand is reachable."""
    lab.internet.start_echo()
    made = cable(broker, *options(("192.168.200.1", "192.168.200.9", "255.255.255.0")))
    vm = SimulatedVm(made, bin_dir)
    assert ipaddress.ip_address("192.168.200.2") <= ipaddress.ip_address(made.address)
    assert ipaddress.ip_address(made.address) <= ipaddress.ip_address("192.168.200.9")
    lab.host.run(["ping", "-c1", "-W5", made.address])
    vm.namespace.run(["ping", "-c1", "-W5", WORLD_ADDRESS])
    vm.namespace.ip("address", "add", "192.168.200.77/24", "dev", "eth0")
    lab.host.run(["ping", "-c1", "-W5", "192.168.200.77"])
    vm.close()


def test_host_mode_has_no_way_out(lab, broker, cable, bin_dir):
    vm = SimulatedVm(cable(broker, *options(mode="host")), bin_dir)
    lab.host.run(["ping", "-c1", "-W5", vm.cable.address])
    assert vm.namespace.run(["ping", "-c1", "-W1", WORLD_ADDRESS], check=False).returncode
    vm.close()


def test_same_options_same_network(lab, broker, cable, bin_dir):
    """Of two users, by both programs: one bridge, and the VMs see each other."""
    one = SimulatedVm(cable(broker, *options()), bin_dir)
    two = SimulatedVm(cable(broker, *options(), user=OTHER), bin_dir)
    assert one.cable.line["vmnet_network"] == two.cable.line["vmnet_network"] == NAME
    assert len([link for link in broker.links() if link["ifname"].startswith("vmbr")]) == 1
    one.namespace.run(["ping", "-c1", "-W5", two.cable.address])
    with broker.connect(MEMBER) as peer:
        answer, _ = peer.call("AcquireNetwork", **parameters())
        assert answer["network"]["name"] == NAME
    one.close()
    two.close()


def test_other_options_other_networks(broker, cable):
    made = [
        cable(broker, *options(("192.168.200.1", "192.168.200.126", "255.255.255.128"))),
        cable(broker, *options(("192.168.200.129", "192.168.200.254", "255.255.255.128"), "host")),
        cable(broker),
    ]
    names = [each.line["vmnet_network"] for each in made]
    assert names == ["shared-192.168.200.1-25-126", "host-192.168.200.129-25-126", "shared"]


def test_vanishes_after_its_last_user(make_broker, cable):
    broker = make_broker(idle_timeout_s=IDLE_S)
    made = cable(broker, *options())
    assert NAME in listed(broker)
    assert (broker.state_dir / "networks" / f"{NAME}.json").exists()
    made.end()
    wait_for(lambda: not broker.links(), 5, "the network's end")
    wait_for(lambda: not list(broker.state_dir.rglob(f"{NAME}*")), 2, "end of what it remembered")
    wait_for(lambda: not list(broker.runtime_dir.rglob(f"{NAME}*")), 2, "end of its records")
    assert NAME not in listed(broker)
    wait_for(lambda: not broker.tables(), 2, "end of the NAT rules")
    assert not broker.dnsmasq_pids()


@pytest.mark.parametrize("part", ["front", "priv"])
def test_survives_kill_9(lab, make_broker, cable, bin_dir, part):
    """It goes on with its settings, is joined by the same options, and ends in good order."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    vm = SimulatedVm(cable(broker, *options(("192.168.200.10", "192.168.200.20", "255.255.255.0"))), bin_dir)
    name = vm.cable.line["vmnet_network"]
    broker.kill(part)
    if part == "priv":
        broker.start()

    def adopted():
        # The last front may still have taken the connection.
        with contextlib.suppress(ConnectionError, EOFError, AssertionError):
            return listed(broker).get(name)
        return None

    network = wait_for(adopted, 10, "the network is adopted")
    assert (network["gateway"], network["lastAddress"]) == ("192.168.200.10", "192.168.200.20")
    lab.host.run(["ping", "-c1", "-W5", vm.cable.address])
    second = cable(broker, *options(("192.168.200.10", "192.168.200.20", "255.255.255.0")))
    assert second.line["vmnet_network"] == name
    assert second.line["vmnet_end_address"] == "192.168.200.20"
    assert second.address != vm.cable.address
    second.end()
    vm.close()
    vm.cable.end()
    wait_for(lambda: not broker.links(), 10, "the network's end")
    wait_for(lambda: not list(broker.state_dir.rglob(f"{name}*")), 2, "end of what it remembered")


def test_killed_broker_s_remains_are_swept(make_broker, cable):
    """Killed with the whole network gone meanwhile: its record and memory go at the next start."""
    broker = make_broker()
    made = cable(broker, *options())
    broker.kill("priv")
    made.process.kill()
    made.process.wait(5)
    wait_for(lambda: len(broker.links()) == 1, 5, "end of the TAP")
    broker.namespace.ip("link", "delete", broker.links()[0]["ifname"])
    broker.start()
    wait_for(lambda: not list(broker.directory.rglob(f"{NAME}*")), 5, "end of what it left")
    assert NAME not in listed(broker)


def test_held_by_a_library_over_a_restart(make_broker, bin_dir, lab):
    """What a connection held is asked for again by the network's name, though nobody configured it."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", **parameters())
    wait_for(lambda: NAME not in listed(broker), 5, "the network's end")
    with broker.connect(MEMBER) as peer:
        answer, _ = peer.call("AcquireNetwork", network=NAME)
        assert answer["network"]["subnet"] == "192.168.200.0/24"


def error_of(broker, user=MEMBER, **call):
    with broker.connect(user) as peer, pytest.raises(VarlinkError) as raised:
        peer.call("AcquireNetwork", **call)
    return raised.value


def test_clash_names_the_owner(make_broker, lab, cable, run):
    lab.host.ip("address", "add", "192.168.210.7/24", "dev", "up0")
    lab.host.ip("route", "add", "192.168.220.0/24", "via", "198.51.100.1")
    broker = make_broker(networks={"lab": {"mode": "host", "subnet": "192.168.230.0/24"}})
    made = cable(broker, *options())
    for third, owner in (
        (200, f'192.168.200.0/24 belongs to network "{NAME}"'),
        (210, "192.168.210.0/24 belongs to address 192.168.210.0/24 of up0"),
        (220, "192.168.220.0/24 belongs to route 192.168.220.0/24 of up0"),
        (230, '192.168.230.0/24 belongs to the configuration of network "lab"'),
    ):
        result = run(broker, "vmnet-helper", *options((f"192.168.{third}.1", f"192.168.{third}.9", RANGE[2]), "host"))
        assert result.returncode == 1 and result.stdout == ""
        assert owner in result.stderr
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", network="lab")
        error = error_of(broker, **parameters(("192.168.230.1", "192.168.230.9", RANGE[2])))
        assert error.name == "CreateFailure"
        assert '192.168.230.0/24 belongs to network "lab"' in error.parameters["reason"]
    assert made.resolve("192.168.200.1")
    with broker.connect(MEMBER) as peer:
        assert set(listed(broker)) == {"host", "lab", "shared", NAME}


def test_quota(make_broker):
    broker = make_broker()
    peers = [broker.connect(MEMBER) for _ in range(16)]
    for index, peer in enumerate(peers):
        peer.call("AcquireNetwork", **parameters((f"192.168.{100 + index}.1", f"192.168.{100 + index}.9", RANGE[2])))
    error = error_of(broker, **parameters())
    assert error.name == "QuotaExceeded" and "16 networks already" in error.parameters["reason"]
    with broker.connect(OTHER) as peer, broker.connect() as root:
        peer.call("AcquireNetwork", **parameters())
        root.call("AcquireNetwork", **parameters(("192.168.201.1", "192.168.201.9", RANGE[2])))
    for peer in peers:
        peer.close()


WRONG = [
    ({}, '"network" is missing'),
    ({"network": "shared", "mode": "host"}, "excludes"),
    ({"network": "shared", **parameters()}, "excludes"),
    ({"mode": "nat"}, "shared, host, bridged"),
    ({"mode": "shared", "startAddress": "192.168.200.1"}, "go together"),
    (parameters(("192.168.200.1", "192.168.201.9", RANGE[2])), "one subnet"),
    (parameters(("203.0.113.1", "203.0.113.9", RANGE[2])), "private"),
    (parameters(("192.168.200.9", "192.168.200.1", RANGE[2])), "higher"),
    (parameters(("192.168.200.1", "192.168.200.9", "255.255.0.255")), "mask"),
    (parameters(mode="bridged"), "sharedInterface"),
    ({"mode": "shared", "sharedInterface": "up0"}, "sharedInterface"),
]


@pytest.mark.parametrize(("call", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_parameters(broker, call, said):
    for method in ("AcquireNetwork", "CreateInterface"):
        with broker.connect(MEMBER) as peer, pytest.raises(VarlinkError) as raised:
            peer.call(method, **call)
        assert raised.value.name == "InvalidRequest"
        assert said in raised.value.parameters["reason"]
    assert not broker.links()


REFUSED = [
    (options()[:2], "--end-address"),
    (options()[2:4], "--start-address"),
    (options()[:4], "all three or none"),
    (("--network", "shared", *options()), "--network"),
    ((*options(), "--operation-mode", "bridged", "--shared-interface", "up0"), "bridged"),
    (options(("192.168.200.1", "192.168.201.9", RANGE[2])), "one subnet"),
    (options(("203.0.113.1", "203.0.113.9", RANGE[2])), "private"),
    (options(("192.168.200.0", "192.168.200.9", RANGE[2])), "no hosts' addresses"),
    (options(("192.168.200.9", "192.168.200.1", RANGE[2])), "higher"),
    (options(("192.168.200.1", "192.168.200.9", "255.0.255.0")), "mask"),
    (options(("192.168.200.1", "somewhere", RANGE[2])), "--end-address somewhere"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("program", ["vmnet-helper", "vmnet-client"])
def test_refused_by_name(broker, run, program, arguments, said):
    command = ("--", "true") if program == "vmnet-client" else ()
    result = run(broker, program, *arguments, *command)
    assert result.returncode == 1 and result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1 and said in errors[0]


def test_native_interface_by_varlink(broker):
    with broker.connect(MEMBER) as peer:
        answer, fds = peer.call("CreateInterface", **parameters())
    assert answer["network"]["name"] == NAME
    assert ipaddress.ip_address(answer["address"]) in ipaddress.ip_network("192.168.200.0/24")
    for fd in fds:
        os.close(fd)
