"""Completion of vmnetctl in bash and zsh: everything it has is offered, whatever it has."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from lib.broker import MEMBER
from lib.lab import wait_for
from lib.pseudo_terminal import PseudoTerminal, plain

COMPLETIONS = Path(__file__).resolve().parents[2] / "data/completions"

BASH = """
source {file}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_vmnetctl {program} "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

# The functions of zsh's own that it calls, as they are outside of its line editor.
ZSH = """
compadd() {{ shift; print -l -- ${{(P)1}} }}
compset() {{ words[CURRENT]=${{words[CURRENT]#*=}} }}
_describe() {{ local one; for one in ${{(P)2}}; do print -r -- ${{one%%:*}}; done }}
_files() {{ print -l -- *(N) }}
_command_names() {{ print -l -- ${{(k)commands}} }}
words=({words})
CURRENT=$#words
source {file}
"""


@pytest.fixture
def files(public_directory):
    """Where ordinary users reach them."""
    directory = public_directory / "completions"
    if not directory.exists():
        shutil.copytree(COMPLETIONS, directory)
        os.chmod(directory, 0o755)
    return directory


@pytest.fixture(params=["bash", "zsh"])
def complete(request, broker, bin_dir, files):
    """complete(*words): what is offered for the last word; that begins with it, as zsh's line editor filters by itself."""
    shell, script, file = {
        "bash": (["bash", "--norc"], BASH, "vmnetctl.bash"),
        "zsh": (["zsh", "-f"], ZSH, "_vmnetctl"),
    }[request.param]
    program = bin_dir / "vmnetctl"

    def run(*words, cwd=None):
        text = script.format(
            file=files / file, program=program, words=" ".join(shlex.quote(str(word)) for word in (program, *words))
        )
        result = broker.namespace.run(
            [*shell, "-c", (f"cd {cwd}\n" if cwd else "") + text], user=MEMBER,
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path)}, check=False, timeout=30,
        )
        assert result.stderr == "", result.stderr
        last = words[-1].rpartition("=")[2]
        return [line for line in result.stdout.splitlines() if line and line.startswith(last)]

    run.shell = request.param
    return run


@pytest.fixture
def help_of(broker, bin_dir):
    return lambda *command: broker.namespace.run([bin_dir / "vmnetctl", *command, "--help"]).stdout


@pytest.fixture
def broker(make_broker):
    return make_broker(networks={"lab": {"mode": "host"}, "lab-2.x": {"mode": "host"}})


def commands_of(text):
    return re.findall(r"^  ([a-z]\S*) ", text.partition("\ncommands:\n")[2].partition("\n\n")[0], re.M)


def options_of(text):
    return re.findall(r"^  (?:-\w,|   ) (--[\w-]+)", text, re.M)


def test_every_command_and_option(complete, help_of):
    commands = commands_of(help_of())
    assert len(commands) >= 9
    assert complete("") == commands
    common = options_of(help_of())
    assert complete("--") == common and len(common) == 4
    for command in commands:
        own = options_of(help_of(command))
        assert complete(command, "--") == own and set(own) >= set(common)


def test_beginnings(complete):
    assert complete("le") == ["leases"]
    assert complete("n") == ["network", "networks"]
    assert complete("xyz") == []
    assert complete("--json", "st") == ["stats"]
    assert complete("stats", "--w") == ["--watch"]
    assert complete("stats", "--json", "--f") == ["--format"]


def test_networks(complete, broker):
    names = ["host", "lab", "lab-2.x", "shared"]
    assert complete("network", "") == complete("monitor", "") == complete("forward", "--network", "") == names
    assert complete("network", "lab") == ["lab", "lab-2.x"]
    assert complete("network", "lab", "") == [], "it takes one"
    assert complete("--socket", "/nowhere", "network", "") == [], "nobody answers there, and nothing is said"
    assert complete("--socket", str(broker.socket_path), "network", "la") == ["lab", "lab-2.x"]


def test_values(complete, broker, files):
    assert complete("stats", "--format", "") == ["table", "prometheus"]
    assert complete("stats", "--watch", "") == [], "its argument is not the next word"
    assert complete("networks", "") == []
    assert "vmnetctl.bash" in complete("--socket", "", cwd=files)
    assert "true" in complete("exec", "tru")
    assert "true" in complete("exec", "--root", "--", "tru")
    with broker.connect(MEMBER) as peer:
        _, fds = peer.call("CreateInterface", network="shared", hostname="web")
        number = peer.call("Forward", network="shared", listen="18082", target="web:80", pin=True)[0]["forward"]["id"]
    try:
        assert complete("forward", "8080", "w") == ["web"]
        assert complete("forward", "") == []
        assert complete("forward", "--remove", "") == [str(number)]
    finally:
        for fd in fds:
            os.close(fd)


def test_options_by_their_letters(complete, files):
    assert complete("capture", "-w", "out.pcapng", "la") == ["lab", "lab-2.x"], "the file is no network"
    assert "vmnetctl.bash" in complete("capture", "-w", "", cwd=files)
    assert complete("capture", "-w/tmp/x", "la") == ["lab", "lab-2.x"]
    assert complete("capture", "lab", "-w/tmp/x", "--sn") == ["--snaplen"]


def test_what_was_typed_is_no_program(complete, files):
    """Such as one of sed's, which runs commands."""
    mark = files.parent / "mark"
    mark.touch()
    assert complete("capture", "-.*/rm mark/e#", "--sn", cwd=files.parent) == ["--snaplen"]
    assert complete("-.*/rm mark/e#", "net", cwd=files.parent) == ["network", "networks"]
    assert mark.exists()


def test_values_behind_an_equals_sign(complete):
    # bash makes three words of it, zsh one.
    split = ("--network", "=") if complete.shell == "bash" else ()
    words = (lambda value: (*split, value)) if split else (lambda value: (f"--network={value}",))
    assert complete("forward", *words("sh")) == ["shared"]


@pytest.mark.parametrize(
    "shell, setting",
    [
        (["bash", "--norc", "--noprofile", "-i"], "source {files}/vmnetctl.bash"),
        (["zsh", "-f", "-i"], "fpath=({files} $fpath); autoload -Uz compinit; compinit -u -D"),
    ],
    ids=["bash", "zsh"],
)
def test_on_a_terminal(broker, bin_dir, files, shell, setting):
    terminal = PseudoTerminal(
        broker.namespace, shell, user=MEMBER,
        env={"PATH": f"{bin_dir}:/usr/bin:/bin", "VMNET_BROKER_SOCKET": str(broker.socket_path), "TERM": "xterm", "PS1": "> ", "HOME": "/"},
    )
    try:
        terminal.type(setting.format(files=files) + "; echo read''y\n")
        terminal.wait_for("ready")
        terminal.type("vmnetctl lea\t--js\t\n")
        terminal.wait_for(r'"leases": \[\]')
        terminal.type("vmnetctl network sha\t | head -n 1\n")

        def told():
            terminal.read(0.1)
            return "network      shared" in plain(terminal.text)

        wait_for(told, 10, "what it says of the network")
    finally:
        terminal.close()
