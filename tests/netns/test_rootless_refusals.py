"""What an ordinary user hears where his broker cannot be, may not be, or can do less than elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lib import rootless
from lib.broker import SOCKET_GROUP
from lib.lab import INTERNET_ADDRESS, WORLD_ADDRESS, User, wait_for
from lib.resolver import resolve
from lib.rootless_world import SERVICE_PORT, STUB, STUB_NAMES, KernelVm, prepare_world

PASTA = ("/usr/bin/pasta", "/usr/local/bin/pasta")


@pytest.fixture
def command(bin_dir):
    return [bin_dir / "vmnet-client", "--network", "shared", "--", "env"]


# Wrong options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--user", "nobody"], "option --user: with --rootless all is this user's own; leave it out"),
        (["--group", "users"], "option --group: with --rootless all is this user's own; leave it out"),
    ],
)
def test_options_of_the_systems_broker(make_rootless, options, words):
    broker = make_rootless()
    result = broker.owner.run([broker.bin_dir / "vmnet-broker", "--rootless", *options], check=False)
    assert result.returncode == 1 and words in result.stderr
    assert not broker.leftovers()


def test_root_has_the_systems_broker(lab, bin_dir):
    result = lab.host.run([bin_dir / "vmnet-broker", "--rootless", "--runtime-dir", str(lab.directory / "r")], check=False)
    assert result.returncode == 1
    assert "option --rootless is for ordinary users; root starts the broker without it" in result.stderr
    assert not (lab.directory / "r").exists()


def test_an_option_that_is_for_ordinary_users_only(lab, bin_dir):
    command = [bin_dir / "vmnet-broker", "--allow-host-loopback", "--runtime-dir", str(lab.directory / "r")]
    result = lab.host.run(command, check=False, timeout=10)
    assert result.returncode == 1 and "option --allow-host-loopback" in result.stderr and "--rootless" in result.stderr


def test_without_the_option_an_ordinary_user_is_told_of_it(make_rootless):
    broker = make_rootless()
    result = broker.owner.run([broker.bin_dir / "vmnet-broker"], check=False)
    assert result.returncode == 1 and '"vmnet-broker --rootless" needs no root' in result.stderr


# A broker of the system's


@pytest.mark.parametrize("group", [SOCKET_GROUP, None])
def test_the_systems_broker_is_not_for_this_user(make_user, make_rootless, make_broker, command, group):
    user = make_user()
    system = make_broker(runtime_dir=user.run_directory / "vmnet-broker", group=group)
    broker = make_rootless(user)
    result = user.run(command)
    assert "VMNET_ADDRESS=" in result.stdout
    line = next(line for line in result.stderr.splitlines() if "the system's broker is for" in line)
    assert line.lstrip().startswith("INFO") and "networks are this user's own" in line
    assert (f"members of group {group}" if group else "root alone") in line
    assert broker.parts()["supervisor"] and not system.links()


def test_the_systems_broker_is_used_where_it_may_be(make_user, make_rootless, make_broker, command):
    user = make_user()
    user.user = rootless.User(user.user.uid, user.user.gid, (100,))
    system = make_broker(runtime_dir=user.run_directory / "vmnet-broker")
    result = user.run(command)
    assert "VMNET_ADDRESS=" in result.stdout and "system's" not in result.stderr
    assert system.links() and not make_rootless(user).parts()


# Hosts that lack something

WITHOUT_USER_NAMESPACES = """
import ctypes, os, sys
CLONE_NEWUSER = 0x10000000
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
        os._exit(3)
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    os.setgid(0)
    os.setuid(0)
    open("/proc/sys/user/max_user_namespaces", "w").write("0")
    os.execvp(sys.argv[1], sys.argv[1:])
os.read(ready[0], 1)
for file in ("uid_map", "gid_map"):
    open(f"/proc/{child}/{file}", "w").write("0 0 4294967295")
