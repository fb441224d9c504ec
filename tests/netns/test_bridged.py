"""Bridged mode: VMs on an interface of the host, with addresses of its LAN."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.cable import Cable
from lib.frames import ARP_REPLY, BROADCAST, ETHERTYPE_IPV4, arp_request, ethernet, parse, udp
from lib.lab import User, is_running, wait_for
from lib.lan import KINDS, LAN_HOST, NIC, Lan

OTHER = User(4444, 4444, (100,))
IDLE_S = 1
SIOCSIFHWADDR = 0x8924


@pytest.fixture
def make_lan(lab):
    return lambda kind: Lan(lab, kind)


@pytest.fixture(params=KINDS)
def lan(request, make_lan):
    return make_lan(request.param)


@pytest.fixture
def broker(make_broker, lan):
    return make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=IDLE_S)


@pytest.fixture
def cable(broker, lan, bin_dir, show_on_failure):
    """Helpers in mode bridged, killed at the end."""
    cables = []

    def make(*arguments, **options):
        made = Cable(broker, bin_dir, arguments or bridged(lan), **options)
        cables.append(made)
        show_on_failure(f"vmnet-helper {len(cables)}", made.log)
        return made

    yield make
    for made in cables:
        made.close()


def bridged(lan):
    return ("--operation-mode", "bridged", "--shared-interface", lan.uplink)


@pytest.fixture
def run_helper(bin_dir):
    """run_helper(broker, *arguments): one that is refused."""

    def run(broker, *arguments, user=MEMBER):
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        result = broker.namespace.run(
            [bin_dir / "vmnet-helper", "--fd", str(two.fileno()), *arguments],
            user=user,
            check=False,
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
            pass_fds=[two.fileno()],
        )
        one.close()
        two.close()
        return result

    return run


def interfaces(broker):
    """Our links: of VMs, as there are no others in this mode."""
    return [link["ifname"] for link in broker.links()]


def wait_nothing_left(broker):
    wait_for(lambda: not interfaces(broker), 5, "the interface's end")
    wait_for(lambda: not list(broker.runtime_dir.rglob("*.json")), 5, "the records' end")
    wait_for(lambda: not broker.tables(), 5, "the rules' end")


def listed(broker, user=MEMBER):
    with broker.connect(user) as peer:
        return {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}


class DhcpVm:
    """A VM: a namespace whose only link is at the other end of a cable, and a DHCP client in it."""

    def __init__(self, cable, bin_dir):
        lab = cable.broker.lab
        self.cable = cable
        self.namespace = lab.namespace(f"vm-{cable.line['vmnet_interface_name']}")
        fds = []
        if cable.path:
            command = [bin_dir / "vhost-user-guest", str(cable.path), "eth0"]
        else:
            cable.socket.setblocking(True)
            fds = [cable.socket.fileno()]
            command = [bin_dir / "vm-simulator", "--tap", "eth0", "--fd", str(fds[0]), "--mode", "plain"]
            command += ["--mtu", str(cable.line["vmnet_mtu"])]
        self.process = self.namespace.popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True)
        if cable.socket:
            cable.socket.close()
        assert self.process.stdout.readline() == "ready\n"
        self.namespace.ip("link", "set", "eth0", "address", cable.mac)
        self.namespace.ip("link", "set", "eth0", "up")

    def get_lease(self):
        """By busybox's client; the address it got."""
        script = self.cable.broker.lab.directory / "udhcpc.sh"
        script.write_text('#!/bin/sh\n[ "$1" = bound ] && ip address add "$ip/24" dev "$interface"\nexit 0\n')
        script.chmod(0o755)
        client = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "10", "-T", "1", "-s", str(script)]
        self.namespace.run(client, timeout=30)
        shown = json.loads(self.namespace.ip("-4", "-json", "address", "show", "dev", "eth0"))
        return shown[0]["addr_info"][0]["local"]


def asks_and_is_answered(send, receive, mac):
    """ARP for the LAN's machine, as bytes; receive answers None while nothing is there."""
    send(arp_request(mac, "10.99.0.77", LAN_HOST))

    def answered():
        frame = receive()
        return frame is not None and parse(frame).arp_operation == ARP_REPLY

    return wait_for(answered, 5, "the LAN's answer")


