"""Namespaces for tests: a host with an uplink, and the internet behind it. Nothing touches the machine's own network.

    internet                                   host
    lo 203.0.113.1/32, 2001:db8:1::1/128       (here brokers, helpers and VMs run)
    in0 198.51.100.1/24 ---------------------- up0 198.51.100.2/24, default route
        2001:db8:51::1/64                          2001:db8:51::2/64, default route
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import ctypes
import fcntl
import itertools
import os
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Argument = str | os.PathLike[str]

INTERNET_ADDRESS = "198.51.100.1"
UPLINK_ADDRESS = "198.51.100.2"
WORLD_ADDRESS = "203.0.113.1"
INTERNET_ADDRESS6 = "2001:db8:51::1"
UPLINK_ADDRESS6 = "2001:db8:51::2"
WORLD_ADDRESS6 = "2001:db8:1::1"
UPLINK = "up0"

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000

MARK = "VMNET_TEST_LAB"  # in the environment of everything a lab starts, so that it can find what left its namespaces

# A new namespace takes over most IPv4 settings of the machine. These make every machine's lab the same.
SYSCTLS = {
    "net/ipv4/conf/all/forwarding": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "2",
    "net/ipv4/conf/all/accept_redirects": "0",
}


def wait_for(predicate: Callable[[], T], deadline_s: float, what: str) -> T:
    """Polls until predicate() is true and returns what it returned; TimeoutError names what was waited for."""
    deadline = time.monotonic() + deadline_s
    pause_s = 0.002
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {deadline_s} s (last: {value!r})")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)


def mended_within(limit_s: float, damage: Callable[[], object], is_mended: Callable[[], object], what: str) -> int:
    """After damage() it is mended within limit_s. Returns how often damage() was called.

    A machine that stands still for a moment says nothing about the product: what took longer, and was mended in the
    end, is tried again, up to three times in all.
    """
    for number in (1, 2, 3):
        damage()
        started = time.monotonic()
        wait_for(is_mended, 10, what)
        if time.monotonic() - started <= limit_s:
            return number
    raise TimeoutError(f"{what}: three times not within {limit_s} s")


class User:
    """An ordinary user by numbers; there need be no passwd entry for it."""

    def __init__(self, uid: int, gid: int | None = None, groups: Iterable[int] = ()) -> None:
        self.uid = uid
        self.gid = uid if gid is None else gid
        self.groups = tuple(groups)

    def __repr__(self) -> str:
        return f"User({self.uid}, {self.gid}, {self.groups})"

    def prefix(self) -> list[str]:
        """A command prefix: this user with no capability in any set."""
        groups = f"--groups={','.join(map(str, self.groups))}" if self.groups else "--clear-groups"
        drop = ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", groups, *drop]


class CommandError(Exception):
    """A command ended with a status that isn't 0; the text carries its output."""


