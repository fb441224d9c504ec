"""VMs of one test."""

from __future__ import annotations

import pytest

from lib.vm import VM


@pytest.fixture
def make_vm(bin_dir, guest_kit, show_on_failure):
    """make_vm(broker, name, attach): a VM that is starting; killed at the end."""
    vms = []

    def make(broker, name, attach="native", **options):
        vm = VM(broker, bin_dir, guest_kit, name, attach, **options)
        vms.append(vm)
        show_on_failure(f"VM {name}", vm.log)
        return vm

    yield make
    for vm in vms:
        vm.kill()
