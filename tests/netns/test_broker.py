"""The broker's own contract, spoken to over varlink: acquiring, sharing, idling, adopting, cleaning up."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
import subprocess
import time

import pytest

from lib.broker import MEMBER, STRANGER, Broker, VarlinkError
from lib.dhcp import dhcp_address
from lib.lab import is_running, mended_within, open_fds, read_proc, wait_for

IDLE_S = 1
RUNNING_FILES = ["lock", "socket"]  # what the runtime directory holds while no network runs


def error_of(call, *arguments, **parameters):
    with pytest.raises(VarlinkError) as caught:
        call(*arguments, **parameters)
    return caught.value


def acquire(peer, network="shared"):
    return peer.call("AcquireNetwork", network=network)[0]["network"]


def create(peer, network="shared", **parameters):
    reply, fds = peer.call("CreateInterface", network=network, **parameters)
    return reply, [fds[index] for index in reply["queues"]]


def capabilities(pid, which):
    for line in read_proc(pid, "status").decode().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1], 16)
    raise AssertionError(f"process {pid} has no {which}")


def bits(*numbers):
    return sum(1 << number for number in numbers)


SETGID, SETUID, KILL, NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 6, 7, 5, 10, 12, 13


# Acquiring


@pytest.mark.parametrize(("name", "mode"), [("shared", "shared"), ("host", "host")])
def test_acquire_built_in_network(make_broker, name, mode):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        network = acquire(peer, name)
        subnet = ipaddress.ip_network(network["subnet"])
        assert (network["name"], network["mode"], network["running"]) == (name, mode, True)
        assert str(subnet) == "192.168.64.0/24"
        assert network["gateway"] == str(subnet[1])
        assert network["mtu"] == 1500
        assert network["domain"] == f"{name}.vmnet"
        assert network["bridge"] in {link["ifname"] for link in broker.links()}
        assert len(broker.dnsmasq_pids()) == 1


def test_acquire_unknown_network_names_those_there_are(make_broker):
    broker = make_broker(networks={"default": {"mode": "shared"}})
    with broker.connect(MEMBER) as peer:
        error = error_of(acquire, peer, "blue")
        assert error.name == "NotFound"
        for word in ("blue", "default", "host", "shared"):
            assert word in error.parameters["reason"]
    assert not broker.links()


def test_shared_and_host_together_have_different_subnets(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        assert acquire(peer, "shared")["subnet"] == "192.168.64.0/24"
        assert acquire(peer, "host")["subnet"] == "192.168.128.0/24"


def test_acquiring_again_changes_nothing(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        first = acquire(peer)
        assert all(acquire(peer) == first for _ in range(9))
        assert len(broker.links()) == 1


def test_nine_networks_on_one_connection(make_broker):
    broker = make_broker(networks={f"n{i}": {"mode": "host"} for i in range(9)})
    with broker.connect(MEMBER) as peer:
        subnets = {acquire(peer, f"n{i}")["subnet"] for i in range(8)}
        assert len(subnets) == 8
        assert acquire(peer, "n0")["name"] == "n0"
        error = error_of(acquire, peer, "n8")
        assert error.name == "QuotaExceeded" and "8" in error.parameters["reason"]


def test_serial_peers_reuse_the_network(make_broker):
    broker = make_broker(idle_timeout_s=30)
    bridges = []
    for _ in range(3):
        with broker.connect(MEMBER) as peer:
            acquire(peer)
            bridges.append(broker.links()[0]["ifindex"])
    assert len(set(bridges)) == 1


def test_concurrent_peers(make_broker):
    broker = make_broker()
    peers = [broker.connect(MEMBER) for _ in range(6)]
    for index, peer in enumerate(peers):
        peer.send("AcquireNetwork", {"network": "shared" if index % 2 else "host"})
    networks = [peer.reply()[0]["network"] for peer in peers]
    assert {network["name"] for network in networks} == {"shared", "host"}
    assert len(broker.links()) == 2
    for peer in peers:
        peer.close()


def test_stranger_may_not_connect(make_broker):
    broker = make_broker()
    with pytest.raises(PermissionError):
        broker.connect(STRANGER)
    assert oct(broker.socket_path.stat().st_mode & 0o777) == "0o660"


# Life of a network


def test_a_network_that_follows_another_repairs_nothing(make_broker):
    broker = make_broker(idle_timeout_s=0)
    for _ in range(10):
        with broker.connect(MEMBER) as peer:
            peer.call("AcquireNetwork", network="shared")
    assert "somebody removed" not in broker.log()


def test_idle_network_goes_and_acquire_cancels(make_broker):
    idle_s = 3
    broker = make_broker(idle_timeout_s=idle_s)
    with broker.connect(MEMBER) as peer:
        acquire(peer)
        index = broker.links()[0]["ifindex"]
    closed = time.monotonic()
    wait_for(lambda: time.monotonic() > closed + 0.6 * idle_s, 10, "most of the idle time")
    with broker.connect(MEMBER) as peer:
        acquire(peer)
        wait_for(lambda: time.monotonic() > closed + 1.5 * idle_s, 10, "the old timer's moment has passed")
        assert [link["ifindex"] for link in broker.links()] == [index]
    closed = time.monotonic()
    wait_for(lambda: not broker.links(), 5 * idle_s + 2, "removal of the idle network")
    assert time.monotonic() - closed >= 0.9 * idle_s
    wait_for(lambda: not broker.tables(), 2, "removal of the NAT table")
    assert not broker.dnsmasq_pids()
    wait_for(lambda: broker.leftovers().files == RUNNING_FILES, 2, "removal of the records")


def test_killed_peer_releases(make_broker, lab, bin_dir):
    broker = make_broker(idle_timeout_s=IDLE_S)
    client = lab.host.popen(
        [bin_dir / "client", "shared"],
        user=MEMBER,
        env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while client.stdout.readline().strip() != "ok":
        assert client.poll() is None
    assert broker.links()
    client.kill()
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal after the holder was killed")


def test_interface_holds_the_network_without_a_connection(make_broker):
    broker = make_broker(idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        _, taps = create(peer)
    closed = time.monotonic()
    wait_for(lambda: time.monotonic() > closed + 2 * IDLE_S, 5, "twice the idle time")
    assert len(broker.links()) == 2
    os.close(taps[0])
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal after the TAP's last fd")
    wait_for(lambda: broker.leftovers().files == RUNNING_FILES, 2, "removal of the records")


def test_acquire_races_with_the_idle_timer(make_broker):
    """The timer is due again and again just when the next peer asks: each gets a network that works."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    for delay_ms in (-20, -5, 0, 2, 5, 10, 20, 40):
        with broker.connect(MEMBER) as peer:
            acquire(peer)
        due = time.monotonic() + IDLE_S + delay_ms / 1000
        wait_for(lambda due=due: time.monotonic() >= due, 5, "the moment around the timer")
        with broker.connect(MEMBER) as peer:
            network = acquire(peer)
            assert network["bridge"] in {link["ifname"] for link in broker.links()}
            assert len(broker.dnsmasq_pids()) == 1


