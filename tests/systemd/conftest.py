"""Machines that systemd runs, with the broker installed as a package would.

    VMNET_PACKAGE_BUILD=build/package VMNET_UPGRADE_BUILD=build/upgrade pytest tests/systemd
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib import rootfs
from lib.lab import wait_for
from lib.machine import FRONT, PRIV, Machine
from lib.tap_vm import TapVm

# Idle soon, so that each test can see what is left at the end.
SHORT_IDLE = """[Service]
ExecStart=
ExecStart=/usr/libexec/vmnet-broker --role=front-unit --exit-when-idle --idle-timeout=1
"""


def _build(variable: str) -> Path:
    setting = os.environ.get(variable)
    if not setting or not (Path(setting) / "build.ninja").exists():
        pytest.fail(f"{variable}={setting}: no build there; scripts/test systemd makes it", pytrace=False)
    return Path(setting).resolve()


@pytest.fixture(scope="session")
def package_build() -> Path:
    return _build("VMNET_PACKAGE_BUILD")


@pytest.fixture(scope="session")
def upgrade_build() -> Path:
    """The same with another version."""
    return _build("VMNET_UPGRADE_BUILD")


@pytest.fixture(scope="session")
def booted(package_build: Path) -> Iterator[Machine]:
    """alice may use the broker, mallory may not; the socket listens."""
    with Machine(rootfs.build()) as machine:
        machine.install(package_build)
        machine.alice = machine.add_user("alice", "vmnet")
        machine.mallory = machine.add_user("mallory")
        machine.drop_in(FRONT, SHORT_IDLE)
        machine.run(["systemctl", "enable", "--now", "vmnet-broker.socket"])
        yield machine


def leftovers(machine: Machine) -> list[str]:
    """What a broker makes and what is still there."""
    links = json.loads(machine.run(["ip", "-json", "link"]).stdout)
    tables = machine.run(["nft", "list", "tables"]).stdout.split()
    names = [link["ifname"] for link in links] + tables
    records = [f"/run/vmnet-broker/{name}" for name in ("networks", "interfaces", "forwards")]
    files = machine.run(["find", *records, "-type", "f"])
    return [name for name in names if name.startswith("vm")] + files.stdout.split() + machine.dnsmasq_pids()


@pytest.fixture
def machine(
    booted: Machine, show_on_failure: Callable[[str, Callable[[], str]], None]
) -> Iterator[Machine]:
    """At the end of each test the broker ends by itself and nothing is left."""
    show_on_failure("journal", booted.log)
    yield booted
    for unit in (FRONT, PRIV):
        wait_for(lambda unit=unit: booted.show(unit, "ActiveState") == "inactive", 20, f"{unit} ended, idle")
    assert not leftovers(booted)


@pytest.fixture
def vm(machine: Machine) -> Iterator[TapVm]:
    """A VM of alice's, which answers."""
    with machine.connect(machine.alice) as peer:
        vm = TapVm(peer, hostname="web")
    with contextlib.closing(vm):
        assert wait_for(vm.lease, 10, "DHCP answers") == vm.address
        vm.start()
        yield vm
