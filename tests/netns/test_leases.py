"""What the broker tells of one network, and of DHCP leases."""

from __future__ import annotations

import os
import time

import pytest

from lib import frames
from lib.broker import MEMBER, VarlinkError
from lib.dhcp import dhcp_address
from lib.lab import User, wait_for
from lib.tap_vm import TapVm

OTHER = User(4244, 4244, (100,))
UNANNOUNCED = "52:54:00:77:77:77"


def leases(broker, user=None, **parameters):
    with broker.connect(user) as peer:
        return peer.call("ListLeases", **parameters)[0]["leases"]


def describe(broker, network, user=None):
    with broker.connect(user) as peer:
        return peer.call("DescribeNetwork", network=network)[0]


@pytest.fixture
def make_vm(broker):
    vms = []

    def make(user=MEMBER, **parameters):
        with broker.connect(user) as peer:
            vm = TapVm(peer, **parameters)
        vms.append(vm)
        return vm

    yield make
    for vm in vms:
        if vm.tap >= 0:
            os.close(vm.tap)


def lease(vm):
    wait_for(lambda: vm.lease() == vm.address, 10, "its lease")


def test_a_lease(broker, make_vm):
    vm = make_vm(hostname="web")
    assert leases(broker) == []
    lease(vm)
    (told,) = leases(broker, MEMBER)
    assert 590 < told.pop("expiresIn") <= 600
    assert told == {
        "network": "shared", "address": vm.address, "mac": vm.mac, "hostname": "web", "interfaceName": vm.interface,
        "uid": MEMBER.uid,
    }
    assert leases(broker, OTHER) == [], "what others have is nobody's business"
    assert [entry["address"] for entry in leases(broker)] == [vm.address]


def test_leases_of_before_a_restart(broker, make_vm):
    vm = make_vm()
    lease(vm)
    broker.kill()
    broker.start()
    (told,) = leases(broker, MEMBER)
    assert told["address"] == vm.address and told["interfaceName"] == vm.interface and "hostname" not in told


def test_who_has_no_interface_is_told_to_root_alone(broker, make_vm):
    vm = make_vm(hostname="web")
    wait_for(lambda: dhcp_address(vm.tap, UNANNOUNCED), 10, "a lease for a nested VM")
    lease(vm)
    assert {entry["mac"] for entry in leases(broker, MEMBER)} == {vm.mac}
    told = {entry["mac"]: entry for entry in leases(broker)}
    assert told.keys() == {vm.mac, UNANNOUNCED}
    assert "interfaceName" not in told[UNANNOUNCED] and "uid" not in told[UNANNOUNCED]
    os.close(vm.tap)
    vm.tap = -1
    wait_for(lambda: leases(broker, MEMBER) == [], 5, "the VM's end")
    assert all("interfaceName" not in entry for entry in leases(broker))


def test_more_than_one_answer_has(broker, make_vm):
    vm = make_vm()
    lease(vm)
    expires = int(time.time()) + 300
    lines = [f"{expires} 52:54:00:00:00:{i:02x} 192.168.64.{i} * *\n" for i in range(2, 200)]
    lines += ["duid 00:01\n", f"{expires} 5 fd00::5 * 00:01\n", f"{expires - 400} 52:54:00:00:01:01 192.168.64.201 * *\n"]
    (broker.state_dir / "shared.leases").write_text("".join(reversed(lines[:198])) + "".join(lines[198:]))
    with broker.connect() as peer:
        first, _ = peer.call("ListLeases")
        assert [entry["address"] for entry in first["leases"]] == [f"192.168.64.{i}" for i in range(2, 130)] and first["more"]
        rest, _ = peer.call("ListLeases", after="192.168.64.129")
        assert [entry["address"] for entry in rest["leases"]] == [f"192.168.64.{i}" for i in range(130, 200)] and not rest["more"]
        with pytest.raises(VarlinkError) as error:
            peer.call("ListLeases", after="x")
        assert error.value.name == "InvalidRequest"


def test_a_file_that_is_none(broker, make_vm):
    vm = make_vm()
    lease(vm)
    path = broker.state_dir / "shared.leases"
    for content in (b"\xff" * 5000, b"0 0 0 0 0\n" * 100, b"", bytes(100)):
        path.write_bytes(content)
        assert leases(broker) == []
    path.unlink()
    assert leases(broker) == []
    os.mkfifo(path)
    assert leases(broker) == []


def test_life_of_a_network(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "lock_mac": True, "lease_time": 300, "ipv6": False, "dns": False}})
    told = describe(broker, "lab", MEMBER)
    assert told["state"] == "absent" and told["network"]["name"] == "lab" and "problem" not in told
    assert told["settings"] == {
        "dhcp": True, "dns": False, "routerAdvertisement": False, "leaseSeconds": 300, "isolation": False, "lockMac": True,
        "pinned": False,
    }
    with broker.connect(MEMBER) as holder, broker.connect() as other:
        holder.call("AcquireNetwork", network="lab")
        other.call("AcquireNetwork", network="lab")
        _, fds = holder.call("CreateInterface", network="lab")
        told = describe(broker, "lab", MEMBER)
        assert (told["state"], told["connections"], told["interfaces"]) == ("running", 2, 1)
        for fd in fds:
            os.close(fd)
    wait_for(lambda: describe(broker, "lab")["state"] == "lingering", 5, "the end of its last user")


def test_networks_that_are_not_told_of(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "allow": {"users": []}}, "bad": {"mode": "moon"}})
    with broker.connect(MEMBER) as peer:
        for network, error in (("lab", "NotAllowed"), ("none", "NotFound")):
            with pytest.raises(VarlinkError) as raised:
                peer.call("DescribeNetwork", network=network)
            assert raised.value.name == error
    assert "shared, host, bridged" in describe(broker, "bad")["problem"]


def test_names_that_vms_tell(broker, make_vm):
    """A name with control characters never gets this far."""
    vm = make_vm()
    packet = bytes([53, 1, 1, 80, 0, 12, 9]) + b"w\x1b[31meb\n" + bytes([255])
    fixed = bytes([1, 1, 6, 0, 0, 0, 0x12, 0x34, 0, 0, 0x80, 0]) + bytes(16) + frames.mac_bytes(vm.mac) + bytes(202) + bytes.fromhex("63825363")
    frame = frames.ethernet(
        frames.BROADCAST, vm.mac, frames.ETHERTYPE_IPV4, frames.udp("0.0.0.0", 68, "255.255.255.255", 67, fixed + packet)
    )

    def leased():
        os.write(vm.tap, bytes(12) + frame)
        return leases(broker)

    (told,) = wait_for(leased, 10, "its lease")
    assert told["mac"] == vm.mac and "hostname" not in told
