"""An ordinary user who was given nothing, and the broker that is his own: no group, no sudo, no passwd entry.

He sees a /run and an /etc of his own, so that no broker of the machine and no resolver of it are met; his programs are
in the lab's host namespace, and his networks in one that they make themselves.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .broker import Varlink
from .lab import (
    MARK,
    Argument,
    CommandError,
    Lab,
    Namespace,
    User,
    all_pids,
    command_line,
    is_running,
    process_name,
    process_uid,
    read_proc,
    wait_for,
)

ETC_FILES = ("passwd", "group", "nsswitch.conf", "services", "protocols", "hosts", "ld.so.cache")
PATH = "/usr/local/bin:/usr/bin:/bin"
SO_NETNS_COOKIE = 71  # asm-generic/socket.h
STATE = ".local/state/vmnet-broker"
CONFIG = ".config/vmnet-broker"
# How each part shows in its command line; pasta and dnsmasq are known by their names.
ROLES = {
    "--role=front": "front",
    "--role=priv-rootless": "priv",
    "--role=forwarder": "forwarder",
    "--role=pause": "pause",
    "--rootless": "supervisor",  # of the front, too
}
PARTS = ("supervisor", "front", "priv", "pasta", "pause")  # of every broker, whatever it serves

_numbers = itertools.count()


def _fresh_uid() -> int:
    """Nobody else's: other runs of the tests may be on this machine at the same time."""
    return 1_000_000_000 + os.getpid() % 1_000_000 * 100 + next(_numbers) % 100


class InnerNamespace(Namespace):
    """The network namespace of a process; what runs in it is root of the machine."""

    def __init__(self, lab: Lab, pid: int) -> None:
        self.lab = lab
        self.name = f"{lab.name}-of-{pid}"
        self.path = f"/proc/{pid}/ns/net"

    def ip(self, *arguments: str) -> str:
        return self.run(["ip", *arguments]).stdout