def test_subnet_is_kept_over_restarts(make_broker):
    broker = make_broker()
    with broker.connect() as first, broker.connect() as second:
        acquire(first, "host")
        subnet = acquire(second, "shared")["subnet"]
    assert subnet == "192.168.128.0/24"
    assert broker.terminate() == 0
    broker.start()
    with broker.connect() as peer:
        assert acquire(peer, "shared")["subnet"] == subnet


def test_subnet_avoids_what_the_host_uses(make_broker, lab):
    lab.host.ip("address", "add", "192.168.64.77/32", "dev", "lo")
    lab.host.ip("route", "add", "192.168.0.0/17", "via", "198.51.100.1")
    broker = make_broker(networks={"fixed": {"mode": "host", "subnet": "192.168.77.0/24"}})
    with broker.connect() as peer:
        assert acquire(peer)["subnet"] == "192.168.128.0/24"
        error = error_of(acquire, peer, "fixed")
        assert error.name == "CreateFailure" and "192.168.77.0/24" in error.parameters["reason"]


def test_configured_subnet(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "subnet": "10.77.0.0/28"}})
    with broker.connect() as peer:
        network = acquire(peer, "lab")
        assert (network["subnet"], network["gateway"], network["mode"]) == ("10.77.0.0/28", "10.77.0.1", "host")


