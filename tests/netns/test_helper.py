"""vmnet-helper, with the test at the VM's end: start, traffic, counters, ends."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import struct
import subprocess
import time
import uuid

import pytest

from lib.broker import MEMBER
from lib.cable import Cable, full_pipe
from lib.frames import ARP_REPLY, BROADCAST, ETHERTYPE_IPV4, PROTOCOL_UDP, arp_request, ethernet, parse, udp
from lib.lab import WORLD_ADDRESS, open_fds, process_name, read_proc, wait_for

IDENTITY = "8f2d5c1e-13ab-4c1d-9a55-0c5d7ab0f1e2"


@pytest.fixture
def cable(broker, bin_dir, show_on_failure):
    """Helpers on one broker, killed at the end."""
    cables = []

    def make(*arguments, **options):
        made = Cable(broker, bin_dir, arguments or ("--network", "shared"), **options)
        cables.append(made)
        show_on_failure(f"vmnet-helper {len(cables)}", made.log)
        return made

    yield make
    for made in cables:
        made.close()


@pytest.fixture
def run_helper(broker, bin_dir):
    """Runs vmnet-helper to its end; it must not get as far as forwarding."""

    def run(*arguments, user=MEMBER, env=None, pass_fds=()):
        return broker.namespace.run(
            [bin_dir / "vmnet-helper", *arguments],
            user=user,
            check=False,
            env={"VMNET_BROKER_SOCKET": str(broker.socket_path), **(env or {})},
            pass_fds=pass_fds,
            timeout=15,
        )

    return run


# Start: what is printed, what is refused


@pytest.mark.parametrize(
    ("arguments", "network"),
    [
        ((), "shared"),
        (("--operation-mode", "shared"), "shared"),
        (("--operation-mode=host",), "host"),
        (("--network", "shared"), "shared"),
        (("--network", "host"), "host"),
    ],
)
def test_start_prints_one_line(cable, arguments, network):
    made = cable("--interface-id", IDENTITY, *arguments)
    line = made.line
    assert line["vmnet_interface_id"] == IDENTITY.upper()
    assert len(line["vmnet_mac_address"]) == 17
    assert line["vmnet_max_packet_size"] == 1514
    assert line["vmnet_mtu"] == 1500
    assert line["vmnet_network"] == network
    for key in ("vmnet_read_max_packets", "vmnet_write_max_packets"):
        assert isinstance(line[key], int) and line[key] > 0
    subnet = "192.168.64.0/24"
    assert ipaddress.ip_address(line["vmnet_ipv4_address"]) in ipaddress.ip_network(subnet)
    if "--network" in arguments:
        assert line["net_ipv4_subnet"] == "192.168.64.1"
        assert line["net_ipv4_mask"] == "255.255.255.0"
        assert "vmnet_start_address" not in line
    else:
        assert line["vmnet_start_address"] == "192.168.64.1"
        assert line["vmnet_end_address"] == "192.168.64.254"
        assert line["vmnet_subnet_mask"] == "255.255.255.0"
        assert "net_ipv4_subnet" not in line
    assert made.end() == 0
    assert made.process.stdout.read() == "", "nothing follows the line"
    assert made.stats() == []


def test_start_without_interface_id(cable):
    line = cable().line
    assert uuid.UUID(line["vmnet_interface_id"])
    assert line["vmnet_interface_id"] == line["vmnet_interface_id"].upper()


def test_line_is_last(cable):
    """Who acts on the line at once finds a cable that works."""
    made = cable()
    made.socket.send(b"")
    assert made.resolve(made.gateway)


REFUSED = [
    (("--fd", "x"), "--fd"),
    (("--fd", ""), "--fd"),
    (("--fd", "-1"), "--fd"),
    (("--fd", "99"), "99"),
    ((), "--socket"),
    (("--fd", "0", "--socket", "/tmp/x"), "--socket"),
    (("--socket", "/" + "x" * 107), "107"),
    (("--socket", "/nonexistent/x"), "/nonexistent/x"),
    (("--interface-id", "nope"), "--interface-id"),
    (("--operation-mode", "moon"), "--operation-mode"),
    (("--operation-mode", "bridged"), "bridged"),
    (("--shared-interface", "eth0"), "--shared-interface"),
    (("--start-address", "192.168.5.1"), "--start-address"),
    (("--end-address", "192.168.5.1"), "--end-address"),
    (("--subnet-mask", "255.255.255.0"), "--subnet-mask"),
    (("--operation-mode", "bridged", "--shared-interface", "eth0"), "bridged"),
    (("--enable-tso",), "--enable-checksum-offload"),
    (("--enable-checksum-offload",), "--enable-tso"),
    (("--enable-tso", "--enable-checksum-offload", "--vnet-hdr"), "--vnet-hdr"),
    (("--queues", "2"), "--queues"),
    (("--vhost-user", "/tmp/x", "--vnet-hdr"), "--vhost-user"),
    (("--stream", "/tmp/x", "--fd", "0"), "--stream"),
    (("--stream", "/nonexistent/x"), "/nonexistent/x"),
    (("--network", "shared", "--operation-mode", "host"), "--operation-mode"),
    (("--network", "blue"), "blue"),
    (("--network", "a/b"), "--network"),
    (("--mac", "01:00:5e:00:00:01"), "--mac"),
    (("--mac", "5"), "--mac"),
    (("--hostname", "-"), "--hostname"),
    (("--stats-interval", "0"), "--stats-interval"),
    (("--stats-interval", "soon"), "--stats-interval"),
    (("--colour",), "--colour"),
    (("--network",), "--network"),
]


@pytest.mark.parametrize(("arguments", "named"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value[:8])
def test_refused_by_name(run_helper, arguments, named):
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport = () if not arguments or {"--fd", "--socket", "--stream", "--vhost-user"} & set(arguments) else ("--fd", str(two.fileno()))
    result = run_helper(*transport, *arguments, pass_fds=[two.fileno()])
    assert result.returncode == 1
    assert result.stdout == "", "nothing on stdout unless it works"
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1 and named in errors[0]
    one.close()


def test_version_and_help(run_helper):
    result = run_helper("--version")
    version, commit = result.stdout.splitlines()
    assert result.returncode == 0 and version.startswith("version: ") and commit.startswith("commit: ")
    result = run_helper("--help")
    assert result.returncode == 0 and "--socket" in result.stdout and result.stderr == ""
    assert run_helper("--list-shared-interfaces").returncode == 0


def test_no_broker_tells_what_was_tried(lab, bin_dir):
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    result = lab.host.run(
        [bin_dir / "vmnet-helper", "--fd", str(two.fileno())],
        user=MEMBER,
        check=False,
        env={"VMNET_BROKER_SOCKET": "/nonexistent/socket"},
        pass_fds=[two.fileno()],
    )
    assert result.returncode == 1 and result.stdout == ""
    assert "/nonexistent/socket" in result.stderr and "No such file" in result.stderr
    one.close()


def test_root_through_sudo_drops_at_once(cable, broker):
    made = cable(
        "--network",
        "shared",
        user=None,
    )
    status = read_proc(made.process.pid, "status").decode()
    for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert f"{which}:\t0000000000000000" in status
    made.process.kill()
    os.environ["SUDO_UID"], os.environ["SUDO_GID"] = str(MEMBER.uid), "100"
    try:
        made = cable("--network", "shared", user=None)
    finally:
        del os.environ["SUDO_UID"], os.environ["SUDO_GID"]
    status = read_proc(made.process.pid, "status").decode()
    assert f"Uid:\t{MEMBER.uid}\t{MEMBER.uid}\t{MEMBER.uid}\t{MEMBER.uid}" in status
    assert "Gid:\t100\t100\t100\t100" in status
    assert "CapEff:\t0000000000000000" in status
    assert made.resolve(made.gateway)


def test_nothing_on_the_vms_side_has_a_privilege(cable):
    made = cable()
    status = read_proc(made.process.pid, "status").decode()
    assert "CapEff:\t0000000000000000" in status and "CapPrm:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


# The path


@pytest.fixture
def place(lab):
    return lab.public_directory("sockets", MEMBER)


def test_socket_path(cable, place):
    path = place / "net"
    made = cable(path=path)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert (place / "net.lock").exists()
    made.attach(place / "vm")
    assert made.resolve(made.gateway)
    assert made.end() == 0
    assert not path.exists() and not (place / "net.lock").exists()


def test_first_frame_of_a_client_without_magic_is_forwarded(cable, place):
    listener = cable()
    made = cable(path=place / "net")
    short = ethernet(BROADCAST, made.mac, 0x88B5, b"first")[:20]
    made.attach(place / "vm", first=short)
    frame = listener.receive(lambda frame: frame.ethertype == 0x88B5)
    assert frame.payload.startswith(b"first")


def test_second_helper_on_one_path(cable, run_helper, place):
    path = place / "net"
    made = cable(path=path)
    result = run_helper("--socket", str(path), "--network", "shared")
    assert result.returncode == 1 and result.stdout == "" and str(path) in result.stderr
    made.attach(place / "vm")
    assert made.resolve(made.gateway)
    assert path.exists() and (place / "net.lock").exists()


def test_stale_socket_and_lock_are_taken_over(cable, place):
    path = place / "net"
    made = cable(path=path)
    made.process.kill()
    made.process.wait(5)
    assert path.exists() and (place / "net.lock").exists()
    made = cable(path=path)
    made.attach(place / "vm")
    assert made.resolve(made.gateway)


def test_second_client_is_ignored(cable, place):
    made = cable(path=place / "net")
    made.attach(place / "vm")
    assert made.resolve(made.gateway)
    other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.bind(str(place / "other"))
    with pytest.raises(PermissionError):
        other.sendto(b"x" * 60, str(place / "net"))
    assert made.resolve(made.gateway)


def test_unbound_client_gets_a_clear_error_and_the_next_one_works(cable, place):
    made = cable(path=place / "net")
    unbound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unbound.sendto(b"VFKT", str(place / "net"))
    wait_for(lambda: "bind" in made.log(), 5, "an error that says to bind")
    made.attach(place / "vm")
    assert made.resolve(made.gateway)


def test_longest_path(cable, place):
    directory = place / ("d" * (107 - len(str(place)) - 3))
    directory.mkdir()
    os.chown(directory, MEMBER.uid, MEMBER.gid)
    path = directory / "s"
    assert len(str(path)) == 107
    made = cable(path=path)
    made.attach(place / "vm")
    assert made.resolve(made.gateway)


def test_sigterm_while_waiting_for_the_client(cable, place):
    made = cable(path=place / "net")
    assert made.end(10) == 0
    assert not (place / "net").exists()


# Traffic


def test_gateway_answers(cable, broker):
    made = cable()
    bridge = next(link for link in broker.links() if link["ifname"].startswith("vmbr"))
    assert made.resolve(made.gateway) == bridge["address"]
    made.ping(made.gateway)


def test_world_through_nat(cable, lab):
    lab.internet.start_echo()
    made = cable()
    made.ping(WORLD_ADDRESS)
    mac = made.resolve(made.gateway)
    packet = udp(made.address, 4000, WORLD_ADDRESS, 7, b"hello")
    made.socket.send(ethernet(mac, made.mac, ETHERTYPE_IPV4, packet))
    frame = made.receive(lambda frame: frame.protocol == PROTOCOL_UDP and frame.source_ip == WORLD_ADDRESS)
    sender, port, text = frame.payload.split(b" ")
    assert (sender, text) == (b"198.51.100.2", b"hello")
    assert int(port) >= 1024


def test_host_network_has_no_way_out(cable, lab, broker):
    made = cable("--network", "host")
    made.ping(made.gateway)
    lab.internet.ip("route", "add", "192.168.64.0/24", "via", "198.51.100.2")
    for key in ("net/ipv4/ip_forward",):
        lab.host.sysctl(key, 1)
    with pytest.raises(TimeoutError):
        made.ping(WORLD_ADDRESS, deadline_s=1)
    assert "masquerade" not in lab.host.run(["nft", "list", "ruleset"]).stdout


def test_networks_do_not_reach_each_other(cable):
    shared, host = cable("--network", "shared"), cable("--network", "host")
    host.resolve(host.gateway)
    with pytest.raises(TimeoutError):
        shared.ping(host.address, deadline_s=1)


def test_unicast_between_vms_and_no_flooding_after_learning(cable):
    one, two, three = cable(), cable(), cable()
    for made in (one, two, three):
        made.resolve(made.gateway)
    two_mac, marker = two.mac, os.urandom(16)
    one.socket.send(ethernet(two_mac, one.mac, 0x88B5, marker))
    two.receive(lambda frame: frame.payload.startswith(marker))
    three.socket.settimeout(0.3)
    seen = []
    with pytest.raises(TimeoutError):
        while True:
            seen.append(three.socket.recv(2000))
    assert not any(marker in frame for frame in seen)


def test_broadcast_and_multicast_reach_all(cable):
    one, two, three = cable(), cable(), cable()
    marker = os.urandom(16)
    one.broadcast(marker)
    for made in (two, three):
        made.receive(lambda frame: frame.payload.startswith(marker))
    mdns = udp(one.address, 5353, "224.0.0.251", 5353, marker)
    one.socket.send(ethernet("01:00:5e:00:00:fb", one.mac, ETHERTYPE_IPV4, mdns))
    for made in (two, three):
        made.receive(lambda frame: frame.payload.startswith(marker) and frame.destination_port == 5353)


def dhcp(cable, kind, **fields):
    """One DHCP exchange by hand (RFC 2131): the address offered or acknowledged, and the options."""
    transaction = os.urandom(4)
    message = struct.pack("!BBBB4sHH", 1, 1, 6, 0, transaction, 0, 0x8000) + bytes(16)
    message += bytes.fromhex(cable.mac.replace(":", "")) + bytes(10) + bytes(192)
    message += bytes.fromhex("63825363") + bytes([53, 1, kind])
    for code, value in fields.get("options", {}).items():
        message += bytes([code, len(value)]) + value
    message += b"\xff"
    packet = udp("0.0.0.0", 68, "255.255.255.255", 67, message)
    cable.socket.send(ethernet("ff:ff:ff:ff:ff:ff", cable.mac, ETHERTYPE_IPV4, packet))
    reply = cable.receive(lambda frame: frame.destination_port == 68 and frame.payload[4:8] == transaction, 5).payload
    options, rest = {}, reply[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        options[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return socket.inet_ntoa(reply[16:20]), options


def lease(cable):
    """Discover and request; the address and its options."""
    address, options = dhcp(cable, 1)
    requested = {50: socket.inet_aton(address), 54: options[54], 55: bytes([1, 3, 6, 15, 26])}
    acknowledged, options = dhcp(cable, 3, options=requested)
    assert options[53] == b"\x05" and acknowledged == address
    return address, options


def test_lease_is_the_reserved_address_and_stays(cable, broker):
    made = cable("--network", "shared", "--interface-id", IDENTITY)
    address, options = lease(made)
    assert address == made.address
    gateway = socket.inet_aton(made.gateway)
    assert options[3] == gateway and options[6] == gateway
    assert options[1] == socket.inet_aton("255.255.255.0")
    assert struct.unpack("!H", options[26])[0] == 1500
    assert options[15] == b"shared.vmnet"
    mac = made.mac
    made.end()
    broker.terminate()
    broker.start()
    made = cable("--network", "shared", "--interface-id", IDENTITY)
    assert (made.mac, made.address) == (mac, address)
    assert lease(made)[0] == address


def test_host_network_gives_no_router(cable):
    _, options = lease(cable("--network", "host"))
    assert 3 not in options and 6 in options


def test_other_mac_gets_an_address_too(cable):
    made = cable()
    made.line = {**made.line, "vmnet_mac_address": "52:54:00:99:00:01"}
    address, _ = lease(made)
    assert address != made.address


def dns(cable, name):
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
    query += b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!HH", 1, 1)
    mac = cable.resolve(cable.gateway)
    packet = udp(cable.address, 4053, cable.gateway, 53, query)
    cable.socket.send(ethernet(mac, cable.mac, ETHERTYPE_IPV4, packet))
    reply = cable.receive(lambda frame: frame.destination_port == 4053).payload
    flags, _, answers = struct.unpack_from("!HHH", reply, 2)
    return socket.inet_ntoa(reply[-4:]) if answers and not flags & 15 else None


def test_names(cable):
    web, db = cable("--network", "shared", "--hostname", "web"), cable("--network", "shared", "--hostname", "db")
    lease(web)
    lease(db)
    for name in ("web", "web.shared.vmnet"):
        assert dns(db, name) == web.address
    assert dns(web, "db.shared.vmnet") == db.address
    assert dns(web, "host.shared.vmnet") == dns(web, "_gateway.shared.vmnet") == web.gateway
    assert dns(web, "nobody.shared.vmnet") is None


# Sizes and hostile input


@pytest.mark.parametrize(("size", "forwarded"), [(0, False), (1, False), (13, False), (14, True), (60, True), (1514, True), (1515, False), (65550, False), (65551, False)])
def test_frame_sizes(cable, size, forwarded):
    listener = cable()
    made = cable("--network", "shared", "--stats-interval", "1")
    listener.resolve(listener.gateway)
    frame = bytes.fromhex("ffffffffffff" + made.mac.replace(":", "")) + b"\x88\xb5" + os.urandom(65600)
    made.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    made.socket.send(frame[:size])
    if forwarded:
        got = listener.receive(lambda got: got.ethertype == 0x88B5)
        assert got.payload[: size - 14] == frame[14:size]
    else:
        wait_for(lambda: any(entry["vm"]["drops"] >= 1 for entry in made.stats()), 5, "the drop is counted")
    assert made.resolve(made.gateway), "the cable goes on"
    assert made.end() == 0


def test_garbage_of_all_sizes_does_no_harm(cable):
    made = cable()
    made.socket.setblocking(False)
    for size in [*range(0, 200), *range(1400, 1600, 7), 4000, 9000, 40000, 65000]:
        for _ in range(3):
            try:
                made.socket.send(os.urandom(size))
            except BlockingIOError:
                wait_for(lambda: made.process.poll() is None, 1, "the helper lives")
    made.socket.setblocking(True)
    assert made.resolve(made.gateway)
    assert made.end() == 0


def test_qemu_never_gets_an_empty_datagram(cable):
    one, two = cable(), cable()
    for size in (0, 1, 5, 13):
        one.socket.send(b"\xff" * size)
    one.broadcast(b"end of it")
    two.receive(lambda frame: frame.payload.startswith(b"end of it"))
    # receive() parses each frame and would have failed on one that is shorter than a header.


# Counters, full queues


def test_stats(cable):
    made = cable("--network", "shared", "--stats-interval", "1")
    made.resolve(made.gateway)
    entry = wait_for(
        lambda: [entry for entry in made.stats() if entry["host"]["packets"] and entry["vm"]["packets"]], 5, "a line"
    )[-1]
    assert datetime.datetime.fromisoformat(entry["time"]).utcoffset() is not None
    assert "." in entry["time"]
    for direction in ("host", "vm"):
        assert set(entry[direction]) == {"packets", "bytes", "drops", "fast", "slow"}
        assert all(isinstance(value, int) for value in entry[direction].values())
        assert entry[direction]["bytes"] >= 14 * entry[direction]["packets"] > 0
    assert made.end() == 0


def test_full_queue_drops_and_the_other_direction_lives(cable):
    """A VM that stops reading: drops are counted, what it sends still goes out, SIGTERM still ends it at once."""
    flooder = cable()
    made = cable("--network", "shared", "--stats-interval", "1")
    listener = cable()
    frame = ethernet("ff:ff:ff:ff:ff:ff", flooder.mac, 0x88B5, bytes(1400))
    deadline = time.monotonic() + 20
    flooder.socket.setblocking(False)
    listener.socket.setblocking(False)
    while not any(entry["host"]["drops"] for entry in made.stats()):
        assert time.monotonic() < deadline, "no drop was ever counted"
        for _ in range(2000):
            try:
                flooder.socket.send(frame)
            except BlockingIOError:
                break
        try:
            while listener.socket.recv(2000):
                pass
        except BlockingIOError:
            pass
    assert made.process.poll() is None
    marker = os.urandom(16)
    made.broadcast(marker)
    listener.receive(lambda got: got.payload.startswith(marker), 5)
    stopped = time.monotonic()
    assert made.end(10) == 0
    assert time.monotonic() - stopped < 5


def test_buffers_are_forced_by_the_broker(cable, lab):
    """More frames wait for a VM than an ordinary process could have had queued."""
    made = cable()
    assert "WARN" not in made.log()
    flooder = cable()
    flooder.socket.settimeout(5)
    for index in range(1000):
        flooder.socket.send(ethernet("ff:ff:ff:ff:ff:ff", flooder.mac, 0x88B5, struct.pack("!I", index) + bytes(1400)))
    flooder.resolve(flooder.gateway)
    got = 0
    made.socket.settimeout(2)
    try:
        while True:
            got += parse(made.socket.recv(2000)).ethertype == 0x88B5
    except TimeoutError:
        pass
    assert got >= 900


# Ends


def test_ends_when_the_vm_closes_its_socket(cable):
    made, other = cable(), cable()
    made.socket.close()
    other.broadcast(b"anything that makes the helper send")
    assert made.wait_end() == 0


def test_seqpacket_ends_at_once(cable):
    made = cable(kind=socket.SOCK_SEQPACKET)
    assert made.resolve(made.gateway)
    made.socket.close()
    assert made.wait_end(10) == 0


def test_ends_when_the_vm_process_dies_in_silence(broker, bin_dir, cable):
    """Nothing is sent to the VM and nothing by it: only its process can tell."""
    made = cable()
    vm = os.fork()
    if vm == 0:
        made.socket.send(b"\xff" * 60)
        signal.pause()
        os._exit(0)
    wait_for(lambda: any("pidfd" in link for link in open_fds(made.process.pid).values()), 3, "the VM is watched")
    os.kill(vm, signal.SIGKILL)
    os.waitpid(vm, 0)
    assert made.wait_end(4) == 0


def test_goes_on_when_a_launcher_hands_its_socket_on(cable):
    made = cable()
    launcher = os.fork()
    if launcher == 0:
        made.socket.send(b"\xff" * 60)
        os._exit(0)
    os.waitpid(launcher, 0)
    ended = time.monotonic()
    # Again and again, as one frame may be read together with the launcher's.
    while time.monotonic() < ended + 2:
        assert made.resolve(made.gateway)
    assert made.process.poll() is None


def test_ends_with_a_reason_when_its_interface_is_deleted(cable, lab):
    made = cable()
    lab.host.ip("link", "delete", made.line["vmnet_interface_name"])
    assert made.wait_end() == 1
    assert "ERROR" in made.log()


def socket_count(pid):
    return sum(link.startswith("socket:") for link in open_fds(pid).values())


def test_sigterm_while_the_broker_takes_nobody(cable, place):
    """Its queue of connections is full, so connect(2) waits."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(place / "broker"))
    os.chmod(place / "broker", 0o777)
    server.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for one in waiting:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect(str(place / "broker"))
    made = cable(wait=False, environment={"VMNET_BROKER_SOCKET": str(place / "broker")})
    helper = made.process.pid
    # Who becomes the helper opens sockets, too, as it looks up its user.
    wait_for(lambda: process_name(helper) == "vmnet-helper" and socket_count(helper) == 2, 5, "it asks for a connection")
    assert made.end(10) == 0


