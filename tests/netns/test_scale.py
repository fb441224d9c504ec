"""Many interfaces, networks and clients: all are served, nothing is left, and idling costs nothing.

How fast, docs/performance.md tells; here nothing is timed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os

import pytest

from lib import load
from lib.broker import SOCKET_GROUP
from lib.dhcp import leased_address
from lib.lab import User, wait_for

INTERFACES, NETWORKS, CLIENTS = 500, 60, 200
RSS_KIB = 16 << 10  # of front and priv together
IDLE_S = 1
USERS = [User(5000 + number, 5000 + number, (100,)) for number in range(4)]
RUNNING_FILES = ["lock", "socket"]


@pytest.fixture(autouse=True)
def many_fds():
    load.allow_many_fds()


@pytest.fixture
def make_release_broker(make_broker, release_bin_dir):
    """AddressSanitizer keeps freed memory, and is slow."""
    assert SOCKET_GROUP == "users", "USERS are in it"
    return lambda **options: make_broker(programs=release_bin_dir, idle_timeout_s=IDLE_S, **options)


def served(answers):
    """The answers, when all are."""
    refusals = [answer for answer in answers if isinstance(answer, Exception)]
    assert not refusals, refusals[0]
    return answers


def assert_small(broker):
    used = {part: load.rss_kib(pid) for part, pid in load.parts_of(broker).items() if "dnsmasq" not in part}
    assert sum(used.values()) <= RSS_KIB, used


def all_different(answers, key):
    values = {answer.reply[key] for answer in answers}
    assert len(values) == len(answers), key
    return values


def ports_of(broker, bridge):
    return [link for link in broker.links() if link.get("master") == bridge]


def wait_gone(broker):
    wait_for(lambda: broker.leftovers().files == RUNNING_FILES, 60, "the end of every record")
    left = broker.leftovers()
    assert not left.links and not left.tables and not left.dnsmasq, left


def test_500_interfaces_on_one_network(make_release_broker):
    subnet = ipaddress.ip_network("10.77.0.0/22")
    broker = make_release_broker(networks={"wide": {"mode": "shared", "subnet": str(subnet)}})
    with broker.connect(USERS[0]) as client:
        answers = []
        for number in range(INTERFACES):
            name = f"vm{number}"
            answers += served(
                load.ask_together([client], [("CreateInterface", {"network": "wide", "hostname": name})])
            )
        addresses = all_different(answers, "address")
        assert all(ipaddress.ip_address(address) in subnet for address in addresses)
        all_different(answers, "mac")
        all_different(answers, "interfaceName")
        assert len(ports_of(broker, answers[0].reply["network"]["bridge"])) == INTERFACES
        assert_small(broker)
        for answer in (answers[0], answers[-1]):
            assert leased_address(answer.fds[0], answer.reply["mac"]) == answer.reply["address"]
        load.wait_idle(broker)
        load.close_together(fd for answer in answers for fd in answer.fds)
    wait_gone(broker)
    assert_small(broker)


def test_60_networks_at_once(make_release_broker):
    names = [f"n{number}" for number in range(NETWORKS)]
    broker = make_release_broker(networks={name: {"mode": "shared"} for name in names})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(broker.connect(USERS[0])) for _ in names]
        answers = served(
            load.ask_together(clients, [("AcquireNetwork", {"network": name}) for name in names])
        )
        networks = [answer.reply["network"] for answer in answers]
        assert [network["name"] for network in networks] == names
        subnets = [ipaddress.ip_network(network["subnet"]) for network in networks]
        assert not any(one.overlaps(other) for one in subnets for other in subnets if one is not other)
        assert len(broker.links()) == len(broker.dnsmasq_pids()) == NETWORKS
        rules = broker.namespace.run(["nft", "list", "ruleset"]).stdout
        assert all(network["bridge"] in rules for network in networks)
        for client, name in zip(clients[::20], names[::20], strict=True):
            (answer,) = served(load.ask_together([client], [("CreateInterface", {"network": name})]))
            assert leased_address(answer.fds[0], answer.reply["mac"]) == answer.reply["address"]
            os.close(answer.fds[0])
        assert_small(broker)
        load.wait_idle(broker)
    wait_gone(broker)


def test_200_clients_at_the_same_moment(make_release_broker):
    broker = make_release_broker(networks={"wide": {"mode": "shared", "subnet": "10.77.0.0/22"}})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(broker.connect(USERS[number % len(USERS)])) for number in range(CLIENTS)]
        # The first of them makes the network, the others wait for it.
        answers = served(load.ask_together(clients, [("CreateInterface", {"network": "wide"})] * CLIENTS))
        addresses = all_different(answers, "address")
        all_different(answers, "interfaceName")
        hosts = (broker.runtime_dir / "networks/wide.hosts").read_text()
        assert {line.split(",")[1] for line in hosts.split()} >= addresses
        assert len(ports_of(broker, answers[0].reply["network"]["bridge"])) == CLIENTS
        records = [json.loads(path.read_text()) for path in broker.runtime_dir.glob("interfaces/*.json")]
        assert {record["address"] for record in records} == addresses
        for answer in answers[::50]:
            assert leased_address(answer.fds[0], answer.reply["mac"]) == answer.reply["address"]
        assert_small(broker)
        load.close_together(fd for answer in answers for fd in answer.fds)
        load.wait_idle(broker)
    wait_gone(broker)
