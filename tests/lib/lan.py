"""A LAN behind a NIC of the host, for tests of mode bridged."""

from __future__ import annotations

from typing import Any

from .lab import Lab, wait_for

NIC = "lan0"  # the host's
LAN_HOST = "10.99.0.1"  # a machine there, with the LAN's DHCP server
KINDS = ("bridge", "nic")  # what VMs are put on


class Lan:
    """A LAN behind the host's NIC, with a DHCP server in a namespace of its own; uplink is what VMs may be put on."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self.kind = kind
        self.namespace = lab.namespace("lan")
        lab.veth(lab.host, NIC, self.namespace, "eth0")
        self.namespace.ip("address", "add", f"{LAN_HOST}/24", "dev", "eth0")
        self.uplink = NIC
        if kind == "bridge":
            self.uplink = "br0"
            lab.host.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0")
            lab.host.ip("link", "set", NIC, "master", "br0")
            lab.host.ip("link", "set", "br0", "up")
        self.log = lab.directory / "lan-dnsmasq.log"
        with open(self.log, "w") as log:
            self.namespace.popen(
                ["dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--port=0", "--pid-file="]
                + ["--user=", "--group=", "--log-facility=-", "--interface=eth0", "--bind-interfaces", "--no-ping"]
                + ["--dhcp-range=10.99.0.100,10.99.0.199,255.255.255.0,120", "--dhcp-authoritative"]
                + [f"--dhcp-leasefile={lab.directory}/lan.leases"],
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: "DHCP, IP range" in self.log.read_text(), 5, "the LAN's DHCP server")

    def networks(self, allow: dict[str, Any] | None = None) -> dict[str, Any]:
        """A configuration with a network "lan" on it."""
        configured = {"mode": "bridged", "uplink": self.uplink}
        return {"lan": {**configured, **({"allow": allow} if allow else {})}}
