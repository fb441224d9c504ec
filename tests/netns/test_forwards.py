"""Ports of the host that lead to VMs: from outside, from the host itself, from VMs; kept, followed, refused."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.iperf3 import iperf3
from lib.lab import INTERNET_ADDRESS, INTERNET_ADDRESS6, UPLINK_ADDRESS, UPLINK_ADDRESS6, User, mended_within, wait_for
from lib.simulated import SimulatedVm

OTHER = User(4244, 4244, (100,))
SERVICE_PORT = 80


@dataclass
class Vm:
    """A VM of the lab with an echo server on port 80."""

    cable: Cable
    machine: SimulatedVm

    @property
    def address(self):
        return self.cable.address

    @property
    def namespace(self):
        return self.machine.namespace

    def stop(self):
        self.cable.process.kill()
        self.cable.process.wait(5)
        self.machine.close()


@pytest.fixture
def boot_on(bin_dir, show_on_failure):
    """boot_on(broker, network=, hostname=, user=, arguments=, serves=): a running Vm."""
    running = []

    def start(broker, network="shared", hostname=None, user=MEMBER, arguments=(), serves=True):
        options = ["--hostname", hostname] if hostname else []
        cable = Cable(broker, bin_dir, ["--network", network, *options, *arguments], user=user)
        show_on_failure(f"helper of {hostname}", cable.log)
        vm = Vm(cable, SimulatedVm(cable, bin_dir))
        running.append(vm)
        if network == "host":
            vm.namespace.ip("route", "del", "default")
        if serves:
            vm.namespace.start_echo(vm.address, SERVICE_PORT)
        return vm

    yield start
    for vm in running:
        vm.stop()


@pytest.fixture
def boot(broker, boot_on):
    return functools.partial(boot_on, broker)


def ask_tcp(namespace, address, port, source=None):
    """What the echo server answers: [peer's address, peer's port, what was said]."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(5)
        if source:
            stream.bind((source, 0))
        stream.connect((address, port))
        stream.sendall(b"hello")
        return stream.recv(1000).decode().split()


def ask_udp(namespace, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        datagrams.connect((address, port))
        datagrams.send(b"hello")
        return datagrams.recv(1000).decode().split()


ASK = {"tcp": ask_tcp, "udp": ask_udp}


def is_refused(namespace, address, port):
    """Nothing listens: the host says so at once."""
    with contextlib.suppress(ConnectionRefusedError):
        ask_tcp(namespace, address, port)
        return False
    return True


def answers(namespace, address, port):
    with contextlib.suppress(OSError):
        return bool(ask_tcp(namespace, address, port))
    return False


def rules(broker):
    """The table of forwards, as nft prints it; "" when there is none."""
    tables = [table for table in broker.tables() if "forwards" in table]
    # It may go meanwhile.
    return broker.namespace.run(["nft", "list", "table", *tables[0].split()], check=False).stdout if tables else ""


def forward(peer, listen, target, network="shared", **options):
    return peer.call("Forward", network=network, listen=str(listen), target=target, **options)[0]["forward"]


def refusal(peer, *arguments, **options):
    with pytest.raises(VarlinkError) as error:
        forward(peer, *arguments, **options)
    return error.value


@pytest.fixture
def ctl(broker, bin_dir):
    """ctl(*arguments): vmnetctl forward to its end."""

    def run(*arguments, user=MEMBER):
        return broker.namespace.run(
            [bin_dir / "vmnetctl", "forward", *arguments],
            user=user, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)}, check=False, timeout=20,
        )

    return run