def open_interface(broker, lan, peer, **more):
    """Native: the answer and its fds."""
    return peer.call("CreateInterface", mode="bridged", sharedInterface=lan.uplink, **more)


def read_tap(fd):
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 65600)[12:]
    return None


# Traffic


@pytest.mark.parametrize("transport", ["socket", "vhost-user"])
def test_vm_gets_an_address_of_the_lan(lab, broker, lan, cable, bin_dir, transport):
    path = broker.lab.public_directory("vm", MEMBER) / "net" if transport == "vhost-user" else None
    made = cable(path=path, path_option="--vhost-user")
    line = made.line
    assert line["vmnet_network"] == "lan" and line["vmnet_mtu"] == 1500
    assert not [key for key in line if "ipv4" in key or "address" in key.replace("mac_address", "") or "net_" == key[:4]]
    vm = DhcpVm(made, bin_dir)
    address = vm.get_lease()
    assert address.startswith("10.99.0.1") and made.mac in (lab.directory / "lan.leases").read_text()
    lan.namespace.run(["ping", "-c1", "-W5", address])
    vm.namespace.run(["ping", "-c1", "-W5", LAN_HOST])
    network = listed(broker)["lan"]
    assert (network["mode"], network["uplink"], network["running"]) == ("bridged", lan.uplink, True)
    assert "bridge" not in network and "subnet" not in network
    assert not broker.dnsmasq_pids(), "no DHCP or DNS of ours"
    guards = [table for table in broker.tables() if table.startswith("bridge vmnet_guard_")]
    assert broker.tables() == guards and len(guards) == (lan.kind == "bridge"), "no NAT of ours"
    vm.process.kill()
    made.end()
    wait_nothing_left(broker)


def test_stream(broker, lan, cable):
    made = cable(kind=socket.SOCK_STREAM)
    received = b""

    def receive():
        nonlocal received
        received += made.socket.recv(65536)
        size = int.from_bytes(received[:4], "big")
        frame, received = received[4 : 4 + size], received[4 + size :]
        return frame

    asks_and_is_answered(lambda frame: made.socket.send(len(frame).to_bytes(4, "big") + frame), receive, made.mac)


@pytest.mark.parametrize("queues", [1, 4])
def test_native(broker, lan, queues):
    with broker.connect(MEMBER) as peer:
        answer, fds = open_interface(broker, lan, peer, queues=queues)
        assert "address" not in answer
        assert answer["heldByConnection"] == (lan.kind == "nic")
        assert len(answer["queues"]) == queues == len(fds)

        def receive():
            return next(filter(None, map(read_tap, fds)), None)

        asks_and_is_answered(lambda frame: os.write(fds[-1], bytes(12) + frame), receive, answer["mac"])
        # Of one's own interfaces, without an address.
        (mine,) = peer.call("ListInterfaces")[0]["interfaces"]
        assert mine["mac"] == answer["mac"] and "address" not in mine and mine["network"] == "lan"
        for fd in fds:
            os.close(fd)
    wait_nothing_left(broker)


def test_vms_on_one_interface_reach_each_other(broker, lan, cable, bin_dir):
    one, two = DhcpVm(cable(), bin_dir), DhcpVm(cable(), bin_dir)
    one.get_lease()
    one.namespace.run(["ping", "-c1", "-W5", two.get_lease()])


def test_declared_mac(broker, lan, cable, bin_dir):
    made = cable(*bridged(lan), "--mac", "52:54:00:aa:bb:01")
    assert made.mac == "52:54:00:aa:bb:01"
    DhcpVm(made, bin_dir).get_lease()
    if lan.kind == "nic":
        (link,) = broker.links()
        assert link["address"] == made.mac


def test_named_network(broker, lan, cable, bin_dir):
    """--network NAME means the same."""
    made = cable("--network", "lan")
    assert made.line["vmnet_network"] == "lan"
    DhcpVm(made, bin_dir).get_lease()


