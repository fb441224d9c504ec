"""A machine to try the documentation on, as its reader has one: a lab's host with /etc, /home, /opt, /run and /var of its own.

The programs are in PATH, the broker is where it usually is, alice is in the group vmnet and bob is not, and qemu-system-x86_64
boots the tests' guest, whatever disk it is given. Commands are run by a shell, word for word.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

from . import guestkit
from .lab import WORLD_ADDRESS, Lab, wait_for

ROOT = Path(__file__).resolve().parents[2]
USERS = ("alice", "bob")
TOOLS = "/opt/desk"
SOCKET = "/run/vmnet-broker/socket"
SETUP = """set -e
desk=$1
mount -t tmpfs -o mode=755 none "$desk"
for tree in etc home opt var; do
    mkdir "$desk/$tree" "$desk/$tree.work"
    mount -t overlay -o "lowerdir=/$tree,upperdir=$desk/$tree,workdir=$desk/$tree.work" none "/$tree"
done
mount -t tmpfs -o mode=755 none /run
groupadd --system vmnet
useradd --system --no-create-home vmnet-broker
useradd --create-home --shell /bin/bash --groups vmnet alice
useradd --create-home --shell /bin/bash bob
mkdir -p /etc/vmnet-broker /opt/desk /run/user
for user in alice bob; do install -d -m 700 -o "$user" "/run/user/$(id -u "$user")"; done
printf 'nameserver %s\\n' "$2" >/etc/resolv.conf
mount -o remount,bind,ro / # whatever is run here, the machine itself stays as it is
echo ready
exec sleep infinity
"""
QEMU = """#!/bin/sh
exec {command} "$@"
"""


class Desk:
    """Ready when the constructor returns. networks is the content of networks.json."""

    def __init__(self, bin_dir: Path, release_dir: Path, kit: guestkit.Kit, networks: Any) -> None:
        self.lab = Lab()
        self.host = self.lab.host
        self.broker: subprocess.Popen[Any] | None = None
        try:
            self.lab.veth(self.lab.internet, "lan0", self.host, "eth0")
            self._keeper = self._start_keeper()
            self._furnish(bin_dir, release_dir, kit, networks)
            self._start_broker()
        except BaseException:
            self.lab.close()
            raise

    def _start_keeper(self) -> subprocess.Popen[str]:
        """The process whose mounts these are."""
        place = self.lab.public_directory("desk")
        keeper = self.host.popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh", place, WORLD_ADDRESS],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said = []
        for line in keeper.stdout:
            if line == "ready\n":
                return keeper
            said.append(line)
        raise RuntimeError(f"the desk could not be set up: {''.join(said)}")

    def path(self, path: str) -> Path:
        """A file of it, as root sees it from here."""
        return Path(f"/proc/{self._keeper.pid}/root{path}")

    def _furnish(self, bin_dir: Path, release_dir: Path, kit: guestkit.Kit, networks: Any) -> None:
        for program in bin_dir.iterdir():
            self.path(f"{TOOLS}/{program.name}").symlink_to(program.resolve())
        self.path(f"{TOOLS}/vmnet-run").symlink_to(bin_dir / "vmnet-client")
        command = guestkit.qemu_command(kit, "guest", "CONSOLE")
        words = " ".join(shlex.quote(word).replace("CONSOLE", '"$HOME/console-$$"') for word in command[1:])
        wrapper = self.path(f"{TOOLS}/qemu-system-x86_64")
        wrapper.write_text(QEMU.format(command=f"/usr/bin/{command[0]} {words}"))
        wrapper.chmod(0o755)
        for user in USERS:
            home = self.path(f"/home/{user}")
            for name in ("disk.img", "web.img"):
                (home / name).touch()
                (home / name).chmod(0o666)
            shutil.copy(ROOT / "examples/client.c", home)
        self.path("/etc/vmnet-broker/networks.json").write_text(json.dumps(networks))
        tree = self._install(release_dir)
        self.environment = {
            "LC_ALL": "C.UTF-8",
            "PATH": f"{TOOLS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PKG_CONFIG_PATH": f"{tree}/usr/local/lib/pkgconfig",
            "PKG_CONFIG_SYSROOT_DIR": str(tree),
        }

    def _install(self, release_dir: Path) -> Path:
        """The library, as it is installed; what is linked with sanitizers would not do for a program without."""
        tree = self.lab.public_directory("tree")
        command = ["meson", "install", "-C", release_dir, "--no-rebuild", "--quiet", "--destdir", tree]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return tree

    def command(self, text: str, user: str | None) -> list[str]:
        """The words that run a shell's command line there, as user or as root."""
        home = f"/home/{user}" if user else str(ROOT)
        enter = ["nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt", f"--net={self.host.path}", f"--wdns={home}"]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--inh-caps=-all", "--bounding-set=-all"] if user else []
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        if user:
            variables += [f"HOME={home}", f"TMPDIR={home}", "XDG_RUNTIME_DIR=/run/user/$(id -u)"]
        shell = "".join(f"export {variable}\n" for variable in variables) + text
        return [*enter, "--", *become, "bash", "-ec", shell]

    def popen(self, line: str, user: str | None = None, **options: Any) -> subprocess.Popen[Any]:
        environment = {"VMNET_TEST_LAB": self.lab.name}
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
        process = subprocess.Popen(self.command(line, user), env=environment, **options)
        self.lab.processes.append(process)
        return process

    def _start_broker(self) -> None:
        self.log_path = self.lab.directory / "broker.log"
        with open(self.log_path, "w") as log:
            self.broker = self.popen("exec vmnet-broker -v --idle-timeout 1", stdout=log, stderr=log)

        def is_up() -> bool:
            if self.broker.poll() is not None:
                raise RuntimeError(f"vmnet-broker ended:\n{self.log_path.read_text()}")
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.path(SOCKET)))
                return True
            return False

        wait_for(is_up, 20, "the broker takes connections")

    def consoles(self) -> list[Path]:
        """Of guests that were started, the newest last."""
        made = {}
        for path in self.path("/home").glob("*/console-*"):
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                status = path.stat()
                if stat.S_ISSOCK(status.st_mode):
                    made[path] = status.st_mtime
        return sorted(made, key=made.__getitem__)

    def close(self) -> None:
        """Can be called again."""
        if self.broker and self.broker.poll() is None:
            self.broker.terminate()
            self.broker.wait(20)
        self.lab.close()
