"""vmnetctl network, leases and stats; how tables look on terminals; what programs get."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import unicodedata
from pathlib import Path

import jsonschema
import pytest

from lib.broker import MEMBER
from lib.cable import Cable
from lib.frames import BROADCAST, ethernet
from lib.lab import wait_for
from lib.pseudo_terminal import PseudoTerminal, plain
from lib.tap_vm import TapVm

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/vmnetctl.schema.json").read_text())
EXPERIMENTAL = 0x88B5
# What a broker that is none of ours may say.
EVIL = "red \u001b[31m, right-to-left \u202e, 8-bit \u009b2J, zero\u200bwidth"


@pytest.fixture
def environment(broker):
    return {"VMNET_BROKER_SOCKET": str(broker.socket_path), "TERM": "xterm", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def broker(make_broker):
    return make_broker(networks={"lab": {"mode": "host", "description": "Für Versuche ✓ " + "mit vielen Worten " * 6}})


@pytest.fixture
def ctl(broker, bin_dir, environment):
    def run(*arguments, user=MEMBER, **env):
        return broker.namespace.run(
            [bin_dir / "vmnetctl", *arguments], user=user, env={**environment, **env}, check=False, timeout=20
        )

    return run


@pytest.fixture
def on_terminal(broker, bin_dir, environment):
    """on_terminal(*arguments, columns=..., **environment): vmnetctl on a terminal."""
    with contextlib.ExitStack() as stack:

        def run(*arguments, columns=200, rows=50, **env):
            terminal = PseudoTerminal(
                broker.namespace, [bin_dir / "vmnetctl", *arguments], columns, rows, user=MEMBER, env={**environment, **env}
            )
            stack.callback(terminal.close)
            return terminal

        yield run


@pytest.fixture
def vm(broker):
    with broker.connect(MEMBER) as peer:
        vm = TapVm(peer, hostname="web")
    wait_for(lambda: vm.lease() == vm.address, 10, "its lease")
    yield vm
    os.close(vm.tap)


@pytest.fixture
def cable(broker, bin_dir):
    made = Cable(broker, bin_dir)
    yield made
    made.close()


def validate(command, text):
    value = json.loads(text)
    jsonschema.Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{command}"}).validate(value)
    return value


def columns_of(line):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


# What is told


def test_network(ctl, vm, broker):
    with broker.connect(MEMBER) as peer:
        peer.call("Forward", network="shared", listen="18080", target="web:80", pin=True)
    result = ctl("network", "shared")
    assert result.returncode == 0, result.stderr
    described, interfaces, leases, forwards = result.stdout.split("\n\n")
    told = {line[:13].strip(): line[13:] for line in described.splitlines()}
    assert told["network"] == "shared" and told["state"] == "running" and told["used by"] == "1 interface, 0 connections"
    assert told["subnet"] == "192.168.64.0/24, VMs up to 192.168.64.254" and told["gateway"] == "192.168.64.1"
    assert told["serves"] == "DHCP (leases of 600 s), DNS, IPv6 router advertisements" and told["MTU"] == "1500 bytes"
    assert interfaces.startswith("interfaces:\nINTERFACE") and vm.mac in interfaces
    assert leases.startswith("leases:\nADDRESS") and vm.address in leases and "web" in leases
    assert forwards.startswith("forwards:\n") and "web:80" in forwards
    value = validate("network", ctl("network", "shared", "--json").stdout)
    assert value["network"]["name"] == "shared" and value["uses"] == {"connections": 0, "interfaces": 1}
    assert [len(value[key]) for key in ("interfaces", "leases", "forwards")] == [1, 1, 1]
    other = validate("network", ctl("network", "lab", "--json").stdout)
    assert other["state"] == "absent" and other["interfaces"] == other["forwards"] == []


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("network",), "give the name of one"),
        (("network", "none"), 'network "none" does not exist; there are: '),
        (("stats", "--watch=0"), "a number of seconds, 1 to 86400"),
        (("stats", "--watch=x"), "option --watch x"),
        (("stats", "--format", "yaml"), "one of table, prometheus"),
        (("stats", "--format", "prometheus", "--json"), "leave out --watch and --json"),
        (("stats", "--watch", "5"), 'one argument too many, "5"'),
    ],
)
def test_what_it_cannot_do(ctl, arguments, said):
    result = ctl(*arguments)
    assert result.returncode == 1 and result.stdout == "" and said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_leases(ctl, vm):
    titles, line = ctl("leases").stdout.splitlines()
    row = dict(zip(titles.split(), line.split(), strict=True))
    assert row.pop("EXPIRES")[:2] in ("9m", "10")
    assert row == {
        "NETWORK": "shared", "ADDRESS": vm.address, "MAC": vm.mac, "HOSTNAME": "web", "INTERFACE": vm.interface,
        "USER": str(MEMBER.uid),
    }
    assert len(validate("leases", ctl("leases", "--json").stdout)["leases"]) == 1


def test_stats(ctl, cable, vm):
    frame = ethernet(BROADCAST, cable.mac, EXPERIMENTAL, b"x" * 986)
    for _ in range(1500):
        cable.socket.send(frame)

    def helped():
        value = validate("stats", ctl("stats", "--json").stdout)
        return [entry["helper"]["vmToHost"]["packets"] for entry in value["statistics"] if "helper" in entry]

    def table():
        """A helper that a busy machine keeps from answering is left out of one."""
        text = ctl("stats").stdout
        return text if text.count(" 1.5 MB ") == 2 else ""

    wait_for(lambda: helped() == [1500], 10, "all of it counted")
    _, *lines = wait_for(table, 10, "what kernel and helper counted").splitlines()
    rows = {(line.split()[1], line.split()[3]): line for line in lines}
    ours = [source for name, source in rows if name != vm.interface]
    assert ours == ["kernel", "helper"] and (vm.interface, "helper") not in rows


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.e+]+|NaN|[+-]Inf)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def parse_prometheus(text):
    """{(metric, labels): value}, or an assertion: the text format 0.0.4, each metric's lines in one group behind its TYPE."""
    assert text.endswith("\n")
    samples, types, closed, current = {}, {}, set(), None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, words = line[7:].partition(" ")
            assert words and name not in closed
            closed.add(current := name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == current and name not in types and kind in ("counter", "gauge")
            types[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name, labels, value = found.groups()
            assert name == current and name in types
            pairs = LABEL.findall(labels)
            assert "".join(f'{key}="{word}",' for key, word in pairs).rstrip(",") == labels, line
            assert (name, tuple(pairs)) not in samples, "a series twice"
            samples[name, tuple(pairs)] = float(value)
    assert set(types) == closed
    return samples


def test_prometheus(ctl, cable, vm):
    cable.socket.send(ethernet(BROADCAST, cable.mac, EXPERIMENTAL, b"x" * 86))

    def samples():
        return parse_prometheus(ctl("stats", "--format", "prometheus").stdout)

    def helper_packets():
        return [
            value for (name, labels), value in samples().items()
            if name == "vmnet_helper_packets_total" and ("direction", "vm->host") in labels
        ]

    wait_for(lambda: helper_packets() == [1], 5, "one frame from the VM")
    names = {name for name, _ in samples()}
    assert names == {f"vmnet_{place}_{what}_total" for place in ("interface", "helper") for what in ("packets", "bytes", "drops")}
    hostnames = {dict(labels)["hostname"] for _, labels in samples()}
    assert hostnames == {"web", ""}


def test_prometheus_of_nothing(ctl):
    assert parse_prometheus(ctl("stats", "--format", "prometheus").stdout) == {}


def test_every_command_s_json_has_a_schema(ctl, vm):
    commands = re.findall(r"^  (\w+) ", ctl("--help").stdout.partition("commands:\n")[2], re.M)
    elsewhere = {"exec", "monitor"}  # the command's own output, event.schema.json
    assert set(commands) - elsewhere == {name for name in SCHEMA["$defs"] if name.islower()} - {"any"}
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for arguments in (("networks",), ("interfaces",), ("doctor",), ("forward", "--list"), ("leases",), ("stats",)):
        value = validate(arguments[0], ctl(*arguments, "--json").stdout)
        jsonschema.validate(value, SCHEMA)
    made = validate("forward", ctl("forward", "--pin", "18081", "web:80", "--json").stdout)
    validate("forward", ctl("forward", "--list", "--json").stdout)
    validate("forward", ctl("forward", "--remove", str(made["forward"]["id"]), "--json").stdout)
    with pytest.raises(jsonschema.ValidationError):
        validate("leases", '{"leases": [{"network": "x"}]}')


# How it looks


def test_colors_on_a_terminal_only(ctl, on_terminal, vm):
    assert "\x1b" not in ctl("networks").stdout
    colored = on_terminal("networks").finish()
    assert "\x1b[1mNETWORK\x1b[0m" in colored and "\x1b[32myes\x1b[0m" in colored
    assert plain(colored).splitlines()[:1] == [line for line in ctl("networks").stdout.splitlines() if "NETWORK" in line]
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
        assert "\x1b" not in on_terminal("networks", **env).finish()
    assert "\x1b[32m" in on_terminal("networks", NO_COLOR="").finish(), "empty is not set"


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140])
def test_narrow_terminals(on_terminal, vm, columns):
    for command in (("networks",), ("interfaces",), ("leases",), ("stats",)):
        text = plain(on_terminal(*command, columns=columns).finish())
        # Names and addresses stay, whatever comes.
        assert all(columns_of(line) <= max(columns, 62) for line in text.splitlines()), text
        titles = text.splitlines()[0].split()
        assert titles[0] in ("NETWORK", "INTERFACE") and len(titles) >= 3
    networks = plain(on_terminal("networks", columns=columns).finish())
    assert ("…" in networks) or "need a wider terminal" in networks


