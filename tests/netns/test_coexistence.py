"""Beside everything else on a host: a VM's five ways work, or it is said what mends them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.dockerd import Dockerd
from lib.household import (
    DOCKER,
    FIREWALLS,
    HOST_PORT,
    NATIVE,
    UFW,
    VPN_ADDRESS,
    VPN_LETS_GO,
    VPN_TAKES_OVER,
    add_vpn,
    apply_firewall,
    dns_answer,
    resident,
    rules_of_ours,
    start_second_dns,
    tcp_answer,
    wait_rules,
    works,
)
from lib.lab import UPLINK, UPLINK_ADDRESS, UPLINK_ADDRESS6, WORLD_ADDRESS, WORLD_ADDRESS6, mended_within, stop_process, wait_for
from lib.ufw import Ufw

IDLE_S = 1


@pytest.fixture
def world(lab):
    lab.internet.start_echo()
    return lab


@contextlib.contextmanager
def stopped(pid):
    """A process that does nothing for a while."""
    stop_process(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def end_network(broker):
    wait_for(lambda: not broker.links(), 5 + IDLE_S, "removal of the network")


# Firewalls that drop what nobody allowed


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("firewall", FIREWALLS)
def test_all_ways_work_beside(world, make_broker, bin_dir, firewall, moment):
    broker = make_broker(idle_timeout_s=IDLE_S)
    if moment == "before":
        apply_firewall(world.host, FIREWALLS[firewall])
    with resident(broker, bin_dir) as vm:
        if moment == "after":
            apply_firewall(world.host, FIREWALLS[firewall])
            wait_rules(world.host, bool, 10, "accepts in the new firewall")
        wait_for(lambda: not vm.broken(), 10, f"all ways: {vm.broken()}")
        assert rules_of_ours(world.host)
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")
    assert broker.terminate() == 0


# What each firewall does to a VM while nobody opens it: this is what the accepts are for.
BLOCKED = {
    "docker": {"out"},
    "ufw": {"out", "to_host", "dhcp", "dns"},
    "native": {"out", "to_host", "dhcp", "dns"},
}
RELOAD = {
    "docker": "iptables -F FORWARD; iptables -F DOCKER-USER; iptables -A FORWARD -j DOCKER-USER;"
    "ip6tables -F FORWARD",
    "ufw": "".join(
        f"{tool} -F INPUT; {tool} -F FORWARD; {tool} -A INPUT -j ufw-before-INPUT; {tool} -A FORWARD -j ufw-before-FORWARD;"
        for tool in ("iptables", "ip6tables")
    ),
    "native": "nft flush chain inet filter input; nft flush chain inet filter forward;"
    "nft add rule inet filter input ct state established accept",
}


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_reload_of_a_firewall_is_mended_within_a_second(world, make_broker, bin_dir, firewall):
    broker = make_broker()
    apply_firewall(world.host, FIREWALLS[firewall])
    with resident(broker, bin_dir) as vm:
        before = sorted(rules_of_ours(world.host))

        def reload():
            with stopped(broker.front_pid):
                apply_firewall(world.host, RELOAD[firewall])
                assert not rules_of_ours(world.host)
                assert set(vm.broken()) == BLOCKED[firewall], "the imitation blocks what the real one does"

        def is_mended():
            return len(rules_of_ours(world.host)) == len(before)

        mended_within(1, reload, is_mended, "accepts after a reload")
        assert not vm.broken()


def test_ufw_itself(world, make_broker, bin_dir):
    """The program, its reload, and its own way to open a service of the host."""
    ufw = Ufw(world)
    broker = make_broker(idle_timeout_s=IDLE_S)
    with resident(broker, bin_dir) as vm:
        ufw("--force", "enable")
        for _ in range(2):
            wait_rules(world.host, bool, 10, "accepts in ufw's chains")
            wait_for(lambda: not vm.broken(), 2, "all ways")
            ufw("reload")
        assert "Status: active" in ufw("status")
        world.host.start_echo(vm.gateway, HOST_PORT)
        assert not works(lambda: tcp_answer(vm.namespace, vm.gateway, HOST_PORT, 1)), "that is ufw's to decide"
        bridge = next(link["ifname"] for link in broker.links() if link["ifname"].startswith("vmbr"))
        ufw("allow", "in", "on", bridge)
        assert tcp_answer(vm.namespace, vm.gateway, HOST_PORT)
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")


def test_docker_itself(world, make_broker, bin_dir):
    """Its daemon starts, restarts and goes; it also turns forwarding on everywhere, and that stays its own."""
    broker = make_broker(idle_timeout_s=IDLE_S)

    def places():
        listed = world.host.run(["iptables", "-S"]).stdout.splitlines()
        assert "-P FORWARD DROP" in listed
        return {line.split()[1] for line in listed if "vmbr" in line}

    with resident(broker, bin_dir) as vm:
        docker = Dockerd(world)
        for _ in range(2):
            wait_for(lambda: places() == {"DOCKER-USER"}, 10, "accepts in Docker's chain")
            assert not vm.broken()
            docker.stop()
            assert not vm.broken()
            docker.start()
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")
    assert forwarding(world.host, UPLINK) == "1" == world.host.sysctl("net/ipv4/ip_forward")


def test_flushed_ruleset_is_mended_within_a_second(world, make_broker, bin_dir):
    """As `systemctl restart nftables` does it: everything goes, and the host's own rules come back."""
    broker = make_broker()
    apply_firewall(world.host, NATIVE)
    with resident(broker, bin_dir) as vm:
        for _ in range(3):
            mended_within(
                1,
                lambda: apply_firewall(world.host, "nft flush ruleset;" + NATIVE),
                lambda: rules_of_ours(world.host) and broker.tables(),
                "accepts and the NAT table after a flush",
            )
            assert not vm.broken()