def test_broken_configuration_takes_only_its_own_network_out(make_broker):
    broker = make_broker(networks={"bad": {"mode": "shard"}, "good": {"mode": "host"}})
    broker.close()
    broker.write_config('{"other": {"mode": "host"},\n "half": {', "networks.d/torn.json")
    broker = make_broker(directory=broker.directory)
    with broker.connect() as peer:
        assert acquire(peer, "good")["mode"] == "host"
        error = error_of(acquire, peer, "bad")
        assert error.name == "CreateFailure"
        assert 'networks.json: bad.mode: "shard": one of shared, host, bridged' in error.parameters["reason"]
        error = error_of(acquire, peer, "half")
        assert error.name == "NotFound" and "torn.json" in error.parameters["reason"]
    assert "torn.json:2:" in broker.log()


# Interfaces


def test_interface_answer(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        identity = "8f2d5c1e-13ab-4c1d-9a55-0c5d7ab0f1e2"
        reply, taps = create(peer, interfaceId=identity, hostname="web")
        assert len(taps) == 1
        assert reply["interfaceId"].lower() == identity
        first = int(reply["mac"].split(":")[0], 16)
        assert first & 3 == 2, "locally administered and unicast"
        address = ipaddress.ip_address(reply["address"])
        assert address in ipaddress.ip_network(reply["network"]["subnet"])
        link = next(link for link in broker.links() if link["ifname"] == reply["interfaceName"])
        assert link["master"] == reply["network"]["bridge"]
        data = link["linkinfo"]["info_data"]
        assert (data["type"], data["pi"], data["vnet_hdr"], data["persist"]) == ("tap", False, True, False)
        assert int(data.get("user", 0) if data.get("user") != "root" else 0) == 0
        os.close(taps[0])
        wait_for(lambda: len(broker.links()) == 1, 2, "the TAP is gone")
        again, taps = create(peer, interfaceId=identity, hostname="web")
        assert (again["mac"], again["address"]) == (reply["mac"], reply["address"])
        os.close(taps[0])


def dns_addresses(lab, server, name):
    """What the server says of a name's IPv4 addresses."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    with lab.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(2)
        resolver.sendto(query, (server, 53))
        answer = resolver.recv(4096)
    count = struct.unpack("!H", answer[6:8])[0]
    # Each answer is a compressed name, type, class, TTL, length and the address: 16 bytes.
    return [socket.inet_ntoa(answer[len(query) + 16 * i + 12 :][:4]) for i in range(count)]


def test_dhcp_knows_an_interface_before_its_holder_does(make_broker):
    """However soon the VM asks: on networks that have only just started, and beside others that come and go."""
    names = [f"n{number}" for number in range(6)]
    broker = make_broker(networks={name: {"mode": "host"} for name in names})
    for name in names:
        with broker.connect(MEMBER) as peer, broker.connect(MEMBER) as other:
            for _ in range(3):
                other.send("CreateInterface", {"network": name})
                reply, taps = create(peer, name)
                assert dhcp_address(taps[0], reply["mac"]) == reply["address"]
                _, fds, _ = other.reply()
                os.close(fds[0])
                os.close(taps[0])
    assert "did not say" not in broker.log()


def test_the_first_frame_on_a_bridge_without_ports_is_answered(make_broker):
    """A bridge whose last port has gone is down, and sends nothing until the kernel has seen the next one."""
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        bridge = acquire(peer)["bridge"]
        for _ in range(4):
            reply, taps = create(peer)
            assert is_running_link(broker, bridge), "by the time of the answer"
            assert dhcp_address(taps[0], reply["mac"]) == reply["address"]
            os.close(taps[0])
            wait_for(lambda: not is_running_link(broker, bridge), 5, "the bridge without ports is down")


def is_running_link(broker, name):
    return next(link["operstate"] for link in broker.links() if link["ifname"] == name) == "UP"


def test_dhcp_knows_an_interface_before_its_holder_does_after_the_front_died(make_broker):
    """dnsmasq runs on, and the next front hears it too."""
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        acquire(peer)
        for _ in range(3):
            before = broker.dnsmasq_pids()
            broker.kill("front")
            for _ in range(10):
                with broker.connect(MEMBER) as again:
                    reply, taps = create(again)
                    assert dhcp_address(taps[0], reply["mac"]) == reply["address"]
                    os.close(taps[0])
            assert broker.dnsmasq_pids() == before
    assert "did not say" not in broker.log()


@pytest.mark.parametrize("hostname", ["web", "ignore", "infinite", "1h", "100"])
def test_hostname_is_a_name_and_no_word_of_dnsmasq(make_broker, lab, hostname):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        reply, taps = create(peer, hostname=hostname)
        assert dhcp_address(taps[0], reply["mac"]) == reply["address"]
        network = reply["network"]
        assert dns_addresses(lab, network["gateway"], f"{hostname}.{network['domain']}") == [reply["address"]]
        os.close(taps[0])


def test_mac_follows_what_is_known(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        macs = {}
        for key, parameters in {
            "given": {"mac": "52:54:00:12:34:56"},
            "hostname": {"hostname": "db"},
            "random": {},
            "random again": {},
        }.items():
            reply, taps = create(peer, **parameters)
            macs[key] = reply["mac"]
            os.close(taps[0])
        assert macs["given"] == "52:54:00:12:34:56"
        assert len(set(macs.values())) == 4
        wait_for(lambda: len(broker.links()) == 1, 2, "all TAPs are gone")
        reply, taps = create(peer, hostname="db")
        assert reply["mac"] == macs["hostname"]
        os.close(taps[0])


def test_same_mac_twice_is_a_conflict(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        _, taps = create(peer, mac="52:54:00:12:34:56")
        error = error_of(create, peer, mac="52:54:00:12:34:56")
        assert error.name == "Conflict" and "52:54:00:12:34:56" in error.parameters["reason"]
        os.close(taps[0])


@pytest.mark.parametrize(
    "parameters",
    [
        {"mac": "01:00:5e:00:00:01"},
        {"mac": "00:00:00:00:00:00"},
        {"mac": "fe:76:00:00:00:01"},
        {"mac": "52:54:00:12:34"},
        {"mac": 7},
        {"interfaceId": "not-a-uuid"},
        {"hostname": "-x"},
        {"hostname": "a" * 64},
        {"queues": 0},
        {"queues": 9},
        {"queues": "2"},
        {"sockets": [0]},
        {"sockets": [-1]},
        {"sockets": [0, 0, 0]},
        {"sockets": 3},
        {"network": "../etc"},
        {"network": "x" * 33},
        {"network": ""},
        {"network": None},
        {"colour": "blue"},
    ],
)
def test_bad_parameters_are_named(make_broker, parameters):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        error = error_of(peer.call, "CreateInterface", **{"network": "shared", **parameters})
        assert error.name in ("InvalidRequest", "NotFound")
        assert next(iter(parameters)).lower() in error.parameters["reason"].lower()
        assert not [link for link in broker.links() if link["ifname"].startswith("vmtap")]
        assert acquire(peer)["name"] == "shared", "the connection goes on"


def test_sockets_are_enlarged_beyond_what_the_peer_may(make_broker):
    broker = make_broker()
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with broker.connect(MEMBER) as peer:
        reply, _ = peer.call("EnlargeSocketBuffers", sockets=[0, 1], fds=[one.fileno(), two.fileno()])
        assert reply["socketBufferBytes"] == 4 << 20
        for end in (one, two):
            # The kernel doubles what it is told (socket(7)).
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 8 << 20
        inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        before = inet.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        error = error_of(peer.call, "EnlargeSocketBuffers", sockets=[0], fds=[inet.fileno()])
        assert error.name == "InvalidRequest"
        assert inet.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before


# vhost-net

# A /dev of the broker's own, with what it and sanitizers need, and /dev/vhost-net as $2 makes it.
PRIVATE_DEV = """
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/net"
for file in null zero full random urandom net/tun; do touch "$1/$file"; mount --bind "/dev/$file" "$1/$file"; done
ln -s /proc/self/fd "$1/fd"
cd "$1"
eval "$2"
cd /
mount --move "$1" /dev
shift 2
exec "$@"
"""
NULL_DEVICE = os.makedev(1, 3)


def with_vhost(make_broker, lab, command, **options):
    """A broker on a host whose /dev/vhost-net is made by a shell command."""
    broker = make_broker(start=False, **options)
    place = lab.public_directory("dev")
    broker.command = ["unshare", "-m", "sh", "-ec", PRIVATE_DEV, "sh", str(place), command, *broker.command]
    broker.start()
    return broker


@pytest.mark.parametrize("queues", [None, 1, 2, 8])
def test_vhost_comes_with_every_queue(make_broker, lab, queues):
    broker = with_vhost(make_broker, lab, "mknod -m 600 vhost-net c 1 3")
    asked = {"queues": queues} if queues else {}
    with broker.connect(MEMBER) as peer:
        reply, fds = peer.call("CreateInterface", network="shared", vhost=True, **asked)
        count = queues or 1
        assert len(reply["queues"]) == len(reply["vhosts"]) == count
        assert sorted(reply["queues"] + reply["vhosts"]) == list(range(len(fds)))
        for index in reply["vhosts"]:
            assert os.fstat(fds[index]).st_rdev == NULL_DEVICE
            assert os.write(fds[index], b"x") == 1, "it is open for writing"
            assert open_fds(os.getpid())[fds[index]] == "/dev/vhost-net"
        for index in reply["queues"]:
            assert os.fstat(fds[index]).st_rdev == os.stat("/dev/net/tun").st_rdev
        # One that keeps vhost-net's fds but no queue keeps no interface.
        for index in reply["queues"]:
            os.close(fds[index])
        wait_for(lambda: len(broker.links()) == 1, 5, "the TAP is gone")
        for index in reply["vhosts"]:
            os.close(fds[index])
        reply, fds = peer.call("CreateInterface", network="shared", vhost=False, **asked)
        assert reply["vhosts"] == [] and len(fds) == count
        for fd in fds:
            os.close(fd)
    for pid in (broker.priv_pid, broker.front_pid):
        assert "/dev/vhost-net" not in open_fds(pid).values(), "the broker keeps no copy"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (":", "No such file"),
        ("mknod -m 600 vhost-net c 4000 0", "No such device"),
        ("echo nothing >vhost-net", "No such device"),
        ("mkfifo vhost-net", "No such device"),
        ("mkdir vhost-net", "Is a directory"),
    ],
    ids=["absent", "without a driver", "a file", "a pipe", "a directory"],
)
def test_a_host_without_vhost_is_no_failure(make_broker, lab, command, reason):
    broker = with_vhost(make_broker, lab, command)
    with broker.connect(MEMBER) as peer:
        for queues in (1, 3):
            reply, fds = peer.call("CreateInterface", network="shared", vhost=True, queues=queues)
            assert reply["vhosts"] == [] and len(fds) == queues
            for fd in fds:
                os.close(fd)
    lines = [line for line in broker.log().splitlines() if "without vhost-net" in line]
    assert len(lines) == 2 and all(line.startswith("DEBUG") and reason in line for line in lines)


@pytest.mark.parametrize(("command", "listed"), [("mknod -m 600 vhost-net c 1 3", "7:8:9"), (":", "")])
def test_the_command_is_told_of_vhost(make_broker, lab, bin_dir, command, listed):
    broker = with_vhost(make_broker, lab, command)
    probe = (
        "import os, sys\n"
        "print(os.environ['VMNET_QUEUES'], os.environ['VMNET_VHOST_FDS'])\n"
        "passed = [fd for fd in range(4, 20) if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "print(*[os.fstat(fd).st_rdev for fd in passed])"
    )
    arguments = ["--network", "shared", "--attach", "native", "--queues", "3", "--", "/usr/bin/python3", "-c", probe]
    environment = {"VMNET_BROKER_SOCKET": str(broker.socket_path)}
    result = lab.host.run([bin_dir / "vmnet-client", *arguments], user=MEMBER, env=environment)
    _, variables, fds = result.stdout.splitlines()
    assert variables == f"3 {listed}"
    taps = [os.stat("/dev/net/tun").st_rdev] * 3
    assert [int(device) for device in fds.split()] == taps + [NULL_DEVICE] * (3 if listed else 0)


def test_quota_of_interfaces(make_broker):
    broker = make_broker(networks={"big": {"mode": "host", "subnet": "10.20.0.0/20"}})
    taps = []
    with broker.connect(MEMBER) as peer:
        for _ in range(512):
            reply, fds = peer.call("CreateInterface", network="big")
            taps += fds
        error = error_of(create, peer, "big")
        assert error.name == "QuotaExceeded" and "512" in error.parameters["reason"]
        with broker.connect() as root:
            _, fds = create(root, "big")
            taps += fds
        os.close(taps.pop(0))
        wait_for(lambda: len(broker.links()) == 513, 5, "one TAP less")
        taps += create(peer, "big")[1]
    for tap in taps:
        os.close(tap)


def test_network_without_a_free_address(make_broker):
    broker = make_broker(networks={"tiny": {"mode": "host", "subnet": "10.1.0.0/30"}})
    with broker.connect() as peer:
        reply, taps = create(peer, "tiny")
        assert reply["address"] == "10.1.0.2"
        assert error_of(create, peer, "tiny").name == "QuotaExceeded"
        os.close(taps[0])
        wait_for(lambda: len(broker.links()) == 1, 2, "the TAP is gone")
        reply, taps = create(peer, "tiny")
        assert reply["address"] == "10.1.0.2", "an address nobody uses is given again"
        os.close(taps[0])


# Who has which privilege


def test_capabilities_of_the_parts(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        acquire(peer)
        priv, front, dnsmasq = broker.priv_pid, broker.front_pid, broker.dnsmasq_pids()[0]
        ours = bits(NET_ADMIN, NET_RAW, NET_BIND_SERVICE, SETUID, SETGID, KILL)
        assert capabilities(priv, "CapEff") == capabilities(priv, "CapPrm") == ours
        assert capabilities(priv, "CapBnd") == ours
        for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert capabilities(front, which) == 0
            assert capabilities(dnsmasq, which) in (0, bits(NET_ADMIN, NET_RAW, NET_BIND_SERVICE))
        assert capabilities(dnsmasq, "CapEff") != 0
        for pid in (front, dnsmasq):
            uids = [line for line in read_proc(pid, "status").decode().splitlines() if line.startswith("Uid:")]
            assert "0" not in uids[0].split()[1:]
        for pid in (priv, front, dnsmasq):
            assert "NoNewPrivs:\t1" in read_proc(pid, "status").decode()


# Restart, adoption, repair


def test_second_broker_in_one_namespace_refuses(make_broker, lab, bin_dir):
    first = make_broker()
    second = Broker(lab, bin_dir, start=False)
    result = lab.host.run(second.command, check=False)
    assert result.returncode == 1
    assert "another vmnet-broker runs" in result.stderr and "stop it" in result.stderr
    with first.connect() as peer:
        acquire(peer)


@pytest.mark.parametrize("part", ["front", "priv"])
def test_killed_part_is_replaced_and_adopts(make_broker, part):
    broker = make_broker(idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        reply, taps = create(peer, mac="52:54:00:00:00:01", hostname="web")
        before = sorted((link["ifname"], link["ifindex"]) for link in broker.links())
    broker.kill(part)
    if part == "priv":
        wait_for(lambda: not broker.leftovers().dnsmasq, 5, "dnsmasq ends with its parent")
        broker.start()
    with broker.connect(MEMBER) as peer:
        assert acquire(peer)["subnet"] == reply["network"]["subnet"]
        assert sorted((link["ifname"], link["ifindex"]) for link in broker.links()) == before
        wait_for(lambda: len(broker.dnsmasq_pids()) == 1, 5, "dnsmasq is back")
        error = error_of(create, peer, mac="52:54:00:00:00:01")
        assert error.name == "Conflict", "the adopted interface is known by its MAC"
    os.close(taps[0])
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal after the adopted TAP's end")
    wait_for(lambda: broker.leftovers().files == RUNNING_FILES, 2, "removal of the records")


def test_idle_leftovers_are_taken_away_after_a_crash(make_broker):
    broker = make_broker(idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        _, taps = create(peer)
        broker.kill("priv")
    wait_for(lambda: not broker.leftovers().dnsmasq, 5, "dnsmasq ends with its parent")
    os.close(taps[0])
    broker.start()
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal of the adopted, unused network")
    wait_for(lambda: broker.leftovers().files == RUNNING_FILES, 2, "removal of its records")


def test_sigterm_right_after_the_start_leaves_nothing(make_broker):
    broker = make_broker(start=False)
    for _ in range(5):
        broker.start()
        assert broker.terminate() == 0
        assert not broker.leftovers()


def test_sigterm_leaves_what_is_in_use(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        reply, taps = create(peer, "shared")
        acquire(peer, "host")
    assert broker.terminate() == 0
    left = broker.leftovers()
    assert set(left.links) == {reply["interfaceName"], reply["network"]["bridge"]}
    assert not left.dnsmasq and "socket" not in left.files
    os.close(taps[0])


def test_sigterm_takes_away_what_only_a_connection_holds(make_broker):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        acquire(peer, "host")
        assert broker.terminate() == 0
        assert not broker.leftovers()


def test_foreign_links_are_not_touched(make_broker, lab):
    lab.host.ip("link", "add", "vmbr00000000", "type", "bridge")
    lab.host.ip("link", "add", "other", "type", "bridge")
    lab.host.ip("link", "set", "dev", "other", "alias", "vmnet/1/00000001/bridge/shared/shared")
    broker = make_broker(idle_timeout_s=IDLE_S)
    with broker.connect() as peer:
        acquire(peer)
    wait_for(lambda: [link["ifname"] for link in broker.links()] == ["other"], 5 + IDLE_S, "removal of ours only")
    assert broker.terminate() == 0
    names = lab.host.ip("-br", "link")
    assert "vmbr00000000" in names and "other" in names


def test_flushed_nft_table_is_back_within_a_second(make_broker, lab):
    broker = make_broker()
    with broker.connect() as peer:
        acquire(peer)


        def rules():
            """Sorted: tables are listed in the order of their making."""
            return sorted(lab.host.run(["nft", "-s", "list", "ruleset"]).stdout.splitlines())

        before = rules()
        assert any("masquerade" in rule for rule in before) and any("hook prerouting" in rule for rule in before)
        for _ in range(3):
            flush = ["nft", "flush", "ruleset"]
            mended_within(1, lambda: lab.host.run(flush), lambda: rules() == before, "our tables are back")


def test_dnsmasq_is_back_with_its_leases(make_broker, lab):
    broker = make_broker()
    with broker.connect() as peer:
        acquire(peer)
        for _ in range(2):
            old = broker.dnsmasq_pids()
            broker.kill("dnsmasq")
            new = wait_for(lambda old=old: [p for p in broker.dnsmasq_pids() if p not in old], 10, "a new dnsmasq")
            assert len(new) == 1 and is_running(new[0])


def test_exit_when_idle(make_broker):
    broker = make_broker(idle_timeout_s=IDLE_S, arguments=["--exit-when-idle"])
    with broker.connect() as peer:
        acquire(peer)
        opened = time.monotonic()
        wait_for(lambda: time.monotonic() > opened + 2 * IDLE_S, 5, "twice the idle time")
        assert broker.process.poll() is None
    assert broker.process.wait(5 + 2 * IDLE_S) == 0
    assert not broker.leftovers()


# Tampering by whoever holds a TAP


@pytest.fixture
def tun_for_everybody():
    """As udev makes it on a distribution."""
    mode = os.stat("/dev/net/tun").st_mode
    os.chmod("/dev/net/tun", 0o666)
    yield
    os.chmod("/dev/net/tun", mode & 0o777)


@pytest.mark.parametrize("what", ["address", "persist", "owner"])
def test_tampered_tap_is_deleted(make_broker, what):
    import fcntl

    broker = make_broker(idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        reply, taps = create(peer)
        name = reply["interfaceName"].encode()
        if what == "address":
            request = struct.pack("16sH6s8x", name, 1, bytes.fromhex("525400000099"))
            fcntl.ioctl(taps[0], 0x8924, request)  # SIOCSIFHWADDR
        elif what == "persist":
            fcntl.ioctl(taps[0], 0x400454CB, 1)  # TUNSETPERSIST
            os.close(taps.pop())
        else:
            # TUNSETOWNER tells nobody by itself: the next event of the link shows it, here that of its carrier.
            fcntl.ioctl(taps[0], 0x400454CC, MEMBER.uid)
            fcntl.ioctl(taps[0], 0x400454E2, struct.pack("i", 0))  # TUNSETCARRIER
        wait_for(
            lambda: reply["interfaceName"] not in {link["ifname"] for link in broker.links()},
            10,
            f"the TAP with a changed {what} is deleted",
        )
        assert reply["interfaceName"] in broker.log()
    for tap in taps:
        os.close(tap)
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal of the network")


def test_stranger_cannot_join_a_multi_queue_tap(make_broker, lab, tun_for_everybody):
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        reply, taps = create(peer, queues=2)
        assert len(taps) == 2
        join = (
            "import fcntl,os,struct;"
            "tap=os.open('/dev/net/tun',os.O_RDWR);"
            f"fcntl.ioctl(tap,0x400454ca,struct.pack('16sH22x',b'{reply['interfaceName']}',0x5102))"
        )
        for user in (STRANGER, MEMBER):
            result = lab.host.run(["/usr/bin/python3", "-c", join], user=user, check=False)
            assert result.returncode == 1 and "PermissionError" in result.stderr
        for tap in taps:
            os.close(tap)


JOINER = """
import fcntl, os, socket, struct, sys

events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
events.bind((0, 1))  # RTMGRP_LINK
print("ready", flush=True)
while True:
    message = events.recv(65536)
    start = message.find(b"vmtap")
    if start < 0:
        continue
    name = message[start:].split(b"\\0")[0][:15]
    tap = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name, 0x5102))
        print("joined", name.decode(), flush=True)
    except OSError:
        os.close(tap)
