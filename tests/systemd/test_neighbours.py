"""Other managers of networks on the same machine, the real ones: they leave our links alone, and let us ask them."""

from __future__ import annotations

import contextlib
import json
import re

import pytest

from lib.broker import VarlinkError
from lib.lab import wait_for

# What an administrator who wants everything configured would write.
GREEDY = """[Match]
Name=vm* other*

[Network]
Address=10.99.0.1/24
LinkLocalAddressing=no
"""
OTHER = "other0"  # a link that is not ours, to see that the manager does work


@contextlib.contextmanager
def running(machine, *units):
    machine.run(["systemctl", "start", *units])
    try:
        yield
    finally:
        machine.run(["systemctl", "stop", *units])


@pytest.fixture
def other(machine):
    machine.run(["ip", "link", "add", OTHER, "type", "veth", "peer", "name", "other1"])
    machine.run(["ip", "link", "set", "other1", "up"])
    yield OTHER
    machine.run(["ip", "link", "del", OTHER])


@pytest.fixture
def bridge(machine, vm):
    """Of the network that vm is on."""
    return link(machine, vm.interface)["master"]


def link(machine, name):
    return json.loads(machine.run(["ip", "-json", "-details", "link", "show", name]).stdout)[0]


def addresses(machine, name):
    found = json.loads(machine.run(["ip", "-4", "-json", "address", "show", name]).stdout)
    return [address["local"] for one in found for address in one.get("addr_info", [])]


def facts(machine, *names):
    """What another manager could change."""
    links = [link(machine, name) for name in names]
    kept = [(found["ifname"], found["address"], found["mtu"], found.get("master"), found["flags"]) for found in links]
    return kept, [addresses(machine, name) for name in names]


# systemd-networkd


def networkd_state(machine, name):
    found = re.search(rf"^\s*\d+ {name}\s.*\s(\S+)\s*$", machine.run(["networkctl", "--no-legend", "list"]).stdout, re.M)
    return found and found[1]


def test_networkd(machine, vm, bridge, other):
    machine.path("/etc/systemd/network/99-greedy.network").write_text(GREEDY)
    before = facts(machine, bridge, vm.interface)
    try:
        with running(machine, "systemd-networkd.socket", "systemd-networkd.service"):
            wait_for(lambda: networkd_state(machine, other) == "configured", 10, "networkd configures the other link")
            for name in (bridge, vm.interface):
                wait_for(lambda name=name: networkd_state(machine, name) == "unmanaged", 10, f"networkd leaves {name} alone")
            # It takes foreign addresses away when it starts, and once took ports off bridges.
            machine.run(["ip", "address", "flush", "dev", other])
            machine.run(["systemctl", "restart", "systemd-networkd.service"])
            wait_for(lambda: networkd_state(machine, other) == "configured", 10, "networkd configures it again")
            assert facts(machine, bridge, vm.interface) == before
            with machine.connect(machine.alice) as peer:
                new = peer.call("AcquireNetwork", network="host")[0]["network"]["bridge"]
                wait_for(lambda: networkd_state(machine, new) == "unmanaged", 10, "networkd leaves a new one alone")
                assert "10.99.0.1" in addresses(machine, other) and "10.99.0.1" not in addresses(machine, new)
    finally:
        machine.path("/etc/systemd/network/99-greedy.network").unlink()


# NetworkManager


def manager_state(machine, name):
    return machine.run(["nmcli", "-g", "GENERAL.STATE", "device", "show", name], check=False).stdout.strip()


def test_network_manager(machine, vm, bridge, other):
    before = facts(machine, bridge, vm.interface)
    with running(machine, "NetworkManager.service"):
        wait_for(lambda: manager_state(machine, other), 20, "NetworkManager knows the other link")
        wait_for(lambda: "unmanaged" not in manager_state(machine, other), 20, "NetworkManager manages the other link")
        for name in (bridge, vm.interface):
            assert "unmanaged" in manager_state(machine, name)
        with machine.connect(machine.alice) as peer:
            new = peer.call("AcquireNetwork", network="host")[0]["network"]["bridge"]
            wait_for(lambda: manager_state(machine, new), 10, "NetworkManager sees a new one")
            assert "unmanaged" in manager_state(machine, new)
        assert facts(machine, bridge, vm.interface) == before


# udev, which runs in no container: what it would do


def udev_properties(machine, name):
    test = machine.run(["udevadm", "test", f"/sys/class/net/{name}"], check=False)
    return dict(re.findall(r"^(?:\w+: )?([A-Z_]+)=(.*)$", test.stdout + test.stderr, re.M))


def test_udev(machine, vm, bridge, other):
    for name in (bridge, vm.interface):
        found = udev_properties(machine, name)
        assert found["NM_UNMANAGED"] == "1" and found["ID_NET_MANAGED_BY"] == "org.vmnet.Broker"
        assert found["ID_NET_LINK_FILE"].endswith("/10-vmnet.link")
        assert found.get("ID_NET_NAME", name) == name
    found = udev_properties(machine, other)
    assert "ID_NET_MANAGED_BY" not in found and not found["ID_NET_LINK_FILE"].endswith("/10-vmnet.link")


# What the front's user may ask for: polkit


def index(machine, name):
    return str(link(machine, name)["ifindex"])


def busctl(machine, user, *words):
    return machine.run(["busctl", "call", *words], user=user, check=False)


