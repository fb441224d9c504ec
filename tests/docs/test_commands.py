"""Every command line of README.md, docs/ and man/ that has no marker, run word for word on a machine like its reader's.

Those of a page run one after the other, in its order, on one desk (lib/desk.py). A command has to end with status 0, unless
WAYS says what else it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib import doc_commands, guestkit
from lib.desk import Desk
from lib.doc_commands import Command
from lib.lab import all_pids, is_running, read_proc, wait_for

NETWORKS = json.loads((doc_commands.ROOT / "examples/networks.json").read_text()) | {
    "lab": {"mode": "host", "subnet": "10.77.0.0/24"},
    "lan": {"mode": "bridged", "uplink": "eth0", "allow": {"users": ["alice"]}},
}


class Run:
    """A command that was started."""

    def __init__(self, desk: Desk, text: str, user: str | None, place: Path) -> None:
        self.desk = desk
        self.text = text
        self.out, self.err = place / "out", place / "err"
        self.consoles_before = set(desk.consoles())
        with open(self.out, "w") as out, open(self.err, "w") as err:
            self.process = desk.popen(text, user, stdout=out, stderr=err)

    def said(self) -> str:
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def wait_said(self, pattern: str, deadline_s: float = 20) -> None:
        """Until it has said this; it must go on then."""

        def is_said() -> bool:
            found = re.search(pattern, self.said(), re.M)
            assert found or self.process.poll() is None, f"status {self.process.returncode}: {self.said()}"
            return bool(found)

        wait_for(is_said, deadline_s, f"{self.text} says {pattern}")

    def wait_end(self, *statuses: int, deadline_s: float = 60) -> None:
        try:
            status = self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.text}: still running; WAYS may have to say so\n{self.said()}") from None
        assert status in statuses, f"{self.text}: status {status}\n{self.said()}"

    def end(self) -> None:
        """As Ctrl-C would; a shell that waits for its command dies of it by itself."""
        for process_id in self._session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGTERM)
        wait_for(lambda: not self._session(), 20, f"end of {self.text}")
        self.process.wait(5)

    def _session(self) -> list[int]:
        """Running processes of its session."""
        sessions = {pid: read_proc(pid, "stat").rpartition(b") ")[2].split()[3:4] for pid in all_pids()}
        return [pid for pid, session in sessions.items() if session == [b"%d" % self.process.pid] and is_running(pid)]


def ends(*statuses: int, say: str = "") -> Callable[[Run], None]:
    def check(run: Run) -> None:
        run.wait_end(*statuses)
        assert re.search(say, run.said(), re.M), run.said()

    return check


def stays(say: str) -> Callable[[Run], None]:
    """It says so, goes on, and ends when it is told to."""

    def check(run: Run) -> None:
        run.wait_said(say)
        assert run.process.poll() is None
        run.end()

    return check


def serves(run: Run) -> None:
    """A broker of bob's own: its socket answers."""

    def answers() -> bool:
        assert run.process.poll() is None, run.said()
        asked = run.desk.popen("vmnetctl networks", "bob", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return "shared" in asked.communicate(timeout=20)[0]

    wait_for(answers, 30, run.text)
    run.end()


def monitors(run: Run) -> None:
    """It tells of an interface that comes and goes."""

    def has_told() -> bool:
        run.desk.popen("vmnet-client -- true", "alice", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(20)
        assert run.process.poll() is None, run.said()
        return bool(re.search(r"interface\W+gone", run.said()))

    wait_for(has_told, 20, f"{run.text} tells of an interface")
    run.end()


def captures(run: Run) -> None:
    """pcapng is in the file."""
    file = run.desk.path("/home/alice") / run.text.split()[-1]

    def has_begun() -> bool:
        assert run.process.poll() is None, run.said()
        return file.exists() and file.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"

    wait_for(has_begun, 20, f"{run.text} writes pcapng")
    run.end()


@contextlib.contextmanager
def beside(desk: Desk, text: str) -> Iterator[None]:
    """What a command needs to be there: for a capture a VM."""
    if not text.startswith("vmnetctl capture "):
        yield
        return
    vm = desk.popen("exec vmnet-client -- sleep 1000", "alice", stdout=subprocess.PIPE)
    try:
        assert b"vmnet_mac_address" in vm.stdout.readline()
        yield
    finally:
        vm.terminate()
        vm.communicate(timeout=20)


def boots(run: Run) -> None:
    """A guest comes up with the address that was promised, and reaches its gateway."""
    run.wait_said(r"^\{.*vmnet_mac_address")
    console = wait_for(lambda: set(run.desk.consoles()) - run.consoles_before, 20, "QEMU's console").pop()
    line = json.loads(next(line for line in run.said().splitlines() if line.startswith("{")))
    with _short(console) as name, guestkit.Guest(name, run.process) as guest:
        try:
            guest.wait_ready(120)
            assert guest.address() == line["vmnet_ipv4_address"]
            guest.check(f"ping -c 1 -W 5 {line.get('net_ipv4_subnet') or line['vmnet_start_address']}")
        except guestkit.GuestError as error:
            raise AssertionError(f"{error}\n{run.said()}") from None
    run.end()
    console.unlink(missing_ok=True)


@contextlib.contextmanager
def _short(console: Path) -> Iterator[Path]:
    """A socket's path has a limit."""
    before = os.getcwd()
    os.chdir(console.parent)
    try:
        yield Path(console.name)
    finally:
        os.chdir(before)


# The first that matches tells what a command does; what none matches ends with status 0.
WAYS = (
    (r"qemu-system-x86_64", boots),
    (r"^vmnet-helper --(socket|stream|vhost-user)", stays(r"vmnet_mac_address")),
    (r"^vmnetctl forward (?!--list|--remove|.*--pin)", stays(r"^forward \d+: ")),
    (r"^vmnetctl (capture|exec|forward|network)$", ends(1, say=r"^ERROR \[vmnetctl\] .*(give|say)")),  # named, not typed
    (r"^vmnetctl monitor", monitors),
    (r"^vmnetctl capture ", captures),
    (r"^vmnetctl stats --watch", stays(r"^\{")),
    (r"^vmnetctl stats .*--watch", stays(r"statistics|HOST->VM")),
    (r"^vmnet-broker --rootless", serves),
    (r"^vmnetctl doctor", ends(0, 1, say=r"nothing found|mend: |\"findings\": ")),
    (r"^vmnet-broker --check-config", ends(0, say=r"^ok$")),
    (r"^vmnet-helper --list-shared-interfaces", ends(0, say=r"^eth0$")),
    (r"-- env$", ends(0, say=r"^VMNET_MAC_ADDRESS=")),
    (r"^vmnetctl networks", ends(0, say=r"shared")),
)

# These are an administrator's; all others alice runs, but bob, who is in no group, starts a broker of his own.
ROOTS = re.compile(r"(sudo |scripts/|vmnet-broker (?!--rootless)|systemctl |nft )")
BOBS = re.compile(r"vmnet-broker --rootless")


def user_of(text: str) -> str | None:
    if ROOTS.match(text):
        return None
    return "bob" if BOBS.match(text) else "alice"


def way_of(text: str) -> Callable[[Run], None]:
    return next((way for pattern, way in WAYS if re.search(pattern, text)), ends(0))


def runnable() -> list[Command]:
    """What sentences say is run once, however often they do, and the very same VM is booted once."""
    found: dict[str, Command] = {}
    for command in doc_commands.all_commands():
        if not command.marker and not command.is_synopsis:
            is_once = command.within_sentence or way_of(command.text) is boots
            found.setdefault(command.text if is_once else f"{command.page}:{command.line}", command)
    return list(found.values())


@pytest.fixture(scope="module")
def make_desk(bin_dir: Path, guest_kit: guestkit.Kit) -> Iterator[Callable[[], Desk]]:
    release = Path(os.environ.get("VMNET_RELEASE_BIN", "VMNET_RELEASE_BIN is not set"))
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Desk(bin_dir, release, guest_kit, NETWORKS)))


