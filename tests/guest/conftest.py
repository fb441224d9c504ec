"""VMs of one test."""

from __future__ import annotations

import pytest

from lib import qemukit
from lib.vm import VM


@pytest.fixture(scope="session")
def new_qemu(public_directory):
    """A QEMU that vhost-user works with; fetched on first use."""
    return qemukit.reachable(qemukit.build(), public_directory)


@pytest.fixture
def make_vm(request, bin_dir, guest_kit, show_on_failure):
    """make_vm(broker, name, attach): a VM that is starting, under a QEMU that can; killed at the end."""
    vms = []

    def make(broker, name, attach="native", **options):
        if attach == "vhost-user":
            options.setdefault("emulator", request.getfixturevalue("new_qemu"))
        vm = VM(broker, bin_dir, guest_kit, name, attach, **options)
        vms.append(vm)
        show_on_failure(f"VM {name}", vm.log)
        return vm

    yield make
    for vm in vms:
        vm.kill()