def test_accepts_are_where_they_count_and_nowhere_else(world, make_broker):
    """Docker's own chain for others, the chain that drops otherwise; none where nothing is dropped."""
    open_chain = "add chain inet open forward { type filter hook forward priority 5; policy accept; }"
    broker = make_broker(idle_timeout_s=IDLE_S, networks={"one": {"mode": "host"}})
    apply_firewall(world.host, DOCKER + f"nft 'add table inet open'; nft '{open_chain}'")
    with broker.connect(MEMBER) as peer:
        bridge = peer.call("AcquireNetwork", network="one")[0]["network"]["bridge"]
        listed = world.host.run(["iptables", "-S"]).stdout
        ours = [line.split()[1] for line in listed.splitlines() if bridge in line]
        assert ours == ["DOCKER-USER"] * 2, listed
        assert [line.split()[1] for line in world.host.run(["ip6tables", "-S"]).stdout.splitlines() if bridge in line] == [
            "FORWARD"
        ] * 2
        assert len(rules_of_ours(world.host)) == 4
        # Docker goes, and another drop stays.
        apply_firewall(world.host, "iptables -F FORWARD; iptables -F DOCKER-USER; iptables -X DOCKER-USER")
        wait_for(lambda: f"-A FORWARD -i {bridge}" in world.host.run(["iptables", "-S"]).stdout, 10, "the other place")
        apply_firewall(world.host, "iptables -P FORWARD ACCEPT")
        wait_for(lambda: bridge not in world.host.run(["iptables", "-S"]).stdout, 10, "none where nothing is dropped")
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")


