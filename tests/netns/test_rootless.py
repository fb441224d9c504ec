"""An ordinary user's own broker: that his first command works, what it may, what it refuses, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest

from lib import frames
from lib.attacks import ATTACKS, markers
from lib.broker import Varlink, VarlinkError
from lib.far import FAR_ADDRESS, FAR_ADDRESS6, FarWorld
from lib.holder import Holder, Listener
from lib.iperf3 import iperf3
from lib.lab import (
    INTERNET_ADDRESS,
    INTERNET_ADDRESS6,
    UPLINK,
    UPLINK_ADDRESS,
    UPLINK_ADDRESS6,
    WORLD_ADDRESS,
    WORLD_ADDRESS6,
    Lab,
    open_fds,
    process_name,
    stop_process,
    wait_for,
)
from lib.readiness import readable
from lib.resolver import resolve
from lib.rootless import PARTS, OrdinaryUser, RootlessBroker, capabilities, user_namespace
from lib.rootless_world import SERVICE_PORT, WORLD_NAMES, KernelVm, prepare_world
from lib.simulated import LINK

MTU = 65520
NETWORKS = {
    "apart": {"mode": "shared", "isolation": True},
    "few": {"mode": "host", "quotas": {"interfaces": 2}},
    "locked": {"mode": "shared", "lock_mac": True},
    "lan": {"mode": "bridged", "uplink": UPLINK},
    "leading": {"mode": "shared", "uplink": UPLINK},
}


# Life


@pytest.mark.parametrize("session", [True, False], ids=["session", "no session"])
def test_the_first_command_of_a_fresh_user(make_rootless, bin_dir, session):
    broker = make_rootless(session=session)
    command = [bin_dir / "vmnet-client", "--network", "shared", "--hostname", "web", "--", "env"]
    result = broker.owner.run(command)
    line, *environment = result.stdout.splitlines()
    variables = dict(word.split("=", 1) for word in environment)
    assert json.loads(line)["vmnet_ipv4_address"] == variables["VMNET_ADDRESS"]
    assert (variables["VMNET_NETWORK"], variables["VMNET_MTU"]) == ("shared", str(MTU))
    broker.wait_whole()
    assert oct(broker.runtime_dir.stat().st_mode & 0o777) == "0o700"
    # Another one finds the same broker.
    before = broker.parts()["supervisor"]
    broker.owner.run(command)
    assert broker.parts()["supervisor"] == before
    os.kill(broker.pid("supervisor"), signal.SIGTERM)
    broker.wait_nothing_left()
    assert sorted(path.name for path in broker.state_dir.iterdir())


def test_an_idle_broker_ends_with_everything_of_it(make_rootless):
    broker = make_rootless()
    broker.start("--exit-when-idle", "--idle-timeout", "1")
    with broker.connect() as peer:
        peer.call("AcquireNetwork", network="shared")
        broker.wait_whole()
    assert broker.process.wait(15) == 0
    broker.wait_nothing_left()


def test_sigterm_while_it_starts(make_rootless):
    """Its socket is there before what is behind it."""
    broker = make_rootless()
    broker.start()
    broker.process.terminate()
    assert broker.process.wait(15) == 0
    broker.wait_nothing_left()


def test_a_terminals_interrupt_ends_it_in_good_order(make_rootless, bin_dir):
    """It goes to everything that the terminal started."""
    broker = make_rootless()
    with open(broker.log_path, "a") as log:
        command = [bin_dir / "vmnet-broker", "--rootless"]
        process = broker.owner.popen(command, stdout=log, stderr=log, start_new_session=True)
    broker.wait_whole()
    wait_for(lambda: broker.socket_path.exists(), 10, "its socket")
    Holder(broker, "shared").close()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(15) == 0
    broker.wait_nothing_left()
    assert "WARN" not in broker.log() and "ERROR" not in broker.log()


def start_clients(broker, count):
    command = [broker.bin_dir / "vmnet-client", "--network", "shared", "--", "env"]
    return [broker.owner.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)]


def end_clients(clients):
    for client in clients:
        output, errors = client.communicate(timeout=60)
        assert client.returncode == 0 and "VMNET_ADDRESS=" in output, errors


def test_ten_clients_at_once_make_one_broker(make_rootless):
    broker = make_rootless()
    for _ in range(2):
        end_clients(start_clients(broker, 10))
        broker.wait_whole()
        broker.kill("supervisor")
    # At once, while what the dead one started is still ending.
    end_clients(start_clients(broker, 10))
    broker.wait_whole()
    os.kill(broker.pid("supervisor"), signal.SIGTERM)
    broker.wait_nothing_left()


def test_a_client_that_meets_a_dying_broker_starts_another(make_rootless):
    """Its socket takes a connection as long as its front has not died with it."""
    broker = make_rootless()
    for _ in range(3):
        end_clients(start_clients(broker, 1))
        front = broker.pid("front")
        stop_process(front)
        client = start_clients(broker, 1)
        wait_for(lambda: has_socket(client[0].pid), 10, "the client comes to it")
        os.kill(broker.pid("supervisor"), signal.SIGKILL)
        end_clients(client)
        broker.wait_whole()
    os.kill(broker.pid("supervisor"), signal.SIGTERM)
    broker.wait_nothing_left()


def has_socket(pid):
    """The client itself, and not what becomes it."""
    if process_name(pid) != "vmnet-client":
        return False
    return any(target.startswith("socket:") for target in open_fds(pid).values())


def test_a_second_one_leaves_the_first_as_it_is(make_rootless, bin_dir):
    """It ends at once, and takes nothing along that the first one has made and not yet used."""
    broker = make_rootless()
    broker.start()
    files = broker.leftovers().files
    result = broker.owner.run([bin_dir / "vmnet-broker", "--rootless"], check=False)
    assert result.returncode == 1 and "another broker serves" in result.stderr
    assert broker.leftovers().files == files
    Holder(broker, "shared").close()


def test_sigterm_leaves_networks_in_use_and_the_last_vm_ends_them(make_rootless):
    broker = make_rootless()
    broker.start()
    holder = Holder(broker, "shared")
    before = broker.pid("pause")
    assert broker.terminate() == 0
    wait_for(lambda: set(broker.parts()) == {"pause"}, 10, "the end of all but the pause process")
    assert len(broker.links()) == 2
    files = [os.readlink(f"/proc/{before}/{name}") for name in ("cwd", "fd/0", "fd/1", "fd/2")]
    assert files == ["/", *["/dev/null"] * 3], "nothing of who started the broker"
    broker.start()
    assert broker.pid("pause") == before
    with broker.connect() as peer:
        networks = {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}
        assert networks["shared"]["running"]
    assert broker.terminate() == 0
    wait_for(lambda: set(broker.parts()) == {"pause"}, 10, "the end of all but the pause process")
    holder.close()
    broker.wait_nothing_left()


# One broker, looked at from many sides


class Place:
    """A broker of an ordinary user with two VMs on "shared", in a world that answers."""

    def __init__(self, bin_dir):
        self.bin_dir = bin_dir
        self.lab = Lab()
        prepare_world(self.lab)
        self.user = OrdinaryUser(self.lab, session=False)
        self.user.write_resolv_conf(WORLD_ADDRESS)
        self.user.write_config(NETWORKS)
        self.broker = RootlessBroker(self.user, bin_dir)
        self.broker.start()
        self.one = KernelVm(self.broker, bin_dir, "one")
        self.other = KernelVm(self.broker, bin_dir, "other")
        self.other.namespace.start_echo(self.other.address)
        self.broker.wait_uplink()

    def close(self):
        self.user.close()
        self.lab.close()


@pytest.fixture(scope="module")
def place(bin_dir):
    place = Place(bin_dir)
    yield place
    place.close()


@pytest.fixture
def shared_broker(place, show_on_failure):
    show_on_failure("broker", place.broker.log)
    return place.broker


@pytest.fixture
def one(place, shared_broker):
    return place.one


@pytest.fixture
def other(place, shared_broker):
    return place.other


@pytest.fixture
def hold(shared_broker):
    holders = []

    def make(network):
        holders.append(Holder(shared_broker, network))
        return holders[-1]

    yield make
    for holder in holders:
        holder.close()


def test_every_process_is_the_users_and_has_no_power_outside(place, shared_broker):
    parts = shared_broker.parts()
    assert set(parts) >= {*PARTS, "dnsmasq"}
    outside = os.stat("/proc/self/ns/user").st_ino
    powerful = set()
    for part, pids in parts.items():
        for pid in pids:
            status = open(f"/proc/{pid}/status").read()
            for line in ("Uid", "Gid"):
                assert f"{line}:\t" + "\t".join([str(place.user.user.uid)] * 4) in status, part
            if any(capabilities(pid).values()):
                powerful.add(part)
                assert user_namespace(pid) != outside, f"{part} has capabilities on the host"
    assert {"priv", "dnsmasq"} <= powerful, "the check sees capabilities"
    assert {"front", "supervisor", "pause"}.isdisjoint(powerful)
    # And nobody of the machine was asked for help: no other process is in the namespaces.
    inside = shared_broker.network_namespace()
    assert inside and inside[1] != os.stat(place.lab.host.path).st_ino


def test_a_tap_leaves_its_namespace(shared_broker, place, one):
    """Its holder is in the host's namespaces; the link is not there."""
    helper = one.cable.process.pid
    assert os.stat(f"/proc/{helper}/ns/net").st_ino == os.stat(place.lab.host.path).st_ino
    name = one.interface
    assert f"iff:\t{name}" in "".join(
        open(f"/proc/{helper}/fdinfo/{fd}").read() for fd in os.listdir(f"/proc/{helper}/fdinfo")
    )
    assert name in {link["ifname"] for link in shared_broker.links()}
    assert name not in place.lab.host.ip("link")


