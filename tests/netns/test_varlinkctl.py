"""The broker as systemd's varlinkctl sees it: another implementation of the protocol, with a parser of its own."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lib import varlinkctl
from lib.broker import MEMBER

IDL = Path(__file__).resolve().parents[2] / "src/wire/org.vmnet.Broker.varlink"
NAMES = re.compile(r"^(?:method|error|type) (\w+)", re.M)


@pytest.fixture(scope="module")
def program(public_directory):
    """Its first words; ordinary users can reach it."""
    copy = public_directory / "varlinkctl"
    shutil.copytree(varlinkctl.build(), copy)
    return varlinkctl.command(copy)


@pytest.fixture
def run(broker, program):
    """run(COMMAND, *words): as a member, at the broker's socket."""

    def run(command, *words, check=True):
        return broker.namespace.run([*program, command, broker.socket_path, *words], user=MEMBER, check=check)

    return run


def call(run, method, parameters=None):
    return json.loads(run("call", f"org.vmnet.Broker.{method}", json.dumps(parameters or {})).stdout)


def test_interface_is_parsed(program, lab):
    """A comment that lacks its # once went unseen: our own server takes the file as text."""
    result = lab.host.run([*program, "validate-idl", IDL], check=False)
    assert result.returncode == 0, result.stderr
    broken = lab.directory / "broken.varlink"
    broken.write_text(IDL.read_text().replace("# said as in AcquireNetwork.", "said as in AcquireNetwork."))
    assert broken.read_text() != IDL.read_text()
    assert lab.host.run([*program, "validate-idl", broken], check=False).returncode != 0


def test_info(run):
    told = run("info").stdout
    assert "vmnet" in told and "org.vmnet.Broker" in told and "org.varlink.service" in told
    assert run("list-interfaces").stdout.split() == ["org.varlink.service", "org.vmnet.Broker"]


def test_introspection(run):
    told = run("introspect", "org.vmnet.Broker").stdout
    assert set(NAMES.findall(IDL.read_text())) == set(NAMES.findall(told))
    methods = set(re.findall(r"^method (\w+)", IDL.read_text(), re.M))
    assert {name.rpartition(".")[2] for name in run("list-methods", "org.vmnet.Broker").stdout.split()} == methods


def test_calls(run):
    network = call(run, "AcquireNetwork", {"network": "shared"})["network"]
    assert network["name"] == "shared" and network["running"]
    listed = {one["name"]: one for one in call(run, "ListNetworks")["networks"]}
    assert listed["shared"]["bridge"] == network["bridge"] and not listed["host"]["running"]
    assert call(run, "ListInterfaces") == {"interfaces": [], "more": False}
    interface = call(run, "CreateInterface", {"network": "shared", "named": True, "hostname": "web"})
    assert interface["queues"] == [] and interface["heldByConnection"]


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("org.vmnet.Broker.AcquireNetwork", {"network": "blue"}, "org.vmnet.Broker.NotFound"),
        ("org.vmnet.Broker.CreateInterface", {"netwrk": "shared"}, "org.vmnet.Broker.InvalidRequest"),
        ("org.vmnet.Broker.Nothing", {}, "org.varlink.service.MethodNotFound"),
    ],
)
def test_errors(run, method, parameters, error):
    result = run("call", method, json.dumps(parameters), check=False)
    assert result.returncode != 0 and error in result.stdout + result.stderr