def test_saved_and_restored_rules_are_known_again(world, make_broker):
    """iptables-save and -restore make our comment a part of the rule: it is still ours, and not made twice."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    apply_firewall(world.host, UFW)
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", network="shared")

        def ours():
            return sorted(re.findall(r"-i (vmbr\w+) .*--comment \"(vmnet/1/[^\"]*)\"", world.host.run(["iptables", "-S"]).stdout))

        before = ours()
        assert len(before) == len(set(before)) == 5
        apply_firewall(world.host, "iptables-save >saved; iptables-restore <saved; rm saved")
        apply_firewall(world.host, "iptables -N event; iptables -X event; iptables -P FORWARD DROP")
        wait_for(lambda: ours() == before, 10, "the same rules")
    end_network(broker)
    wait_for(lambda: "vmnet" not in world.host.run(["iptables", "-S"]).stdout, 2, "no rule of ours is left")


def test_killed_broker_takes_its_rules_up_again(world, make_broker, bin_dir):
    broker = make_broker(idle_timeout_s=IDLE_S)
    apply_firewall(world.host, UFW)
    with resident(broker, bin_dir) as vm:
        before = sorted(rules_of_ours(world.host))
        broker.kill("priv")
        assert sorted(rules_of_ours(world.host)) == before
        broker.start()
        wait_for(lambda: not vm.broken(), 5, "all ways after a new start")
        assert sorted(rules_of_ours(world.host)) == before
        broker.kill("priv")
    broker.start()
    end_network(broker)
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")


# Ways out that come and go


def forwarding(host, link):
    return host.sysctl(f"net/ipv4/conf/{link}/forwarding")


@pytest.mark.parametrize("rp_filter", [0, 1], ids=["loose", "strict"])
@pytest.mark.parametrize("way", VPN_TAKES_OVER)
def test_vpn_takes_the_way_out_and_lets_go(world, make_broker, bin_dir, way, rp_filter):
    broker = make_broker(idle_timeout_s=IDLE_S)
    add_vpn(world)
    for link in ("all", UPLINK, "vpn0"):
        world.host.sysctl(f"net/ipv4/conf/{link}/rp_filter", rp_filter)
    with resident(broker, bin_dir) as vm:
        assert vm.world_sees() == UPLINK_ADDRESS
        assert (forwarding(world.host, UPLINK), forwarding(world.host, "vpn0")) == ("1", "0")
        apply_firewall(world.host, VPN_TAKES_OVER[way])
        wait_for(lambda: forwarding(world.host, "vpn0") == "1", 10, "forwarding on the VPN")
        assert not vm.broken()
        assert vm.world_sees() == VPN_ADDRESS
        apply_firewall(world.host, VPN_LETS_GO[way])
        wait_for(lambda: forwarding(world.host, "vpn0") == "0", 10, "the VPN as it was before")
        assert not vm.broken()
        assert vm.world_sees() == UPLINK_ADDRESS
    end_network(broker)
    wait_for(lambda: forwarding(world.host, UPLINK) == "0", 2, "the uplink as it was before")


def test_forwarding_is_put_back_after_a_crash(world, make_broker, bin_dir):
    broker = make_broker(idle_timeout_s=IDLE_S)
    with resident(broker, bin_dir):
        assert forwarding(world.host, UPLINK) == "1"
        broker.kill("priv")
    broker.start()
    end_network(broker)
    wait_for(lambda: forwarding(world.host, UPLINK) == "0", 2, "the uplink as it was before")
    # The same when nothing is left to be taken up.
    apply_firewall(world.host, UFW)
    with broker.connect() as peer:
        bridge = peer.call("AcquireNetwork", network="shared")[0]["network"]["bridge"]
        assert forwarding(world.host, UPLINK) == "1"
        broker.kill("priv")
    world.host.ip("link", "delete", bridge)
    assert rules_of_ours(world.host)
    broker.start()
    wait_for(lambda: not rules_of_ours(world.host), 2, "no rule of ours is left")
    assert forwarding(world.host, UPLINK) == "0"
    assert not broker.tables()


def test_forwarding_that_others_need_stays(world, make_broker):
    """On before us it is not ours; turned on for all interfaces meanwhile, as Docker does, it is not ours any more."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    world.host.sysctl(f"net/ipv4/conf/{UPLINK}/forwarding", 1)
    with broker.connect() as peer:
        peer.call("AcquireNetwork", network="shared")
    end_network(broker)
    wait_for(lambda: not broker.tables(), 2, "the end of NAT")
    assert forwarding(world.host, UPLINK) == "1"
    world.host.sysctl(f"net/ipv4/conf/{UPLINK}/forwarding", 0)
    with broker.connect() as peer:
        peer.call("AcquireNetwork", network="shared")
        world.host.sysctl("net/ipv4/ip_forward", 1)
    end_network(broker)
    wait_for(lambda: broker.leftovers().files == ["lock", "socket"], 2, "nothing remembered")
    assert forwarding(world.host, UPLINK) == "1"