@pytest.fixture
def hold(broker, bin_dir):
    """hold(*arguments): vmnetctl forward that runs, and the line it printed."""

    def start(*arguments, user=MEMBER):
        process = broker.namespace.popen(
            [bin_dir / "vmnetctl", "forward", *arguments],
            user=user, env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        line = process.stdout.readline()
        assert line, process.communicate(timeout=5)[1]
        return process, line

    return start


# From everywhere


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_from_outside_from_the_host_and_from_vms(broker, boot, protocol):
    """One forward of all addresses. The internet is seen as itself, the host and neighbours as the gateway."""
    web = boot(hostname="web")
    neighbour = boot(hostname="neighbour", serves=False)
    other = boot(network="host", hostname="other", serves=False)
    gateway = web.cable.gateway
    ask = ASK[protocol]
    with broker.connect(MEMBER) as peer:
        made = forward(peer, 8080, "web:80", protocol=protocol)
        assert made["address"] == f"{web.address}:80" and made["origin"] == "held" and made["uid"] == MEMBER.uid
        assert made["listen"] == "0.0.0.0:8080" and made["protocol"] == protocol

        assert ask(broker.lab.internet, UPLINK_ADDRESS, 8080)[0] == INTERNET_ADDRESS
        assert ask(broker.namespace, "127.0.0.1", 8080)[0] == gateway
        assert ask(broker.namespace, UPLINK_ADDRESS, 8080)[2] == "hello"
        assert ask(broker.namespace, gateway, 8080)[2] == "hello"
        assert ask(neighbour.namespace, gateway, 8080)[0] == gateway
        assert ask(neighbour.namespace, UPLINK_ADDRESS, 8080)[0] == gateway
        # A network without a router: its VMs reach the host, and so what the host publishes.
        assert ask(other.namespace, other.cable.gateway, 8080)[0] == other.address


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_vm_on_a_network_without_a_router(broker, boot, protocol):
    web = boot(network="host", hostname="web")
    neighbour = boot(network="host", serves=False)
    other = boot(serves=False)
    ask = ASK[protocol]
    with broker.connect(MEMBER) as peer:
        forward(peer, 8080, "web:80", network="host", protocol=protocol)
        for namespace, address in (
            (broker.lab.internet, UPLINK_ADDRESS),
            (broker.namespace, "127.0.0.1"),
            (broker.namespace, UPLINK_ADDRESS),
            (neighbour.namespace, web.cable.gateway),
            (other.namespace, UPLINK_ADDRESS),
        ):
            assert ask(namespace, address, 8080)[0] == web.cable.gateway, "it could answer nobody else"
        assert web.namespace.run(["ping", "-c1", "-W1", INTERNET_ADDRESS], check=False).returncode, "no way out"
        web.namespace.ip("route", "add", "default", "via", web.cable.gateway)
        assert web.namespace.run(["ping", "-c1", "-W1", INTERNET_ADDRESS], check=False).returncode, "none for any guest"
        bridge = web.cable.line.get("vmnet_bridge") or next(
            link["ifname"] for link in broker.links() if link["ifalias"].endswith("/host/host"))
    switch = f"net/ipv4/conf/{bridge}/forwarding"
    wait_for(lambda: broker.namespace.sysctl(switch) == "0", 5, "a network without a router forwards nothing")


def test_one_address_and_no_other(broker, boot):
    web = boot(hostname="web")
    with broker.connect(MEMBER) as peer:
        forward(peer, "127.0.0.1:8080", "web:80")
        forward(peer, f"{UPLINK_ADDRESS}:8081", "web:80")
        assert ask_tcp(broker.namespace, "127.0.0.1", 8080)
        assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080)
        assert is_refused(broker.namespace, UPLINK_ADDRESS, 8080)
        assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8081)
        assert is_refused(broker.namespace, "127.0.0.1", 8081)
        assert is_refused(web.namespace, web.cable.gateway, 8081)


def test_packets_that_pass_the_host_by_are_left_alone(broker, boot):
    """A forward of a foreign address takes nothing: neither from VMs nor from programs of the host."""
    boot(hostname="web")
    client = boot(serves=False)
    broker.lab.internet.start_echo("203.0.113.1", 8080)
    with broker.connect(MEMBER) as peer:
        forward(peer, "203.0.113.1:8080", "web:80")
        forward(peer, "0.0.0.0:8081", "web:80")
        assert ask_tcp(client.namespace, "203.0.113.1", 8080)[0] == UPLINK_ADDRESS
        assert ask_tcp(broker.namespace, "203.0.113.1", 8080)[0] == UPLINK_ADDRESS


