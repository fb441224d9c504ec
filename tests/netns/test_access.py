"""Who may use which network, and how much: real users and groups, and what they are told."""

from __future__ import annotations

import pytest

from lib.broker import MEMBER, VarlinkError
from lib.lab import User, is_running, wait_for

VMTESTER = User(4250, 4250, (100, 4300))  # may connect, and is in a group of its own beside
OTHER = User(4251, 4251, (100,))


def error_of(call, *arguments, **parameters):
    with pytest.raises(VarlinkError) as caught:
        call(*arguments, **parameters)
    return caught.value


def refusal(peer, method, network, name="NotAllowed", **parameters):
    error = error_of(peer.call, method, network=network, **parameters)
    assert error.name == name
    return error.parameters["reason"]


def create(peer, network, **parameters):
    return peer.call("CreateInterface", network=network, **parameters)


def names_of(peer):
    return {network["name"] for network in peer.call("ListNetworks")[0]["networks"]}


LAB = {
    "mode": "host",
    "allow": {"users": ["daemon", 4242], "groups": [4300, "nogroup", "no-such-group"]},
}


def test_users_and_groups_decide(make_broker):
    broker = make_broker(networks={"lab": LAB})
    for user in (MEMBER, VMTESTER, None):
        with broker.connect(user) as peer:
            assert peer.call("AcquireNetwork", network="lab")[0]["network"]["name"] == "lab"
            assert create(peer, "lab")[0]["network"]["name"] == "lab"
            assert names_of(peer) == {"lab", "host", "shared"}
    with broker.connect(OTHER) as peer:
        for method in ("AcquireNetwork", "CreateInterface"):
            assert refusal(peer, method, "lab") == (
                'network "lab" is not open to user 4251: networks.json: lab.allow lists users daemon, 4242 '
                "and groups 4300, nogroup, no-such-group (unknown)"
            )
        assert names_of(peer) == {"host", "shared"}
        assert create(peer, "host")[0]["network"]["name"] == "host"


def test_names_are_those_of_the_system(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "allow": {"users": ["daemon"], "groups": ["games"]}}})
    for user in (User(1, 1, (100,)), User(4251, 4251, (100, 60)), User(4251, 60, (100,))):
        with broker.connect(user) as peer:
            assert create(peer, "lab")[0]["network"]["name"] == "lab"
    with broker.connect(User(2, 2, (100,))) as peer:
        assert "user 2 (bin): networks.json: lab.allow lists user daemon and group games" in refusal(
            peer, "AcquireNetwork", "lab"
        )


def test_unknown_names_are_told_in_the_log(make_broker):
    broker = make_broker(networks={"lab": LAB})
    wait_for(
        lambda: 'networks.json: lab.allow.groups: there is no "no-such-group" on this system' in broker.log(),
        5,
        "the warning",
    )


def test_bridged_is_denied_by_default(make_broker):
    broker = make_broker(networks={"lan": {"mode": "bridged", "uplink": "eth0"}})
    with broker.connect(MEMBER) as peer:
        assert refusal(peer, "CreateInterface", "lan") == (
            'network "lan" is not open to user 4242: networks.json: lan.mode is bridged, '
            "which is root's alone unless lan.allow lists others"
        )
        assert "lan" not in names_of(peer)
    with broker.connect() as peer:
        assert "lan" in names_of(peer)


def test_groups_are_those_at_the_time_of_the_connection(make_broker):
    broker = make_broker(networks={"lab": LAB})
    with broker.connect(VMTESTER) as inside, broker.connect(User(4250, 4250, (100,))) as outside:
        assert create(inside, "lab")
        assert refusal(outside, "CreateInterface", "lab")


def test_a_refusal_makes_no_network(make_broker):
    broker = make_broker(networks={"lab": LAB})
    with broker.connect(OTHER) as peer:
        refusal(peer, "CreateInterface", "lab")
        assert not broker.links()


def test_more_networks_than_one_answer_has(make_broker):
    """With descriptions that are as long in JSON as they get; half of the networks are not for the user."""
    others = {"users": [1]}
    networks = {
        f"n{number:03}": {"mode": "host", "description": '"' * 255, **({"allow": others} if number % 2 else {})}
        for number in range(250)
    }
    broker = make_broker(networks=networks)
    for user, expected in ((None, [*networks]), (MEMBER, [name for name in networks if int(name[1:]) % 2 == 0])):
        names, more = [], {"more": True}
        with broker.connect(user) as peer:
            while more["more"]:
                more, _ = peer.call("ListNetworks", **({"after": names[-1]} if names else {}))
                names += [network["name"] for network in more["networks"]]
                assert len(more["networks"]) <= 64
        assert names == sorted([*expected, "host", "shared"])


def test_the_description_is_told(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "description": "for tests"}})
    with broker.connect(MEMBER) as peer:
        networks = {network["name"]: network for network in peer.call("ListNetworks")[0]["networks"]}
        assert networks["lab"]["description"] == "for tests" and "description" not in networks["host"]
        assert peer.call("AcquireNetwork", network="lab")[0]["network"]["description"] == "for tests"


# Quotas


def test_quota_of_interfaces_on_a_network(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "quotas": {"interfaces": 2}}})
    with broker.connect(MEMBER) as peer, broker.connect(OTHER) as other, broker.connect() as root:
        kept = [create(peer, "lab")[1] for _ in range(2)]
        assert refusal(peer, "CreateInterface", "lab", "QuotaExceeded") == (
            'user 4242 has 2 interfaces on network "lab" already, and networks.json: lab.quotas.interfaces is 2; '
            "stop some VMs"
        )
        assert create(other, "lab") and create(peer, "host")
        assert all(create(root, "lab") for _ in range(3))
        assert len(kept) == 2


def test_quota_of_queues_on_a_network(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "quotas": {"queues": 5}}})
    with broker.connect(MEMBER) as peer:
        create(peer, "lab", queues=4)
        assert "has 4 queues on network" in refusal(peer, "CreateInterface", "lab", "QuotaExceeded", queues=2)
        create(peer, "lab", queues=1)
        assert "lab.quotas.queues is 5" in refusal(peer, "CreateInterface", "lab", "QuotaExceeded")


def test_quotas_are_counted_over_restarts(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "quotas": {"interfaces": 2}}})
    with broker.connect(MEMBER) as peer:
        kept = [create(peer, "lab")[1] for _ in range(2)]
    broker.kill("front")
    wait_for(lambda: broker.front_pid, 5, "a new front")
    with broker.connect(MEMBER) as peer:
        assert "2 interfaces" in refusal(peer, "CreateInterface", "lab", "QuotaExceeded")
    front = broker.front_pid
    broker.kill()
    wait_for(lambda: not is_running(front), 5, "the end of the front")
    broker.start()
    with broker.connect(MEMBER) as peer:
        assert "2 interfaces" in refusal(peer, "CreateInterface", "lab", "QuotaExceeded")
    assert len(kept) == 2


def test_no_user_takes_anothers_quota(make_broker):
    broker = make_broker(networks={"lab": {"mode": "host", "quotas": {"interfaces": 1}}})
    with broker.connect(MEMBER) as peer, broker.connect(OTHER) as other:
        create(peer, "lab")
        create(other, "lab")
        for user in (peer, other):
            assert refusal(user, "CreateInterface", "lab", "QuotaExceeded")