# Subnets


@pytest.mark.parametrize("taken", ["address", "route"])
def test_lan_takes_the_subnet_of_a_running_network(world, make_broker, bin_dir, taken):
    """A laptop that moves: VMs go on, it is said once what to do, and the next start is on another subnet."""
    broker = make_broker(idle_timeout_s=IDLE_S)
    with resident(broker, bin_dir) as vm:
        if taken == "address":
            world.host.ip("address", "add", "192.168.64.77/24", "dev", UPLINK)
        else:
            world.host.ip("route", "add", "192.168.0.0/16", "via", "198.51.100.1")
        wait_for(lambda: "overlaps the host's" in broker.log(), 10, "a warning")
        world.host.ip("address", "add", "192.168.64.78/32", "dev", UPLINK)
        assert not vm.broken()
    end_network(broker)
    log = broker.log()
    assert log.count("overlaps the host's") == 1
    assert "192.168.64.0/24" in log and UPLINK in log and "end its VMs" in log
    with broker.connect() as peer:
        subnet = peer.call("AcquireNetwork", network="shared")[0]["network"]["subnet"]
    assert not subnet.startswith("192.168.64."), "the next start is elsewhere"
    assert broker.log().count("overlaps the host's") == 1


def test_host_without_a_network_gets_one_later(world, make_broker, bin_dir):
    world.host.ip("route", "del", "default")
    broker = make_broker()
    with resident(broker, bin_dir) as vm:
        assert vm.broken() == ["out"]
        world.host.ip("route", "add", "default", "via", "198.51.100.1")
        wait_for(lambda: not vm.broken(), 2, "the way out")


# Names


def test_second_dns_server_on_every_address_is_named(world, make_broker, bin_dir):
    broker = make_broker(networks={"silent": {"mode": "shared", "dns": False}})
    process = start_second_dns(world.host, None)
    with broker.connect(MEMBER) as peer, pytest.raises(VarlinkError) as caught:
        peer.call("AcquireNetwork", network="shared")
    reason = caught.value.parameters["reason"]
    assert f"port 53 of every address is taken by dnsmasq (process {process.pid})" in reason
    assert "bind-interfaces" in reason and '"dns": false' in reason
    # Both mends work.
    with resident(broker, bin_dir, "silent") as vm:
        assert vm.broken() == ["dns"]
    process.kill()
    process.wait(5)
    process = start_second_dns(world.host, "127.0.0.1")
    with resident(broker, bin_dir) as vm:
        assert not vm.broken()


def test_servers_of_other_network_namespaces_are_not_named(world, make_broker, tmp_path):
    other = tmp_path / "named"
    shutil.copy(shutil.which("sleep"), other)
    container = subprocess.Popen([other, "60"])
    process = start_second_dns(world.host, None)
    try:
        with make_broker().connect(MEMBER) as peer, pytest.raises(VarlinkError) as caught:
            peer.call("AcquireNetwork", network="shared")
        assert f"taken by dnsmasq (process {process.pid})" in caught.value.parameters["reason"]
    finally:
        container.kill()
        container.wait(5)


