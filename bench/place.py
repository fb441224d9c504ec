"""Where the benchmark runs: a lab with a broker whose networks differ in their MTU, and iperf3 servers at the host."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

from lib import guestkit
from lib.broker import Broker, Varlink
from lib.lab import Lab, Namespace, wait_for

PREFIX = 24
# By MTU. Fixed subnets, so that the veth and TAPs that the broker knows nothing of can be given addresses.
NETWORKS = {1500: ("small", "192.168.101"), 65520: ("large", "192.168.102")}
LOOPBACK = "127.0.0.1"  # where passt and QEMU's user network take a guest's connections to the gateway
FIRST_FOREIGN_HOST = 240  # above what dnsmasq leases out
FIRST_PORT = 5201


class Unavailable(Exception):
    """This machine or build can't run it; the text says why. The report shows it, and the benchmark fails."""


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
        self._connections: dict[int, Varlink] = {}
        self._kit: guestkit.Kit | None = None
        self._stack = contextlib.ExitStack()
        self.broker = Broker(lab, bin_dir, networks={name: _config(mtu) for mtu, (name, _) in NETWORKS.items()})
        # Hosts differ in whether something has loaded br_netfilter; each frame costs more where it has been.
        for table in ("iptables", "ip6tables", "arptables"):
            if Path(f"/proc/sys/net/bridge/bridge-nf-call-{table}").exists():
                self.host.sysctl(f"net/bridge/bridge-nf-call-{table}", 0)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for connection in self._connections.values():
            connection.close()
        self.broker.close()

    def number(self) -> int:
        """For names that must differ."""
        return next(self._numbers)

    def network(self, mtu: int) -> str:
        """The network with this MTU, held from now on."""
        name = NETWORKS[mtu][0]
        if mtu not in self._connections:
            connection = self.broker.connect()
            self._connections[mtu] = connection
            connection.call("AcquireNetwork", network=name)
            wait_for(lambda: self._link_mtu(name) is not None, 10, f"the bridge of network {name}")
            if self._link_mtu(name) != mtu:
                raise Unavailable(f"the broker made network {name} with MTU {self._link_mtu(name)} and not {mtu}")
        return name

    def start_server(self, address: str, namespace: Namespace | None = None) -> int:
        """An iperf3 server for one line alone, so that a test that hangs spoils no other's; its port."""
        port = next(self._ports)
        log_path = self.lab.directory / f"iperf3-{port}.log"
        command = ["iperf3", "-s", "--forceflush", "-B", address, "-p", str(port)]
        with open(log_path, "w") as log:
            (namespace or self.host).popen(command, stdout=log, stderr=log)
        wait_for(lambda: "Server listening" in log_path.read_text(), 10, f"iperf3 at {address} port {port}")
        return port

    def gateway(self, mtu: int) -> str:
        """The host's address on the network."""
        return f"{NETWORKS[mtu][1]}.1"

    def bridge(self, mtu: int) -> str:
        """The network's bridge, a link of lab.host."""
        return f"vmnet-{self.network(mtu)}"

    def foreign_address(self, mtu: int) -> str:
        """An address on the network for a VM that the broker knows nothing of."""
        return f"{NETWORKS[mtu][1]}.{next(self._hosts)}"

    def namespace(self) -> Namespace:
        """A namespace that plays a VM."""
        return self.lab.namespace(f"vm{self.number()}")

    def open_tap(self, mtu: int, name: str) -> int:
        """A TAP without virtio-net header on the network's bridge, as the older tools have it."""
        tap = self.host.open_tap(name, vnet_hdr=False)
        self.join(mtu, name)
        return tap

    def join(self, mtu: int, link: str) -> None:
        """Puts a link of lab.host on the network's bridge."""
        self.host.ip("link", "set", link, "mtu", str(mtu), "master", self.bridge(mtu), "up")

    def bridge_link(self, mtu: int) -> dict[str, Any]:
        """The network's bridge as `ip -json link` shows it."""
        return json.loads(self.host.ip("-json", "link", "show", "dev", self.bridge(mtu)))[0]

    def discard(self, mtu: int, address: str) -> None:
        """The host throws away what comes to address before its stack sees it: made frames have no receiver."""
        device = self.bridge_link(mtu)["ifname"]
        chain = f"add chain netdev bench {device} {{ type filter hook ingress device {device} priority 0; }}"
        rule = f"add rule netdev bench {device} ip daddr {address} drop"
        self.host.run(["nft", f"add table netdev bench; {chain}; flush chain netdev bench {device}; {rule}"])

    def kit(self) -> guestkit.Kit:
        if not self._kit:
            self._kit = guestkit.reachable(guestkit.build(), self.lab.public_directory("kit"))
        return self._kit

    def _link_mtu(self, network: str) -> int | None:
        links = json.loads(self.host.ip("-json", "link", "show"))
        return next((link["mtu"] for link in links if f"vmnet-{network}" in link.get("altnames", ())), None)


def _config(mtu: int) -> dict[str, Any]:
    config: dict[str, Any] = {"mode": "shared", "subnet": f"{NETWORKS[mtu][1]}.0/{PREFIX}"}
    if mtu != 1500:
        config["mtu"] = mtu
    return config
