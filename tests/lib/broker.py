"""A broker for tests, in a lab's host namespace, and a varlink client to talk to it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from .lab import (
    Lab,
    Namespace,
    User,
    children_of,
    command_line,
    is_running,
    process_name,
    process_uid,
    stop_process,
    wait_for,
)

INTERFACE = "org.vmnet.Broker"
SOCKET_GROUP = "users"  # every Debian has it and nothing of the lab is in it by chance
MEMBER = User(4242, 4242, (100,))  # an ordinary user whom the broker serves: in SOCKET_GROUP
STRANGER = User(4343, 4343)  # one who may not even connect

_numbers = itertools.count()


class VarlinkError(Exception):
    """An error reply: error is its full name, name what follows the last dot."""

    def __init__(self, error: str, parameters: dict[str, Any]) -> None:
        super().__init__(f"{error} {json.dumps(parameters)}")
        self.error = error
        self.name = error.rpartition(".")[2]
        self.parameters = parameters


# setgroups, setresgid, setresuid
_ID_CALLS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}
_libc = ctypes.CDLL(None, use_errno=True)


def _set_ids(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Effective ids and groups of this thread alone: the C library's functions would change those of all."""
    setgroups, setresgid, setresuid = _ID_CALLS[platform.machine()]
    keep = ctypes.c_uint32(-1)
    ids = (ctypes.c_uint32 * len(groups))(*groups)
    calls = [
        (setgroups, ctypes.c_size_t(len(groups)), ids),
        (setresgid, keep, ctypes.c_uint32(gid), keep),
        (setresuid, keep, ctypes.c_uint32(uid), keep),
    ]
    # Root first, or last: no other user may change groups.
    for call in reversed(calls) if uid == 0 else calls:
        if _libc.syscall(*call):
            raise OSError(ctypes.get_errno(), f"changing to user {uid}")


@contextlib.contextmanager
def acting_as(user: User | None) -> Iterator[None]:
    """Effective ids of user, because the kernel notes them for SO_PEERCRED and SO_PEERGROUPS when a socket connects."""
    if not user:
        yield
        return
    before = os.geteuid(), os.getegid(), os.getgroups()
    try:
        _set_ids(user.uid, user.gid, user.groups)
        yield
    finally:
        _set_ids(*before)