def test_leases_and_names(one, other):
    assert one.cable.line["vmnet_mtu"] == MTU
    arguments = ["-f", "-n", "-q", "-t", "4", "-T", "1", "-O", "mtu", "-s", "/bin/true"]
    lease = one.namespace.run(["busybox", "udhcpc", "-i", LINK, *arguments])
    assert f"lease of {one.address} obtained" in lease.stdout + lease.stderr
    for name in ("other", "other.shared.vmnet"):
        assert resolve(one.namespace, one.gateway, name) == [other.address]
    assert resolve(one.namespace, one.gateway, "host.shared.vmnet") == [one.gateway]


def test_vms_reach_each_other(one, other):
    assert one.ping(other.address) and one.ping(one.gateway)
    assert one.tcp(other.address).startswith(f"{one.address} ")
    assert one.udp(other.address).startswith(f"{one.address} ")
    # In one piece, which says that the MTU is the same all the way.
    one.namespace.run(["ping", "-c", "1", "-W", "3", "-M", "do", "-s", str(MTU - 28), other.address])


def test_vms_reach_the_world(one):
    assert one.tcp(WORLD_ADDRESS).startswith(f"{UPLINK_ADDRESS} "), "as the host itself"
    assert one.udp(WORLD_ADDRESS).startswith(f"{UPLINK_ADDRESS} ")
    assert one.ping(WORLD_ADDRESS)
    assert resolve(one.namespace, one.gateway, "www.example.com") == [WORLD_NAMES]


