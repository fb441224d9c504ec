"""Where the benchmark runs: a lab with a broker whose networks differ in their MTU, and iperf3 servers at the host."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import guestkit, qemukit
from lib.broker import Broker, Varlink, VarlinkError
from lib.lab import Lab, Namespace, wait_for

PREFIX = 24
IDLE_VMS = (0, 2, 6, 14)


@dataclass(frozen=True)
class Network:
    """A network of the broker's. Fixed subnets, so that what the broker knows nothing of can have addresses too."""

    subnet: str  # the first three bytes
    mtu: int = 1500


NETWORKS = {
    "small": Network("192.168.101"),
    "large": Network("192.168.102", 65520),
    # One for each number of idle VMs, so that rounds can interleave.
    **{f"idle-{count}": Network(f"192.168.{110 + count}") for count in IDLE_VMS},
}
LOOPBACK = "127.0.0.1"  # where passt and QEMU's user network take a guest's connections to the gateway
FIRST_FOREIGN_HOST = 240  # above what dnsmasq leases out
FIRST_PORT = 5201


class Unavailable(Exception):
    """This machine or build can't run it; the text says why. The report shows it, and the benchmark fails."""


class Absent(Exception):
    """A peer's version does not have it, which is no failure; the text says what."""


class Place:
    """A lab, a broker, one network for each MTU, held for as long as this is open."""

    def __init__(self, lab: Lab, bin_dir: Path, bench_dir: Path, options: Any) -> None:
        self.lab = lab
        self.host = lab.host
        self.bin_dir = bin_dir
        self.bench_dir = bench_dir
        self.options = options
        self._numbers = itertools.count()
        self._hosts = itertools.count(FIRST_FOREIGN_HOST)
        self._ports = itertools.count(FIRST_PORT)
        self._connections: dict[str, Varlink] = {}
        self._kit: guestkit.Kit | None = None
        self._emulator: qemukit.Emulator | None = None
        self._stack = contextlib.ExitStack()
        self.broker = Broker(lab, bin_dir, networks={name: _config(network) for name, network in NETWORKS.items()})
        # Hosts differ in whether something has loaded br_netfilter; each frame costs more where it has been.
        for table in ("iptables", "ip6tables", "arptables"):
            if Path(f"/proc/sys/net/bridge/bridge-nf-call-{table}").exists():
                self.host.sysctl(f"net/bridge/bridge-nf-call-{table}", 0)

        self.host.sysctl("net/ipv4/ping_group_range", "0 2147483647")  # passt's way to send a guest's echo requests

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for connection in self._connections.values():
            connection.close()
        self.broker.close()

    def defer(self, function: Callable[[], None]) -> None:
        """To be called when the place is closed."""
        self._stack.callback(function)

    def number(self) -> int:
        """For names that must differ."""
        return next(self._numbers)

    def hold(self, network: str) -> str:
        """The network's name, and that it exists from now on."""
        if network not in self._connections:
            connection = self._connections[network] = self.broker.connect()
            try:
                connection.call("AcquireNetwork", network=network)
            except VarlinkError as error:
                raise Unavailable(f"network {network}: {error.parameters.get('reason', error)}") from None
            mtu = self.bridge_link(network)["mtu"]
            if mtu != self.mtu(network):
                raise Unavailable(f"the broker made network {network} with MTU {mtu} and not {self.mtu(network)}")
        return network

    def mtu(self, network: str) -> int:
        return NETWORKS[network].mtu

    def start_server(self, address: str, namespace: Namespace | None = None) -> int:
        """An iperf3 server for one line alone, so that a test that hangs spoils no other's; its port."""
        port = next(self._ports)
        log_path = self.lab.directory / f"iperf3-{port}.log"
        command = ["iperf3", "-s", "--forceflush", "-B", address, "-p", str(port)]
        with open(log_path, "w") as log:
            (namespace or self.host).popen(command, stdout=log, stderr=log)
        wait_for(lambda: "Server listening" in log_path.read_text(), 10, f"iperf3 at {address} port {port}")
        return port

    def gateway(self, network: str) -> str:
        """The host's address on the network."""
        return f"{NETWORKS[network].subnet}.1"

    def bridge(self, network: str) -> str:
        """The network's bridge, a link of lab.host."""
        return f"vmnet-{network}"

    def foreign_address(self, network: str) -> str:
        """An address on the network for a VM that the broker knows nothing of."""
        return f"{NETWORKS[network].subnet}.{next(self._hosts)}"

    def namespace(self) -> Namespace:
        """A namespace that plays a VM."""
        return self.lab.namespace(f"vm{self.number()}")

    def open_tap(self, network: str, name: str) -> int:
        """A TAP without virtio-net header on the network's bridge, as the older tools have it."""
        tap = self.host.open_tap(name, vnet_hdr=False)
        self.join(network, name)
        return tap

    def join(self, network: str, link: str) -> None:
        """Puts a link of lab.host on the network's bridge."""
        self.host.ip("link", "set", link, "mtu", str(self.mtu(network)), "master", self.bridge(network), "up")

    def bridge_link(self, network: str) -> dict[str, Any]:
        """The network's bridge as `ip -json -stats link` shows it."""
        return json.loads(self.host.ip("-json", "-stats", "link", "show", "dev", self.bridge(network)))[0]

    def discard(self, network: str, address: str) -> None:
        """The host throws away what comes to address before its stack sees it: made frames have no receiver."""
        device = self.bridge_link(network)["ifname"]
        chain = f"add chain netdev bench {device} {{ type filter hook ingress device {device} priority 0; }}"
        rule = f"add rule netdev bench {device} ip daddr {address} drop"
        self.host.run(["nft", f"add table netdev bench; {chain}; flush chain netdev bench {device}; {rule}"])

    def kit(self) -> guestkit.Kit:
        """The guests' files; made on first use."""
        if not self._kit:
            self._kit = guestkit.reachable(guestkit.build(), self.lab.public_directory("kit"))
        return self._kit

    def emulator(self) -> qemukit.Emulator:
        """The QEMU of all guests, so that they can be compared: one with which vhost-user works; made on first use."""
        if not self._emulator:
            try:
                self._emulator = qemukit.reachable(qemukit.build(), self.lab.public_directory("qemu"))
            except guestkit.KitError as error:
                raise Unavailable(str(error)) from None
        return self._emulator

    def guest_kinds(self) -> tuple[str, list[str]]:
        """For the report: the guests' accelerator and the command of their QEMU, empty where unused."""
        return self._kit.accelerator if self._kit else "", self._emulator.command if self._emulator else []


def _config(network: Network) -> dict[str, Any]:
    config: dict[str, Any] = {"mode": "shared", "subnet": f"{network.subnet}.0/{PREFIX}"}
    if network.mtu != 1500:
        config["mtu"] = network.mtu
    return config