RESOLVED = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager")
FIREWALLD = ("org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.zone")


def test_resolved_takes_names_from_the_front(machine, vm, bridge):
    number = index(machine, bridge)
    gateway = addresses(machine, bridge)[0]
    calls = [
        ("SetLinkDNS", "ia(iay)", number, "1", "2", "4", *gateway.split(".")),
        ("SetLinkDomains", "ia(sb)", number, "1", "shared.vmnet", "true"),
        ("SetLinkDefaultRoute", "ib", number, "false"),
        ("SetLinkLLMNR", "is", number, "no"),
        ("SetLinkMulticastDNS", "is", number, "no"),
        ("SetLinkDNSSEC", "is", number, "no"),
        ("RevertLink", "i", number),
    ]
    for call in calls:
        refused = busctl(machine, "alice", *RESOLVED, *call)
        assert refused.returncode != 0 and "uthoriz" in refused.stderr or "uthentic" in refused.stderr, call
        allowed = busctl(machine, "vmnet-broker", *RESOLVED, *call)
        assert allowed.returncode == 0, f"{call}: {allowed.stderr}"


def resolves(machine, *words):
    """What resolvectl finds; empty without an answer."""
    return machine.run(["resolvectl", "query", *words], check=False).stdout


def test_host_finds_vms_by_name(machine, vm, bridge):
    """Told by the front, and again after systemd-resolved forgot it."""
    for _ in range(2):
        wait_for(lambda: vm.address in resolves(machine, "web.shared.vmnet"), 10, "the VM's name")
        assert "web.shared.vmnet" in resolves(machine, vm.address)
        assert addresses(machine, bridge)[0] in resolves(machine, "-4", "host.shared.vmnet")
        assert "fd" in resolves(machine, "-6", "_gateway.shared.vmnet")
        shown = machine.run(["resolvectl", "status", bridge]).stdout
        assert re.search(rf"DNS Servers:? {re.escape(addresses(machine, bridge)[0])} fd", shown), shown
        assert "~shared.vmnet" in shown and "-DefaultRoute" in shown, "asked for nothing else"
        machine.run(["systemctl", "restart", "systemd-resolved.service"])
    assert "systemd-resolved refuses" not in machine.log()


def test_without_the_polkit_rule_it_is_said_what_to_do(machine):
    rule = "/usr/share/polkit-1/rules.d/vmnet-broker.rules"
    machine.run(["mv", rule, "/root/"])
    machine.run(["systemctl", "restart", "polkit.service"])
    try:
        with machine.connect(machine.alice) as peer:
            for network in ("shared", "host"):
                peer.call("AcquireNetwork", network=network)
            wait_for(lambda: "install the polkit rule" in machine.log(), 10, "what to do")
    finally:
        machine.run(["mv", "/root/vmnet-broker.rules", rule])
        machine.run(["systemctl", "restart", "polkit.service"])
    assert machine.log().count("systemd-resolved refuses") == 1, "once"


def test_firewalld_takes_our_bridges_from_the_front(machine, vm, bridge):
    """The front itself asks, as soon as firewalld is there, and nobody else may."""
    with running(machine, "firewalld.service"):
        listed = ["firewall-cmd", "--zone=vmnet", "--list-interfaces"]
        wait_for(lambda: bridge in machine.run(listed).stdout.split(), 10, "the bridge is in its zone")
        refused = busctl(machine, "alice", *FIREWALLD, "removeInterface", "ss", "vmnet", bridge)
        assert refused.returncode != 0 and bridge in machine.run(listed).stdout.split()
        vm.stop()
        assert wait_for(vm.lease, 10, "DHCP answers") == vm.address


# What the front sees of the machine, for all that its unit hides


def test_doctor_finds_what_the_unit_could_hide(machine, vm, other):
    machine.run(["ip", "link", "set", other, "up"])
    machine.run(["ip", "address", "add", "198.51.100.2/24", "dev", other])
    machine.run(["ip", "route", "add", "default", "via", "198.51.100.1"])
    doctor = ["vmnetctl", "doctor"]
    wait_for(lambda: machine.run(doctor, user="alice", check=False).returncode == 0, 10, "all is well")
    machine.run(["sysctl", "-w", f"net.ipv4.conf.{other}.forwarding=0"])
    found = machine.run(doctor, user="alice", check=False)
    assert found.returncode == 1 and f"sysctl net.ipv4.conf.{other}.forwarding=1" in found.stdout


def test_who_has_the_port_is_named(machine):
    options = ["--conf-file=/dev/null", "--port=0", "--user=root", "--dhcp-range=198.51.100.10,198.51.100.20"]
    other_server = machine.popen(["dnsmasq", "--keep-in-foreground", *options])
    try:
        held = ["ss", "--no-header", "--udp", "--listening", "--numeric", "sport", "=", ":67"]
        wait_for(lambda: machine.run(held).stdout, 10, "it has the port")
        with machine.connect(machine.alice) as peer, pytest.raises(VarlinkError) as refused:
            peer.call("AcquireNetwork", network="shared")
        assert f"taken by dnsmasq (process {machine.dnsmasq_pids()[0]})" in refused.value.parameters["reason"]
    finally:
        machine.run(["kill", *map(str, machine.dnsmasq_pids())])
        other_server.wait(10)