def test_all_columns_where_there_is_room(on_terminal, ctl):
    wide = plain(on_terminal("networks", columns=400).finish())
    assert wide == ctl("networks").stdout and "Für Versuche ✓ " in wide
    lines = wide.splitlines()
    # Aligned by what is seen, not by bytes.
    assert {columns_of(line[: line.index("Für")]) for line in lines if "Für" in line} == {columns_of(lines[0][: lines[0].index("DESCRIPTION")])}


@pytest.fixture
def evil_broker(broker):
    """Its socket: every question has one answer."""
    path = broker.lab.public_directory("evil", MEMBER) / "socket"
    answer = {
        "networks": [{"name": "x", "mode": EVIL, "mtu": 1, "domain": EVIL, "running": True, "description": EVIL}],
        "findings": [{"problem": "x", "text": EVIL, "mend": EVIL}], "accepts": [EVIL], "more": False,
    }
    reply = json.dumps({"parameters": answer}).encode() + b"\0"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.chmod(path, 0o777)
    listener.listen()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(65536):
                        connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield str(path)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_other_peoples_words_give_no_orders(on_terminal, ctl, evil_broker):
    harmless = "red ?[31m, right-to-left ?, 8-bit ?2J, zero?width"
    at = {"VMNET_BROKER_SOCKET": evil_broker}
    for text in (on_terminal("networks", columns=400, **at).finish(), ctl("networks", **at).stdout):
        assert text.count(harmless) == 3, text
    assert on_terminal("doctor", **at).finish().count(harmless) == 3
    raw = on_terminal("networks", "--json", **at).finish()
    assert not set(raw) & {"\x1b", "\u202e", "\u009b", "\u200b"}
    (network,) = json.loads(ctl("networks", "--json", **at).stdout)["networks"]
    assert network["description"] == EVIL, "programs get what was said"