def test_the_hosts_loopback_stays_its_own(broker, boot):
    """With route_localnet on the bridge, neither packets for 127.0.0.1 nor in its name come in from VMs or outside."""
    vm = boot(hostname="web")
    broker.namespace.start_echo("127.0.0.1", 9999)
    with broker.connect(MEMBER) as peer, broker.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((vm.cable.gateway, 9998))
        listener.settimeout(0.5)
        forward(peer, "127.0.0.1:8080", "web:80")
        bridge = next(link["ifname"] for link in broker.links() if link["ifname"].startswith("vmbr"))
        assert broker.namespace.sysctl(f"net/ipv4/conf/{bridge}/route_localnet") == "1"
        assert broker.namespace.sysctl("net/ipv4/conf/all/route_localnet") == "0"
        switches = [f"net/ipv4/conf/{bridge}/{key}" for key in ("route_localnet", "forwarding")]
        for namespace, via, link in (
            (vm.namespace, vm.cable.gateway, "eth0"), (broker.lab.internet, UPLINK_ADDRESS, "in0"),
        ):
            namespace.sysctl(f"net/ipv4/conf/{link}/route_localnet", 1)
            namespace.ip("route", "add", "table", "99", "127.0.0.1/32", "via", via, "dev", link)
            namespace.ip("rule", "add", "pref", "0", "to", "127.0.0.1", "ipproto", "tcp", "table", "99")
            namespace.ip("rule", "del", "pref", "0", "table", "local")
            namespace.ip("rule", "add", "pref", "10", "table", "local")
            source = vm.address if namespace is vm.namespace else INTERNET_ADDRESS
            for port in (9999, 8080):
                with pytest.raises(OSError), namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
                    stream.settimeout(1)
                    stream.bind((source, 0))
                    stream.connect(("127.0.0.1", port))
        # In its name.
        with vm.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            udp = struct.pack("!HHHH", 1234, 9998, 8 + 5, 0) + b"spoof"
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0,
                socket.inet_aton("127.0.0.1"), socket.inet_aton(vm.cable.gateway),
            )
            raw.sendto(header + udp, (vm.cable.gateway, 0))
        with pytest.raises(TimeoutError):
            listener.recv(100)
    wait_for(lambda: not rules(broker), 5, "the forward ends")
    assert [broker.namespace.sysctl(switch) for switch in switches] == ["0", "1"], "nothing stays open without rules"


def test_a_large_answer_fits(broker, boot):
    """More than one segment, both ways."""
    web = boot(hostname="web", serves=False)
    with broker.connect(MEMBER) as peer:
        forward(peer, 5201, "web:5201")
        web.namespace.start_iperf3(web.address)
        for direction in ((), ("-R",)):
            end = iperf3(lambda argv: broker.lab.internet.run(argv).stdout, UPLINK_ADDRESS, "-n", "4M", *direction)["end"]
            # What is still on its way when the sender has finished, the receiver doesn't count.
            assert end["sum_sent"]["bytes"] >= 4 << 20 and end["sum_received"]["bytes"] > 1 << 20


# By name


def test_a_name_leads_to_whoever_has_it(broker, boot):
    with broker.connect(MEMBER) as peer:
        made = forward(peer, 8080, "web:80")
        assert "address" not in made and not rules(broker), "nobody has the name yet"
        assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080)

        first = boot(hostname="web")
        wait_for(lambda: answers(broker.lab.internet, UPLINK_ADDRESS, 8080), 5, "the first VM answers")
        first.stop()
        wait_for(lambda: not rules(broker), 5, "no rule without a VM")
        assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080)

        second = boot(hostname="WEB", user=MEMBER)
        assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
        (told,) = peer.call("ListForwards")[0]["forwards"]
        assert told["address"] == f"{second.address}:80" and told["target"] == "web:80"




def test_another_users_vm_of_the_same_name(broker, boot):
    with broker.connect(MEMBER) as peer, broker.connect() as root:
        forward(peer, 8080, "web:80")
        forward(root, 8081, "web:80")
        foreign = boot(hostname="web", user=OTHER)
        assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080)
        assert answers(broker.lab.internet, UPLINK_ADDRESS, 8081), "root's leads to everybody's"
        told = root.call("ListForwards")[0]["forwards"]
        assert [entry.get("address") for entry in told] == [None, f"{foreign.address}:80"]
        foreign.stop()
        wait_for(lambda: not rules(broker), 5, "the VM is gone")
        own = boot(hostname="web", user=MEMBER)
        told = root.call("ListForwards")[0]["forwards"]
        assert [entry.get("address") for entry in told] == [f"{own.address}:80"] * 2
        assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)


