"""The main job: real VMs of an ordinary user on one network, over each way to attach."""

from __future__ import annotations

from lib.broker import MEMBER, Broker
from lib.iperf3 import iperf3
from lib.lab import WORLD_ADDRESS, process_uid
from lib.vm import capabilities

LEASE_MAX_MS = 1000


def throughput_mbit(guest, address, *options):
    report = iperf3(lambda words: guest.run(" ".join(words))[1], address, "-t", "1", *options)
    return report["end"]["sum_received"]["bits_per_second"] / 1e6


def lease_ms(vm, make_another):
    """Where a machine that emulates three at once was late, that of one more: of three at most."""
    took = vm.guest.lease_ms()
    for number in (2, 3):
        if took < LEASE_MAX_MS:
            break
        another = make_another(f"{vm.name}{number}")
        another.guest.wait_ready()
        took = another.guest.lease_ms()
    return took


def test_vms_on_every_attach_share_one_network(broker, make_vm, lab):
    lab.internet.start_iperf3()
    make = {
        "native": lambda name: make_vm(broker, name, "native"),
        "socket": lambda name: make_vm(broker, name, "socket"),
        "path": lambda name: make_vm(broker, name, path=True),
    }
    vms = {attach: make[attach](name) for attach, name in (("native", "alpha"), ("socket", "beta"), ("path", "gamma"))}
    for attach, vm in vms.items():
        vm.guest.wait_ready()
        assert vm.guest.address() == vm.address, "the lease is the address CreateInterface reserved"
        assert lease_ms(vm, make[attach]) < LEASE_MAX_MS, attach
    for one in vms.values():
        for other in vms.values():
            if one is not other:
                one.guest.check(f"ping -c 1 -W 5 {other.address}")
                one.guest.check(f"ping -c 1 -W 5 {other.name}")
                one.guest.check(f"ping -c 1 -W 5 {other.name}.shared.vmnet")
        one.guest.check(f"ping -c 1 -W 5 {WORLD_ADDRESS}")
        one.guest.check("ping -c 1 -W 5 host.shared.vmnet")
        lab.host.run(["ping", "-c", "1", "-W", "5", one.address])
        for direction in ((), ("-R",)):
            assert throughput_mbit(one.guest, WORLD_ADDRESS, *direction) > 10
        iperf3(lambda words: lab.host.run(words).stdout, one.address, "-t", "1")


def test_nobody_on_the_vms_side_has_a_privilege(broker, make_vm):
    for name, attach in (("alpha", "native"), ("beta", "socket")):
        vm = make_vm(broker, name, attach)
        vm.guest.wait_ready()
        pids = vm.pids()
        assert {"client", "qemu"} <= set(pids) and ("helper" in pids) == (attach == "socket")
        for part, pid in pids.items():
            assert capabilities(pid) == 0, f"{part} of the {attach} VM"
            assert process_uid(pid) == MEMBER.uid
    assert capabilities(broker.front_pid) == 0 and process_uid(broker.front_pid) not in (0, None)


def test_host_network_for_a_guest(make_broker, make_vm):
    broker: Broker = make_broker()
    vm = make_vm(broker, "alpha", "native", network="host")
    vm.guest.wait_ready()
    assert vm.guest.address() == vm.address
    assert "default" not in vm.guest.check("ip route")
    vm.guest.check("ping -c 1 -W 5 host.host.vmnet")
    assert vm.guest.run(f"ping -c 1 -W 1 {WORLD_ADDRESS}")[0] != 0
