"""Addresses and names that the configuration reserves: who is given them, and who is not."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.dhcp import dhcp_address, leased_address
from lib.lab import is_running, wait_for

WEB_MAC = "52:54:00:00:00:01"
DB_ID = "2c2e4a1c-1f3b-4b3e-9d5e-0123456789ab"
SUBNET = {"mode": "host", "subnet": "10.77.0.0/24"}


def create(peer, **parameters):
    reply, fds = peer.call("CreateInterface", network="lab", **parameters)
    return reply, fds[0]


def refusal(peer, name, **parameters):
    with pytest.raises(VarlinkError) as caught:
        create(peer, **parameters)
    assert caught.value.name == name
    return caught.value.parameters["reason"]


def kill(broker):
    """Both parts: the front would serve for a moment longer than priv."""
    front = broker.front_pid
    broker.kill()
    wait_for(lambda: not is_running(front), 5, "the end of the front")


def hosts_of(broker):
    return (broker.runtime_dir / "networks/lab.hosts").read_text().splitlines()


def dns_addresses(lab, name, server="10.77.0.1"):
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


@pytest.mark.parametrize("address", ["10.77.0.2", "10.77.0.100", "10.77.0.254"])
def test_a_mac_has_its_address(make_broker, address):
    broker = make_broker(networks={"lab": {**SUBNET, "reservations": [{"mac": WEB_MAC, "address": address}]}})
    with broker.connect(MEMBER) as peer:
        other, _ = create(peer)
        web, tap = create(peer, mac=WEB_MAC)
        assert web["address"] == address != other["address"]
        assert leased_address(tap, WEB_MAC) == address


def test_an_interface_id_has_its_address(make_broker):
    broker = make_broker(
        networks={"lab": {**SUBNET, "reservations": [{"interface_id": DB_ID, "address": "10.77.0.77"}]}}
    )
    with broker.connect(MEMBER) as peer:
        by_id, tap = create(peer, interfaceId=DB_ID)
        assert by_id["address"] == "10.77.0.77"
        assert leased_address(tap, by_id["mac"]) == "10.77.0.77"


def test_an_interface_id_with_a_mac_of_its_own(make_broker):
    broker = make_broker(
        networks={"lab": {**SUBNET, "reservations": [{"interface_id": DB_ID, "address": "10.77.0.77"}]}}
    )
    with broker.connect(MEMBER) as peer:
        reply, tap = create(peer, interfaceId=DB_ID, mac="52:54:00:00:00:99")
        assert reply["address"] == "10.77.0.77"
        assert leased_address(tap, reply["mac"]) == "10.77.0.77"


def test_addresses_behind_the_end_are_for_reservations(make_broker):
    networks = {
        "lab": {
            "mode": "host",
            "start": "10.77.0.10",
            "end": "10.77.0.20",
            "mask": "255.255.255.0",
            "reservations": [
                {"mac": WEB_MAC, "address": "10.77.0.200"},
                {"interface_id": DB_ID, "address": "10.77.0.3"},
            ],
        }
    }
    broker = make_broker(networks=networks)
    with broker.connect(MEMBER) as peer:
        web, web_tap = create(peer, mac=WEB_MAC)
        db, db_tap = create(peer, interfaceId=DB_ID)
        assert (web["address"], db["address"]) == ("10.77.0.200", "10.77.0.3")
        assert web["network"]["gateway"] == "10.77.0.10"
        assert leased_address(web_tap, WEB_MAC) == "10.77.0.200"
        assert leased_address(db_tap, db["mac"]) == "10.77.0.3"
        assert create(peer)[0]["address"] == "10.77.0.11"


def test_nobody_else_is_given_a_reserved_address(make_broker):
    reservations = [{"mac": WEB_MAC, "address": "10.77.0.2"}, {"interface_id": DB_ID, "address": "10.77.0.6"}]
    networks = {"lab": {"mode": "host", "subnet": "10.77.0.0/29", "reservations": reservations}}
    broker = make_broker(networks=networks)
    with broker.connect(MEMBER) as peer:
        taps = [create(peer) for _ in range(3)]  # of .2 to .5, which CreateInterface gives, .2 is taken
        assert [reply["address"] for reply, _ in taps] == ["10.77.0.3", "10.77.0.4", "10.77.0.5"]
        assert "no free address" in refusal(peer, "QuotaExceeded")
        # .6 is the only one DHCP gives to MACs nobody announced, and it is reserved.
        assert dhcp_address(taps[0][1], "52:54:00:00:00:77") is None
        assert create(peer, mac=WEB_MAC)[0]["address"] == "10.77.0.2"
        assert create(peer, interfaceId=DB_ID)[0]["address"] == "10.77.0.6"


def test_a_name_is_in_dns_though_the_vm_gives_none(make_broker, lab):
    reservations = [{"mac": WEB_MAC, "address": "10.77.0.80", "name": "web"}, {"interface_id": DB_ID, "name": "db"}]
    broker = make_broker(networks={"lab": {**SUBNET, "reservations": reservations}})
    with broker.connect(MEMBER) as peer:
        web, web_tap = create(peer, mac=WEB_MAC)
        db, db_tap = create(peer, interfaceId=DB_ID)
        assert leased_address(web_tap, WEB_MAC) == "10.77.0.80"
        assert leased_address(db_tap, db["mac"]) == db["address"]
        assert dns_addresses(lab, "web.lab.vmnet") == ["10.77.0.80"]
        assert dns_addresses(lab, "db.lab.vmnet") == [db["address"]]


def test_a_reserved_name_is_refused_to_others(make_broker):
    reservations = [{"mac": WEB_MAC, "name": "web"}, {"interface_id": DB_ID, "name": "db"}]
    broker = make_broker(networks={"lab": {**SUBNET, "reservations": reservations}})
    with broker.connect(MEMBER) as peer:
        assert refusal(peer, "Conflict", hostname="WEB") == (
            'the name "WEB" is reserved on network "lab" for the VM with MAC 52:54:00:00:00:01 (networks.json); '
            "choose another hostname, or start this VM with that MAC"
        )
        assert f"interface id {DB_ID.upper()}" in refusal(peer, "Conflict", hostname="db")
        assert create(peer, hostname="other")
        assert create(peer, hostname="web", mac=WEB_MAC)
        assert create(peer, hostname="db", interfaceId=DB_ID)


def test_reservations_are_kept_over_a_crash(make_broker):
    reservations = [{"mac": WEB_MAC, "address": "10.77.0.200", "name": "web"}]
    broker = make_broker(networks={"lab": {**SUBNET, "reservations": reservations}})
    with broker.connect(MEMBER) as peer:
        _, tap = create(peer, mac=WEB_MAC)
    before = hosts_of(broker)
    assert before == [f"{WEB_MAC},10.77.0.200,web.lab.vmnet"]
    kill(broker)
    broker.start()
    with broker.connect(MEMBER) as peer:
        peer.call("AcquireNetwork", network="lab")
        assert hosts_of(broker) == before
        assert leased_address(tap, WEB_MAC) == "10.77.0.200"
        assert create(peer)[0]["address"] == "10.77.0.2"


def test_a_vm_that_was_there_before_keeps_its_address(make_broker):
    """A reservation made while another VM has the address: refused as long as that VM lives."""
    broker = make_broker(networks={"lab": SUBNET})
    with broker.connect(MEMBER) as peer:
        early = broker.connect(MEMBER)
        old, old_fds = early.call("CreateInterface", network="lab")
        assert old["address"] == "10.77.0.2"
        kill(broker)
        broker.write_config({"lab": {**SUBNET, "reservations": [{"mac": WEB_MAC, "address": "10.77.0.2"}]}})
        broker.start()
    with broker.connect(MEMBER) as peer:
        reason = refusal(peer, "Conflict", mac=WEB_MAC)
        assert "10.77.0.2 is reserved for this VM" in reason and old["interfaceName"] in reason
        os.close(old_fds[0])
        wait_for(lambda: f"{WEB_MAC},10.77.0.2" in hosts_of(broker), 5, "the address is the new one's")
        assert create(peer, mac=WEB_MAC)[0]["address"] == "10.77.0.2"
