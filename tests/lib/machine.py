"""A machine that systemd runs: rootfs.py's Debian in a container of systemd-nspawn, with a network of its own.

What it writes goes to memory and ends with it. The programs are installed as README says, from a build that was
configured with prefix /usr.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .broker import Varlink
from .lab import Argument, User, children_of, process_name, wait_for

_numbers = itertools.count()
SOCKET = "/run/vmnet-broker/socket"
FRONT, PRIV = "vmnet-broker.service", "vmnet-broker-priv.service"
ENVIRONMENT = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
LAUNCH = """set -e
place=$1 lower=$2 name=$3
shift 3
for group; do echo $$ >"$group/cgroup.procs"; done
mount -t tmpfs -o mode=755 none "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$place/upper,workdir=$place/work" none "$place/root"
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe --boot \
    --machine="$name" --directory="$place/root"
"""


class _ControlGroups:
    """Control groups of its own, wherever systemd looks for them: two machines in one would share their services."""

    def __init__(self, name: str) -> None:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        roots = [words[4] for words in mounts if self._is_systemds(words)]
        assert roots, "no control groups that systemd could use"
        self.directories = [Path(root) / name for root in roots]
        for directory in self.directories:
            directory.mkdir()

    @staticmethod
    def _is_systemds(words: list[str]) -> bool:
        kind, options = words[words.index("-") + 1], words[-1]
        return kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options)

    def remove(self) -> None:
        for directory in self.directories:
            for path, _, _ in os.walk(directory, topdown=False):
                wait_for(lambda path=path: self._try_rmdir(path), 5, f"{path} is empty")

    @staticmethod
    def _try_rmdir(path: str) -> bool:
        with contextlib.suppress(OSError):
            os.rmdir(path)
        return not os.path.exists(path)


class Machine:
    """Runs when the constructor returns."""

    def __init__(self, rootfs: Path) -> None:
        self.name = f"vmnet-{os.getpid()}-{next(_numbers)}"
        self._place = tempfile.TemporaryDirectory(prefix="vmnet-machine-", dir="/tmp")
        self._groups = _ControlGroups(self.name)
        self.console = Path(self._place.name + ".console")
        groups = [str(directory) for directory in self._groups.directories]
        with open(self.console, "wb") as console:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]
                + ["sh", "-c", LAUNCH, "sh", self._place.name, str(rootfs), self.name, *groups],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            self.leader = wait_for(self._find_leader, 30, "systemd of the machine")
            wait_for(self._is_up, 90, "the machine is up")
        except (TimeoutError, RuntimeError) as error:
            text = self.console.read_text(errors="replace")
            self.close()
            raise RuntimeError(f"{error}\n{text}") from None

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def _find_leader(self) -> int | None:
        if self._process.poll() is not None:
            raise RuntimeError(f"systemd-nspawn ended with status {self._process.returncode}")
        return next((pid for pid in children_of(self._process.pid) if process_name(pid) == "systemd"), None)

    def _is_up(self) -> bool:
        return self.run(["systemctl", "is-system-running"], check=False).stdout.strip() in ("running", "degraded")

    def _command(self, argv: Sequence[Argument], user: str | None) -> list[str]:
        become = ["runuser", "-u", user, "--"] if user else []
        enter = ["nsenter", "--all", "--target", str(self.leader), "--wd=/"]
        return [*enter, *ENVIRONMENT, *become, *(os.fspath(word) for word in argv)]

    def run(
        self, argv: Sequence[Argument], *, user: str | None = None, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as root or as one of its users; AssertionError, with what it said, when it fails."""
        result = subprocess.run(
            self._command(argv, user), capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
        if check:
            assert result.returncode == 0, f"{argv}: status {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def popen(self, argv: Sequence[Argument], *, user: str | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Starts a command in it."""
        return subprocess.Popen(self._command(argv, user), **options)

    def path(self, path: str) -> Path:
        """A file of it, as root sees it from here."""
        return Path(f"/proc/{self.leader}/root{path}")

    @contextlib.contextmanager
    def beside(self, path: str) -> Iterator[str]:
        """The name of a file of it that an ordinary user can open, in a working directory that only root finds."""
        before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        directory, _, name = path.rpartition("/")
        try:
            os.chdir(self.path(directory))
            yield name
        finally:
            os.fchdir(before)
            os.close(before)

    def connect(self, user: User) -> Varlink:
        """A client of the broker."""
        with self.beside(SOCKET) as name:
            return Varlink(name, user)

    def install(self, build: Path) -> None:
        """Installs a build over what is there."""
        subprocess.run(
            ["meson", "install", "-C", str(build), "--no-rebuild", "--quiet"],
            env={**os.environ, "DESTDIR": str(self.path("/"))},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.run(["ldconfig"])
        self.run(["systemd-sysusers"])
        self.run(["systemd-tmpfiles", "--create", "vmnet-broker.conf"])
        self.run(["systemctl", "daemon-reload"])

    def add_user(self, name: str, *groups: str) -> User:
        self.run(["useradd", "--create-home", *(["--groups", ",".join(groups)] if groups else []), name])
        uid, gid = (int(self.run(["id", option, name]).stdout) for option in ("-u", "-g"))
        return User(uid, gid, [int(word) for word in self.run(["id", "-G", name]).stdout.split()])

    def drop_in(self, unit: str, text: str, name: str = "test") -> None:
        """Adds to a unit's file; an empty text takes that back."""
        directory = self.path(f"/etc/systemd/system/{unit}.d")
        directory.mkdir(exist_ok=True)
        file = directory / f"{name}.conf"
        file.write_text(text) if text else file.unlink()
        self.run(["systemctl", "daemon-reload"])

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run(["systemctl", "show", "--value", f"--property={name}", unit]).stdout.strip()

    def pid(self, unit: str) -> int:
        """Of its main process, as the machine counts; 0: none runs."""
        return int(self.show(unit, "MainPID"))

    def dnsmasq_pids(self) -> list[int]:
        return [int(word) for word in self.run(["pgrep", "-x", "dnsmasq"], check=False).stdout.split()]

    def log(self) -> str:
        """What the broker said; of a machine that is gone, what its console said."""
        said = self.run(["journalctl", "--no-pager", "--output=short-precise", "--unit=vmnet-broker*"], check=False)
        return said.stdout or self.console.read_text(errors="replace")

    def close(self) -> None:
        """Ends it in good order, or else by force."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._groups.remove()
        self._place.cleanup()
        self.console.unlink(missing_ok=True)
