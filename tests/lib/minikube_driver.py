"""What minikube's drivers for krunkit and vfkit do with vmnet-helper, as a program of its own: each call is a new process.

    minikube_driver.py HELPER MACHINE_DIRECTORY version | start [--offloading] | state | stop | kill

It imports nothing of the tests, as its user may not reach them, and knows nothing of this project: after
pkg/drivers/common/vmnet/vmnet.go of kubernetes/minikube at 1abf064e747d. Only what asks macOS for its version is left out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

STEM = "vmnet-helper"
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")


class Driver:
    def __init__(self, helper: str, machine: Path) -> None:
        self.helper = helper
        self.pid_file = machine / f"{STEM}.pid"
        self.log_file = machine / f"{STEM}.log"
        self.socket_path = machine / f"{STEM}.sock"
        self.id_file = machine / "interface-id"

    def version(self) -> str:
        """YAML of two keys, the version a semantic one with or without a v."""
        output = subprocess.run([self.helper, "--version"], check=True, capture_output=True, text=True).stdout
        values = dict(line.split(": ", 1) for line in output.splitlines())
        assert set(values) == {"version", "commit"}, output
        assert SEMVER.fullmatch(values["version"].removeprefix("v")), output
        return values["version"]

    def start(self, offloading: bool) -> str:
        """A new process group; one JSON value is read from the pipe, which is closed then."""
        if not self.id_file.exists():
            self.id_file.write_text(str(uuid.uuid4()))
        arguments = ["--socket", str(self.socket_path), "--interface-id", self.id_file.read_text()]
        arguments += ["--enable-tso", "--enable-checksum-offload"] if offloading else []
        with open(self.log_file, "w") as log:
            process = subprocess.Popen(
                [self.helper, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=os.setpgrp,
            )  # fmt: skip
        self.pid_file.write_text(str(process.pid))
        info = self._decode(process.stdout.fileno())
        process.stdout.close()
        return f"{info['vmnet_mac_address']} {info['vmnet_start_address']} {info['vmnet_end_address']} {info['vmnet_subnet_mask']}"

    def _decode(self, pipe: int) -> dict[str, str]:
        """As soon as there is a whole value, as Go's json.Decoder does it."""
        data = b""
        while True:
            more = os.read(pipe, 4096)
            if not more:
                sys.exit(f"failed to decode vmnet interface info: EOF\n{self.log_file.read_text()}")
            data += more
            try:
                return json.JSONDecoder().raw_decode(data.decode())[0]
            except json.JSONDecodeError:
                continue

    def _pid(self) -> int | None:
        """None: no such process, or another one has its number."""
        try:
            pid = int(self.pid_file.read_text())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            name, state, pid = "", "", 0
        if name == STEM and state != "Z":
            return pid
        self.pid_file.unlink(missing_ok=True)
        return None

    def state(self) -> str:
        return "Running" if self._pid() else "Stopped"

    def stop(self) -> str:
        pid = self._pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
        return ""

    def kill(self) -> str:
        pid = self._pid()
        if pid:
            os.kill(-pid, signal.SIGKILL)
        return ""


def main(helper: str, machine: str, command: str, *options: str) -> None:
    driver = Driver(helper, Path(machine))
    if command == "start":
        print(driver.start("--offloading" in options))
    else:
        print(getattr(driver, command)())


if __name__ == "__main__":
    main(*sys.argv[1:])