"""


def test_stranger_who_is_quick_gets_no_queue_of_a_tap_in_use(make_broker, lab, tun_for_everybody):
    """Between the making of a TAP and the setting of its owner anybody may join: such a TAP is never handed out."""
    broker = make_broker()
    joiner = lab.host.popen(["/usr/bin/python3", "-c", JOINER], user=STRANGER, stdout=subprocess.PIPE, text=True)
    assert joiner.stdout.readline() == "ready\n"
    with broker.connect(MEMBER) as peer:
        for _ in range(100):
            try:
                reply, taps = create(peer, queues=2)
            except VarlinkError as error:
                assert "joined" in error.parameters["reason"]
                continue
            link = next(link for link in broker.links() if link["ifname"] == reply["interfaceName"])
            assert link["linkinfo"]["info_data"]["numqueues"] == 2
            for tap in taps:
                os.close(tap)


# Leaks


def test_two_hundred_cycles_leave_nothing(make_broker, lab, release_bin_dir):
    broker = make_broker(idle_timeout_s=IDLE_S, programs=release_bin_dir)  # AddressSanitizer keeps freed memory

    def numbers():
        ruleset = lab.host.run(["nft", "list", "ruleset"]).stdout.splitlines()
        status = read_proc(broker.front_pid, "status").decode()
        rss_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
        fds = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (broker.priv_pid, broker.front_pid)]
        return [*fds, len(json.loads(lab.host.ip("-json", "link"))), len(ruleset)], rss_kib

    def cycle():
        with broker.connect(MEMBER) as peer:
            acquire(peer)
            _, taps = create(peer, queues=2)
            for tap in taps:
                os.close(tap)

    with broker.connect(MEMBER) as holder:
        acquire(holder)
        for _ in range(250):  # until every address of the pool has been reserved once
            cycle()
        wait_for(lambda: len(broker.links()) == 1, 5, "only the bridge is left")
        before, rss_kib = numbers()
        for _ in range(200):
            cycle()
        wait_for(lambda: len(broker.links()) == 1, 5, "only the bridge is left")
        wait_for(lambda: all(now <= then for now, then in zip(numbers()[0], before)), 5, f"no more than {before}")
        grown_kib = numbers()[1] - rss_kib
        assert grown_kib <= rss_kib * 0.02 + 256, f"the front grew by {grown_kib} KiB"
