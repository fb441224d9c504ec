"""What else lives on a host: firewalls of others, and whether a VM's five ways still work beside them."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .broker import Broker
from .cable import Cable
from .lab import (
    INTERNET_ADDRESS,
    UPLINK,
    WORLD_ADDRESS,
    CommandError,
    Lab,
    Namespace,
    wait_for,
)
from .simulated import LINK, SimulatedVm

HOST_PORT = 7000  # what a service of the host listens on
VM_PORT = 7001

# The chains that Docker 20.10 to 27 makes beside its containers' rules, by its own iptables commands.
DOCKER = """
iptables -P FORWARD DROP
iptables -N DOCKER
iptables -N DOCKER-ISOLATION-STAGE-1
iptables -N DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o docker0 -j DOCKER
iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -N DOCKER-USER
iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
ip6tables -P FORWARD DROP
"""

# ufw's shape: default deny incoming and routed, its own chains jumped to from the built-in ones.
UFW = """
for tool in iptables ip6tables; do
    $tool -P INPUT DROP
    $tool -P FORWARD DROP
    for hook in INPUT FORWARD; do
        for part in before after reject; do
            $tool -N ufw-$part-$hook
            $tool -A $hook -j ufw-$part-$hook
        done
        $tool -A ufw-before-$hook -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    done
    $tool -A ufw-before-INPUT -i lo -j ACCEPT
done
ip6tables -A ufw-before-INPUT -p ipv6-icmp -j ACCEPT
"""

# The workstation of nftables' own examples, with forwarding closed too.
NATIVE = """
nft -f - <<'END'
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state { established, related } accept
		iif "lo" accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
END
"""

FIREWALLS = {"docker": DOCKER, "ufw": UFW, "native": NATIVE}


VPN_ADDRESS = "10.99.0.2"
VPN_PEER = "10.99.0.1"

# How VPN clients take the way out.
VPN_TAKES_OVER = {
    "replaced": f"ip route replace default via {VPN_PEER} dev vpn0",
    "halves": f"ip route add 0.0.0.0/1 via {VPN_PEER} dev vpn0; ip route add 128.0.0.0/1 via {VPN_PEER} dev vpn0",
    "table": f"ip route add default via {VPN_PEER} dev vpn0 table 51820;"
    "ip rule add table main suppress_prefixlength 0 pref 100; ip rule add not fwmark 0xca6c table 51820 pref 101",
}
VPN_LETS_GO = {
    "replaced": f"ip route replace default via {INTERNET_ADDRESS} dev {UPLINK}",
    "halves": "ip route del 0.0.0.0/1; ip route del 128.0.0.0/1",
    "table": "ip route flush table 51820; ip rule del pref 100; ip rule del pref 101",
}


def add_vpn(lab: Lab) -> Namespace:
    """A tunnel to another side, which has the world's echo server as well; no route leads into it yet."""
    other = lab.namespace("vpn")
    lab.veth(other, "peer0", lab.host, "vpn0")
    other.ip("address", "add", f"{VPN_PEER}/24", "dev", "peer0")
    other.ip("address", "add", f"{WORLD_ADDRESS}/32", "dev", "lo")
    lab.host.ip("address", "add", f"{VPN_ADDRESS}/24", "dev", "vpn0")
    other.start_echo(WORLD_ADDRESS, 7)
    return other


def rules_of_ours(host: Namespace) -> list[str]:
    """Rules with our tag, wherever they are."""
    listed = host.run(["nft", "-s", "list", "ruleset"]).stdout
    return [line.strip() for line in listed.splitlines() if 'comment "vmnet/' in line]


def tcp_answer(namespace: Namespace, address: str, port: int, timeout_s: float = 3) -> str:
    """What an echo server (lab.start_echo) says to "hello"; OSError when it cannot be reached."""

    def ask() -> str:
        with socket.create_connection((address, port), timeout_s) as stream:
            stream.sendall(b"hello")
            return stream.recv(1000).decode()

    return namespace.inside(ask)