class Namespace:
    """A named network namespace of a lab."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.path = f"/run/netns/{name}"
        _ip("netns", "add", name)

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    def _command(self, argv: Sequence[Argument], user: User | None) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--", *(user.prefix() if user else []), *map(os.fspath, argv)]

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, MARK: self.lab.name, **(env or {})}

    def run(
        self,
        argv: Sequence[Argument],
        user: User | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the namespace, as user without capabilities or as root; text output is captured.

        /proc/sys/net is the namespace's. /sys is the machine's: read /sys/class/net with run_with_sysfs().
        """
        result = subprocess.run(
            self._command(argv, user),
            env=self._environment(env),
            timeout=timeout,
            text=True,
            **{"stdin": subprocess.DEVNULL, "capture_output": True, **self._without_stdin(options)},
        )
        if check and result.returncode:
            command = " ".join(map(os.fspath, argv))
            raise CommandError(f"{self.name}: {command}: status {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    @staticmethod
    def _without_stdin(options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "stdin": None} if "input" in options else options

    def run_with_sysfs(self, argv: Sequence[Argument]) -> subprocess.CompletedProcess[str]:
        """run() as root with the namespace's own /sys mounted."""
        return self.run(["ip", "netns", "exec", self.name, *argv])

    def popen(
        self,
        argv: Sequence[Argument],
        user: User | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Starts a process in the namespace; the lab kills it at its end. Its pid is the program's own.

        Takes subprocess.Popen's options, pass_fds too.
        """
        options = {"stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen(self._command(argv, user), env=self._environment(env), **options)
        self.lab.processes.append(process)
        return process

    def ip(self, *arguments: str) -> str:
        """ip(8) in the namespace."""
        return _ip("-n", self.name, *arguments)

    def sysctl(self, key: str, value: str | int | None = None) -> str:
        """Reads, or writes and reads, a net.* setting; key with slashes ("net/ipv4/ip_forward") as names have dots."""
        path = f"/proc/sys/{key}"
        if value is not None:
            self.run(["tee", path], input=f"{value}\n")
        return self.run(["cat", path]).stdout.strip()

    def inside(self, function: Callable[[], T]) -> T:
        """Calls function in the namespace, in this process: for sockets and TAPs that the test itself uses.

        In a thread of its own, as setns(2) moves one thread only, and this one ends at once.
        """

        def enter_and_call() -> T:
            with open(self.path) as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {self.name}")
            return function()

        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(enter_and_call).result()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, AF_PACKET too."""
        return self.inside(lambda: socket.socket(family, kind, protocol))

    def open_tap(self, name: str, vnet_hdr: bool = True) -> int:
        """A new TAP, up; it is gone when the fd, the caller's, is closed. A frame has a 10-byte header with vnet_hdr."""

        def attach() -> int:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
                fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            except OSError:
                os.close(tap)
                raise
            return tap

        tap = self.inside(attach)
        self.ip("link", "set", name, "up")
        return tap

    def pids(self) -> list[int]:
        """Every process in the namespace."""
        own = os.stat(self.path)
        return [pid for pid in all_pids() if _net_of(pid) == (own.st_dev, own.st_ino)]

    def start_iperf3(self, address: str = WORLD_ADDRESS) -> subprocess.Popen[Any]:
        """An iperf3 server at address, listening when this returns."""
        log = self.lab.directory / f"iperf3-{address.replace(':', '_')}.log"
        with open(log, "w") as output:
            process = self.popen(["iperf3", "-s", "--forceflush", "-B", address], stdout=output, stderr=output)
        _wait_serving(process, log, "Server listening", f"iperf3 at {address}")
        return process

    def start_echo(self, address: str = WORLD_ADDRESS, port: int = 7) -> subprocess.Popen[Any]:
        """A TCP and UDP server at address and port: it answers "PEER-ADDRESS PEER-PORT " and what it got.

        So a test sees that the way there and back works, and whose address the world sees.
        """
        log = self.lab.directory / f"echo-{address.replace(':', '_')}-{port}.log"
        with open(log, "w") as output:
            process = self.popen([sys.executable, "-u", __file__, address, str(port)], stdout=output, stderr=output)
        _wait_serving(process, log, "ready", f"echo server at {address} port {port}")
        return process


class Lab:
    """Two namespaces, `internet` and `host`, and a directory for files; everything is gone after close().

    Also at Ctrl-C, SIGTERM and the end of Python. A lab whose process was killed with -9 is removed by the next one.
    """

    _numbers = itertools.count()
    _open: list[Lab] = []

    def __init__(self) -> None:
        if os.geteuid():
            raise PermissionError("the lab makes network namespaces: run the tests as root")
        _remove_abandoned()
        _close_labs_at_exit()
        self.name = f"vt{os.getpid()}-{next(self._numbers)}"
        self.processes: list[subprocess.Popen[Any]] = []
        self.namespaces: list[Namespace] = []
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
        Lab._open.append(self)
        try:
            # What the product makes durable waits for the disk, and the disk for whoever else writes to it.
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", self.directory], check=True)
            self.internet = self.namespace("internet")
            self.host = self.namespace("host")
            self._connect_host()
        except BaseException:
            self.close()
            raise

    def _connect_host(self) -> None:
        self.veth(self.internet, "in0", self.host, UPLINK)
        for namespace, link, address, address6 in (
            (self.internet, "in0", INTERNET_ADDRESS, INTERNET_ADDRESS6),
            (self.host, UPLINK, UPLINK_ADDRESS, UPLINK_ADDRESS6),
        ):
            namespace.ip("address", "add", f"{address}/24", "dev", link)
            namespace.ip("address", "add", f"{address6}/64", "dev", link, "nodad")
        self.internet.ip("address", "add", f"{WORLD_ADDRESS}/32", "dev", "lo")
        self.internet.ip("address", "add", f"{WORLD_ADDRESS6}/128", "dev", "lo", "nodad")
        self.host.ip("route", "add", "default", "via", INTERNET_ADDRESS)
        self.host.ip("-6", "route", "add", "default", "via", INTERNET_ADDRESS6)

    def namespace(self, name: str) -> Namespace:
        """One more namespace, with lo up and nothing else."""
        namespace = Namespace(self, f"{self.name}-{name}")
        self.namespaces.append(namespace)
        script = "".join(f"echo {value} >/proc/sys/{key}\n" for key, value in SYSCTLS.items())
        namespace.run(["sh", "-ec", script])
        namespace.ip("link", "set", "lo", "up")
        return namespace

    def veth(self, one: Namespace, one_link: str, two: Namespace, two_link: str) -> None:
        """A cable between two namespaces, up at both ends."""
        one.ip("link", "add", one_link, "type", "veth", "peer", "name", two_link, "netns", two.name)
        one.ip("link", "set", one_link, "up")
        two.ip("link", "set", two_link, "up")

    def public_directory(self, name: str, user: User | None = None) -> Path:
        """A directory with a short path that user owns and everybody can enter."""
        path = self.directory / name
        path.mkdir()
        path.chmod(0o755)
        if user:
            os.chown(path, user.uid, user.gid)
        return path

    def close(self) -> None:
        """Kills what runs in the lab and removes it. One that was interrupted can be called again."""
        if self not in Lab._open:
            return
        _kill_members(self.name)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        _remove_remains(self.name)
        Lab._open.remove(self)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def close_all(cls) -> None:
        for lab in list(cls._open):
            lab.close()


# Processes


def all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def read_proc(pid: int, file: str) -> bytes:
    """A file of /proc/PID, empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def open_fds(pid: int) -> dict[int, str]:
    """What the fds of a process refer to, as its links in /proc say; those it closes meanwhile are left out."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
    return found


def command_line(pid: int) -> list[str]:
    return [part.decode(errors="replace") for part in read_proc(pid, "cmdline").split(b"\0")[:-1]]


def process_name(pid: int) -> str:
    return read_proc(pid, "comm").decode(errors="replace").strip()


def process_uid(pid: int) -> int | None:
    """The effective uid; None when the process is gone."""
    found = re.search(rb"^Uid:\s+\d+\s+(\d+)", read_proc(pid, "status"), re.M)
    return int(found[1]) if found else None


def is_running(pid: int) -> bool:
    """False for a zombie too."""
    state = read_proc(pid, "stat").rpartition(b") ")[2][:1]
    return state not in (b"", b"Z", b"X")


def stop_process(pid: int) -> None:
    """SIGSTOP, and it has stopped: until then a signal of a lower number would come first."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: read_proc(pid, "stat").rpartition(b") ")[2][:1] == b"T", 5, f"process {pid} stops")


def children_of(pid: int) -> list[int]:
    """Running children, oldest pid first."""
    return sorted(child for child in all_pids() if _parent_of(child) == pid and is_running(child))


def _parent_of(pid: int) -> int | None:
    fields = read_proc(pid, "stat").rpartition(b") ")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def _net_of(pid: int) -> tuple[int, int] | None:
    try:
        found = os.stat(f"/proc/{pid}/ns/net")
    except OSError:
        return None
    return found.st_dev, found.st_ino


# Removing


def _members(lab: str) -> list[int]:
    """Processes in the lab's namespaces or started from it: a rootless broker's leave the namespaces, but not the
    environment, and priv's children may lose the environment, but not the namespaces."""
    places = set()
    for path in Path("/run/netns").glob(f"{lab}-*"):
        with contextlib.suppress(OSError):
            found = path.stat()
            places.add((found.st_dev, found.st_ino))
    mark = f"{MARK}={lab}".encode()
    return [
        pid
        for pid in all_pids()
        if pid != os.getpid()
        and is_running(pid)
        and (_net_of(pid) in places or mark in read_proc(pid, "environ").split(b"\0"))
    ]


def _kill_members(lab: str) -> None:
    """Again and again until none is left: one may have forked just before it was killed."""

    def none_left() -> bool:
        members = _members(lab)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not members

    wait_for(none_left, 10, f"end of the processes of {lab}")


def _remove_remains(lab: str) -> None:
    """Looks for them by name: a lab that was interrupted while it made one doesn't know of it."""
    for path in Path("/run/netns").glob(f"{lab}-*"):
        with contextlib.suppress(CommandError):
            _ip("netns", "delete", path.name)
    for path in Path("/tmp").glob(f"{lab}-*"):
        if os.path.ismount(path):
            subprocess.run(["umount", "--lazy", path], check=True)
        shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned() -> None:
    """Removes labs whose process is gone."""
    names = [path.name for path in Path("/run/netns").glob("vt*")]
    labs = {found[0]: int(found[1]) for name in names if (found := re.match(r"vt(\d+)-\d+(?=-)", name))}
    for lab, pid in labs.items():
        if not os.path.exists(f"/proc/{pid}"):
            _kill_members(lab)
            _remove_remains(lab)


_close_labs_registered = False


def _close_labs_at_exit() -> None:
    """Python runs atexit functions after Ctrl-C but not after SIGTERM or SIGHUP."""
    global _close_labs_registered
    if _close_labs_registered:
        return
    _close_labs_registered = True
    atexit.register(Lab.close_all)

    def end(number: int, _frame: object) -> None:
        Lab.close_all()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _ip(*arguments: str) -> str:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    if result.returncode:
        raise CommandError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


def _wait_serving(process: subprocess.Popen[Any], log: Path, text: str, what: str) -> None:
    def serving() -> bool:
        if process.poll() is not None:
            raise CommandError(f"{what}: status {process.returncode}\n{log.read_text()}")
        return text in log.read_text()

    wait_for(serving, 10, what)


# The echo server: `python3 lab.py ADDRESS PORT`


def _serve_echo(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    selector = selectors.DefaultSelector()
    listener = socket.create_server((address, port), family=family)
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    datagrams.bind((address, port))
    for one in (listener, datagrams):
        selector.register(one, selectors.EVENT_READ)
    print("ready")
    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            elif ready is datagrams:
                data, peer = datagrams.recvfrom(65536)
                with contextlib.suppress(OSError):
                    datagrams.sendto(f"{peer[0]} {peer[1]} ".encode() + data, peer)
            else:
                _echo_stream(selector, ready)


def _echo_stream(selector: selectors.BaseSelector, stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        data = stream.recv(65536)
        if data:
            peer = stream.getpeername()
            stream.sendall(f"{peer[0]} {peer[1]} ".encode() + data)
            return
    selector.unregister(stream)
    stream.close()


if __name__ == "__main__":
    _serve_echo(sys.argv[1], int(sys.argv[2]))
