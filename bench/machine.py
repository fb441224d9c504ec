"""What the figures depend on: the machine, its kernel, and the versions of everything that took part."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path


def _first_line(*command: str) -> str:
    """Of its output, or of what it says on stderr; "" when there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "")


def _package(name: str) -> str:
    return _first_line("dpkg-query", "-W", "-f", "${Version}", name) or "not from a package"


def _read(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.M)
    return found[1].strip() if found else "?"


def load() -> str:
    """The load of the last minute."""
    return Path("/proc/loadavg").read_text().split()[0]


def describe(helper: Path, load_before: str, accelerator: str, vhost_qemu: list[str]) -> dict[str, str]:
    """By name, in the order to be shown."""
    kernel = os.uname()
    described = {
        "CPU": f"{_read('/proc/cpuinfo', r'^model name.*?: (.*)$')}, {os.cpu_count()} cores",
        "memory": f"{int(_read('/proc/meminfo', r'^MemTotal: +([0-9]+)')) / 2**20:.0f} GiB",
        "kernel": f"{kernel.sysname} {kernel.release}",
        "system": _read("/etc/os-release", r'^PRETTY_NAME="(.*)"$'),
        "load before": load_before,
        "net.core.wmem_max": Path("/proc/sys/net/core/wmem_max").read_text().strip(),
        "vmnet-helper": _first_line(str(helper), "--version").removeprefix("version: ")
        + ", commit " + _read_commit(helper),
        "iperf3": _package("iperf3"),
        "passt": _package("passt"),
        "vde_switch": _package("vde2"),
        "QEMU": _package("qemu-system-x86"),
    }  # fmt: skip
    if accelerator:
        described["guests run under"] = accelerator
    if vhost_qemu:
        described["QEMU for vhost-user"] = _first_line(*vhost_qemu, "--version").removeprefix("QEMU emulator version ")
    return described


def _read_commit(helper: Path) -> str:
    done = subprocess.run([helper, "--version"], capture_output=True, text=True)
    found = re.search(r"^commit: (.*)$", done.stdout, re.M)
    return found[1] if found else "?"