@pytest.mark.parametrize("attach", ["native", "socket", "stream", "vhost-user"])
def test_client_in_every_attach_kind(broker, lan, bin_dir, attach):
    result = broker.namespace.run(
        [bin_dir / "vmnet-client", *bridged(lan), "--attach", attach, "--", "sh", "-c"]
        + ["echo $VMNET_NETWORK ${VMNET_ADDRESS-none} $VMNET_MAC_ADDRESS"],
        user=MEMBER,
        env={"VMNET_BROKER_SOCKET": str(broker.socket_path), "VMNET_ADDRESS": "10.0.0.1"},
    )
    line, said = result.stdout.splitlines()
    assert said.split() == ["lan", "none", json.loads(line)["vmnet_mac_address"]]
    wait_nothing_left(broker)


# Ends


@pytest.mark.parametrize("who", ["helper", "helper TERM", "VM"])
def test_lease_ends_with_helper_and_vm(broker, lan, cable, who):
    made = cable()
    assert interfaces(broker) == [made.line["vmnet_interface_name"]]
    if who == "VM":
        made.socket.close()
        # A silent cable tells nothing of the other end: something has to be sent to it.
        lan.namespace.run(["ping", "-c1", "-W1", "10.99.0.250"], check=False)
    else:
        os.kill(made.process.pid, signal.SIGTERM if "TERM" in who else signal.SIGKILL)
    made.process.wait(10)
    wait_nothing_left(broker)


@pytest.mark.parametrize("who", ["client", "VM"])
def test_lease_ends_with_client_and_vm(broker, lan, bin_dir, who):
    client = broker.namespace.popen(
        [bin_dir / "vmnet-client", *bridged(lan), "--attach", "native", "--", "sh", "-c", "echo $$; exec sleep 99"],
        user=MEMBER,
        env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout.readline().startswith("{")
    vm = int(client.stdout.readline())
    assert len(interfaces(broker)) == 1
    os.kill(client.pid if who == "client" else vm, signal.SIGKILL)
    client.wait(10)
    wait_nothing_left(broker)
    wait_for(lambda: not is_running(vm), 5, "the VM's end")


@pytest.mark.parametrize("part", ["front", "priv", "TERM"])
def test_lease_over_a_broker_s_end(broker, lan, cable, bin_dir, part):
    """It is kept while the process lives, traffic goes on, and ends with the process."""
    made = cable()
    vm = DhcpVm(made, bin_dir)
    address = vm.get_lease()
    if part == "TERM":
        assert broker.terminate() == 0
    else:
        broker.kill(part)
    lan.namespace.run(["ping", "-c1", "-W5", address])
    if part != "front":
        broker.start()

    def adopted():
        with contextlib.suppress(ConnectionError, EOFError, VarlinkError):
            return listed(broker)["lan"]["running"] and "adopted interface" in broker.log()
        return False

    wait_for(adopted, 10, "the network is adopted")
    lan.namespace.run(["ping", "-c1", "-W5", address])
    assert interfaces(broker) == [made.line["vmnet_interface_name"]]
    made.process.kill()
    made.process.wait(5)
    wait_nothing_left(broker)
    assert not listed(broker)["lan"]["running"]


def test_lease_whose_process_ended_meanwhile_is_swept(make_broker, make_lan, bin_dir):
    lan = make_lan("nic")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=IDLE_S)
    made = Cable(broker, bin_dir, bridged(lan))
    broker.kill("priv")
    made.process.kill()
    made.process.wait(5)
    assert len(interfaces(broker)) == 1, "a macvtap link stays by itself"
    broker.start()
    wait_nothing_left(broker)


def test_connection_s_end_is_the_lease_s_end(make_broker, make_lan):
    """Whatever becomes of the fds: nobody tells when they are closed."""
    lan = make_lan("nic")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        _, fds = open_interface(broker, lan, peer)
        os.close(fds[0])
        _, more = open_interface(broker, lan, peer)
        assert len(interfaces(broker)) == 2
    wait_nothing_left(broker)
    os.close(more[0])