class Varlink:
    """One connection: JSON objects that end with a NUL byte, fds beside them.

    https://varlink.org/Method-Call
    """

    def __init__(self, socket_path: str | os.PathLike[str], user: User | None = None, timeout_s: float = 15) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self._received = b""
        self._fds: list[int] = []
        try:
            with acting_as(user):
                self.socket.connect(os.fspath(socket_path))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Varlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection, and fds that came and weren't taken."""
        self.socket.close()
        for fd in self._take_fds():
            os.close(fd)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Sends just this, for tests of what isn't varlink."""
        sent = socket.send_fds(self.socket, [data], list(fds)) if fds else 0
        if sent < len(data):  # sending nothing fails, too, when the broker has answered and closed already
            self.socket.sendall(data[sent:])

    def send(self, method: str, parameters: Mapping[str, Any], fds: Sequence[int] = (), **flags: bool) -> None:
        """Sends a call; flags are varlink's more, oneway and upgrade."""
        name = method if "." in method else f"{INTERFACE}.{method}"
        message = {"method": name, "parameters": dict(parameters), **flags}
        self.send_bytes(json.dumps(message).encode() + b"\0", fds)

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next message and the fds that came with it; EOFError when the broker closed the connection."""
        while b"\0" not in self._received:
            data, fds, flags, _ = socket.recv_fds(self.socket, 65536, 64, socket.MSG_CMSG_CLOEXEC)
            self._fds += fds
            if flags & socket.MSG_CTRUNC:
                raise OSError("the kernel dropped fds of a message")
            if not data:
                raise EOFError("the broker closed the connection")
            self._received += data
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message), self._take_fds()

    def _take_fds(self) -> list[int]:
        fds, self._fds = self._fds, []
        return fds

    def reply(self) -> tuple[dict[str, Any], list[int], bool]:
        """The next reply: parameters, fds, and whether more follow. Raises VarlinkError for an error."""
        message, fds = self.receive()
        parameters = message.get("parameters", {})
        if "error" in message:
            for fd in fds:
                os.close(fd)
            raise VarlinkError(message["error"], parameters)
        return parameters, fds, message.get("continues", False)

    def call(
        self, method: str, /, *, fds: Sequence[int] = (), **parameters: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Calls a method, of org.vmnet.Broker unless it has a dot: the reply's parameters and fds, now the caller's."""
        self.send(method, parameters, fds)
        result, received, _ = self.reply()
        return result, received

    def stream(self, method: str, /, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Calls a method with varlink's "more": the parameters of each reply."""
        self.send(method, parameters, more=True)
        more = True
        while more:
            result, fds, more = self.reply()
            for fd in fds:
                os.close(fd)
            yield result


@dataclass(frozen=True)
class Leftovers:
    """What a broker made and what is still there. False when nothing is."""

    links: list[str]  # with an alias of ours
    tables: list[str]
    dnsmasq: list[int]
    files: list[str]  # below the runtime directory

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


class Broker:
    """A vmnet-broker in lab.host that is ready for clients when the constructor returns.

    networks is the content of networks.json: text as it is, anything else as JSON; None: no file. Files live in
    directory, so a second Broker with the directory of the first goes on where that one ended.
    """

    def __init__(
        self,
        lab: Lab,
        bin_dir: Path,
        *,
        networks: Any = None,
        namespace: Namespace | None = None,
        directory: Path | None = None,
        runtime_dir: Path | None = None,
        group: str | None = SOCKET_GROUP,
        front_user: str | None = "nobody",
        user: User | None = None,
        idle_timeout_s: float = 120,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.lab = lab
        self.namespace = namespace or lab.host
        self.directory = directory or lab.public_directory(f"b{next(_numbers)}", user)
        self.config_dir = self.directory / "config"
        self.runtime_dir = runtime_dir or self.directory / "run"
        self.state_dir = self.directory / "state"
        self.socket_path = self.runtime_dir / "socket"
        self.log_path = self.directory / "log"
        self.config_dir.mkdir(exist_ok=True)
        if networks is not None:
            self.write_config(networks)
        self.command = [
            str(bin_dir / "vmnet-broker"),
            *("--config", str(self.config_dir), "--runtime-dir", str(self.runtime_dir)),
            *("--state-dir", str(self.state_dir), "--idle-timeout", f"{idle_timeout_s:g}"),
            *(("--group", group) if group else ()),
            *(("--user", front_user) if front_user else ()),
            "-v",
            *arguments,
        ]
        self.member = MEMBER
        self._user = user
        self._env = env
        self.process: subprocess.Popen[Any] | None = None
        if start:
            self.start()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def write_config(self, networks: Any, file: str = "networks.json") -> None:
        path = self.config_dir / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(networks if isinstance(networks, str) else json.dumps(networks, indent=2))

    def start(self, deadline_s: float = 10) -> None:
        """Starts it, again too, and waits until its socket takes connections."""
        with open(self.log_path, "a") as log:
            self.process = self.namespace.popen(self.command, user=self._user, env=self._env, stdout=log, stderr=log)
        process = self.process

        def serving() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"vmnet-broker ended with status {process.returncode}:\n{self.log()}")
            with contextlib.suppress(OSError), Varlink(self.socket_path):
                return True
            return False

        try:
            wait_for(serving, deadline_s, "vmnet-broker takes connections")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log()}") from None

    @property
    def inside(self) -> Namespace:
        """Where its networks are."""
        return self.namespace

    @property
    def client_environment(self) -> dict[str, str]:
        """What makes a client find it."""
        return {"VMNET_BROKER_SOCKET": str(self.socket_path)}

    def connect(self, user: User | None = None) -> Varlink:
        """A connection as user, or as root."""
        return Varlink(self.socket_path, user)

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")
        return ""

    # Its processes

    @property
    def priv_pid(self) -> int:
        """The process that was started; it is the privileged part."""
        assert self.process, "the broker was never started"
        return self.process.pid

    @property
    def front_pid(self) -> int:
        """Waits for the front: after a crash priv starts a new one."""
        return wait_for(self._find_front, 5, "vmnet-broker's front")

    def _find_front(self) -> int | None:
        """The child that says so, or the one without root that isn't dnsmasq: a child on its way to exec of dnsmasq
        looks like the front for a moment, but it is root then."""
        others = [pid for pid in children_of(self.priv_pid) if process_name(pid) != "dnsmasq"]
        named = [pid for pid in others if "--role=front" in command_line(pid)]
        unprivileged = [pid for pid in others if process_uid(pid) not in (0, None)]
        return next(iter(named + unprivileged), None)

    def dnsmasq_pids(self) -> list[int]:
        """priv's own; leftovers() finds those of a priv that is gone."""
        return [pid for pid in children_of(self.priv_pid) if process_name(pid) == "dnsmasq"]

    def kill(self, part: str = "priv", number: int = signal.SIGKILL, deadline_s: float = 5) -> None:
        """Kills "priv", "front" or "dnsmasq" (all of them) and waits until they are gone."""
        pids = {
            "priv": lambda: [self.priv_pid],
            "front": lambda: [self.front_pid],
            "dnsmasq": self.dnsmasq_pids,
        }[part]()
        followers = []
        if part == "priv" and number == signal.SIGKILL:
            # Whom priv takes with it: the old front could still accept the first connection to the new broker. It is
            # stopped, as it may be starting another front just now.
            stop_process(self.priv_pid)
            followers = children_of(self.priv_pid)
        for pid in pids:
            os.kill(pid, number)
        if part == "priv" and self.process:
            self.process.wait(deadline_s)
        wait_for(lambda: not any(map(is_running, pids + followers)), deadline_s, f"end of the broker's {part}")

    def terminate(self, deadline_s: float = 10) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(deadline_s)

    def close(self) -> None:
        """Ends it if it runs; what it leaves goes with the lab.

        In good order, because sanitizers look for leaks at the end; anything they found fails the test.
        """
        if self.process and self.process.poll() is None:
            status = self.terminate()
            assert status == 0, f"vmnet-broker ended with status {status}:\n{self.log()}"
        assert "Sanitizer" not in self.log(), self.log()

    # What it left

    def links(self) -> list[dict[str, Any]]:
        """Links with an alias of ours, as `ip -json -details link` shows them."""
        links = json.loads(self.namespace.ip("-json", "-details", "link", "show") or "[]")
        return [link for link in links if link.get("ifalias", "").startswith("vmnet/")]

    def tables(self) -> list[str]:
        """"family name" of our nft tables."""
        listed = self.namespace.run(["nft", "list", "tables"]).stdout.splitlines()
        tables = [line.removeprefix("table ") for line in listed]
        return [table for table in tables if table.split()[1].startswith("vmnet")]

    def leftovers(self) -> Leftovers:
        return Leftovers(
            links=[link["ifname"] for link in self.links()],
            tables=self.tables(),
            dnsmasq=[pid for pid in self.namespace.pids() if process_name(pid) == "dnsmasq"],
            files=sorted(
                str(path.relative_to(self.runtime_dir)) for path in self.runtime_dir.rglob("*") if not path.is_dir()
            ),
        )
