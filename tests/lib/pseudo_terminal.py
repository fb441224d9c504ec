"""A program on a terminal of its own, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

from .lab import Namespace
from .readiness import readable

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class PseudoTerminal:
    """command on a terminal of so many columns and rows. text is all that came, escapes and all."""

    def __init__(
        self, namespace: Namespace, command: Sequence[Any], columns: int = 200, rows: int = 50, **options: Any
    ) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.process: subprocess.Popen[Any] = namespace.popen(
            # Without one that controls it nothing is told of ^C and of sizes.
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, **options
        )
        os.close(slave)
        self.text = ""

    def resize(self, columns: int, rows: int = 50) -> None:
        """Tells the program, too, if it is there."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self, timeout_s: float) -> bool:
        """False when there is nothing more to come."""
        if not readable([self.master], timeout_s):
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def wait_for(self, wanted: str, deadline_s: float = 10) -> None:
        """Until the pattern is in what came since the last call; that is forgotten then."""
        deadline = time.monotonic() + deadline_s
        while not re.search(wanted, self.text, re.S):
            assert time.monotonic() < deadline, f"no {wanted!r} in\n{self.text}"
            assert self.read(0.2) or re.search(wanted, self.text, re.S), f"no {wanted!r} at the end of\n{self.text}"
        self.text = ""

    def finish(self, deadline_s: float = 20) -> str:
        """All of it, at the program's end."""
        deadline = time.monotonic() + deadline_s
        while self.read(0.2):
            assert time.monotonic() < deadline, self.text
        self.process.wait(deadline_s)
        return self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        os.close(self.master)


def plain(text: str) -> str:
    """Without colors and orders."""
    return ESCAPES.sub("", text)
