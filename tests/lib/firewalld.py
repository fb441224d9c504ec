"""A real firewalld on a bus of its own, in a lab's host namespace: with polkit, which decides who may tell it what.

It is not installed: tests/lib/unpacked.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .lab import Lab, is_running, wait_for
from .unpacked import MOUNTS, unpack

ROOT = Path(__file__).resolve().parents[2]
ACTIONS = "usr/share/polkit-1/actions/org.fedoraproject.FirewallD1"
START_S = 30

BUS = """<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""

RUN = (
    MOUNTS
    + """
mount -t tmpfs tmpfs /run
mkdir /run/firewalld
mount -t tmpfs tmpfs /var/log
exec "$@"
"""
)


class Firewalld:
    """bus is what DBUS_SYSTEM_BUS_ADDRESS must be. zone: whether ours is shipped. user: whom the polkit rule lets."""

    def __init__(self, lab: Lab, zone: bool = True, user: str = "nobody") -> None:
        self.lab = lab
        self.directory = lab.public_directory("firewalld")
        self.tree = unpack("firewalld", self.directory / "tree")
        shutil.copy(self.tree / f"{ACTIONS}.server.policy.choice", self.tree / f"{ACTIONS}.policy")
        rules = self.tree / "usr/share/polkit-1/rules.d"
        rules.mkdir(parents=True)
        rule = (ROOT / "systemd/vmnet-broker.rules").read_text()
        assert '"vmnet-broker"' in rule
        (rules / "50-vmnet.rules").write_text(rule.replace('"vmnet-broker"', f'"{user}"'))
        if zone:
            self.ship_zone()
        path = self.directory / "bus"
        self.bus = f"unix:path={path}"
        self.log_path = self.directory / "log"
        configuration = self.directory / "bus.conf"
        configuration.write_text(BUS.format(path=path))
        self._popen("dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile")
        wait_for(path.exists, START_S, "a bus")
        os.chmod(path, 0o666)
        self._popen("/usr/lib/polkit-1/polkitd", "--no-debug")
        self._wait_name("org.freedesktop.PolicyKit1")
        self.start()

    def ship_zone(self) -> None:
        shutil.copy(ROOT / "firewalld/vmnet.xml", self.tree / "usr/lib/firewalld/zones/vmnet.xml")

    def _popen(self, *command: str) -> subprocess.Popen[bytes]:
        script = RUN.format(tree=self.tree)
        with open(self.log_path, "a") as log:
            return self.lab.host.popen(
                ["unshare", "-m", "sh", "-ec", script, "sh", *command],
                env={"DBUS_SYSTEM_BUS_ADDRESS": self.bus},
                stdout=log,
                stderr=log,
            )

    def _busctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.lab.host.run(["busctl", f"--address={self.bus}", *arguments], check=False)

    def _wait_name(self, name: str) -> None:
        call = ["call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "NameHasOwner", "s", name]
        wait_for(lambda: "true" in self._busctl(*call).stdout, START_S, f"{name} on the bus\n{self.log()}")

    def start(self) -> None:
        self.process = self._popen("/usr/sbin/firewalld", "--nofork", "--nopid")
        self._wait_name("org.fedoraproject.FirewallD1")
        wait_for(lambda: "public" in self.call("", "getDefaultZone"), START_S, f"firewalld\n{self.log()}")

    def stop(self) -> None:
        self.process.terminate()
        wait_for(lambda: not is_running(self.process.pid), START_S, "end of firewalld")

    def call(self, interface: str, method: str, *arguments: str) -> str:
        """As root; what it answered."""
        name = "org.fedoraproject.FirewallD1"
        words = [name, "/org/fedoraproject/FirewallD1", name + interface, method]
        return self._busctl("call", *words, *(["s" * len(arguments)] if arguments else []), *arguments).stdout

    def zone_of(self, link: str) -> str:
        return self.call(".zone", "getZoneOfInterface", link).strip().removeprefix("s ").strip('"')

    def reload(self) -> None:
        self.call("", "reload")

    def log(self) -> str:
        return self.log_path.read_text()
