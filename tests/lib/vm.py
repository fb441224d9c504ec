"""A real VM under vmnet-client, as an ordinary user starts it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import guestkit, qemukit
from .broker import Broker
from .lab import all_pids, children_of, command_line, is_running, process_name, read_proc, wait_for

ATTACH = {
    "socket": ("--attach", "socket"),
    "stream": ("--attach", "stream"),
    "vhost-user": ("--attach", "vhost-user"),
    "native": ("--attach", "native"),
    "native with 2 queues": ("--attach", "native", "--queues", "2"),
    "tap": ("--attach", "tap"),
    "of QEMU's own": (),
}

# What --qemu would write, for a shell.
BY_HAND = {
    "socket": "-netdev dgram,id=n0,local.type=fd,local.str=4",
    "stream": "-netdev stream,id=n0,server=off,addr.type=fd,addr.str=4",
    "vhost-user": "-object memory-backend-memfd,id=m0,size=256M,share=on -machine memory-backend=m0 "
    "-chardev socket,id=c0,path=$VMNET_VHOST_USER_SOCKET -netdev vhost-user,id=n0,chardev=c0",
    "native": "-netdev tap,id=n0,fd=4",
    "tap": "-netdev tap,id=n0,ifname=$VMNET_INTERFACE_NAME,script=no,downscript=no",
}


class VM:
    """vmnet-client --qemu -- qemu ...; line is the JSON line it passed on.

    shell: the command is `sh -c 'qemu ... & wait'`, so that QEMU is a grandchild (its options are given by hand then).
    path: vmnet-helper --socket PATH and QEMU are started side by side, without vmnet-client.
    options: more of them for vmnet-client. dhcp: whether the guest asks for an address.
    """

    def __init__(
        self,
        broker: Broker,
        bin_dir: Path,
        kit: guestkit.Kit,
        name: str,
        attach: str = "native",
        *,
        network: str = "shared",
        shell: bool = False,
        path: bool = False,
        options: Sequence[str] = (),
        emulator: qemukit.Emulator = qemukit.INSTALLED,
        dhcp: bool = True,
    ) -> None:
        self.name = name
        self.attach = attach
        self.shell = shell
        self.broker = broker
        self.directory = broker.lab.public_directory(f"vm-{name}", broker.member)
        self.log_path = self.directory / "client.log"
        self.console = self.directory / "console"
        self.runtime_dir = self.directory / "xdg"
        self.runtime_dir.mkdir(mode=0o700)
        os.chown(self.runtime_dir, broker.member.uid, broker.member.gid)
        self.environment = {"XDG_RUNTIME_DIR": str(self.runtime_dir), **broker.client_environment}
        self._bin_dir = bin_dir
        qemu = guestkit.qemu_command(kit, name, self.console, hostname=name, dhcp=dhcp, emulator=emulator.command)
        if path:
            self.process, self.line = self._start_on_path(qemu, network)
        else:
            command = self._shell_command(qemu) if shell else qemu
            network_options = ["--network", network, "--hostname", name]
            attach_options = [*ATTACH[attach], *([] if shell else ["--qemu"])]
            self.process = self._popen(
                [bin_dir / "vmnet-client", *network_options, *attach_options, *options, "--", *command]
            )
            self.line = self._read_line(self.process)
        self.guest = guestkit.Guest(self.console, self.process)

    def _popen(self, argv: Sequence[Any]) -> subprocess.Popen[str]:
        with open(self.log_path, "a") as log:
            return self.broker.namespace.popen(
                argv, user=self.broker.member, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def _read_line(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        text = process.stdout.readline()
        assert text.endswith("\n"), f"{self.name}: no JSON line:\n{self.log()}"
        return json.loads(text)

    def _shell_command(self, qemu: list[str]) -> list[str]:
        device = "-device virtio-net-pci,netdev=n0,mac=$VMNET_MAC_ADDRESS"
        return ["sh", "-c", f"{shlex.join(qemu)} {BY_HAND[self.attach]} {device} & wait"]

    def _start_on_path(self, qemu: list[str], network: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        path, own = self.directory / "net", self.directory / "net-vm"
        self.helper = self._popen(
            [self._bin_dir / "vmnet-helper", "--socket", path, "--network", network, "--hostname", self.name]
        )
        line = self._read_line(self.helper)
        net = f"dgram,id=n0,local.type=unix,local.path={own},remote.type=unix,remote.path={path}"
        device = f"virtio-net-pci,netdev=n0,mac={line['vmnet_mac_address']}"
        return self._popen([*qemu, "-netdev", net, "-device", device]), line

    @property
    def mac(self) -> str:
        return self.line["vmnet_mac_address"]

    @property
    def address(self) -> str:
        """The address that was reserved."""
        return self.line["vmnet_ipv4_address"]

    @property
    def interface(self) -> str:
        return self.line["vmnet_interface_name"]

    def log(self) -> str:
        return self.log_path.read_text() + self.guest.log()

    def pids(self) -> dict[str, int]:
        """Its processes by name: client, helper (not of native), qemu."""
        names = {"vmnet-client": "client", "vmnet-helper": "helper"}
        found = {}
        for pid in self.broker.namespace.pids():
            if is_running(pid) and self._is_ours(pid):
                name = process_name(pid)
                found.setdefault(names.get(name, "qemu" if name.startswith("qemu") else name), pid)
        return found

    def command_line(self, name: str) -> list[str]:
        """Of its process of that name, as in pids()."""
        return command_line(self.pids()[name])

    def _is_ours(self, pid: int) -> bool:
        return any(str(self.directory) in word for word in command_line(pid)) or pid in self._family()

    def _family(self) -> set[int]:
        family, new = set(), {self.process.pid}
        while new:
            family |= new
            new = {child for pid in new for child in children_of(pid)} - family
        return family

    def kill(self) -> None:
        """For the end of a test: the client first, so that nothing is left to supervise."""
        self.guest.close()
        for process in (self.process, getattr(self, "helper", None)):
            if process and process.poll() is None:
                process.kill()
                process.wait(5)


def leftover_processes(vm: VM) -> list[str]:
    """Command lines that still name the VM's directory."""
    return [
        " ".join(command_line(pid))
        for pid in all_pids()
        if is_running(pid) and any(str(vm.directory) in word for word in command_line(pid)) and pid != os.getpid()
    ]


def wait_gone(vm: VM, deadline_s: float = 10) -> None:
    wait_for(lambda: not leftover_processes(vm), deadline_s, f"end of everything of VM {vm.name}")


def capabilities(pid: int) -> int:
    for line in read_proc(pid, "status").decode().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise AssertionError(f"process {pid} is gone")