@pytest.mark.parametrize("address", ["127.0.0.53", UPLINK_ADDRESS])
def test_second_dns_server_on_an_address_of_its_own(world, make_broker, bin_dir, address):
    """systemd-resolved's stub, or a server for the LAN."""
    world.host.ip("address", "add", "127.0.0.53/8", "dev", "lo")
    start_second_dns(world.host, address)
    broker = make_broker()
    with resident(broker, bin_dir) as vm:
        assert not vm.broken()


# Where a resolver's address stands, by the time it is known; each replaces the file at one blow.
RESOLVERS_APPEAR = {
    "file": "echo nameserver {server} >/etc/new; mv /etc/new /etc/resolv.conf",
    "behind a link": "echo nameserver {server} >/run/net/new; mv /run/net/new /run/net/resolv.conf",
}
RESOLVERS_MISSING = {
    "file": "rm -f /etc/resolv.conf",
    "behind a link": "mkdir /run/net; ln -sf /run/net/resolv.conf /etc/resolv.conf",
}


@pytest.mark.parametrize("way", RESOLVERS_APPEAR)
def test_resolvers_that_appear_later(world, make_broker, bin_dir, way):
    """Offline at the start; then resolvers are known, and the VM's next question is answered."""
    world.internet.popen(
        ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts"]
        + [f"--listen-address={WORLD_ADDRESS}", "--bind-interfaces", "--address=/example.org/203.0.113.9"]
    )
    wait_for(lambda: works(lambda: dns_answer(world.internet, WORLD_ADDRESS, "example.org")), 5, "the world's DNS")
    broker = make_broker(start=False)
    script = (
        "mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work; "
        "mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc;"
        f"mount -t tmpfs -o mode=755 tmpfs /run; {RESOLVERS_MISSING[way]}; exec \"$@\""
    )
    broker.command = ["unshare", "-m", "sh", "-ec", script, "sh", *broker.command]
    broker.start()
    with resident(broker, bin_dir) as vm:
        assert not vm.broken(), "the network's own names are known offline"

        def resolve():
            with contextlib.suppress(OSError):
                return dns_answer(vm.namespace, vm.gateway, "example.org", 1) == ["203.0.113.9"]

        assert not resolve()
        appear = RESOLVERS_APPEAR[way].format(server=WORLD_ADDRESS)
        world.host.run(["nsenter", f"--mount=/proc/{broker.priv_pid}/ns/mnt", "sh", "-ec", appear])
        wait_for(resolve, 5, "an answer of the new resolver")


# IPv6


def force_forwarding(host, link):
    return host.sysctl(f"net/ipv6/conf/{link}/force_forwarding")


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_ipv6_works_beside(world, make_broker, bin_dir, firewall):
    """Advertisements, the gateway and the way out; forwarding is that of the uplink alone, and goes with the network."""
    world.internet.start_echo(WORLD_ADDRESS6)
    apply_firewall(world.host, FIREWALLS[firewall])
    broker = make_broker(idle_timeout_s=IDLE_S)
    before = world.host.sysctl(f"net/ipv6/conf/{UPLINK}/accept_ra")
    with resident(broker, bin_dir) as vm:
        assert force_forwarding(world.host, UPLINK) == "1"
        assert world.host.sysctl("net/ipv6/conf/all/forwarding") == "0"
        wait_for(lambda: works(lambda: tcp_answer(vm.namespace, WORLD_ADDRESS6, 7, 1)), 10, "the world by IPv6")
        assert tcp_answer(vm.namespace, WORLD_ADDRESS6, 7).split()[0] == UPLINK_ADDRESS6
        vm.namespace.run(["ping", "-c", "1", "-W", "3", vm.cable.line["net_ipv6_prefix"] + "1"])
    end_network(broker)
    wait_for(lambda: force_forwarding(world.host, UPLINK) == "0", 2, "the uplink as it was before")
    assert world.host.sysctl(f"net/ipv6/conf/{UPLINK}/accept_ra") == before