def test_a_stream_of_datagrams_follows_the_name(broker, boot):
    """A UDP flow that never pauses would stay with the old address, or with none, for good."""
    with broker.connect(MEMBER) as peer, broker.lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        stream.settimeout(0.1)
        stream.connect((UPLINK_ADDRESS, 8080))

        def echoed():
            with contextlib.suppress(OSError):
                stream.send(b"hello")
                return stream.recv(100)
            return None

        assert not echoed(), "nothing there yet; the kernel remembers the flow nevertheless"
        first = boot(hostname="web")
        forward(peer, 8080, "web:80", protocol="udp")
        assert wait_for(echoed, 5, "UDP arrives")
        addresses = {first.address}
        first.stop()
        # Its MAC follows from an id of its own, and its address from the MAC.
        second = boot(hostname="web", arguments=["--interface-id", "6D6B1F5C-40FC-4D10-A8A5-6F7D2C0E9B11"])
        addresses.add(second.address)
        assert len(addresses) == 2
        assert wait_for(echoed, 5, "UDP arrives at the new address")


def test_connections_outlive_their_forward(broker, boot):
    """As those of a server that doesn't listen any more; a flow of UDP has no end of its own and ends at once."""
    boot(hostname="web")
    with broker.connect(MEMBER) as peer:
        forward(peer, 8080, "web:80")
        forward(peer, 8080, "web:80", protocol="udp")
        stream = broker.lab.internet.socket(socket.AF_INET, socket.SOCK_STREAM)
        datagrams = broker.lab.internet.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for one in (stream, datagrams):
            one.settimeout(10)
            one.connect((UPLINK_ADDRESS, 8080))
            one.send(b"one")
            assert one.recv(100).endswith(b"one")
    wait_for(lambda: not rules(broker), 5, "the forwards end with their connection")
    stream.send(b"two")
    assert stream.recv(100).endswith(b"two")
    datagrams.settimeout(1)

    def echoed():
        with contextlib.suppress(OSError):
            datagrams.send(b"two")
            return datagrams.recv(100)
        return None

    # The kernel forgets the flow a moment after the table has gone.
    wait_for(lambda: not echoed(), 5, "the flow ends")
    assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080)
    stream.close()
    datagrams.close()


# Kept, and not


def test_a_forward_ends_with_its_connection(broker, boot, hold):
    boot(hostname="web")
    process, line = hold("8080", "web:80")
    assert line.startswith("forward 1: tcp 0.0.0.0:8080 leads to web:80 (192.168.")
    assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
    process.send_signal(signal.SIGINT)
    process.wait(5)
    wait_for(lambda: is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080), 5, "the port is free again")
    assert not rules(broker) and not list((broker.runtime_dir / "forwards").iterdir())


def test_pinned_until_removed(broker, boot, ctl):
    """Over kill -9 of all of the broker, with the VM running; over a reboot, after which there is nothing but STATE."""
    web = boot(hostname="web")
    result = ctl("--pin", "8080", "web:80")
    assert result.returncode == 0, result.stderr
    assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
    broker.kill()
    assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080), "the rules need no broker"
    broker.namespace.run(["nft", "flush", "ruleset"])
    broker.start()
    wait_for(lambda: answers(broker.lab.internet, UPLINK_ADDRESS, 8080), 5, "the rules are made again")

    web.stop()
    broker.kill()
    for link in broker.links():
        broker.namespace.ip("link", "del", link["ifname"])
    broker.namespace.run(["nft", "flush", "ruleset"])
    broker.start()
    (told,) = json.loads(ctl("--list", "--json").stdout)["forwards"]
    assert told["id"] == 1 and told["origin"] == "pinned" and told["uid"] == MEMBER.uid and "address" not in told
    again = boot(hostname="web")
    wait_for(lambda: answers(broker.lab.internet, UPLINK_ADDRESS, 8080), 5, "a forward for the new VM")

    assert ctl("--remove", "1", user=OTHER).returncode == 1
    result = ctl("--remove", "1")
    assert result.returncode == 0, result.stderr
    assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080)
    assert not list((broker.state_dir / "forwards").iterdir())
    again.stop()


def test_held_over_the_death_of_the_front(broker, boot, hold):
    """No connection is refused meanwhile: the rule stays, and its holder comes back."""
    boot(hostname="web")
    hold("8080", "web:80")
    for _ in range(3):
        broker.kill("front")
        assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)

        def is_held():
            with contextlib.suppress(OSError, EOFError), broker.connect() as root:
                log = broker.log().rpartition("front is process")[2]
                return root.call("ListForwards")[0]["forwards"] and f"connected, user {MEMBER.uid}" in log
            return False

        wait_for(is_held, 10, "vmnetctl is back")
        assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
    with broker.connect() as root:
        (told,) = root.call("ListForwards")[0]["forwards"]
        assert told["origin"] == "held"


