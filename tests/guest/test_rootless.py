"""The main job without any root: real VMs of an ordinary user whom nobody gave anything."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from lib.guest_stream import Stream
from lib.iperf3 import iperf3
from lib.lab import UPLINK_ADDRESS, WORLD_ADDRESS, WORLD_ADDRESS6, process_uid, wait_for
from lib.rootless_world import WORLD_NAMES, prepare_world
from lib.vm import capabilities, wait_gone

MTU = 65520
FORWARDED_PORT = 18080
GAP_MAX_S = 0.3


@pytest.fixture
def world(lab):
    prepare_world(lab)
    lab.internet.start_iperf3()
    return lab.internet


@pytest.fixture
def broker(world, make_rootless):
    """The broker of a fresh user: nobody starts it but his first VM."""
    broker = make_rootless()
    broker.owner.write_resolv_conf(WORLD_ADDRESS)
    return broker


def throughput_mbit(guest, address, *options):
    report = iperf3(lambda words: guest.run(" ".join(words))[1], address, "-t", "1", *options)
    return report["end"]["sum_received"]["bits_per_second"] / 1e6


def start_vms(broker, make_vm):
    vms = [make_vm(broker, "alpha", "native"), make_vm(broker, "beta", "stream")]
    for vm in vms:
        vm.guest.wait_ready()
        assert vm.guest.address() == vm.address, "the lease is the address that was reserved"
    broker.wait_uplink()
    return vms


def reach_the_world(guest):
    """TCP, UDP, ping and names, and all of it by IPv6."""
    for direction in ((), ("-R",), ("-u", "-b", "5M")):
        assert throughput_mbit(guest, WORLD_ADDRESS, *direction) > 1
    guest.check(f"ping -c 1 -W 5 {WORLD_ADDRESS}")
    assert WORLD_NAMES in guest.check("nslookup www.example.com")
    guest.check("i=0; until ip -6 route | grep -q default; do i=$((i+1)); [ $i -gt 200 ] && exit 1; usleep 50000; done")
    guest.check(f"ping -6 -c 1 -W 5 {WORLD_ADDRESS6}")
    assert UPLINK_ADDRESS in guest.check(f"echo hello | timeout 3 nc {WORLD_ADDRESS} 7 || true"), "as the host"


def test_the_main_job(broker, make_vm, lab):
    alpha, beta = vms = start_vms(broker, make_vm)
    for one, other in ((alpha, beta), (beta, alpha)):
        assert one.line["vmnet_mtu"] == MTU and f"mtu {MTU}" in one.guest.check("ip link show eth0")
        for name in (other.address, other.name, f"{other.name}.shared.vmnet", "host.shared.vmnet"):
            one.guest.check(f"ping -c 1 -W 5 {name}")
        assert throughput_mbit(one.guest, other.address) > 10
        reach_the_world(one.guest)
    for vm in vms:
        for part, pid in vm.pids().items():
            assert capabilities(pid) == 0 and process_uid(pid) == broker.member.uid, f"{part} of {vm.name}"
    check_forward(broker, beta, lab)
    for vm in vms:
        vm.process.terminate()
        vm.process.wait(10)
        wait_gone(vm)
    os.kill(broker.pid("supervisor"), signal.SIGTERM)
    broker.wait_nothing_left()


def check_forward(broker, vm, lab):
    """A port of the host that leads into the VM, from the host itself and from the world."""
    vm.guest.check("(while true; do echo from the guest | nc -l -p 80; done) </dev/null >/dev/null 2>&1 & true")
    command = [broker.bin_dir / "vmnetctl", "forward", f"0.0.0.0:{FORWARDED_PORT}", f"{vm.name}:80"]
    forward = broker.owner.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for namespace, address in ((lab.host, "127.0.0.1"), (lab.internet, UPLINK_ADDRESS)):

        def answer(namespace=namespace, address=address):
            client = ["timeout", "3", "busybox", "nc", address, str(FORWARDED_PORT)]
            return "from the guest" in namespace.run(client, check=False).stdout

        wait_for(answer, 10, f"an answer at {address} port {FORWARDED_PORT}")
    forward.terminate()
    forward.wait(5)


@pytest.mark.parametrize("victims", [("pasta",), ("supervisor",), ("pause", "supervisor")], ids=" and ".join)
def test_vms_do_not_notice(broker, make_vm, victims):
    """A stream between them goes on; the next to come finds a whole broker, and the world is there again."""
    alpha, beta = start_vms(broker, make_vm)
    links = sorted(link["ifindex"] for link in broker.links())

    def gap_s():
        stream = Stream(alpha, beta)
        for victim in victims:
            broker.kill(victim)
        if "supervisor" in victims:
            broker.owner.run([broker.bin_dir / "vmnet-client", "--network", "shared", "--", "env"])
        broker.wait_whole()
        return stream.gap_s()

    # A machine that emulates two others stands still now and then; what a victim costs shows each time.
    assert any(gap_s() <= GAP_MAX_S for _ in range(3))
    assert sorted(link["ifindex"] for link in broker.links()) == links
    broker.wait_uplink()
    alpha.guest.check(f"ping -c 1 -W 5 {beta.name}")
    reach_the_world(beta.guest)
