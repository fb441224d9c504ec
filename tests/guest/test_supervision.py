"""Ends of real VMs: whoever is killed, the rest of that VM goes too and nothing is left."""

from __future__ import annotations

import os
import signal

import pytest

from lib.lab import wait_for
from lib.vm import wait_gone

VARIANTS = [
    ("native", False),
    ("socket", False),
    ("stream", False),
    ("vhost-user", False),
    ("native", True),
    ("socket", True),
    ("vhost-user", True),
]


def start(make_broker, make_vm, attach, shell=False):
    broker = make_broker(idle_timeout_s=1)
    vm = make_vm(broker, "victim", attach, shell=shell)
    vm.guest.wait_ready()
    assert vm.guest.address() == vm.address
    return vm


@pytest.fixture(params=VARIANTS, ids=lambda value: value[0] + (" under a shell" if value[1] else ""))
def vm(request, make_broker, make_vm):
    return start(make_broker, make_vm, *request.param)


def assert_nothing_left(vm):
    wait_gone(vm)
    wait_for(lambda: not vm.broker.links(), 10, "removal of TAP and network")
    wait_for(lambda: vm.broker.leftovers().files == ["lock", "socket"], 3, "removal of the records")
    assert not vm.broker.tables()
    assert not list(vm.runtime_dir.iterdir())


def test_vm_is_killed(vm):
    os.kill(vm.pids()["qemu"], signal.SIGKILL)
    # A shell's own "wait" reports the end of its jobs with 0.
    assert vm.process.wait(10) == (0 if vm.shell else 137)
    assert_nothing_left(vm)


def test_vm_powers_off(vm):
    vm.guest.power_off()
    assert vm.process.wait(10) == 0
    assert_nothing_left(vm)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_client_gets_a_signal(vm, number):
    vm.process.send_signal(number)
    status = vm.process.wait(15)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    assert_nothing_left(vm)


@pytest.mark.parametrize(
    ("attach", "shell"), [("socket", False), ("socket", True), ("stream", False), ("vhost-user", False)]
)
def test_helper_is_killed(make_broker, make_vm, attach, shell):
    vm = start(make_broker, make_vm, attach, shell)
    os.kill(vm.pids()["helper"], signal.SIGKILL)
    assert vm.process.wait(15) == 1
    assert_nothing_left(vm)


def test_helper_on_a_path_ends_with_its_vm(make_broker, make_vm):
    broker = make_broker(idle_timeout_s=1)
    vm = make_vm(broker, "victim", path=True)
    vm.guest.wait_ready()
    assert vm.guest.address() == vm.address
    vm.process.kill()
    assert vm.helper.wait(10) == 0
    assert not (vm.directory / "net").exists() and not (vm.directory / "net.lock").exists()
    assert_nothing_left(vm)