def test_a_holder_that_does_not_come_back(broker, boot):
    boot(hostname="web")
    with broker.connect(MEMBER) as peer:
        forward(peer, 8080, "web:80")
        broker.kill("front")
        assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
        wait_for(lambda: is_refused(broker.lab.internet, UPLINK_ADDRESS, 8080), 10, "nobody holds it any more")
    assert not rules(broker) and not list((broker.runtime_dir / "forwards").iterdir())


@pytest.mark.parametrize("damage", ["flush ruleset", "flush table {}", "delete table {}", "flush map {} every4"])
def test_rules_that_somebody_removes_come_back(broker, boot, damage):
    boot(hostname="web")
    with broker.connect(MEMBER) as peer:
        forward(peer, 8080, "web:80")
        table = next(table for table in broker.tables() if "forwards" in table)
        times = mended_within(
            1,
            lambda: broker.namespace.run(["nft", *damage.format(table).split()]),
            lambda: answers(broker.lab.internet, UPLINK_ADDRESS, 8080),
            "rules again within a second",
        )
        again = "applied the rules of forwards again"
        wait_for(lambda: broker.log().count(again) == times, 5, "a word about it")
    wait_for(lambda: not rules(broker), 5, "no rules without a forward")


def test_nothing_is_left(make_broker, bin_dir):
    broker = make_broker(idle_timeout_s=0)
    cable = Cable(broker, bin_dir, ["--network", "shared", "--hostname", "web"])
    with broker.connect(MEMBER) as peer:
        forward(peer, 8080, "web:80")
        forward(peer, 8081, "web:80", pin=True)
        assert rules(broker)
        cable.process.kill()
        wait_for(lambda: not broker.links(), 10, "the network ends")
        wait_for(lambda: not broker.tables(), 5, "the tables go")
    # A forward that is held when the broker ends is kept for its holder, which may come back.
    wait_for(lambda: not list(broker.runtime_dir.glob("forwards/*")), 5, "the end of the connection is seen")
    assert broker.terminate() == 0
    assert not broker.leftovers()


# Configured


def test_configured(make_broker, bin_dir, boot_on):
    """By name and by address; nobody can remove it; a mistake takes its network out of service and says where."""
    networks = {
        "shared": {"mode": "shared", "subnet": "192.168.80.0/24", "forwards": [
            {"port": 8080, "to": "web:80"},
            {"protocol": "udp", "listen": f"{UPLINK_ADDRESS}:8080", "to": "192.168.80.77:80"},
        ]},
        "bad": {"mode": "shared", "forwards": [{"port": 1, "to": "web:80"}, {"port": 2, "to": "web"}]},
    }
    broker = make_broker(networks=networks)
    mistake = "bad.forwards[1].to: must be a VM's name or address and a port"
    wait_for(lambda: mistake in broker.log(), 5, "the mistake is told")
    web = boot_on(broker, hostname="web")
    assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
    web.namespace.ip("address", "add", "192.168.80.77/24", "dev", "eth0")
    web.namespace.start_echo("192.168.80.77", SERVICE_PORT)
    assert ask_udp(broker.lab.internet, UPLINK_ADDRESS, 8080)
    with broker.connect() as root, broker.connect(MEMBER) as peer:
        told = root.call("ListForwards")[0]["forwards"]
        assert [entry["origin"] for entry in told] == ["configured"] * 2
        assert peer.call("ListForwards")[0]["forwards"] == []
        with pytest.raises(VarlinkError, match="forward 1 is configured: take it out") as error:
            root.call("RemoveForward", id=1)
        assert error.value.name == "NotAllowed"
        error = refusal(peer, 8080, "web:80")
        assert error.name == "Conflict" and "tcp port 8080 is taken by forward 1 of user 0" in str(error)


