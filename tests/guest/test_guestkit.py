"""The guest itself, on a bridge and a DHCP server made by hand: nothing of the product takes part."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lib import guestkit, qemukit
from lib.iperf3 import iperf3
from lib.lab import WORLD_ADDRESS, Lab, User, wait_for

VM_USER = User(4242)
GATEWAY = "192.168.77.1"
MAC = "52:54:00:00:00:4d"


@pytest.fixture
def network(lab: Lab) -> Lab:
    """A bridge with dnsmasq, routed to the internet."""
    ip = lab.host.ip
    ip("link", "add", "br0", "type", "bridge")
    ip("address", "add", f"{GATEWAY}/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    lab.host.sysctl("net/ipv4/ip_forward", 1)
    lab.internet.ip("route", "add", "192.168.77.0/24", "via", "198.51.100.2")
    leases = lab.directory / "leases"
    lab.host.popen(
        [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
            *("--interface=br0", "--bind-interfaces", "--except-interface=lo", "--no-resolv", "--no-hosts"),
            *("--no-ping", "--dhcp-authoritative", "--domain=test", "--local=/test/", f"--dhcp-leasefile={leases}"),
            *("--dhcp-range=192.168.77.10,192.168.77.99,1h", "--dhcp-option-force=option:mtu,1400"),
        ]
    )
    wait_for(lambda: ":67 " in lab.host.run(["ss", "-Huln"]).stdout, 5, "dnsmasq listens")
    return lab


@pytest.fixture
def guest(
    network: Lab, guest_kit: guestkit.Kit, show_on_failure: Callable[[str, Callable[[], str]], None]
) -> Iterator[guestkit.Guest]:
    console = network.public_directory("vm", VM_USER) / "console"
    tap = network.host.open_tap("tap0")
    network.host.ip("link", "set", "tap0", "master", "br0")
    device = ["-netdev", f"tap,id=n0,fd={tap}", "-device", f"virtio-net-pci,netdev=n0,mac={MAC}"]
    started = time.monotonic()
    qemu = network.host.popen(
        guestkit.qemu_command(guest_kit, "web", console, device), user=VM_USER, pass_fds=[tap]
    )
    os.close(tap)
    with guestkit.Guest(console, qemu) as guest:
        show_on_failure("guest", guest.log)
        guest.wait_ready()
        print(f"ready after {time.monotonic() - started:.2f} s with {guest_kit.accelerator}", file=sys.stderr)
        yield guest


def test_guest_has_network_and_tools(network: Lab, guest: guestkit.Guest) -> None:
    address = guest.address()
    assert address.startswith("192.168.77.")
    print(f"lease after {guest.lease_ms()} ms", file=sys.stderr)
    assert 0 < guest.lease_ms() < 30_000
    assert "web" in (network.directory / "leases").read_text()
    assert "mtu 1400" in guest.check("ip link show eth0")
    assert MAC in guest.check("ip link show eth0")

    guest.check(f"ping -c 1 -W 5 {WORLD_ADDRESS}")
    guest.check("nslookup web.test && ping -c 1 -W 5 web")
    network.host.run(["ping", "-c", "1", "-W", "5", address])

    network.internet.start_iperf3()
    for to_guest in (["-R"], []):
        report = iperf3(lambda words: guest.run(" ".join(words))[1], WORLD_ADDRESS, "-t", "1", *to_guest)
        rate = report["end"]["sum_received"]["bits_per_second"]
        print(f"iperf3 {to_guest}: {rate / 1e9:.2f} Gbit/s", file=sys.stderr)
        assert rate > 0
    iperf3(lambda words: network.host.run(words).stdout, address, "-t", "1")

    assert network.internet.start_echo()
    answer = guest.check(f"echo hello | nc -w 3 {WORLD_ADDRESS} 7")
    assert answer.startswith(f"{address} ") and answer.endswith(" hello\n")


def test_console_survives_what_commands_do(guest: guestkit.Guest) -> None:
    assert guest.run("exit 7") == (7, "")
    assert guest.run("printf 'a\\n@b 0 0\\n'; echo c >&2")[1] == "a\n@b 0 0\nc\n"
    assert guest.run("cat; sleep 60", timeout_s=1)[0] == 137
    assert len(guest.check("head -c 300000 /dev/zero | tr '\\0' x")) == 300_000
    assert guest.check(f"echo {'y' * 20_000} | wc -c") == "20001\n"
    guest.power_off()


class BadConsole(guestkit.Guest):
    """A console that damages the next lines sent and the next bytes received, each by one function of a list."""

    ask_after_s = 0.2

    def __init__(self, console_path: Path) -> None:
        super().__init__(console_path)
        self.sent: list[str] = []
        self.damage_sent: list[Callable[[str], str]] = []
        self.damage_received: list[Callable[[bytes], bytes]] = []

    def _send(self, line: str, deadline: float) -> None:
        self.sent.append(line)
        super()._send(self.damage_sent.pop(0)(line) if self.damage_sent else line, deadline)

    def _receive(self, deadline: float) -> None:
        before = self._received
        super()._receive(deadline)
        if self.damage_received and self._received != before:
            self._received = before + self.damage_received.pop(0)(self._received[len(before) :])


@pytest.fixture
def bad_console(guest: guestkit.Guest) -> Iterator[BadConsole]:
    guest.close()  # QEMU serves one at a time
    with BadConsole(guest.console_path) as console:
        yield console


# A command that says how often it ran, long enough for damage anywhere in it.
COUNT = f"echo {'y' * 3000} >>/run/count; wc -l </run/count; echo {'z' * 1000}"


def lose(text: str | bytes) -> str | bytes:
    return text[:0]


DAMAGE_SENT = {
    "all lost": [lose],
    "start lost": [lambda line: line[5:]],
    "identity damaged": [lambda line: "0" + line[1:]],
    "middle lost": [lambda line: line[:500] + line[508:]],
    "end lost": [lambda line: line[:-1]],
    "one character": [lambda line: line[:500] + "AB"[line[500] == "A"] + line[501:]],
    "sent again, lost again, and the ask too": [lose, lambda line: line, lose, lose],
    "in two lines": [lambda line: line[:500] + "\n" + line[500:]],
}
DAMAGE_RECEIVED = {
    "all lost": [lose],
    "head lost": [lambda answer: answer[10:]],
    "middle lost": [lambda answer: answer[:150] + answer[154:]],
    "end lost": [lambda answer: answer[:-1]],
    "one character": [lambda answer: answer[:200] + b"!" + answer[201:]],
    "twice": [lambda answer: answer[:-9], lambda answer: answer[9:]],
}


def test_damaged_request_is_sent_again_and_runs_once(bad_console: BadConsole) -> None:
    for count, (name, damage) in enumerate(DAMAGE_SENT.items(), 1):
        bad_console.damage_sent = list(damage)
        assert bad_console.check(COUNT) == f"{count}\n{'z' * 1000}\n", name
        assert not bad_console.damage_sent, name


def test_damaged_answer_is_asked_for_again_and_runs_once(bad_console: BadConsole) -> None:
    for count, (name, damage) in enumerate(DAMAGE_RECEIVED.items(), 1):
        bad_console.damage_received = list(damage)
        bad_console.sent = []
        assert bad_console.check(COUNT) == f"{count}\n{'z' * 1000}\n", name
        assert not bad_console.damage_received, name
        assert sum(" ask " not in line for line in bad_console.sent) == 1, name


def test_request_is_not_sent_again_while_its_command_runs(bad_console: BadConsole) -> None:
    assert bad_console.check(f"usleep 3000000; {COUNT}").startswith("1\n")
    kinds = [" ask " in line for line in bad_console.sent]
    assert kinds[0] is False and len(kinds) > 2 and all(kinds[1:])
    assert sum(len(line) + 2 for line in bad_console.sent[1:]) < 1000, "a tty keeps 4095 bytes"
    assert bad_console.check(COUNT).startswith("2\n"), "the answers to the asks don't get in the way"


ORPHAN = """
(usleep 200000 & echo $! >/run/orphan)
while grep -q . "/proc/$(cat /run/orphan)/cmdline"; do usleep 10000; done
echo orphan ended >/dev/ttyS0
"""


def test_request_survives_the_end_of_an_orphan_in_its_middle(bad_console: BadConsole) -> None:
    bad_console.ask_after_s = 60
    bad_console.check(f"({ORPHAN}) >/dev/null 2>&1 &")
    bad_console.sent = []

    def end_of_orphan_in_the_middle(line: str) -> str:
        connection = bad_console._connect(time.monotonic() + 5)
        connection.sendall(f"\n{line[:500]}".encode())
        wait_for(lambda: "orphan ended" in bad_console.log(), 10, "the orphan's end")
        connection.sendall(f"{line[500:]}\n".encode())
        return ""

    bad_console.damage_sent = [end_of_orphan_in_the_middle]
    assert bad_console.check(COUNT).startswith("1\n")
    assert len(bad_console.sent) == 1, "nothing had to be sent again"


def test_second_build_takes_the_cache(guest_kit: guestkit.Kit) -> None:
    def no_work(text: str) -> None:
        raise AssertionError(text)

    assert guestkit.build(no_work).accelerator == guest_kit.accelerator


def test_new_qemu_boots_the_guest(new_qemu: qemukit.Emulator, guest_kit: guestkit.Kit, lab: Lab) -> None:
    assert new_qemu.major_version() >= qemukit.MAJOR_MIN
    console = lab.public_directory("vm", VM_USER) / "console"
    command = guestkit.qemu_command(guest_kit, "new", console, dhcp=False, emulator=new_qemu.command)
    with guestkit.Guest(console, lab.host.popen(command, user=VM_USER)) as guest:
        guest.wait_ready()
        assert guest.check("hostname") == "new\n"


def test_second_build_takes_the_qemu_from_the_cache(new_qemu: qemukit.Emulator) -> None:
    def no_work(text: str) -> None:
        raise AssertionError(text)

    assert qemukit.build(no_work).major_version() == new_qemu.major_version()


def test_qemu_that_cannot_be_fetched_fails_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemukit, "MAJOR_MIN", 1000)
    monkeypatch.setattr(qemukit, "archives", lambda codename: ["http://127.0.0.1:9/debian"])
    monkeypatch.setattr(qemukit.subprocess, "run", without_update(subprocess.run))
    with pytest.raises(guestkit.KitError, match="online"):
        qemukit.build(cache=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "nothing half made is left"


def without_update(run: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., object]:
    """The machine's own package lists stay as they are."""
    return lambda command, **options: None if command == ["apt-get", "update", "-q"] else run(command, **options)


def test_ordinary_user_has_no_capability(lab: Lab) -> None:
    status = lab.host.run(["cat", "/proc/self/status"], user=VM_USER).stdout
    capabilities = [line.split()[1] for line in status.splitlines() if line.startswith("Cap")]
    assert capabilities == ["0000000000000000"] * 5
    with pytest.raises(subprocess.TimeoutExpired):
        lab.host.run(["sleep", "60"], timeout=0.1)