def dns_answer(namespace: Namespace, server: str, name: str, timeout_s: float = 3) -> list[str]:
    """IPv4 addresses of a name; OSError without an answer."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(timeout_s)
        resolver.connect((server, 53))  # so that nobody there is an error at once, and not silence
        resolver.send(query)
        answer = resolver.recv(4096)
    count = struct.unpack("!H", answer[6:8])[0]
    return [socket.inet_ntoa(answer[len(query) + 16 * index + 12 :][:4]) for index in range(count)]


def start_second_dns(host: Namespace, address: str | None) -> subprocess.Popen[bytes]:
    """A dnsmasq of somebody else: on every address of the host without one."""
    arguments = [f"--listen-address={address}", "--bind-interfaces"] if address else []
    process = host.popen(["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root", *arguments])
    wait_for(lambda: works(lambda: dns_answer(host, address or "127.0.0.1", "localhost")), 5, "a second DNS server")
    return process


class Resident:
    """A VM with a kernel of its own on a network, and the five ways that must work for it.

    Each way returns when it works and raises OSError or CommandError when it does not. The world has an echo server at
    port 7, the host one at HOST_PORT.
    """

    def __init__(self, broker: Broker, bin_dir: Path, network: str = "shared") -> None:
        self.lab: Lab = broker.lab
        self.cable = Cable(broker, bin_dir, ("--network", network))
        self.vm = SimulatedVm(self.cable, bin_dir)
        self.namespace = self.vm.namespace
        self.gateway = self.cable.gateway
        self.namespace.start_echo(self.cable.address, VM_PORT)

    def world_sees(self) -> str:
        """The address that the world sees of the VM."""
        return tcp_answer(self.namespace, WORLD_ADDRESS, 7).split()[0]

    def out(self) -> None:
        """VM out, through NAT."""
        assert self.world_sees() != self.cable.address
        self.namespace.run(["ping", "-c", "1", "-W", "3", WORLD_ADDRESS])

    def to_host(self) -> None:
        """VM to host: the gateway answers to echo requests, whatever the host's services are open to."""
        self.namespace.run(["ping", "-c", "1", "-W", "3", self.gateway])

    def from_host(self) -> None:
        """Host to VM."""
        self.lab.host.run(["ping", "-c", "1", "-W", "3", self.cable.address])
        answer = tcp_answer(self.lab.host, self.cable.address, VM_PORT)
        assert answer.startswith(f"{self.gateway} "), answer

    def dhcp(self) -> None:
        """DHCP by a client in the VM: the lease is the reserved address."""
        arguments = ["-f", "-n", "-q", "-t", "4", "-T", "1", "-s", "/bin/true"]
        result = self.namespace.run(["busybox", "udhcpc", "-i", LINK, *arguments], check=False)
        if result.returncode:
            raise OSError(f"no lease: {result.stderr}")
        assert f"lease of {self.cable.address} obtained" in result.stdout + result.stderr, result.stderr

    def dns(self) -> None:
        """DNS: a name of the network itself, by UDP and TCP."""
        assert dns_answer(self.namespace, self.gateway, "host.shared.vmnet") == [self.gateway]
        with self.namespace.inside(lambda: socket.create_connection((self.gateway, 53), 3)):
            pass

    WAYS = ("out", "to_host", "from_host", "dhcp", "dns")

    def broken(self) -> list[str]:
        """The ways that do not work."""
        return [way for way in self.WAYS if not works(getattr(self, way))]

    def close(self) -> None:
        self.vm.close()
        self.cable.close()


def works(way: Callable[[], object]) -> bool:
    with contextlib.suppress(OSError, CommandError):
        way()
        return True
    return False


def apply_firewall(host: Namespace, commands: str) -> None:
    host.run(["sh", "-ec", commands])


@contextlib.contextmanager
def resident(broker: Broker, bin_dir: Path, network: str = "shared") -> Iterator[Resident]:
    made = Resident(broker, bin_dir, network)
    try:
        yield made
    finally:
        made.close()


def wait_rules(host: Namespace, wanted: Callable[[list[str]], bool], deadline_s: float, what: str) -> list[str]:
    """Rules of ours, once they are as wanted."""
    wait_for(lambda: wanted(rules_of_ours(host)), deadline_s, what)
    return rules_of_ours(host)
