"""vmnetctl: what it says, to people and to programs."""

from __future__ import annotations

import json
import os

import pytest

from lib.broker import MEMBER
from lib.lab import User

OTHER = User(4244, 4244, (100,))


@pytest.fixture
def ctl(broker, bin_dir):
    """ctl(*arguments): vmnetctl to its end, as MEMBER unless said otherwise."""

    def run(*arguments, user=MEMBER, env=None):
        return broker.namespace.run(
            [bin_dir / "vmnetctl", *arguments],
            user=user, env={"VMNET_BROKER_SOCKET": str(broker.socket_path), **(env or {})}, check=False, timeout=20,
        )

    return run


def table(result):
    assert result.returncode == 0, result.stderr
    titles, *lines = result.stdout.splitlines()
    return [dict(zip(titles.split(), line.split(), strict=True)) for line in lines]


def test_networks(ctl, broker):
    rows = {row["NETWORK"]: row for row in table(ctl("networks"))}
    assert rows.keys() == {"host", "shared"}
    assert rows["shared"]["RUNNING"] == "no" and rows["shared"]["BRIDGE"] == "-"
    with broker.connect(MEMBER) as peer:
        network = peer.call("AcquireNetwork", network="shared")[0]["network"]
        row = next(row for row in table(ctl("networks")) if row["NETWORK"] == "shared")
        assert row["RUNNING"] == "yes" and row["BRIDGE"] == network["bridge"]
        assert row["SUBNET"] == network["subnet"] and row["GATEWAY"] == network["gateway"] and row["IPV6"] == network["ipv6Prefix"] and row["MTU"] == "1500"
        result = ctl("networks", "--json")
        assert result.returncode == 0, result.stderr
        assert network in json.loads(result.stdout)["networks"]


def test_interfaces_of_a_user_and_of_all(ctl, broker):
    with broker.connect(MEMBER) as peer:
        made, fds = peer.call("CreateInterface", network="shared", hostname="web", queues=2)
        try:
            (row,) = table(ctl("interfaces"))
            assert row == {
                "NETWORK": "shared", "INTERFACE": made["interfaceName"], "MAC": made["mac"], "ADDRESS": made["address"],
                "HOSTNAME": "web", "USER": str(MEMBER.uid), "QUEUES": "2",
            }
            (told,) = json.loads(ctl("--json", "interfaces").stdout)["interfaces"]
            assert told["interfaceId"] == made["interfaceId"] and told["uid"] == MEMBER.uid and told["queues"] == 2
            assert table(ctl("interfaces", user=OTHER)) == [], "what others have is nobody's business"
            assert table(ctl("interfaces", user=None)) == [row], "root sees all"
        finally:
            for fd in fds:
                os.close(fd)


def test_more_interfaces_than_one_answer_has(ctl, broker):
    fds = []
    try:
        with broker.connect() as peer:
            names = []
            for _ in range(130):
                made, received = peer.call("CreateInterface", network="shared")
                fds += received
                names.append(made["interfaceName"])
            page, _ = peer.call("ListInterfaces")
            assert len(page["interfaces"]) == 128 and page["more"]
            rest, _ = peer.call("ListInterfaces", after=page["interfaces"][-1]["interfaceName"])
            assert len(rest["interfaces"]) == 2 and not rest["more"]
        told = [row["INTERFACE"] for row in table(ctl("interfaces", user=None))]
        assert told == sorted(names)
    finally:
        for fd in fds:
            os.close(fd)


def test_a_record_that_was_lost(ctl, broker):
    with broker.connect(MEMBER) as peer:
        made, fds = peer.call("CreateInterface", network="shared")
    try:
        broker.kill()
        for record in (broker.runtime_dir / "interfaces").iterdir():
            record.unlink()
        broker.start()
        (row,) = table(ctl("interfaces", user=None))
        assert row["INTERFACE"] == made["interfaceName"] and row["MAC"] == row["ADDRESS"] == row["USER"] == "-"
        assert table(ctl("interfaces")) == []
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "no command given; --help lists them"),
        (("netwroks",), 'unknown command "netwroks"; did you mean networks?'),
        (("inter",), 'unknown command "inter"; did you mean interfaces?'),
        (("xyzzy",), 'unknown command "xyzzy"; --help lists them'),
        (("x" * 200,), "unknown command"),
        (("networks", "now"), 'networks: one argument too many, "now"; usage: vmnetctl networks'),
        (("networks", "--jsno"), "networks: unknown option --jsno"),
        (("--jsno", "networks"), "unknown option --jsno"),
        (("networks", "--socket", "/nowhere/socket"), "no vmnet-broker answers (/nowhere/socket: No such file"),
        (("networks", "--socket"), "option --socket needs an argument: PATH"),
    ],
)
def test_what_it_cannot_do(ctl, arguments, said):
    result = ctl(*arguments)
    assert result.returncode == 1 and result.stdout == ""
    assert said in result.stderr and result.stderr.startswith("ERROR [vmnetctl] ")
    assert len(result.stderr.splitlines()) == 1


def test_socket_by_option_and_by_environment(ctl, broker):
    elsewhere = {"VMNET_BROKER_SOCKET": "/nowhere/socket"}
    assert ctl("networks", env=elsewhere).returncode == 1
    for arguments in (("--socket", broker.socket_path, "networks"), ("networks", "--socket", broker.socket_path)):
        assert {row["NETWORK"] for row in table(ctl(*arguments, env=elsewhere))} == {"host", "shared"}


def test_a_stranger(ctl):
    result = ctl("networks", user=User(4343, 4343))
    assert result.returncode == 1 and "usermod --append --groups vmnet" in result.stderr


def test_help_and_version(ctl):
    result = ctl("--help")
    assert result.returncode == 0 and result.stderr == ""
    for word in ("usage: vmnetctl", "--json", "--socket", "networks", "interfaces"):
        assert word in result.stdout
    for arguments in (("networks", "--help"), ("--help", "networks")):
        assert "usage: vmnetctl networks" in ctl(*arguments).stdout
    for arguments in (("--version",), ("networks", "--version")):
        lines = ctl(*arguments).stdout.splitlines()
        assert [line.split(": ")[0] for line in lines] == ["version", "commit"]


def test_a_full_disk_is_told(ctl, broker, bin_dir):
    for arguments in ("networks", "networks --json"):
        result = broker.namespace.run(
            ["sh", "-c", f"{bin_dir}/vmnetctl {arguments} >/dev/full"],
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path)}, check=False,
        )
        assert result.returncode == 1 and "No space left on device" in result.stderr
