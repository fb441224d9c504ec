"""dnsmasq: which way of starting it makes it die with its parent, and what it needs."""

import os
import signal
import struct
import tempfile
from collections.abc import Callable

from kernelkit import (
    CAPABILITY_VERSION,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_RAISE,
    PR_SET_KEEPCAPS,
    PR_SET_PDEATHSIG,
    STRANGER,
    become,
    in_namespace,
    is_running,
    libc,
    open_tap,
    run_named_test,
    shell,
    wait_for,
)

NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 10, 12, 13
COMMAND = [
    "dnsmasq",
    "--conf-file=/dev/null",
    "--keep-in-foreground",
    "--pid-file=",
    "--interface=br0",
    "--bind-interfaces",
    "--except-interface=lo",
    "--no-resolv",
    "--no-hosts",
    "--no-ping",
    "--log-facility=-",
    "--dhcp-range=192.168.77.10,192.168.77.50",
]


def make_bridge() -> None:
    shell("ip link add br0 type bridge; ip addr add 192.168.77.1/24 dev br0; ip link set br0 up")


def become_with(capabilities: list[int]) -> None:
    """Another user, whose programs keep the capabilities over exec."""
    mask = sum(1 << capability for capability in capabilities)
    assert libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    become(STRANGER)
    header = struct.pack("=II", CAPABILITY_VERSION, 0)
    assert libc.capset(header, struct.pack("=6I", mask, mask, mask, 0, 0, 0)) == 0
    for capability in capabilities:
        assert libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0


def exec_dnsmasq(directory: str, log: int, *more: str) -> None:
    os.dup2(log, 2)
    os.execvp(COMMAND[0], [*COMMAND, f"--dhcp-leasefile={directory}/leases", *more])


def read_until(log: int, text: bytes) -> bool:
    """False when the writers are gone before they said it."""
    seen = b""
    while text not in seen:
        more = os.read(log, 65536)
        if not more:
            return False
        seen += more
    return True


def start_under_parent(prepare_and_exec: Callable[[int], None]) -> tuple[int, int]:
    """Starts it as the child of a child. Returns the parent's and dnsmasq's pid once dnsmasq serves."""
    log_reader, log_writer = os.pipe()
    pid_reader, pid_writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            try:
                prepare_and_exec(log_writer)
            finally:
                os._exit(127)
        os.write(pid_writer, str(child).encode())
        os.close(log_writer)
        os.waitpid(child, 0)
        os._exit(1)
    os.close(log_writer)
    child = int(os.read(pid_reader, 32))
    assert read_until(log_reader, b"started, version"), "dnsmasq did not start"
    return parent, child


@in_namespace
def test_started_at_its_final_uid_it_dies_with_its_parent() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, STRANGER, STRANGER)
        make_bridge()

        def start(log: int) -> None:
            become_with([NET_BIND_SERVICE, NET_ADMIN, NET_RAW])
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            exec_dnsmasq(directory, log, "--user=", "--group=")

        parent, child = start_under_parent(start)
        assert is_running(child)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        wait_for(lambda: not is_running(child), "dnsmasq died with its parent")


@in_namespace
def test_dropping_its_uid_itself_it_outlives_its_parent() -> None:
    """The kernel forgets PDEATHSIG when credentials change: the reason for starting it the other way."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        make_bridge()

        def start(log: int) -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            exec_dnsmasq(directory, log, "--user=nobody")

        parent, child = start_under_parent(start)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        try:
            assert is_running(child)
            with open(f"/proc/{child}/status") as status:
                assert "Uid:\t0\t" not in status.read()
        finally:
            os.kill(child, signal.SIGKILL)


@in_namespace
def test_it_refuses_to_run_without_net_admin() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, STRANGER, STRANGER)
        make_bridge()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                become_with([NET_BIND_SERVICE, NET_RAW])
                exec_dnsmasq(directory, writer, "--user=", "--group=")
            finally:
                os._exit(127)
        os.close(writer)
        assert not read_until(reader, b"started, version")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in (0, 127)


@in_namespace
def test_it_binds_to_a_bridge_without_carrier() -> None:
    """A network has its DHCP and DNS before its first VM."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, STRANGER, STRANGER)
        make_bridge()
        tap = open_tap("t0")
        shell("ip link set t0 master br0 up")
        os.close(tap)
        wait_for(lambda: "NO-CARRIER" in shell("ip link show br0"), "br0 has no carrier")

        def start(log: int) -> None:
            become_with([NET_BIND_SERVICE, NET_ADMIN, NET_RAW])
            exec_dnsmasq(directory, log, "--user=", "--group=")

        parent, child = start_under_parent(start)
        sockets = shell("ss -Hlnu; ss -Hlnt")
        assert sockets.count("192.168.77.1:53") == 2
        assert "%br0:67" in sockets
        assert "0.0.0.0:53" not in sockets and "127.0.0.1:53" not in sockets
        os.kill(child, signal.SIGTERM)
        os.waitpid(parent, 0)


@in_namespace
def test_it_logs_each_reading_of_its_hosts_file() -> None:
    """Once after it said that it started, and once for a SIGHUP: the broker counts them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chown(directory, STRANGER, STRANGER)
        make_bridge()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                become_with([NET_BIND_SERVICE, NET_ADMIN, NET_RAW])
                open(f"{directory}/x.hosts", "w").close()
                exec_dnsmasq(directory, writer, "--user=", "--group=", f"--dhcp-hostsfile={directory}/x.hosts")
            finally:
                os._exit(127)
        os.close(writer)
        log = b""
        for times in (1, 2, 3):
            while log.count(f": read {directory}/x.hosts\n".encode()) < times:
                more = os.read(reader, 65536)
                assert more, "dnsmasq ended"
                log += more
            assert log.index(b"started, version") < log.index(b"read /")
            os.kill(pid, signal.SIGTERM if times == 3 else signal.SIGHUP)
        while more := os.read(reader, 65536):
            log += more
        assert log.count(b"read /") == 3
        os.waitpid(pid, 0)


if __name__ == "__main__":
    run_named_test(globals())
