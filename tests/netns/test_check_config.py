"""--check-config and docs/networks.schema.json: every mistake is told, and both say the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest

from lib.lab import User

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/networks.schema.json").read_text())
ID = "2c2e4a1c-1f3b-4b3e-9d5e-0123456789ab"
MAC = "52:54:00:00:00:01"
RANGE = {"start": "10.0.0.1", "end": "10.0.0.9", "mask": "255.255.255.0"}


def reservations(*entries, **others):
    return {"subnet": "10.0.0.0/24", "reservations": list(entries), **others}


# Members of a network of mode shared, if they do not say another.
GOOD = [
    {},
    {"description": "for \"people\" and café"},
    {"subnet": "10.0.0.0/8"},
    {"subnet": "172.31.0.0/16"},
    {"subnet": "192.168.1.4/30"},
    RANGE,
    {**RANGE, "start": "10.0.0.5", "mask": "255.255.255.240"},
    {"ipv6": False},
    {"ipv6": "fd12:3456:789a:1::/64"},
    {"ipv6": "FD00::/64"},
    {"mtu": 1280},
    {"mtu": 65520},
    {"dhcp": False, "dns": False, "ra": False},
    {"lease_time": 120},
    {"lease_time": 86400},
    {"domain": "lab.internal"},
    {"domain": "x"},
    {"isolation": True, "lock_mac": True, "pinned": True},
    {"uplink": "eth0"},
    {"uplink": "wlp0s20f3.100"},
    {"mode": "host", "subnet": "10.0.0.0/24"},
    {"mode": "bridged", "uplink": "eno1", "mtu": 9000, "allow": {"groups": ["kvm"]}},
    {"allow": {"users": ["alice", "bob.b", "c_d$", "DOMAIN\\eve", 0, 4294967294]}},
    {"allow": {"users": [], "groups": []}},
    {"quotas": {}},
    {"quotas": {"interfaces": 0, "queues": 65535, "forwards": 1}},
    {"reservations": []},
    {"reservations": [{"mac": MAC, "name": "web"}, {"interface_id": ID, "name": "db-2"}]},
    {"forwards": []},
    {"forwards": [{"port": 8080, "to": "web:80"}, {"protocol": "udp", "listen": "127.0.0.1:53", "to": "10.0.0.5:53"}]},
    {"forwards": [{"listen": "[::]:8080", "to": "[fd00::5]:80"}]},
    reservations({"mac": MAC.upper(), "address": "10.0.0.2"}, {"interface_id": ID.upper(), "address": "10.0.0.254"}),
]

BAD = [
    {"mode": "shard"},
    {"mode": 1},
    {"mode": None},
    {"colour": "red"},
    {"description": 1},
    {"description": "a\nb"},
    {"description": "x" * 256},
    {"subnet": 7},
    {"subnet": "10.0.0.0"},
    {"subnet": "10.0.0.0/7"},
    {"subnet": "10.0.0.0/31"},
    {"subnet": "8.8.8.0/24"},
    {"subnet": "172.32.0.0/16"},
    {"subnet": "192.168.0.0/15"},
    {"subnet": "10.0.0.256/24"},
    {"subnet": "10.0.0.00/24"},
    {"start": "10.0.0.1"},
    {"start": "10.0.0.1", "end": "10.0.0.9"},
    {"start": "10.0.0.1", "subnet": "10.0.0.0/24"},
    {**RANGE, "subnet": "10.0.0.0/24"},
    {**RANGE, "start": 1},
    {**RANGE, "end": "10.0.0"},
    {**RANGE, "mask": "255.0.255.0"},
    {**RANGE, "mask": "255.255.255.254"},
    {**RANGE, "mask": "254.0.0.0"},
    {**RANGE, "mask": "24"},
    {"ipv6": None},
    {"ipv6": 6},
    {"ipv6": "fd12::/48"},
    {"ipv6": "2001:db8::/64"},
    {"ipv6": "fc00::/64"},
    {"mtu": 1279},
    {"mtu": 65521},
    {"mtu": "1500"},
    {"mtu": True},
    {"dhcp": 1},
    {"dns": "yes"},
    {"ra": None},
    {"isolation": 0},
    {"lock_mac": []},
    {"pinned": "true"},
    {"lease_time": 119},
    {"lease_time": 86401},
    {"domain": ""},
    {"domain": "a..b"},
    {"domain": "-a"},
    {"domain": "x" * 41},
    {"uplink": ""},
    {"uplink": "a/b"},
    {"uplink": ".."},
    {"uplink": "sixteen-letters-"},
    {"uplink": "a b"},
    {"uplink": "eth*"},
    {"uplink": "a\"b"},
    {"mode": "host", "uplink": "eth0"},
    {"mode": "bridged"},
    *({"mode": "bridged", "uplink": "eth0", key: value} for key, value in {
        "subnet": "10.0.0.0/24", "ipv6": True, "dhcp": True, "dns": True, "ra": True, "lease_time": 300,
        "domain": "x", "reservations": [], "forwards": [],
        "isolation": True, "lock_mac": False,
    }.items()),
    {"allow": []},
    {"allow": {}},
    {"allow": {"user": []}},
    {"allow": {"users": "alice"}},
    {"allow": {"users": ["1000"]}},
    {"allow": {"users": [""]}},
    {"allow": {"users": ["a b"]}},
    {"allow": {"users": ["a:b"]}},
    {"allow": {"users": ["x" * 65]}},
    {"allow": {"groups": [-1]}},
    {"allow": {"groups": [4294967295]}},
    {"allow": {"groups": [None]}},
    {"quotas": 3},
    {"quotas": {"interface": 3}},
    {"quotas": {"queues": -1}},
    {"quotas": {"queues": 65536}},
    {"quotas": {"queues": None}},
    {"reservations": {}},
    {"reservations": [1]},
    {"reservations": [{"name": "a"}]},
    {"reservations": [{"mac": MAC}]},
    {"reservations": [{"mac": MAC, "interface_id": ID, "name": "a"}]},
    {"reservations": [{"mac": MAC, "name": "a", "ip": "x"}]},
    {"reservations": [{"mac": "01:00:00:00:00:01", "name": "a"}]},
    {"reservations": [{"mac": "00:00:00:00:00:00", "name": "a"}]},
    {"reservations": [{"mac": "fe:76:00:00:00:01", "name": "a"}]},
    {"reservations": [{"mac": "FE:77:00:00:00:01", "name": "a"}]},
    {"reservations": [{"mac": "52-54-00-00-00-01", "name": "a"}]},
    {"reservations": [{"interface_id": "x", "name": "a"}]},
    {"reservations": [{"mac": MAC, "name": "a_b"}]},
    {"reservations": [{"mac": MAC, "name": "Host"}]},
    {"reservations": [{"mac": MAC, "name": "localhost"}]},
    reservations({"mac": MAC, "address": "10.0.0"}),
    {"forwards": {}},
    {"forwards": [1]},
    {"forwards": [{"port": 8080}]},
    {"forwards": [{"to": "web:80"}]},
    {"forwards": [{"port": 0, "to": "web:80"}]},
    {"forwards": [{"port": 65536, "to": "web:80"}]},
    {"forwards": [{"port": 80, "listen": "80", "to": "web:80"}]},
    {"forwards": [{"port": 80, "to": "web:80", "protocol": "sctp"}]},
    {"forwards": [{"port": 80, "to": "web:80", "comment": "x"}]},
    [],
    None,
]

# What only --check-config sees.
BEYOND_THE_SCHEMA = [
    {"subnet": "10.0.0.1/24"},
    {**RANGE, "start": "10.0.0.9"},
    {**RANGE, "end": "10.0.1.9"},
    {**RANGE, "start": "8.0.0.1", "end": "8.0.0.9"},
    {"ipv6": "fd12::1/64"},
    {"mtu": 1500.0},
    {"reservations": [{"mac": MAC, "address": "10.0.0.2"}]},
    reservations({"mac": MAC, "address": "10.0.1.2"}),
    reservations({"mac": MAC, "address": "10.0.0.1"}),
    {"forwards": [{"port": 80, "to": "web"}]},
    {"forwards": [{"listen": "nowhere:80", "to": "web:80"}]},
    {"forwards": [{"port": 80, "to": "a:80"}, {"port": 80, "to": "b:80"}]},
    reservations({"mac": MAC, "name": "a"}, {"mac": MAC, "name": "b"}),
    reservations({"mac": MAC, "name": "a"}, {"interface_id": ID, "name": "A"}),
]


@pytest.fixture
def check(bin_dir, tmp_path):
    """check(text of networks.json, **other files): exit status, and the lines of stdout."""

    def run(text, user=None, **files):
        (tmp_path / "networks.json").write_text(text if isinstance(text, str) else json.dumps(text))
        (tmp_path / "networks.d").mkdir(exist_ok=True)
        for name, content in files.items():
            (tmp_path / f"networks.d/{name}.json").write_text(content)
        command = [*(user.prefix() if user else ()), str(bin_dir / "vmnet-broker"), "--check-config"]
        result = subprocess.run(
            [*command, "--config", str(tmp_path)], capture_output=True, text=True, timeout=20, check=False
        )
        assert "Sanitizer" not in result.stderr
        return result.returncode, result.stdout.splitlines()

    return run


def network_of(members):
    return {"mode": "shared", **members} if isinstance(members, dict) else members


def schema_accepts(networks):
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(networks)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("members", GOOD, ids=str)
def test_good_networks(check, members):
    networks = {"x": network_of(members)}
    assert check(networks) == (0, ["ok"])
    assert schema_accepts(networks)


@pytest.mark.parametrize("members", BAD, ids=str)
def test_bad_networks(check, members):
    networks = {"x": network_of(members), "fine": {"mode": "host"}}
    status, lines = check(networks)
    assert status == 1 and lines
    assert all(line.startswith("networks.json: x") for line in lines), lines
    assert not schema_accepts(networks)


@pytest.mark.parametrize("members", BEYOND_THE_SCHEMA, ids=str)
def test_what_a_schema_cannot_say(check, members):
    networks = {"x": network_of(members)}
    status, lines = check(networks)
    assert status == 1 and len(lines) == 1 and lines[0].startswith("networks.json: x")
    assert schema_accepts(networks)


@pytest.mark.parametrize(
    ("networks", "good"),
    [
        ({}, True),
        ({"shared": {}, "host": {"mode": "host"}}, True),
        ({"a.B-1_" + "x" * 26: {"mode": "host"}}, True),
        ({"x": {}}, False),
        ({"shared": {"mode": "host"}}, False),
        ({"host": {"mode": "shared"}}, False),
        ({"host": {"uplink": "eth0"}}, False),
        ({"../x": {"mode": "host"}}, False),
        ({"": {"mode": "host"}}, False),
        ({"x" * 33: {"mode": "host"}}, False),
        ([], False),
        ("x", False),
    ],
    ids=str,
)
def test_whole_files(check, networks, good):
    assert check(json.dumps(networks))[0] == (0 if good else 1)
    assert schema_accepts(networks) == good


def test_the_schema_has_every_key(check):
    _, (line,) = check({"x": {"mode": "host", "colour": "red"}})
    keys = line.partition("unknown key; one of ")[2].split(", ")
    assert set(keys) == set(SCHEMA["$defs"]["network"]["properties"])


@pytest.mark.parametrize("file", ["networks.json", "networks-full.json"])
def test_the_examples_are_good(check, file):
    text = (ROOT / "examples" / file).read_text()
    assert check(text) == (0, ["ok"])
    assert schema_accepts(json.loads(text))


def test_every_mistake_of_every_file_is_told(check):
    status, lines = check(
        '{"a": {"mode": "shard", "mtu": 1, "mtu": 2}, "b": {"mode": "host", "colour": 1, "dhcp": 1},\n "no/name": {}}',
        broken='{"c": {"mode": "host"}\n  "d": 1}',
        more='{"a": {"mode": "host"}, "e": {"mode": "host", "dns": 7}}',
    )
    assert status == 1
    expected = [
        "networks.d/broken.json:2:",
        'networks.json: "no/name": no name for a network',
        'networks.json: a.mode: "shard": one of shared, host, bridged',
        "networks.json: a.mtu: 1: a number of bytes from 1280 to 65520",
        "networks.json: a.mtu: given twice",
        "networks.json: a: given twice, the second time in networks.d/more.json",
        "networks.json: b.colour: unknown key",
        "networks.json: b.dhcp: 1: true or false",
        "networks.d/more.json: e.dns: 7: true or false",
    ]
    assert len(lines) == len(expected)
    for text in expected:
        assert any(line.startswith(text) for line in lines), (text, lines)


def test_it_needs_no_privilege(check, tmp_path):
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    assert check({"x": {"mode": "host"}}, user=User(4242)) == (0, ["ok"])
    (tmp_path / "networks.json").chmod(0o600)
    status, lines = check({"x": {"mode": "host"}}, user=User(4242))
    assert (status, lines) == (1, ["networks.json: could not be read: Permission denied"])


def test_unknown_users_are_no_mistake(check):
    assert check({"x": {"mode": "host", "allow": {"users": ["no-such-user"]}}}) == (0, ["ok"])


def test_a_terminal_is_not_commanded(check):
    _, lines = check({"x": {"mode": "host", "\x1b[2J": 1}})
    assert lines[0].startswith("networks.json: x.?[2J: unknown key")