class OrdinaryUser:
    """A user by number, in a mount namespace where /run and /etc are directories of the test's own.

    session: he has a XDG_RUNTIME_DIR, as systemd-logind makes it; else his files are below /tmp.
    """

    def __init__(self, lab: Lab, *, namespace: Namespace | None = None, session: bool = True) -> None:
        self.lab = lab
        self.namespace = namespace or lab.host
        self.user = User(_fresh_uid())
        self.directory = lab.public_directory(f"u{self.user.uid}")
        self.home = self.directory / "home"
        self.run_directory = self.directory / "run"
        self.etc = self.directory / "etc"
        for path in (self.home, self.run_directory, self.etc):
            path.mkdir()
            path.chmod(0o755)
        os.chown(self.home, self.user.uid, self.user.gid)
        for name in ETC_FILES:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(f"/etc/{name}", self.etc / name)
        self.environment = {"HOME": str(self.home), "PATH": PATH, MARK: lab.name}
        self.runtime_dir = Path(f"/tmp/vmnet-broker-{self.user.uid}")
        if session:
            inside = Path(f"/run/user/{self.user.uid}")
            outside = self.run_directory / inside.relative_to("/run")
            outside.mkdir(parents=True)
            outside.chmod(0o700)
            os.chown(outside, self.user.uid, self.user.gid)
            self.environment["XDG_RUNTIME_DIR"] = str(inside)
            self.runtime_dir = outside / "vmnet-broker"
        self._world = self._make_world()

    def _make_world(self) -> int:
        mounts = [(self.run_directory, "/run"), (self.etc, "/etc")]
        script = "".join(f"mount --bind {source} {target}\n" for source, target in mounts)
        holder = self.namespace.popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{script}echo ready\nexec sleep infinity"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout.readline() == "ready\n", "the user's mount namespace could not be made"
        return holder.pid

    def mount_over(self, path: str, source: Argument) -> None:
        """What he sees at path from now on."""
        enter = ["nsenter", f"--mount=/proc/{self._world}/ns/mnt", "--"]
        subprocess.run([*enter, "mount", "--bind", os.fspath(source), path], check=True)

    def without_program(self, path: str) -> None:
        """Puts a file that cannot be run over it."""
        empty = self.directory / "no-program"
        empty.touch(0o644)
        self.mount_over(path, empty)

    def write_resolv_conf(self, *servers: str) -> None:
        (self.etc / "resolv.conf").write_text("".join(f"nameserver {server}\n" for server in servers))

    def write_config(self, networks: Any, file: str = f"{CONFIG}/networks.json") -> None:
        path = self.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(networks if isinstance(networks, str) else json.dumps(networks, indent=2))

    def _command(
        self, argv: Sequence[Argument], env: Mapping[str, str] | None, launcher: Sequence[Argument] = ()
    ) -> list[Argument]:
        words = [f"{name}={value}" for name, value in {**self.environment, **(env or {})}.items()]
        enter = ["nsenter", f"--mount=/proc/{self._world}/ns/mnt", "--"]
        return [*enter, *launcher, *self.user.prefix(), "env", "-i", *words, *argv]

    def popen(
        self,
        argv: Sequence[Argument],
        user: User | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """As Namespace.popen(), as him and nobody else, with his environment and env."""
        assert user in (None, self.user)
        return self.namespace.popen(self._command(argv, env), **options)

    def run(
        self,
        argv: Sequence[Argument],
        env: Mapping[str, str] | None = None,
        launcher: Sequence[Argument] = (),
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """As Namespace.run(), as him, with his environment and env; launcher is run as root and becomes him."""
        return self.namespace.run(self._command(argv, env, launcher), **options)

    def pids(self) -> list[int]:
        """Every process of his."""
        return [pid for pid in all_pids() if process_uid(pid) == self.user.uid and is_running(pid)]

    def close(self) -> None:
        """Ends what is left of his and removes what lies outside of the lab."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.pids(), 10, f"end of the processes of user {self.user.uid}")
        shutil.rmtree(f"/tmp/vmnet-broker-{self.user.uid}", ignore_errors=True)


@dataclass(frozen=True)
class Leftovers:
    """What a rootless broker made and what is still there. False when nothing is."""

    processes: list[str]
    files: list[str]  # below the runtime directory
    namespaces: list[int]  # other network namespaces than the host's that a process of his is in

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


class RootlessBroker:
    """The broker of an ordinary user, started by him or by his first client. Where Broker is asked for, this will do."""

    def __init__(self, user: OrdinaryUser, bin_dir: Path) -> None:
        self.owner = user
        self.member = user.user
        self.lab = user.lab
        self.namespace = user  # where its clients run
        self.directory = user.directory
        self.runtime_dir = user.runtime_dir
        self.socket_path = user.runtime_dir / "socket"
        self.state_dir = user.home / STATE
        self.log_path = user.directory / "broker.log"
        self.bin_dir = bin_dir
        self.process: subprocess.Popen[Any] | None = None

    def start(self, *arguments: str, deadline_s: float = 15, wait: bool = True) -> None:
        """Starts it by hand, again too, and waits until its socket takes connections."""
        command = [self.bin_dir / "vmnet-broker", "--rootless", "-v", *arguments]
        with open(self.log_path, "a") as log:
            process = self.process = self.owner.popen(command, stdout=log, stderr=log)

        def serving() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"vmnet-broker ended with status {process.returncode}:\n{self.log()}")
            with contextlib.suppress(OSError), self.connect():
                return True
            return False

        if wait:
            wait_for(serving, deadline_s, "vmnet-broker --rootless takes connections")

    def connect(self, _user: User | None = None) -> Varlink:
        """A connection as its user, who is the only one it serves."""
        return Varlink(self.socket_path, self.member)

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")
        return ""

    @property
    def client_environment(self) -> dict[str, str]:
        """What makes a client find it: nothing but what its user has anyway."""
        return {name: self.owner.environment[name] for name in ("XDG_RUNTIME_DIR",) if name in self.owner.environment}

    # Its processes

    def parts(self) -> dict[str, list[int]]:
        """Its running processes by part; what is neither a client nor a VM."""
        found: dict[str, list[int]] = {}
        for pid in self.owner.pids():
            part = self._part_of(pid)
            if part:
                found.setdefault(part, []).append(pid)
        return found

    @staticmethod
    def _part_of(pid: int) -> str | None:
        words = command_line(pid)
        program = os.path.basename(words[0]) if words else ""
        if program in ("dnsmasq", "pasta"):
            return program
        if program != "vmnet-broker" or process_name(pid) == "vmnet-names":
            return None
        return next((part for word, part in ROLES.items() if word in words), None)

    def pid(self, part: str, deadline_s: float = 5) -> int:
        """Of the one process that is this part, waited for."""
        return wait_for(lambda: self.parts().get(part), deadline_s, f"the broker's {part}")[0]

    def dnsmasq_pids(self) -> list[int]:
        return self.parts().get("dnsmasq", [])

    def kill(self, part: str, number: int = signal.SIGKILL, deadline_s: float = 5) -> int:
        """Ends a part and waits until that process is gone; returns which one it was."""
        pid = self.pid(part)
        os.kill(pid, number)
        wait_for(lambda: not is_running(pid), deadline_s, f"end of the broker's {part}")
        return pid

    def wait_whole(self, deadline_s: float = 10, parts: Iterable[str] = PARTS) -> None:
        """Until one process of each part runs."""
        wanted = {part: 1 for part in parts}
        wait_for(
            lambda: {part: len(pids) for part, pids in self.parts().items() if part in wanted} == wanted,
            deadline_s,
            f"one process each of {', '.join(wanted)}",
        )

    def terminate(self, deadline_s: float = 15) -> int:
        """SIGTERM to a broker that was started by hand; the exit status."""
        assert self.process
        os.kill(self.pid("supervisor"), signal.SIGTERM)
        return self.process.wait(deadline_s)

    # Inside its namespaces

    def network_namespace(self) -> tuple[int, int] | None:
        """Of the networks, as stat(2) tells it, by any process of his that is in it."""
        return next(iter(self._foreign_namespaces().values()), None)

    def namespace_cookie(self) -> int:
        """Of the networks' namespace: no other one ever has it, where an inode number may come back at once."""
        with self.inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
            return struct.unpack("=Q", inside.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]

    def _foreign_namespaces(self) -> dict[int, tuple[int, int]]:
        host = os.stat(self.owner.namespace.path)
        found = {}
        for pid in self.owner.pids():
            with contextlib.suppress(OSError):
                own = os.stat(f"/proc/{pid}/ns/net")
                if (own.st_dev, own.st_ino) != (host.st_dev, host.st_ino):
                    found[pid] = (own.st_dev, own.st_ino)
        return found

    @property
    def inside(self) -> InnerNamespace:
        """Where its networks are."""
        return InnerNamespace(self.lab, self.pid("pause"))

    def links(self) -> list[dict[str, Any]]:
        """Links with an alias of ours; none where the namespace is gone."""
        if not self.parts().get("pause"):
            return []
        try:
            text = self.inside.ip("-json", "-details", "link", "show")
        except (CommandError, TimeoutError):
            if self.parts().get("pause"):
                raise
            return []
        return [link for link in json.loads(text or "[]") if link.get("ifalias", "").startswith("vmnet/")]

    def has_uplink(self) -> bool:
        """Whether pasta's interface is there and has a default route."""
        return "uplink0" in self.inside.ip("route", "show", "default")

    def wait_uplink(self, deadline_s: float = 10) -> None:
        wait_for(self.has_uplink, deadline_s, "pasta's uplink")

    # What it left

    def leftovers(self) -> Leftovers:
        pids = self.owner.pids()
        return Leftovers(
            processes=[" ".join(command_line(pid)) or process_name(pid) for pid in pids],
            # Unlike Path.rglob() it does not mind what goes meanwhile; the directory itself is the first.
            files=[os.path.join(path, name) for path, _, names in os.walk(self.runtime_dir) for name in ("", *names)],
            namespaces=sorted({inode for _, inode in self._foreign_namespaces().values()}),
        )

    def wait_nothing_left(self, deadline_s: float = 15) -> None:
        """Until nothing but the state that outlives networks is there."""
        try:
            wait_for(lambda: not self.leftovers(), deadline_s, "the end of everything")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.leftovers()}\n{self.log()}") from None


def capabilities(pid: int) -> dict[str, int]:
    """CapInh, CapPrm, CapEff and CapAmb of a process; empty when it is gone."""
    text = read_proc(pid, "status").decode()
    return {found[1]: int(found[2], 16) for found in re.finditer(r"^(Cap(?:Inh|Prm|Eff|Amb)):\s+(\w+)$", text, re.M)}


def user_namespace(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/user").st_ino
