"""Root in a real guest tries what docs/security.md says that it can't, while two other VMs go on talking."""

from __future__ import annotations

import http.server
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lib.attacks import ATTACKS, discover, ip_frame, markers
from lib.frames import BROADCAST, ETHERTYPE_IPV4, ethernet, parse, udp
from lib.holder import Holder, Traffic

NETWORKS = {"locked": {"mode": "shared", "lock_mac": True}, "open": {"mode": "shared"}}
UNDONE_S = 1
# Its own server, with addresses of its own; it logs to where the test looks.
UDHCPD = "start 10.9.9.9\\nend 10.9.9.19\\ninterface eth0\\nlease_file /run/leases\\noption router 10.9.9.1\\n"


@dataclass
class Attacker:
    """A guest as the attacks see it."""

    vm: object
    gateway: str
    gateway_mac: str

    @property
    def mac(self):
        return self.vm.mac

    @property
    def address(self):
        return self.vm.address

    def send(self, sent):
        self.vm.guest.check(f"/run/send-frame eth0 {' '.join(frame.hex() for frame in sent)}")

    def honest(self, marker):
        packet = udp(self.address, 9, "255.255.255.255", 9, marker)
        return ethernet(BROADCAST, self.mac, ETHERTYPE_IPV4, packet)


def serve_directory(namespace, address, directory):
    """HTTP to the guests."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    server = namespace.inside(lambda: http.server.ThreadingHTTPServer((address, 0), handler))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="session")
def send_frame():
    build = Path(os.environ["VMNET_BIN"]).resolve()
    found = sorted(build.rglob("send-frame"), key=lambda path: len(path.parts))
    if not found:
        pytest.fail(f"send-frame isn't in {build} or below; build first", pytrace=False)
    return found[0]


@pytest.fixture
def stage(request, make_broker, make_vm, send_frame):
    """network, attacker, victim: the attacker has the program that sends frames, the victim is the test's own."""
    network, attach = request.param
    broker = make_broker(networks=NETWORKS, idle_timeout_s=1)
    vm = make_vm(broker, "mallory", attach, network=network)
    holders = [Holder(broker, network) for _ in range(3)]
    victim, bystander, neighbour = holders
    vm.guest.wait_ready()
    assert vm.guest.address() == vm.address, "an honest guest gets its address"
    server = serve_directory(broker.namespace, victim.gateway, send_frame.parent)
    vm.guest.check(f"wget -q -O /run/send-frame http://{victim.gateway}:{server.server_port}/send-frame")
    vm.guest.check("chmod +x /run/send-frame")
    server.shutdown()
    server.server_close()
    traffic = Traffic(bystander, neighbour)
    yield network, Attacker(vm, victim.gateway, victim.resolve(victim.gateway)), victim
    longest_s = traffic.stop()
    for holder in holders:
        holder.close()
    print(f"{network} by {attach}: the others' longest gap was {longest_s * 1000:.0f} ms")
    assert longest_s < UNDONE_S


def on(*cases):
    return pytest.mark.parametrize("stage", cases, indirect=True, ids=" by ".join)


@on(("locked", "native"), ("locked", "socket"), ("open", "native"))
def test_frames_of_every_kind(stage):
    network, attacker, victim = stage
    for name, (make, always) in ATTACKS.items():
        marker, end = next(markers), next(markers)
        attacker.send([*make(attacker, victim, marker), attacker.honest(end)])
        passed = any(marker in frame for frame in victim.until(end))
        assert passed == (network == "open" and not always), f"{name}: {passed}"
    if network == "locked":
        assert victim.pings(victim.gateway, attacker.gateway_mac)


@on(("locked", "native"), ("locked", "socket"))
def test_a_guest_that_takes_what_is_not_its_own(stage):
    """By its system's own means: another MAC, another address, a server for DHCP."""
    _, attacker, victim = stage
    guest = attacker.vm.guest
    ping = f"ping -c 2 -W 1 {victim.gateway}"
    guest.check(ping)
    guest.check("ip link set eth0 down; ip link set eth0 address " + victim.mac + "; ip link set eth0 up")
    assert guest.run(ping)[0] != 0, "with the victim's MAC it is mute"
    assert victim.pings(victim.gateway, attacker.gateway_mac)
    guest.check("ip link set eth0 down; ip link set eth0 address " + attacker.mac + "; ip link set eth0 up")
    guest.check(ping)
    guest.check(f"ip address add {victim.address}/32 dev eth0")
    assert guest.run(f"{ping} -I {victim.address}")[0] != 0, "from the victim's address it is mute"
    guest.check(f"arping -q -c 2 -U -I eth0 {victim.address}; arping -q -c 2 -A -I eth0 {victim.gateway}; true")
    assert victim.resolve(victim.gateway) == attacker.gateway_mac
    assert victim.pings(victim.gateway, attacker.gateway_mac)
    guest.check(f"ip address del {victim.address}/32 dev eth0")
    # Its server hears the victim's question and answers; only the network's own answer arrives.
    guest.check("ip address add 10.9.9.1/24 dev eth0")
    guest.check(f"printf '{UDHCPD}' >/run/udhcpd.conf; touch /run/leases")
    guest.check("(udhcpd -f /run/udhcpd.conf >/run/udhcpd.log 2>&1 </dev/null &)")
    guest.check("for i in $(seq 100); do grep :0043 /proc/net/udp && exit; usleep 50000; done; exit 1")
    victim.send(ip_frame(udp("0.0.0.0", 68, "255.255.255.255", 67, discover(victim.mac)), victim.mac))
    guest.check("for i in $(seq 100); do grep -i offer /run/udhcpd.log && exit; usleep 50000; done; exit 1")
    end = next(markers)
    attacker.send([attacker.honest(end)])
    offers = [parse(frame) for frame in victim.until(end) if parse(frame).destination_port == 68]
    assert [offer.source_ip for offer in offers] == [victim.gateway]