def test_changed_mac_of_a_macvtap_is_revoked(make_broker, make_lan):
    lan = make_lan("nic")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        answer, fds = open_interface(broker, lan, peer)
        request = struct.pack("16sH6s10x", answer["interfaceName"].encode(), 1, bytes.fromhex("525400aabb99"))
        fcntl.ioctl(fds[0], SIOCSIFHWADDR, request)
        wait_for(lambda: not interfaces(broker), 10, "the interface is taken away")
        wait_for(lambda: "its holder changed its address" in broker.log(), 10, "the log says why")
        os.close(fds[0])


# The host's interface


def test_interface_goes_away(broker, lan, cable, lab, run_helper):
    """The NIC or bridge is removed: the VM's interface goes, its helper ends and says so."""
    made = cable()
    lab.host.ip("link", "delete", lan.uplink)
    wait_nothing_left(broker)
    made.process.wait(10)
    result = run_helper(broker, *bridged(lan))
    assert result.returncode == 1 and lan.uplink in result.stderr and "the host has none of that name" in result.stderr




def refusal(run_helper, broker, *arguments, user=MEMBER):
    result = run_helper(broker, *arguments, user=user)
    assert result.returncode == 1 and result.stdout == ""
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    return error


def test_interface_is_renamed(broker, lan, cable, lab, bin_dir, run_helper):
    """Running VMs go on; new ones are told."""
    vm = DhcpVm(cable(), bin_dir)
    address = vm.get_lease()
    lab.host.ip("link", "set", lan.uplink, "down")
    assert f"{lan.uplink} is down: ip link set {lan.uplink} up" in refusal(run_helper, broker, *bridged(lan))
    lab.host.ip("link", "set", lan.uplink, "name", "other0")
    lab.host.ip("link", "set", "other0", "up")
    wait_for(
        lambda: lan.namespace.run(["ping", "-c1", "-W1", address], check=False).returncode == 0, 10, "traffic goes on"
    )
    assert lan.uplink in refusal(run_helper, broker, *bridged(lan))


def test_part_of_a_bridge_is_refused(make_broker, make_lan, run_helper):
    lan = make_lan("bridge")
    broker = make_broker(networks={"lan": {"mode": "bridged", "uplink": NIC, "allow": {"users": [MEMBER.uid]}}})
    error = refusal(run_helper, broker, "--network", "lan")
    assert f"{NIC} is a part of {lan.uplink}: share that instead" in error
    assert not broker.links()


def test_own_bridge_is_refused(make_broker, make_lan, run_helper):
    """A network's bridge is joined by the network's name, with its DHCP and rules."""
    make_lan("nic")
    broker = make_broker()
    with broker.connect(MEMBER) as peer:
        bridge = peer.call("AcquireNetwork", network="shared")[0]["network"]["bridge"]
        broker.write_config({"lan": {"mode": "bridged", "uplink": bridge, "allow": {"users": [MEMBER.uid]}}})
        broker.kill("priv")
        broker.start()
    error = refusal(run_helper, broker, "--network", "lan")
    assert 'belongs to network "shared": join that instead' in error


def test_loopback_is_refused(make_broker, make_lan, run_helper):
    make_lan("nic")
    broker = make_broker(networks={"lan": {"mode": "bridged", "uplink": "lo", "allow": {"users": [MEMBER.uid]}}})
    assert "lo is no Ethernet interface" in refusal(run_helper, broker, "--network", "lan")


def test_wifi_is_refused(make_broker, make_lan, run_helper):
    """By a /sys that says so: there is no radio here."""
    lan = make_lan("nic")
    broker = make_broker(start=False, networks=lan.networks({"users": [MEMBER.uid]}))
    script = f'mount -t tmpfs none /sys/class/net && mkdir -p /sys/class/net/{NIC}/phy80211 && exec "$@"'
    broker.command = ["unshare", "--mount", "sh", "-ec", script, "-", *broker.command]
    broker.start()
    assert f"{NIC} is a Wi-Fi interface" in refusal(run_helper, broker, *bridged(lan))
    assert not broker.links()