def test_sigterm_while_the_broker_is_silent(cable, place):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(place / "broker"))
    os.chmod(place / "broker", 0o777)
    server.listen()
    made = cable(wait=False, environment={"VMNET_BROKER_SOCKET": str(place / "broker")})
    connection, _ = server.accept()
    assert connection.recv(100)
    assert made.end(10) == 0


def test_sigterm_while_nobody_reads_the_line(cable, broker):
    with full_pipe() as stdout:
        made = cable(wait=False, stdout=stdout)
        wait_for(lambda: [link for link in broker.links() if link["ifname"].startswith("vmtap")], 5, "its TAP")
        made.socket.send(arp_request("52:54:00:00:00:07", "0.0.0.0", "192.168.64.1"))
        made.receive(lambda frame: frame.arp_operation == ARP_REPLY)
        assert made.end(10) == 0


def test_goes_on_when_nobody_reads_its_log(broker, bin_dir):
    """From the first line on, which with -v comes at once."""
    reader, writer = os.pipe()
    os.close(reader)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    process = broker.namespace.popen(
        [bin_dir / "vmnet-helper", "--fd", str(far.fileno()), "-v"],
        user=MEMBER,
        env={"VMNET_BROKER_SOCKET": str(broker.socket_path)},
        stdout=subprocess.PIPE,
        stderr=writer,
        pass_fds=[far.fileno()],
        text=True,
    )
    for end in (writer, far.detach()):
        os.close(end)
    line = process.stdout.readline()
    process.terminate()
    assert process.wait(5) == 0
    assert "vmnet_mac_address" in line
    near.close()


def test_link_that_was_down_goes_on(cable, lab):
    made = cable()
    made.resolve(made.gateway)
    lab.host.ip("link", "set", made.line["vmnet_interface_name"], "down")
    for _ in range(200):
        made.broadcast(bytes(1400))
    lab.host.ip("link", "set", made.line["vmnet_interface_name"], "up")
    assert made.resolve(made.gateway)
    assert made.end() == 0


def test_broker_may_die(cable, broker):
    one, two = cable(), cable()
    broker.kill("priv")
    two.resolve(two.gateway)
    one.ping(one.gateway)
    assert one.end() == 0 and two.end() == 0
