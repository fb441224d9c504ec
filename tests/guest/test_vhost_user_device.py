"""The vhost-user device alone with a real guest's driver: what a reset and the device's own death do to the rings."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from lib import guestkit
from lib.lab import wait_for

TAP = "tap0"
HOST, GUEST = "192.0.2.1", "192.0.2.2"
PAIRS = 2  # one more than a guest with one processor uses


class Machine:
    """A device at a path and QEMU, which connects to it again and again."""

    def __init__(self, lab, program, kit, emulator):
        self.namespace = lab.namespace("machine")
        self.directory = lab.directory
        self.program = program
        self.log_path = self.directory / "device.log"
        self.start_device()
        console, self.monitor_path = self.directory / "console", self.directory / "monitor"
        command = guestkit.qemu_command(
            kit, "alpha", console, dhcp=False, emulator=emulator.command,
            extra=[
                "-object", "memory-backend-memfd,id=m0,size=256M,share=on", "-machine", "memory-backend=m0",
                "-chardev", f"socket,id=c0,path={self.directory / 'vu'},reconnect-ms=100",
                "-netdev", f"vhost-user,id=n0,chardev=c0,queues={PAIRS}",
                "-device", f"virtio-net-pci,netdev=n0,mq=on,vectors={2 * PAIRS + 2}",
                "-qmp", f"unix:{self.monitor_path},server=on,wait=off",
                "-action", "reboot=reset",
            ],
        )  # fmt: skip
        self.qemu = self.namespace.popen(command)
        self.guest = guestkit.Guest(console, self.qemu)

    def start_device(self):
        with open(self.log_path, "a") as log:
            command = [self.program, self.directory / "vu", TAP, str(PAIRS)]
            self.device = self.namespace.popen(command, stdout=log, stderr=log)
        wait_for(lambda: self.namespace.run(["ip", "link", "show", TAP], check=False).returncode == 0, 10, "the TAP")
        self.namespace.ip("address", "add", f"{HOST}/24", "dev", TAP)
        self.namespace.ip("link", "set", TAP, "up")

    def reset(self):
        """As by its button; returns when it has happened."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self.monitor_path))
            with monitor.makefile("rw") as stream:
                for command in ("qmp_capabilities", "system_reset"):
                    stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                while json.loads(stream.readline()).get("event") != "RESET":
                    pass

    def set_up_guest(self):
        self.guest.wait_ready()
        self.guest.check(f"ip address add {GUEST}/24 dev eth0; ip link set eth0 up")

    def reaches(self):
        """By a flow of its own, which the guest refuses."""
        with self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(3)
            try:
                connection.connect((GUEST, 9))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        raise AssertionError("somebody listens")

    def check_network(self):
        wait_for(self.reaches, 30, "the guest")
        assert [self.reaches() for _ in range(20)] == [True] * 20

    def stop(self):
        for process in (self.qemu, self.device):
            process.terminate()
            process.wait(10)


@pytest.fixture
def machine(lab, guest_kit, new_qemu, show_on_failure):
    program = next(path for path in Path(os.environ["VMNET_BIN"]).rglob("vhost-user-cable") if path.is_file())
    machine = Machine(lab, program, guest_kit, new_qemu)
    show_on_failure("device", machine.log_path.read_text)
    show_on_failure("guest", machine.guest.log)
    yield machine
    machine.stop()


def test_reset(machine):
    """The guest's driver starts anew on rings that it has zeroed."""
    machine.set_up_guest()
    machine.check_network()
    machine.guest.check("touch /run/before")
    machine.reset()
    machine.set_up_guest()
    machine.guest.check("[ ! -e /run/before ]")
    machine.check_network()
    assert "broken" not in machine.log_path.read_text()


def test_device_killed(machine):
    """QEMU connects to the next one, and the guest's driver has noticed nothing."""
    machine.set_up_guest()
    machine.check_network()
    machine.device.kill()
    machine.device.wait(10)
    machine.start_device()
    machine.check_network()
    assert "broken" not in machine.log_path.read_text()