def test_a_configured_forward_in_the_way_of_others_is_told(make_broker, lab):
    listener = lab.host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("0.0.0.0", 8081))
    listener.listen()
    forwards = [{"port": 8080, "to": "web:80"}, {"port": 8081, "to": "web:80"}]
    broker = make_broker()
    with broker.connect() as root:
        forward(root, "127.0.0.1:8080", "web:80", pin=True)
    broker.terminate()
    broker.write_config({"shared": {"mode": "shared", "forwards": forwards}})
    broker.start()
    for text in (
        "network shared: tcp 0.0.0.0:8080 is not forwarded: forward 1 of user 0 has that port",
        "network shared: its configured forward takes packets from others: tcp port 8081 is in use",
    ):
        wait_for(lambda text=text: text in broker.log(), 5, text)
    with broker.connect() as root:
        told = {entry["listen"]: entry["origin"] for entry in root.call("ListForwards")[0]["forwards"]}
    assert told == {"127.0.0.1:8080": "pinned", "0.0.0.0:8081": "configured"}
    listener.close()


# Refused


@pytest.mark.parametrize(
    "listen, target, options, name, said",
    [
        (8080, "web:80", {"network": "blue"}, "NotFound", 'network "blue" does not exist; there are: host, shared'),
        (80, "web:80", {}, "NotAllowed", "port 80 is for root, as all below 1024"),
        (8080, "192.168.1.1:80", {}, "InvalidRequest", '192.168.1.1:80 is no VM\'s address on network "shared"'),
        (8080, "{gateway}:80", {}, "InvalidRequest", "is no VM's address"),
        (8080, "{foreign}:80", {}, "NotAllowed", "is another user's VM"),
        (8080, "FOREIGN:80", {}, "NotAllowed", "is another user's VM"),
        ("224.0.0.1:8080", "web:80", {}, "InvalidRequest", "multicast"),
        ("[::1]:8080", "web:80", {}, "InvalidRequest", "listen on 127.0.0.1"),
        ("127.0.0.1:8080", "[fd00::5]:80", {}, "InvalidRequest", "both IPv4 or both IPv6"),
        ("[::]:8080", "192.168.64.2:80", {}, "InvalidRequest", "both IPv4 or both IPv6"),
        (8080, "web", {}, "InvalidRequest", 'parameter "target" must be a VM\'s name or address and a port'),
        (8080, ":80", {}, "InvalidRequest", 'parameter "target"'),
        (8080, "web:0", {}, "InvalidRequest", 'parameter "target"'),
        (8080, "web:65536", {}, "InvalidRequest", 'parameter "target"'),
        (8080, "300.1.1.1:80", {}, "InvalidRequest", 'parameter "target"'),
        (8080, "0.0.0.0:80", {}, "InvalidRequest", 'parameter "target"'),
        (8080, "we b:80", {}, "InvalidRequest", 'parameter "target"'),
        (8080, "x" * 5000 + ":80", {}, "InvalidRequest", 'parameter "target"'),
        (0, "web:80", {}, "InvalidRequest", 'parameter "listen" must be a port'),
        ("-1", "web:80", {}, "InvalidRequest", 'parameter "listen"'),
        ("1.2.3:80", "web:80", {}, "InvalidRequest", 'parameter "listen"'),
        ("127.0.0.1:80; drop", "web:80", {}, "InvalidRequest", 'parameter "listen"'),
        ("[::1:80", "web:80", {}, "InvalidRequest", 'parameter "listen"'),
        (8080, "web:80", {"protocol": "sctp"}, "InvalidRequest", 'parameter "protocol" must be "tcp" or "udp"'),
        (8080, "web:80", {"pin": 1}, "InvalidRequest", 'parameter "pin" must be true or false'),
        (8080, "web:80", {"uid": 0}, "InvalidRequest", 'unknown parameter "uid"'),
        (8080, "web:80", {"network": "../x"}, "InvalidRequest", 'parameter "network"'),
    ],
)
def test_what_a_user_may_not(broker, bin_dir, listen, target, options, name, said):
    cable = Cable(broker, bin_dir, ["--network", "shared", "--hostname", "foreign"], user=OTHER)
    values = {"gateway": cable.gateway, "foreign": cable.address}
    with broker.connect(MEMBER) as peer:
        error = refusal(peer, listen, target.format(**values), **options)
        assert error.name == name and said in error.parameters["reason"]
        assert peer.call("ListForwards")[0]["forwards"] == []
    cable.process.kill()


