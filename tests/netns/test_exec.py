"""vmnetctl exec: commands where an ordinary user's networks are."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import socket
import subprocess

import pytest

from lib.broker import MEMBER
from lib.cable import Cable
from lib.lab import User, is_running, process_name, wait_for
from lib.simulated import SimulatedVm

PORT = 80


def rootless(make_broker, user=MEMBER, **options):
    return make_broker(user=user, group=None, front_user=None, arguments=["--rootless"], **options)


@pytest.fixture
def own(make_broker):
    """MEMBER's own broker."""
    return rootless(make_broker)


@pytest.fixture
def boot(bin_dir, show_on_failure):
    """boot(broker, hostname=, network=, user=): a VM with an echo server on port 80."""
    running = []

    def start(broker, hostname="web", network="shared", user=MEMBER):
        cable = Cable(broker, bin_dir, ["--network", network, "--hostname", hostname], user=user)
        show_on_failure(f"helper of {hostname}", cable.log)
        vm = SimulatedVm(cable, bin_dir)
        running.append(vm)
        vm.namespace.start_echo(cable.address, PORT)
        return vm

    yield start
    for vm in running:
        vm.cable.process.kill()
        vm.cable.process.wait(5)
        vm.close()


@pytest.fixture
def run(bin_dir):
    """run(broker, *words, user=): vmnetctl exec with these words, as it ended."""

    def vmnetctl_exec(broker, *words, user=MEMBER, **options):
        return broker.namespace.run(
            [bin_dir / "vmnetctl", "exec", *words],
            user=user,
            check=False,
            env={"VMNET_BROKER_SOCKET": os.fspath(broker.socket_path)},
            **options,
        )

    return vmnetctl_exec


def test_a_command_reaches_vms_by_name(own, boot, run):
    boot(own)
    answer = run(own, "--", "socat", "-t10", "-", f"TCP:web:{PORT}", input="hello")
    assert re.fullmatch(r"192\.168\.\d+\.1 \d+ hello", answer.stdout), answer.stderr
    assert answer.returncode == 0
    assert answer.stderr == ""
    assert run(own, "getent", "hosts", "web.shared.vmnet").stdout.split()[1] == "web.shared.vmnet"
    assert run(own, "--", "ping", "-c1", "-W5", "web").returncode == 0


def test_who_a_command_is(own, boot, run):
    boot(own)
    me = run(own, "id").stdout
    assert f"uid={MEMBER.uid} gid={MEMBER.gid}" in me
    assert run(own, "ip", "link", "add", "name", "mine", "type", "bridge").returncode != 0
    assert "uid=0(root) gid=0(root)" in run(own, "--root", "id").stdout
    assert run(own, "--root", "ip", "link", "add", "name", "mine", "type", "bridge").returncode == 0
    assert "mine" in run(own, "ip", "-br", "link").stdout
    assert "mine" not in own.namespace.ip("-br", "link")
    # As root of these namespaces, nobody elsewhere.
    assert run(own, "--root", "cat", "/etc/shadow").returncode != 0


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -9 $$"], -signal.SIGKILL, ""),
        (["--", "true", "--json", "-h"], 0, ""),
        (["no-such-command"], 127, "command no-such-command not found"),
        (["/etc/passwd"], 126, "can't execute command /etc/passwd"),
        ([], 1, "say which command: vmnetctl exec -- ssh web"),
        (["--network", "nope", "true"], 1, 'there is no network "nope"; vmnetctl networks lists them'),
        (["--network", "host", "true"], 1, 'network "host" does not run; start a VM on it first'),
    ],
)
def test_the_status_is_the_commands(own, run, words, status, text):
    result = run(own, *words)
    assert result.returncode in (status, 128 - status)
    assert text in result.stderr


def test_names_are_the_commands_alone(own, boot, run):
    """The machine's resolv.conf stays, and no file is left."""
    boot(own)
    with open("/etc/resolv.conf") as file:
        before = file.read()
    inside = run(own, "--", "cat", "/etc/resolv.conf", "/proc/self/mounts").stdout
    gateway = re.search(r"^nameserver (\S+)\nsearch shared\.vmnet$", inside, re.M)[1]
    assert gateway.startswith("192.168.")
    with open("/etc/resolv.conf") as file:
        assert file.read() == before
    assert not list(own.runtime_dir.glob("resolv*"))


def test_whose_names_resolve(own, boot, run):
    boot(own)
    boot(own, "db", "host")
    assert run(own, "getent", "hosts", "web").returncode == 0
    assert run(own, "getent", "hosts", "db").returncode != 0
    assert run(own, "--network", "host", "getent", "hosts", "db").returncode == 0
    assert run(own, "--network", "host", "getent", "hosts", "web").returncode != 0