def test_isolation_is_refused(broker, lan, run_helper):
    error = refusal(run_helper, broker, "--network", "lan", "--enable-isolation")
    assert "neither isolated nor locked" in error
    assert "--enable-isolation" in refusal(run_helper, broker, *bridged(lan), "--enable-isolation")


def test_rogue_dhcp_server_of_a_vm_is_stopped(make_broker, make_lan, bin_dir):
    """On a bridge the rules for every VM hold: none may play the LAN's DHCP server."""
    lan = make_lan("bridge")
    broker = make_broker(networks=lan.networks({"users": [MEMBER.uid]}), idle_timeout_s=IDLE_S)
    heard = lan.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    heard.bind(("eth0", 3))
    heard.settimeout(5)
    with broker.connect(MEMBER) as peer:
        answer, fds = open_interface(broker, lan, peer)
        for port in (67, 7777):
            frame = ethernet(BROADCAST, answer["mac"], ETHERTYPE_IPV4, udp("10.99.0.66", port, "255.255.255.255", 7, b"x"))
            os.write(fds[0], bytes(12) + frame)

        def sent_port():
            frame = heard.recv(65536)
            return int.from_bytes(frame[34:36], "big") if frame[12:14] == b"\x08\x00" and frame[23] == 17 else None

        assert wait_for(sent_port, 5, "the second frame") == 7777, "the first one was not let through"
        os.close(fds[0])
    heard.close()


# Who may


def test_denied_without_allow(make_broker, lan, run_helper, bin_dir):
    broker = make_broker(networks=lan.networks())
    error = refusal(run_helper, broker, *bridged(lan))
    assert 'network "lan" is not open to user 4242' in error and "networks.json: lan.mode is bridged" in error
    assert not broker.links()
    with broker.connect() as root:
        _, fds = open_interface(broker, lan, root)
        os.close(fds[0])


def test_denied_to_others_than_allowed(broker, lan, run_helper):
    error = refusal(run_helper, broker, *bridged(lan), user=OTHER)
    assert "networks.json: lan.allow lists user" in error
    assert not broker.links()


@pytest.mark.parametrize("name", ["up0", "nowhere0"])
def test_unconfigured_interface_is_denied(broker, lan, run_helper, name):
    error = refusal(run_helper, broker, "--operation-mode", "bridged", "--shared-interface", name)
    assert f'interface "{name}" is not shared' in error and "--list-shared-interfaces" in error
    with broker.connect() as root, pytest.raises(VarlinkError) as raised:
        root.call("CreateInterface", mode="bridged", sharedInterface=name)
    assert raised.value.name == "NotAllowed"


def test_list_shared_interfaces(make_broker, lan, lab, bin_dir):
    configured = lan.networks({"users": [MEMBER.uid]})
    configured["again"] = configured["lan"]
    configured["root"] = {"mode": "bridged", "uplink": "up0"}
    broker = make_broker(networks=configured)

    def lines(user, path=broker.socket_path):
        result = lab.host.run(
            [bin_dir / "vmnet-helper", "--list-shared-interfaces"], user=user, env={"VMNET_BROKER_SOCKET": str(path)}
        )
        assert result.stderr == ""
        return result.stdout.splitlines()

    assert lines(MEMBER) == [lan.uplink]
    assert lines(OTHER) == []
    assert lines(None) == [lan.uplink, "up0"]
    assert lines(MEMBER, "/nonexistent/socket") == []


def test_uplink_is_left_as_it_was(broker, lan, cable, lab):
    """Its MAC, MTU and settings, with a VM on it and after."""

    def shown():
        (link,) = json.loads(lab.host.ip("-json", "-details", "link", "show", lan.uplink))
        info = link.get("linkinfo", {}).get("info_data", {})
        kept = {key: info[key] for key in ("stp_state", "forward_delay", "vlan_filtering", "mcast_snooping") if key in info}
        return link["address"], link["mtu"], link.get("ifalias"), kept

    before = shown()
    made = cable()
    assert shown() == before
    made.end()
    wait_nothing_left(broker)
    assert shown() == before