def has_ipv6(vm):
    return "inet6 fd" in vm.namespace.ip("-6", "address", "show", "dev", LINK, "scope", "global", "-tentative")


def test_vms_reach_the_world_by_ipv6(one):
    wait_for(lambda: has_ipv6(one), 15, "an address by router advertisement")
    assert one.tcp(WORLD_ADDRESS6).startswith(f"{UPLINK_ADDRESS6} ")
    assert one.udp(WORLD_ADDRESS6).startswith(f"{UPLINK_ADDRESS6} ")
    assert one.ping(WORLD_ADDRESS6)


def test_vms_reach_a_world_as_far_as_a_real_one(one, place):
    """pasta of 2023 sends a segment without any flag there, which is nobody's: answering it would end the connection."""
    with contextlib.closing(FarWorld(place.lab)) as far:
        place.lab.internet.start_echo(FAR_ADDRESS)
        place.lab.internet.start_echo(FAR_ADDRESS6)
        wait_for(lambda: has_ipv6(one), 15, "an address by router advertisement")
        for address, own in ((FAR_ADDRESS, UPLINK_ADDRESS), (FAR_ADDRESS6, UPLINK_ADDRESS6)):
            before = far.carried
            for _ in range(10):
                assert one.tcp(address).startswith(f"{own} ")
            assert far.carried >= before + 20, "each connection's SYN-ACK and answer came the long way"
        place.lab.internet.start_iperf3(FAR_ADDRESS)
        for direction in ((), ("-R",)):
            end = iperf3(lambda argv: one.namespace.run(argv).stdout, FAR_ADDRESS, "-n", "4M", *direction)["end"]
            assert end["sum_sent"]["bytes"] >= 4 << 20 and end["sum_received"]["bytes"] > 1 << 20


def test_the_hosts_loopback_is_not_the_vms(one):
    """The host's router is itself and nobody else, by IPv4 and IPv6; addresses of the host lead nowhere."""
    assert one.tcp(INTERNET_ADDRESS, SERVICE_PORT).startswith(f"{UPLINK_ADDRESS} "), "the router answered, not the host"
    for address in (UPLINK_ADDRESS, "127.0.0.1", one.gateway):
        with pytest.raises(OSError):
            one.tcp(address, SERVICE_PORT, timeout_s=1)
    for address in (UPLINK_ADDRESS6, INTERNET_ADDRESS6):
        with pytest.raises(OSError):
            one.tcp(address, SERVICE_PORT, timeout_s=1)