@pytest.mark.parametrize("protocol, port", [("tcp", 53), ("udp", 53), ("udp", 67)])
def test_what_vms_need_of_the_host_stays(broker, boot, protocol, port):
    vm = boot(hostname="web", serves=False)
    with broker.connect() as root:
        for listen in (port, f"{vm.cable.gateway}:{port}"):
            error = refusal(root, listen, "web:80", protocol=protocol)
            assert error.name == "InvalidRequest" and "serves DNS or DHCP to VMs" in error.parameters["reason"]
        if port == 53:
            made = forward(root, f"{UPLINK_ADDRESS}:{port}", "web:80", protocol=protocol)
            assert made["address"] == f"{vm.address}:80"


@pytest.mark.parametrize("first, second, conflict", [
    ("0.0.0.0:8080", "127.0.0.1:8080", True),
    ("127.0.0.1:8080", "8080", True),
    ("127.0.0.1:8080", f"{UPLINK_ADDRESS}:8080", False),
    ("8080", "8081", False),
    ("[::]:8080", "8080", False),
])
def test_a_port_that_another_forward_has(broker, first, second, conflict):
    with broker.connect(MEMBER) as peer, broker.connect(OTHER) as other:
        forward(peer, first, "web:80")
        forward(other, 8080, "web:80", protocol="udp")
        if conflict:
            error = refusal(other, second, "web:80")
            assert error.name == "Conflict"
            assert f"is taken by forward 1 of user {MEMBER.uid}" in error.parameters["reason"]
        else:
            forward(other, second, "web:80")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("at, listen, conflict", [
    ("0.0.0.0", "127.0.0.1:8080", True),
    ("127.0.0.1", "8080", True),
    ("::", "8080", True),
    ("127.0.0.1", f"{UPLINK_ADDRESS}:8080", False),
    ("::1", "8080", False),
])
def test_a_port_on_which_a_program_listens(broker, protocol, at, listen, conflict):
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with broker.namespace.socket(family, kind) as program, broker.connect(MEMBER) as peer:
        program.bind((at, 8080))
        if protocol == "tcp":
            program.listen()
        if not conflict:
            forward(peer, listen, "web:80", protocol=protocol)
            return
        error = refusal(peer, listen, "web:80", protocol=protocol)
        where = f"[{at}]:8080" if ":" in at else f"{at}:8080"
        assert error.name == "Conflict"
        assert f"{protocol} port 8080 is in use on the host: a program of user 0 listens on {where}" in str(error)
        assert "ss -lnp" in error.parameters["reason"]


def test_a_bridged_network_has_none(make_broker):
    broker = make_broker(networks={"lan": {"mode": "bridged", "uplink": "up0", "allow": {"users": [MEMBER.uid]}}})
    with broker.connect(MEMBER) as peer, broker.connect() as root:
        for asker in (peer, root):
            for target in ("web:80", "192.168.1.5:80"):
                error = refusal(asker, 8080, target, network="lan")
                assert error.name == "InvalidRequest" and "mode bridged" in error.parameters["reason"]


def test_quotas(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "quotas": {"forwards": 2}}})
    with broker.connect(MEMBER) as peer, broker.connect(OTHER) as other, broker.connect() as root:
        for port in (8080, 8081):
            forward(peer, port, "web:80", network="lab", pin=port == 8081)
        error = refusal(peer, 8082, "web:80", network="lab")
        assert error.name == "QuotaExceeded" and "lab.quotas.forwards is 2" in error.parameters["reason"]
        forward(other, 8082, "web:80", network="lab")
        for port in range(9000, 9010):
            forward(root, port, "web:80", network="lab")
        forward(peer, 8080, "web:80", network="lab")
        for port in range(10000, 10256):
            forward(peer, port, "web:80")
        error = refusal(peer, 10256, "web:80")
        assert error.name == "QuotaExceeded" and "the limit of a user is 256" in error.parameters["reason"]
        # More than one answer has.
        page, _ = peer.call("ListForwards")
        assert len(page["forwards"]) == 100 and page["more"]
    wait_for(lambda: not list((broker.runtime_dir / "forwards").iterdir()), 5, "held ones have gone")