def test_a_network_without_names(make_broker, boot, run):
    broker = rootless(make_broker, networks={"quiet": {"mode": "shared", "dns": False}})
    vm = boot(broker, network="quiet")
    result = run(broker, "--", "socat", "-t10", "-", f"TCP:{vm.cable.address}:{PORT}", input="hello")
    assert result.stdout.endswith(" hello")
    assert "names of VMs do not resolve: nobody serves names at 192.168." in result.stderr


def test_a_resolver_of_the_host_is_not_asked(own, boot, run, bin_dir):
    """libc asks systemd-resolved's socket before any file, and believes its word that there is no such name."""
    boot(own)
    place = "/run/systemd/resolve/io.systemd.Resolve"
    script = f"""
        mount -t tmpfs tmpfs /run
        mkdir -p $(dirname {place})
        socat UNIX-LISTEN:{place},mode=666,fork /dev/null &
        trap "kill $!" EXIT
        until socat -u OPEN:/dev/null UNIX-CONNECT:{place} 2>/dev/null; do :; done
        echo "outside: answers"
        {' '.join(User(MEMBER.uid).prefix())} {bin_dir}/vmnetctl exec -- \
            sh -c 'socat -u OPEN:/dev/null UNIX-CONNECT:{place}; getent hosts web'
    """
    result = own.namespace.run(
        ["unshare", "--mount", "sh", "-ec", script], env={"VMNET_BROKER_SOCKET": os.fspath(own.socket_path)}
    )
    assert "outside: answers" in result.stdout
    assert "Connection refused" in result.stderr
    assert "web.shared.vmnet" in result.stdout


def test_with_the_systems_broker_it_runs_where_one_is(broker, run):
    result = run(broker, "-v", "--", "readlink", "/proc/self/ns/net")
    assert result.returncode == 0
    assert "is the system's, whose networks are the host's own" in result.stderr
    assert result.stdout == broker.namespace.run(["readlink", "/proc/self/ns/net"]).stdout
    assert run(broker, "sh", "-c", "exit 3").returncode == 3


def test_networks_of_somebody_else(own, run):
    result = run(own, "true", user=None)
    assert result.returncode == 1
    assert "are another user's: run this as him" in result.stderr


def test_without_its_pause_process_a_command_does_not_run(own, run):
    wait_for((own.runtime_dir / "pause").exists, 10, "the pause process")
    (own.runtime_dir / "pause").rename(own.runtime_dir / "away")
    result = run(own, "echo", "ran")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "are not to be found" in result.stderr
    (own.runtime_dir / "away").rename(own.runtime_dir / "pause")
    assert run(own, "echo", "ran").stdout == "ran\n"


def test_a_command_keeps_the_namespaces(own, run, bin_dir):
    """Until it ends a broker that comes back uses them again."""
    where = run(own, "readlink", "/proc/self/ns/net").stdout
    command = own.namespace.popen(
        [bin_dir / "vmnetctl", "exec", "--", "sleep", "1000"],
        user=MEMBER,
        env={"VMNET_BROKER_SOCKET": os.fspath(own.socket_path)},
    )
    wait_for(lambda: process_name(command.pid) == "sleep", 10, "the command")
    own.close()
    own.start()
    assert run(own, "readlink", "/proc/self/ns/net").stdout == where
    command.kill()
    command.wait(5)


def test_many_commands_at_once(own, run):
    """As a tool that speaks ssh to hundreds of VMs: each of them holds the namespaces."""
    path = str(own.runtime_dir / "pause")
    wait_for(lambda: os.path.exists(path), 10, "the pause process")
    with contextlib.ExitStack() as commands:
        for _ in range(400):
            command = commands.enter_context(socket.socket(socket.AF_UNIX))
            command.settimeout(5)
            command.connect(path)
        assert run(own, "true").returncode == 0


def test_ssh_through_a_proxy_command(make_broker, boot, bin_dir):
    """As the documentation says it, but for options on the line and a server that knows the first line of SSH only."""
    account = pwd.getpwnam("games")
    user = User(account.pw_uid, account.pw_gid)
    broker = rootless(make_broker, user)
    vm = boot(broker, user=user)
    server = vm.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.settimeout(20)
    server.bind((vm.cable.address, 22))
    server.listen()
    proxy = f"ProxyCommand={bin_dir}/vmnetctl exec -- socat - TCP:%h:%p"
    ssh = broker.namespace.popen(
        ["ssh", "-F", "none", "-o", proxy, "web"],
        user=user,
        env={"VMNET_BROKER_SOCKET": os.fspath(broker.socket_path)},
        stderr=subprocess.PIPE,
    )
    stream, _ = server.accept()
    stream.settimeout(20)
    stream.sendall(b"SSH-2.0-test\r\n")
    assert stream.recv(7) == b"SSH-2.0"
    stream.close()
    ssh.wait(20)
    assert not is_running(ssh.pid)