def test_no_spelling_of_the_hosts_loopback_leads_there(place, shared_broker, hold):
    """A guest's kernel sends nothing to these, but a guest may; a socket of pasta's takes them for the loopback."""
    port = 4322
    guest = hold("shared")
    source = guest.reply["network"]["ipv6Prefix"].removesuffix("/64") + "99"
    gateway = guest.resolve(guest.gateway)
    with contextlib.ExitStack() as stack:
        services = []
        for family, own in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                service = stack.enter_context(place.lab.host.socket(family, kind))
                service.bind((own, port))
                services.append(service)
                if kind == socket.SOCK_STREAM:
                    service.listen()
        packets = [frames.udp6(source, 5555, WORLD_ADDRESS6, 7, b"to the world")]
        for address in ("::ffff:127.0.0.1", "::ffff:0.0.0.0", "::", "::127.0.0.1", "::1"):
            packets.insert(0, frames.tcp6_syn(source, 5555, address, port))
            packets.insert(0, frames.udp6(source, 5555, address, port, b"to the host"))
        for packet in packets:
            guest.send(frames.ethernet(gateway, guest.mac, frames.ETHERTYPE_IPV6, packet))
        # pasta takes them in their order: who is asked where the answer to the last one goes has sent all.
        assert any(frames.in6(source) in frame[54:] for frame in guest.received(10)), "the world answers"
        assert not [service.getsockname() for service in services if readable([service], 0)]


def test_isolated_vms_reach_the_world_only(hold):
    one, other = hold("apart"), hold("apart")
    mac = one.resolve(one.gateway)
    marker = next(markers)
    one.send(one.datagram(marker, other.address, other.mac))
    assert one.pings(one.gateway, mac)
    assert not any(marker in frame for frame in other.received(0.1))
    assert one.pings(WORLD_ADDRESS, mac, deadline_s=3)


def test_what_a_vm_may_not_send(hold, shared_broker):
    """The rules and locked ports of the system's broker, in this namespace: every attack of docs/security.md."""
    attacker, victim = hold("locked"), hold("locked")
    attacker.gateway_mac = attacker.resolve(attacker.gateway)
    ears = Listener(shared_broker, attacker.bridge)
    for name, (make, _) in ATTACKS.items():
        marker, honest = next(markers), next(markers)
        for frame in make(attacker, victim, marker):
            attacker.send(frame)
        attacker.send(attacker.datagram(honest))
        for receiver in (victim, ears):
            assert not any(marker in frame for frame in receiver.until(honest)), name
    ears.close()


@pytest.mark.parametrize(("network", "word"), [("lan", "mode bridged"), ("leading", '"uplink"')])
def test_interfaces_of_the_host_are_roots(shared_broker, network, word):
    with shared_broker.connect() as peer, pytest.raises(VarlinkError) as caught:
        peer.call("AcquireNetwork", network=network)
    assert caught.value.name == "CreateFailure"
    assert f"{word} takes the system's broker" in caught.value.parameters["reason"]


def test_mode_host(shared_broker, one):
    holder = Holder(shared_broker, "host")
    mac = holder.resolve(holder.gateway)
    assert holder.pings(holder.gateway, mac)
    assert not holder.pings(WORLD_ADDRESS, mac)
    holder.close()


def test_quotas_hold(shared_broker):
    holders = [Holder(shared_broker, "few") for _ in range(2)]
    with pytest.raises(VarlinkError) as caught:
        Holder(shared_broker, "few")
    assert caught.value.name == "QuotaExceeded" and "few.quotas.interfaces is 2" in caught.value.parameters["reason"]
    for holder in holders:
        holder.close()


def test_two_users_do_not_see_each_other(place, one, bin_dir):
    """The same names, subnets and addresses, and no way from one to the other."""
    user = OrdinaryUser(place.lab)
    try:
        theirs = RootlessBroker(user, bin_dir)
        user.write_config({"theirs": {"mode": "shared", "subnet": "10.99.0.0/24"}})
        theirs.start()
        assert theirs.network_namespace() != place.broker.network_namespace()
        for mine, other in ((place.broker, theirs), (theirs, place.broker)):
            with pytest.raises(PermissionError):
                Varlink(mine.socket_path, other.member)
        vm = KernelVm(theirs, bin_dir, "theirs", network="theirs")
        vm.namespace.start_echo(vm.address)
        with pytest.raises(OSError):
            one.tcp(vm.address, timeout_s=1)
        assert not one.ping(vm.address)
        with theirs.connect() as peer:
            first = peer.call("AcquireNetwork", network="shared")[0]["network"]
            assert first["gateway"] == one.gateway
            names = {network["name"] for network in peer.call("ListNetworks")[0]["networks"]}
            assert names == {"host", "shared", "theirs"}
            interfaces = peer.call("ListInterfaces")[0]["interfaces"]
            assert [interface["interfaceName"] for interface in interfaces] == [vm.interface]
        vm.end()
    finally:
        user.close()