def test_removal(broker, hold, ctl):
    process, _ = hold("8080", "web:80")
    assert ctl("--pin", "--udp", "8080", "web").returncode == 0
    (held, pinned) = json.loads(ctl("--list", "--json").stdout)["forwards"]
    assert (held["origin"], pinned["origin"], pinned["target"]) == ("held", "pinned", "web:8080")
    result = ctl("--remove", str(held["id"]))
    assert result.returncode == 1 and f"is held by process {process.pid} and ends with it" in result.stderr
    for number in ("99", str(pinned["id"])):
        result = ctl("--remove", number, user=OTHER)
        assert result.returncode == 1 and f"there is no forward {number} of yours" in result.stderr
    assert ctl("--remove", str(pinned["id"]), user=None).returncode == 0, "root may"
    rows = ctl("--list").stdout.splitlines()
    assert len(rows) == 2 and rows[1].split() == [
        str(held["id"]), "shared", "tcp", "0.0.0.0:8080", "web:80", "-", "held", str(MEMBER.uid)
    ]
    assert ctl("--list", user=OTHER).stdout.splitlines()[1:] == []


@pytest.mark.parametrize("arguments, said", [
    (("8080",), "give a port and a VM"),
    ((), "give a port and a VM"),
    (("8080", "web:80", "more"), 'one argument too many, "more"'),
    (("--list", "8080", "web:80"), "give a port and a VM"),
    (("--list", "--remove", "1"), "give a port and a VM"),
    (("--remove", "x"), "option --remove x: the number of a forward"),
    (("--list", "--udp"), "give a port and a VM"),
    (("8080", "x" * 300), "no VM has a name or address as long"),
    (("8080", "web:x"), 'parameter "target"'),
])
def test_what_vmnetctl_does_not_understand(ctl, arguments, said):
    result = ctl(*arguments)
    assert result.returncode == 1 and said in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("given, target", [
    (("127.0.0.1:8080", "web"), "web:8080"),
    (("8080", "192.168.64.9"), "192.168.64.9:8080"),
    (("[::]:8080", "web:80"), "web:80"),
    (("8080", "fd12::5"), "[fd12::5]:8080"),
    (("8080", "[fd12::5]"), "[fd12::5]:8080"),
    (("8080", "[fd12::5]:80"), "[fd12::5]:80"),
])
def test_targets_as_people_write_them(ctl, given, target):
    result = ctl("--pin", "--json", *given)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["forward"]["target"] == target


# IPv6


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_ipv6(broker, boot, protocol):
    """By name, which is the address that follows from the MAC, and by address."""
    web, neighbour = boot(hostname="web", serves=False), boot(serves=False)

    def own_address(vm):
        (link,) = json.loads(vm.namespace.ip("-json", "-6", "address", "show", "dev", "eth0"))
        return next((entry["local"] for entry in link["addr_info"]
                     if entry["scope"] == "global" and not entry.get("tentative")), None)

    address, source = (wait_for(lambda vm=vm: own_address(vm), 15, "an address") for vm in (web, neighbour))
    web.namespace.start_echo(address, SERVICE_PORT)
    ask = ASK[protocol]
    with broker.connect(MEMBER) as peer, broker.connect() as root:
        made = forward(peer, "[::]:8080", "web:80", protocol=protocol)
        assert made["address"] == f"[{address}]:80"
        forward(root, 8081, f"[{address}]:80", protocol=protocol)
        network = next(n for n in root.call("ListNetworks")[0]["networks"] if n["name"] == "shared")
        for port in (8080, 8081):
            assert ask(broker.lab.internet, UPLINK_ADDRESS6, port)[0] == INTERNET_ADDRESS6
            assert ask(broker.namespace, UPLINK_ADDRESS6, port)[2] == "hello"
            assert ask(broker.namespace, network["gateway6"], port)[2] == "hello"
            assert ask(neighbour.namespace, network["gateway6"], port)[0] != source, "it seems to be the gateway"
        if protocol == "tcp":
            assert is_refused(broker.namespace, "::1", 8080), "from there nothing leads out"


def test_a_changed_configuration(make_broker, boot_on):
    """What is configured no more ends, what is new begins, and connections through what stays don't notice."""
    def networks(*forwards):
        return {"shared": {"mode": "shared", "forwards": list(forwards)}}

    stays, goes, comes = ({"port": port, "to": "web:80"} for port in (8080, 8081, 8082))
    broker = make_broker(networks=networks(stays, goes))
    boot_on(broker, hostname="web")
    assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8081)
    broker.write_config(networks(stays, comes))
    wait_for(lambda: answers(broker.lab.internet, UPLINK_ADDRESS, 8082), 10, "the new one")
    assert is_refused(broker.lab.internet, UPLINK_ADDRESS, 8081)
    assert ask_tcp(broker.lab.internet, UPLINK_ADDRESS, 8080)