def test_a_terminal_without_utf8(on_terminal):
    text = on_terminal("networks", columns=400, LC_ALL="C").finish()
    assert text.isascii() and "F??r Versuche ??? " in plain(text)
    assert "+" in plain(on_terminal("networks", columns=100, LC_ALL="C").finish())


# Again and again


def test_watch_on_a_terminal(broker, on_terminal, cable):
    terminal = on_terminal("stats", "--watch=1", columns=160)
    terminal.wait_for(r"\x1b\[H\x1b\[2J.*PACKETS/S")
    cable.socket.send(ethernet(BROADCAST, cable.mac, EXPERIMENTAL, b"x" * 1000))
    terminal.wait_for(r"[1-9][0-9.]* k?bit/s")
    terminal.type("\x03")
    terminal.finish()
    assert terminal.process.returncode == 0


def test_watch_on_a_terminal_that_is_resized(on_terminal, vm):
    terminal = on_terminal("stats", "--watch=1000", columns=160)
    terminal.wait_for(r"PACKETS/S.*\n")
    terminal.resize(70)
    terminal.wait_for(r"\x1b\[H\x1b\[2J.*need a wider terminal")


def test_watch_over_a_restart_of_the_broker(broker, on_terminal, cable):
    terminal = on_terminal("stats", "--watch=1", columns=160)
    terminal.wait_for("PACKETS/S")
    broker.kill()
    terminal.wait_for("the broker has gone")
    broker.start()
    terminal.wait_for(r"the broker is back.*PACKETS/S.*helper")
    assert terminal.process.poll() is None