@pytest.fixture(scope="module")
def desk(request: pytest.FixtureRequest, make_desk: Callable[[], Desk]) -> Iterator[Desk]:
    """One for each page."""
    with contextlib.closing(make_desk()) as made:
        yield made


def _parameters() -> list[Any]:
    return [pytest.param(one.page, one, id=f"{one.page}:{one.line}") for one in runnable()]


@pytest.mark.parametrize(("desk", "command"), _parameters(), indirect=["desk"], scope="module")
def test_command(
    desk: Desk, command: Command, tmp_path: Path, show_on_failure: Callable[[str, Callable[[], str]], None]
) -> None:
    show_on_failure("broker", desk.log_path.read_text)
    text = command.text.removeprefix("sudo ")
    with beside(desk, text):
        run = Run(desk, text, user_of(command.text), tmp_path)
        try:
            way_of(text)(run)
        finally:
            if run.process.poll() is None:
                run.end()


def test_what_is_broken_is_noticed(make_desk: Callable[[], Desk], tmp_path: Path) -> None:
    """Lines that fail, that end too early, or that never end."""
    desk = make_desk()
    for text in ("vmnetctl networks --upside-down", "vmnetctl forward 8080", "vmnet-helper --socket /nowhere/vm0", "false"):
        with pytest.raises(AssertionError):
            way_of(text)(Run(desk, text, "alice", tmp_path))
    run = Run(desk, "sleep 1000", "alice", tmp_path)
    with pytest.raises(AssertionError, match="still running"):
        run.wait_end(0, deadline_s=0.5)
    run.end()