os.write(go[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_no_user_namespaces(make_rootless, command):
    """In a user namespace that lets nobody make another: the user is told by his first command what mends it."""
    broker = make_rootless()
    launcher = [sys.executable, "-c", WITHOUT_USER_NAMESPACES]
    result = broker.owner.run(command, launcher=launcher, check=False, timeout=60)
    assert result.returncode == 1, result.stdout
    assert "nobody may make user namespaces (user.max_user_namespaces is 0)" in result.stderr
    assert "as root: sysctl user.max_user_namespaces=15000" in result.stderr
    broker.wait_nothing_left()


def test_no_pasta(make_rootless, lab, bin_dir, show_on_failure):
    prepare_world(lab)
    broker = make_rootless()
    for path in PASTA:
        if Path(path).exists():
            broker.owner.without_program(path)
    broker.start()
    one, other = (KernelVm(broker, bin_dir, name) for name in ("one", "other"))
    assert one.ping(other.address)
    assert resolve(one.namespace, one.gateway, "other") == [other.address]
    assert not one.ping(WORLD_ADDRESS)
    lines = [line for line in broker.log().splitlines() if "pasta" in line and not line.startswith("DEBUG")]
    assert len(lines) == 1, lines
    assert "VMs reach each other and not the world; as root: apt install passt" in lines[0]


def test_no_tun_device(make_rootless, command):
    broker = make_rootless()
    closed = broker.directory / "tun"
    closed.touch(0o600)
    broker.owner.mount_over("/dev/net/tun", closed)
    result = broker.owner.run(command, check=False)
    assert result.returncode == 1
    assert "/dev/net/tun is not open to this user; as root: chmod 0666 /dev/net/tun" in result.stderr


def test_a_route_that_comes_later(make_rootless, lab, bin_dir):
    """A laptop that finds its network after its user has started a VM."""
    prepare_world(lab)
    lab.host.ip("route", "delete", "default")
    lab.host.ip("-6", "route", "delete", "default")
    broker = make_rootless()
    broker.start()
    one, other = (KernelVm(broker, bin_dir, name) for name in ("one", "other"))
    assert one.ping(other.address)
    wait_for(lambda: "pasta ended, so VMs do not reach the world" in broker.log(), 10, "that pasta ends is told")
    lab.host.ip("route", "add", "default", "via", INTERNET_ADDRESS)
    one.reaches(WORLD_ADDRESS, 10)
    assert broker.log().count("pasta ended, so VMs do not reach the world") == 1


# What is configured


def test_a_name_server_on_the_loopback(make_rootless, lab):
    """systemd-resolved's: the only way to it is pasta's."""
    prepare_world(lab)
    broker = make_rootless()
    broker.owner.write_resolv_conf(STUB)
    broker.start()
    with broker.connect() as peer:
        network = peer.call("AcquireNetwork", network="shared")[0]["network"]
        broker.wait_uplink()
        assert resolve(broker.inside, network["gateway"], "www.example.com") == [STUB_NAMES]


def test_host_loopback_when_asked_for(make_rootless, lab, bin_dir):
    prepare_world(lab)
    broker = make_rootless()
    broker.start("--allow-host-loopback")
    vm = KernelVm(broker, bin_dir, "one")
    broker.wait_uplink()
    assert vm.tcp(INTERNET_ADDRESS, SERVICE_PORT).startswith("127.0.0.1 "), "the host's own service answered"


def test_configuration_is_the_users(make_rootless):
    broker = make_rootless()
    user = broker.owner
    user.write_config({"lab": {"mode": "shared", "subnet": "10.77.0.0/24", "mtu": 1400}}, "elsewhere/vmnet-broker/networks.json")
    user.environment["XDG_CONFIG_HOME"] = str(user.home / "elsewhere")
    broker.start()
    with broker.connect() as peer:
        network = peer.call("AcquireNetwork", network="lab")[0]["network"]
        assert (network["subnet"], network["mtu"]) == ("10.77.0.0/24", 1400)


def test_check_config(make_rootless):
    broker = make_rootless()
    check = [broker.bin_dir / "vmnet-broker", "--rootless", "--check-config"]
    broker.owner.write_config({"lab": {"mode": "shared"}})
    assert broker.owner.run(check).returncode == 0
    broker.owner.write_config({"lab": {"mode": "shard"}})
    result = broker.owner.run(check, check=False)
    assert result.returncode == 1
    assert 'networks.json: lab.mode: "shard"' in result.stdout + result.stderr
    assert not broker.leftovers()


@pytest.mark.parametrize("is_own", [False, True], ids=["of another user", "open to others"])
def test_a_directory_in_tmp_that_is_not_only_his(make_rootless, command, is_own):
    broker = make_rootless(session=False)
    broker.runtime_dir.mkdir()
    if is_own:
        os.chown(broker.runtime_dir, broker.member.uid, broker.member.gid)
        broker.runtime_dir.chmod(0o770)
    try:
        result = broker.owner.run(command, check=False)
        assert result.returncode == 1
        assert f"{broker.runtime_dir}: it is somebody else's, or others may write there" in result.stderr
    finally:
        broker.runtime_dir.rmdir()


# Counts who connects; what a client has said to it is on stdout.
IMPOSTOR = """
import os, socket, sys
os.mkdir(sys.argv[1])
os.chmod(sys.argv[1], 0o755)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1] + "/socket")
os.chmod(sys.argv[1] + "/socket", 0o666)
server.listen()
while True:
    client, _ = server.accept()
    print(len(client.recv(4096)), flush=True)
"""


def test_a_client_that_lost_its_broker_says_nothing_to_another_user(make_rootless, bin_dir):
    """Once his directory in /tmp has gone with the broker, anybody can make it; who is there is looked at."""
    broker = make_rootless(session=False)
    broker.start()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    client = broker.owner.popen([bin_dir / "client", "shared"], **pipes)
    assert client.stdout.readline().startswith("network=shared")
    assert broker.terminate() == 0
    wait_for(lambda: not broker.runtime_dir.exists(), 15, "the directory goes with its broker")
    other = User(broker.member.uid + 50)
    impostor = broker.lab.host.popen([sys.executable, "-c", IMPOSTOR, broker.runtime_dir], user=other, stdout=subprocess.PIPE, text=True)
    try:
        assert impostor.stdout.readline() == "0\n"
    finally:
        client.kill()
        client.wait(10)
        impostor.kill()
        impostor.wait(10)
        shutil.rmtree(broker.runtime_dir)