def test_watch_for_programs(broker, bin_dir, environment, cable):
    process = broker.namespace.popen(
        [bin_dir / "vmnetctl", "stats", "--watch=1", "--json"], user=MEMBER, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        first = validate("stats", process.stdout.readline())
        assert "rates" not in first["statistics"][0]
        frame = ethernet(BROADCAST, cable.mac, EXPERIMENTAL, b"x" * 986)
        for _ in range(500):
            cable.socket.send(frame)
        are_seen = False
        for _ in range(20):
            second = validate("stats", process.stdout.readline())
            (before,), (entry,) = first["statistics"], second["statistics"]
            elapsed_s = (second["time"] - first["time"]) / 1000
            for source in {"kernel", "helper"} & before.keys() & entry.keys():
                grown = entry[source]["vmToHost"]["bytes"] - before[source]["vmToHost"]["bytes"]
                assert entry["rates"][source]["vmToHost"]["bytes"] == pytest.approx(grown / elapsed_s)
                are_seen = are_seen or (source == "helper" and entry["rates"][source]["vmToHost"]["packets"] > 0)
            first = second
            if are_seen:
                break
        assert are_seen, "the helper's rate"
    finally:
        process.terminate()
        assert process.wait(5) == 0


def test_tables_for_programs_are_no_pictures(broker, bin_dir, environment, vm):
    process = broker.namespace.popen(
        [bin_dir / "vmnetctl", "stats", "--watch=1"], user=MEMBER, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = [process.stdout.readline() for _ in range(5)]
        assert lines[0].startswith("NETWORK") and vm.interface in lines[1] and lines[2] == "\n" and lines[3] == lines[0]
    finally:
        process.terminate()
        process.wait(5)


@pytest.mark.parametrize("ignored", [False, True])
def test_who_stops_reading_is_no_error(broker, bin_dir, environment, ignored):
    """Also where the starter ignores SIGPIPE, as service managers do."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = broker.namespace.popen(
            ["sh", "-c", ("trap '' PIPE; " if ignored else "") + f"exec {bin_dir}/vmnetctl networks"],
            env=environment, stdout=writer, stderr=subprocess.PIPE, text=True,
        )
        _, said = process.communicate(timeout=10)
    finally:
        os.close(writer)
    assert process.returncode == -signal.SIGPIPE and said == ""


def test_help_tells_the_exit_status(ctl):
    text = ctl("--help").stdout
    assert "exit status: 0; 1 when something failed" in text and "--watch[=SECONDS]" in ctl("stats", "--help").stdout
