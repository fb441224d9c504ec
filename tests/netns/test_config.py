"""The configuration of a running broker: what a change does to what is there, and what it leaves alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.dhcp import leased_address
from lib.lab import User, is_running, wait_for

OTHER = User(4251, 4251, (100,))
IDLE_S = 1
DEADLINE_S = 10
MAC = "52:54:00:00:00:01"


def acquire(peer, network):
    return peer.call("AcquireNetwork", network=network)[0]["network"]


def create(peer, network, **parameters):
    reply, fds = peer.call("CreateInterface", network=network, **parameters)
    return reply, fds[0]


def refusal(peer, method, network, name, **parameters):
    with pytest.raises(VarlinkError) as caught:
        peer.call(method, network=network, **parameters)
    assert caught.value.name == name
    return caught.value.parameters["reason"]


def listed(broker):
    with broker.connect() as peer:
        return {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}


def readings(broker):
    return broker.log().count("the configuration was read again")


def wait_listed(broker, *names):
    wait_for(lambda: set(listed(broker)) == {"host", "shared", *names}, DEADLINE_S, f"networks {names}")


def bridges(broker):
    return {link["ifname"]: link["ifindex"] for link in broker.links() if link["ifname"].startswith("vmbr")}


# How a change is noticed


def write(broker, networks, file="networks.json"):
    broker.write_config(networks, file)


def rename_over(broker, networks, file="networks.json"):
    """As editors and package managers do."""
    new = broker.config_dir / f"{file}.new"
    new.parent.mkdir(exist_ok=True)
    new.write_text(json.dumps(networks))
    new.rename(broker.config_dir / file)


@pytest.mark.parametrize("change", [write, rename_over])
@pytest.mark.parametrize("file", ["networks.json", "networks.d/lab.json"])
def test_a_file_comes_changes_and_goes(make_broker, change, file):
    broker = make_broker()
    change(broker, {"lab": {"mode": "host"}}, file)
    wait_listed(broker, "lab")
    change(broker, {"lab": {"mode": "host"}, "more": {"mode": "shared"}}, file)
    wait_listed(broker, "lab", "more")
    (broker.config_dir / file).unlink()
    wait_listed(broker)


def test_the_directory_comes_later(make_broker):
    broker = make_broker(start=False)
    broker.config_dir.rmdir()
    elsewhere = broker.directory / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "networks.json").write_text('{"lab": {"mode": "host"}}')
    broker.config_dir.symlink_to(elsewhere)  # --config names a directory, so there has to be one at the start
    broker.start()
    wait_listed(broker, "lab")
    broker.config_dir.unlink()
    wait_listed(broker)
    broker.config_dir.mkdir()
    write(broker, {"later": {"mode": "host"}})
    wait_listed(broker, "later")


def test_links_are_followed(make_broker):
    """The directory is a link that is replaced at once, a file in it one whose target changes."""
    broker = make_broker(start=False)
    broker.config_dir.rmdir()
    for number in (1, 2):
        directory = broker.directory / f"version{number}"
        directory.mkdir()
        (directory / "networks.json").write_text(json.dumps({f"lab{number}": {"mode": "host"}}))
    target = broker.directory / "target.json"
    target.write_text('{"linked": {"mode": "host"}}')
    (broker.directory / "version2/networks.d").mkdir()
    (broker.directory / "version2/networks.d/link.json").symlink_to(target)
    broker.config_dir.symlink_to("version1")
    broker.start()
    wait_listed(broker, "lab1")
    new = broker.directory / "new"
    new.symlink_to("version2")
    new.rename(broker.config_dir)
    wait_listed(broker, "lab2", "linked")
    target.write_text('{"changed": {"mode": "host"}}')
    wait_listed(broker, "lab2", "changed")


def test_hangup_reads_it_again(make_broker):
    broker = make_broker()
    wait_listed(broker)
    before = readings(broker)
    os.kill(broker.front_pid, signal.SIGHUP)
    wait_for(lambda: readings(broker) == before + 1, DEADLINE_S, "it was read again")
    assert set(listed(broker)) == {"host", "shared"}


def test_many_writes_are_few_readings(make_broker):
    broker = make_broker()
    for number in range(50):
        write(broker, {f"n{number}": {"mode": "host"}})
    wait_listed(broker, "n49")
    assert readings(broker) <= 3


def test_what_is_beside_the_directory_is_no_change(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host"}})
    wait_listed(broker, "lab")
    (broker.directory / "unrelated").write_text("x")
    write(broker, {"lab": {"mode": "host"}, "more": {"mode": "host"}})
    wait_listed(broker, "lab", "more")
    assert readings(broker) == 1


# What it does


def test_a_running_network_is_not_touched(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "subnet": "10.77.0.0/24"}}, idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer:
        reply, tap = create(peer, "lab")
        before, dnsmasq = bridges(broker), broker.dnsmasq_pids()
        write(broker, {"lab": {"mode": "shared", "subnet": "10.78.0.0/24", "mtu": 9000, "lease_time": 300}})
        wait_for(
            lambda: "made: mode, mtu, lease_time, subnet" in broker.log(), DEADLINE_S, "a line that says what is new"
        )
        assert (bridges(broker), broker.dnsmasq_pids()) == (before, dnsmasq)
        network = acquire(peer, "lab")
        assert (network["mode"], network["subnet"], network["mtu"]) == ("host", "10.77.0.0/24", 1500)
        assert leased_address(tap, reply["mac"]) == reply["address"]
        os.close(tap)
    wait_for(lambda: not bridges(broker), DEADLINE_S, "the network is gone")
    with broker.connect(MEMBER) as peer:
        network = acquire(peer, "lab")
        assert (network["mode"], network["subnet"], network["mtu"]) == ("shared", "10.78.0.0/24", 9000)


def test_a_network_that_is_gone_stays_for_its_users(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host"}}, idle_timeout_s=IDLE_S)
    with broker.connect(MEMBER) as peer, broker.connect(OTHER) as other:
        reply, tap = create(peer, "lab")
        write(broker, {})
        wait_for(lambda: "network lab] is not configured any more" in broker.log(), DEADLINE_S, "it was read")
        assert listed(broker)["lab"]["running"]
        assert leased_address(tap, reply["mac"]) == reply["address"]
        reply, second_tap = create(peer, "lab")
        assert reply["network"]["name"] == "lab"
        assert "it is not in the configuration" in refusal(other, "AcquireNetwork", "lab", "NotAllowed")
    os.close(tap)
    os.close(second_tap)
    wait_listed(broker)
    with broker.connect(MEMBER) as peer:
        assert "does not exist" in refusal(peer, "AcquireNetwork", "lab", "NotFound")


def test_access_changes_at_once(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "allow": {"users": [4242]}}})
    with broker.connect(MEMBER) as peer, broker.connect(OTHER) as other:
        _, tap = create(peer, "lab")
        refusal(other, "CreateInterface", "lab", "NotAllowed")
        write(broker, {"lab": {"mode": "host", "allow": {"users": ["daemon", 4251]}}})
        wait_for(lambda: readings(broker) == 1, DEADLINE_S, "it was read again")
        assert create(other, "lab")
        assert "users daemon, 4251" in refusal(peer, "CreateInterface", "lab", "NotAllowed")
        assert len(broker.links()) == 3  # what he has is left to him
        os.close(tap)


def test_quotas_change_at_once(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "quotas": {"interfaces": 1}}})
    with broker.connect(MEMBER) as peer:
        create(peer, "lab")
        refusal(peer, "CreateInterface", "lab", "QuotaExceeded")
        write(broker, {"lab": {"mode": "host", "quotas": {"interfaces": 2}}})
        wait_for(lambda: readings(broker) == 1, DEADLINE_S, "it was read again")
        create(peer, "lab")
        assert "lab.quotas.interfaces is 2" in refusal(peer, "CreateInterface", "lab", "QuotaExceeded")


def test_reservations_change_at_once(make_broker):
    lab = {"mode": "host", "subnet": "10.77.0.0/24"}
    broker = make_broker(networks={"lab": lab})
    with broker.connect(MEMBER) as peer:
        old, _ = create(peer, "lab")
        write(broker, {"lab": {**lab, "reservations": [{"mac": MAC, "address": "10.77.0.99", "name": "web"}]}})
        hosts = broker.runtime_dir / "networks/lab.hosts"
        wait_for(lambda: f"{MAC},10.77.0.99,web.lab.vmnet" in hosts.read_text(), DEADLINE_S, "dnsmasq's hosts")
        reply, tap = create(peer, "lab", mac=MAC)
        assert reply["address"] == "10.77.0.99" and old["address"] == "10.77.0.2"
        assert leased_address(tap, MAC) == "10.77.0.99"
        assert refusal(peer, "CreateInterface", "lab", "Conflict", hostname="web")


def test_a_mistake_takes_only_its_network_out_of_service(make_broker):
    broker = make_broker(networks={"a": {"mode": "host"}, "b": {"mode": "host"}})
    with broker.connect(MEMBER) as peer:
        _, tap = create(peer, "a")
        write(broker, {"a": {"mode": "host", "mtu": 1}, "b": {"mode": "shard"}, "c": {"mode": "host"}})
        wait_listed(broker, "a", "b", "c")
        assert "b.mode: " in refusal(peer, "AcquireNetwork", "b", "CreateFailure")
        assert create(peer, "c") and create(peer, "a")  # a is his, whatever it says now
        write(broker, "{")
        wait_listed(broker, "a", "c")  # which run
        write(broker, {"b": {"mode": "host"}})
        wait_listed(broker, "a", "b", "c")
        assert create(peer, "b")
        os.close(tap)


def test_what_was_read_outlives_the_front(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host"}})
    write(broker, {"other": {"mode": "host"}})
    wait_listed(broker, "other")
    broker.kill("front")
    wait_for(lambda: broker.front_pid, 5, "a new front")
    wait_listed(broker, "other")


# Pinned networks


def test_a_pinned_network_is_there_without_users(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "pinned": True}}, idle_timeout_s=IDLE_S)
    wait_for(lambda: "network lab] serves" in broker.log(), DEADLINE_S, "it serves")
    before = bridges(broker)
    with broker.connect(MEMBER) as peer:
        acquire(peer, "host")
        acquire(peer, "lab")
    # The other one's idle time is over, too, so its own would be.
    wait_for(lambda: not listed(broker)["host"]["running"], DEADLINE_S, "the other network is gone")
    assert bridges(broker) == before and len(before) == 1


def test_pinning_begins_and_ends_with_the_configuration(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host"}}, idle_timeout_s=IDLE_S)
    write(broker, {"lab": {"mode": "host", "pinned": True}})
    wait_for(lambda: listed(broker)["lab"]["running"], DEADLINE_S, "it is made")
    write(broker, {"lab": {"mode": "host"}})
    wait_for(lambda: not bridges(broker), DEADLINE_S, "it is gone")
    assert "network lab] had no user for" in broker.log()


def test_a_pinned_network_is_made_again(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "pinned": True}}, idle_timeout_s=IDLE_S)
    wait_for(lambda: "network lab] serves" in broker.log(), DEADLINE_S, "it serves")
    (name,) = before = bridges(broker)
    broker.namespace.ip("link", "delete", name)
    wait_for(lambda: bridges(broker) not in ({}, before), DEADLINE_S, "another bridge")
    wait_for(lambda: broker.log().count("network lab] serves") == 2, DEADLINE_S, "it serves again")


def test_a_pinned_network_outlives_kills(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "pinned": True}}, idle_timeout_s=IDLE_S)
    wait_for(lambda: "network lab] serves" in broker.log(), DEADLINE_S, "it serves")
    before = bridges(broker)
    front = broker.front_pid
    broker.kill()
    wait_for(lambda: not is_running(front), 5, "the end of the front")
    broker.start()
    wait_for(lambda: broker.log().count("network lab] adopted bridge") == 1, DEADLINE_S, "it is taken up")
    assert bridges(broker) == before and listed(broker)["lab"]["running"]


# What is left


def test_the_process_that_looks_up_names_ends_with_the_front(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "allow": {"users": ["daemon"]}}})

    def helpers():
        return subprocess.run(["pgrep", "-P", str(broker.front_pid)], capture_output=True, text=True).stdout.split()

    (pid,) = map(int, wait_for(helpers, 5, "the process"))
    broker.kill("front")
    wait_for(lambda: not is_running(pid), 5, "its end")
    (pid,) = map(int, wait_for(helpers, 5, "another one"))
    broker.terminate()
    wait_for(lambda: not is_running(pid), 5, "its end")
