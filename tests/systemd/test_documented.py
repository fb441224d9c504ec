"""Command lines of the documentation that need a machine which systemd runs, word for word."""

from __future__ import annotations

import pytest

from lib import doc_commands

HERE = "tests/systemd/test_documented.py"
COMMANDS = [one for one in doc_commands.all_commands() if one.marker and one.marker.text.startswith(HERE)]


def test_there_are_some():
    assert any("systemctl enable" in command.text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}:{command.line}")
def test_command(machine, command):
    machine.run(["bash", "-ec", command.text.removeprefix("sudo ")])
