"""Our Debian packages in a machine that never had any of ours: installed, used, upgraded, removed and purged.

scripts/package has made them, and lintian has seen them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess

import pytest

from lib import archive, bootdisk, doc_commands, rootfs
from lib.lab import User, wait_for
from lib.machine import FRONT, PRIV, Machine
from lib.streaming import streaming
from lib.tap_vm import TapVm
from lib.unpacked import unpack

BUILT = doc_commands.ROOT / "build/debian"
CHECKOUT = "/root/vmnet"  # where the documented lines are run
NEWER = "0.1.0+upgrade"
UPLINK = "uplink0"  # of the machine
FAREWELL = "vmnet-broker-farewell.service"
PACKAGES = ("vmnet-broker", "vmnet-tools", "libvmnet-broker0")
DIRECTORIES = ("/etc/vmnet-broker", "/run/vmnet-broker", "/var/lib/vmnet-broker")


def documented(program):
    """The command line of this program that the book leaves to these tests."""
    here = "tests/systemd/test_packages.py"
    lines = [one.text for one in doc_commands.all_commands() if one.marker and one.marker.text.startswith(here)]
    (line,) = [line for line in lines if line.startswith(f"{program} ")]
    return line


def here(machine, *words):
    """What a program of this machine, in the other's network, says."""
    inside = ["nsenter", "--net", "--target", str(machine.leader), *words]
    return subprocess.run(inside, check=True, capture_output=True, text=True).stdout


def network_settings(machine):
    """Every sysctl of the network, but for counters and what the kernel draws by itself."""
    lines = here(machine, "sysctl", "--all", "--ignore", "--pattern", "^net[.]").splitlines()
    return {line for line in lines if not re.search(r"conntrack|fastopen_key", line)}


def in_kernel(machine):
    """Links, tables and programs of a broker."""
    names = {link["ifname"] for link in json.loads(here(machine, "ip", "-json", "link"))}
    processes = machine.run(["pgrep", "--list-name", "vmnet|dnsmasq"], check=False).stdout.splitlines()
    return [*(names - {"lo", UPLINK, "nowhere"}), *here(machine, "nft", "list", "tables").splitlines(), *processes]


@pytest.fixture(scope="module")
def built():
    packages = archive.find(BUILT)
    if not set(PACKAGES) <= packages.keys():
        pytest.fail(f"{BUILT}: no packages there; scripts/test systemd makes them", pytrace=False)
    return packages


@pytest.fixture(scope="module")
def fresh(built):
    """A machine with nothing but systemd, whose apt finds what Debian has for the packages, and QEMU."""
    tree = rootfs.build(packages=rootfs.FRESH)
    others = archive.dependencies(tree, [built[name] for name in PACKAGES], ["qemu-system-x86"])
    with Machine(tree) as machine:
        archive.offer(machine, others)
        place = machine.path(f"{CHECKOUT}/build/debian")
        place.mkdir(parents=True)
        for name in PACKAGES:
            (place / built[name].name).write_bytes(built[name].read_bytes())
        machine.run(["apt-get", "install", "qemu-system-x86"], timeout_s=180)
        machine.run(["useradd", "--create-home", "alice"])
        here(machine, "ip", "link", "add", UPLINK, "up", "type", "veth", "peer", "name", "nowhere")
        here(machine, "ip", "route", "add", "default", "dev", UPLINK)
        machine.settings_before = network_settings(machine)
        yield machine


def status_of(machine, package):
    return machine.run(["dpkg-query", "-Wf", "${db:Status-Status}", package], check=False).stdout


@pytest.fixture
def machine(fresh, show_on_failure):
    """With the packages installed as the book says, and alice may use the broker."""
    show_on_failure("journal", fresh.log)
    if status_of(fresh, "vmnet-broker") != "installed":
        install(fresh)
    return fresh


def install(machine):
    for program in ("apt", "usermod"):
        line = documented(program)
        machine.run(["bash", "-c", f"cd {CHECKOUT} && {line}"], timeout_s=120)


def alice(machine):
    uid, gid = (int(machine.run(["id", option, "alice"]).stdout) for option in ("-u", "-g"))
    return User(uid, gid, [int(word) for word in machine.run(["id", "-G", "alice"]).stdout.split()])


def asked(machine, what):
    """What vmnetctl tells alice."""
    return json.loads(machine.run(["vmnetctl", what, "--json"], user="alice").stdout)[what]


@contextlib.contextmanager
def running_vm(machine):
    """A VM of alice's that answers; it is gone afterwards."""
    with machine.connect(alice(machine)) as peer:
        vm = TapVm(peer, hostname="tap")
    with contextlib.closing(vm):
        assert wait_for(vm.lease, 20, "DHCP answers") == vm.address
        vm.start()
        yield vm


def wait_until_nothing_is_left(machine):
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: not in_kernel(machine), 30, "the broker and all that it made are gone")
    assert not in_kernel(machine)
    assert network_settings(machine) == machine.settings_before


def files_of_ours(machine):
    """But for the packages themselves, and what the system says about the past."""
    skip = ["/proc", "/sys", CHECKOUT, "/var/log", "/home"]
    prune = [word for path in skip for word in ("-path", path, "-prune", "-o")]
    return machine.run(["find", "/", *prune, "-iname", "*vmnet*", "-print"], check=False).stdout.split()


# What is installed


def test_the_socket_listens_and_nothing_else_runs(machine):
    assert machine.run(["systemctl", "is-enabled", "vmnet-broker.socket"]).stdout.strip() == "enabled"
    assert machine.show("vmnet-broker.socket", "ActiveState") == "active"
    assert machine.show(FRONT, "UnitFileState") == "disabled"
    socket = machine.run(["stat", "--format=%U %G %a", "/run/vmnet-broker/socket"]).stdout
    assert socket.split() == ["root", "vmnet", "660"]
    assert machine.run(["id", "-gn", "vmnet-broker"]).stdout.strip() == "vmnet-broker"
    assert "vmnet" in machine.run(["id", "-nG", "alice"]).stdout.split()
    files = machine.run(["dpkg", "-L", "vmnet-broker"]).stdout.split()
    units = [name for name in files if re.search(r"\.(service|socket)$", name)]
    assert len(units) == 4
    verified = machine.run(["systemd-analyze", "verify", "--man=no", *units], check=False)
    assert verified.returncode == 0 and not verified.stderr


def test_programs_say_which_version_they_are(machine):
    version = machine.run(["dpkg-query", "-Wf", "${Version}", "vmnet-tools"]).stdout
    for program in ("vmnet-client", "vmnet-run", "vmnet-helper", "vmnetctl", "/usr/libexec/vmnet-broker"):
        said = machine.run([program, "--version"]).stdout
        assert re.fullmatch(rf"version: {re.escape(version)}\ncommit: [0-9a-f]{{7,}}(-dirty)?\n", said)


def test_the_example_builds_with_the_library_packages_alone(built, tmp_path):
    for name in ("libvmnet-broker0", "libvmnet-broker-dev"):
        subprocess.run(["dpkg-deb", "-x", built[name], tmp_path], check=True)
    (directory,) = tmp_path.glob("usr/lib/*/pkgconfig")
    environment = {**os.environ, "PKG_CONFIG_LIBDIR": str(directory), "PKG_CONFIG_SYSROOT_DIR": str(tmp_path)}
    flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "vmnet-broker"], env=environment, text=True)
    (example,) = tmp_path.glob("usr/share/doc/*/examples/client.c")
    subprocess.run(["cc", example, *flags.split(), "-o", tmp_path / "client"], check=True)
    linked = subprocess.check_output(["readelf", "-d", tmp_path / "client"], text=True)
    assert "[libvmnet-broker.so.0]" in linked


@pytest.fixture
def parse(tmp_path):
    """AppArmor 3 parses a profile and loads nothing; the names of what it has, or what is wrong."""
    tree = unpack("apparmor", tmp_path / "apparmor")
    command = [tree / "sbin/apparmor_parser", "--skip-kernel-load", "--skip-cache", "--base", tree / "etc/apparmor.d"]

    def parse(profile):
        result = subprocess.run([*command, "--names"], input=profile, capture_output=True, text=True)
        return result.stdout.split() if result.returncode == 0 else f"status {result.returncode}: {result.stderr}"

    return parse


@pytest.fixture
def broker_files(built, tmp_path):
    subprocess.run(["dpkg-deb", "-x", built["vmnet-broker"], tmp_path / "files"], check=True)
    return tmp_path / "files"


def test_the_profile_parses(parse, broker_files):
    profile = (broker_files / "etc/apparmor.d/vmnet-broker").read_text()
    assert parse(profile) == ["vmnet-broker"]
    assert "parser error" in parse(profile.replace("/dev/net/tun rw,", "/dev/net/tun rw")), "a mistake would be seen"
    for unit in (FRONT, PRIV):
        assert "AppArmorProfile=-vmnet-broker\n" in (broker_files / "lib/systemd/system" / unit).read_text()


def test_the_profile_for_the_rootless_broker_parses_but_for_what_is_new(parse, broker_files):
    text = (broker_files / "usr/share/doc/vmnet-broker/examples/vmnet-broker-rootless").read_text()
    assert b"/etc/apparmor.d/vmnet-broker-rootless" in (broker_files / "usr/libexec/vmnet-broker").read_bytes()
    older = text.replace("<abi/4.0>", "<abi/3.0>").replace("\n  userns,\n", "\n")
    assert older.count("\n") == text.count("\n") - 1
    assert parse(older) == ["vmnet-broker-rootless"]


# What it is for


@pytest.fixture
def web(machine, guest_kit):
    """The README's first example, word for word, by alice; the address of its VM."""
    line = next(one.text for one in doc_commands.commands_of(doc_commands.ROOT / "README.md"))
    assert line.startswith("vmnet-client ")
    machine.path("/home/alice/disk.img").write_bytes(bootdisk.make(guest_kit, "web"))
    machine.run(["chown", "alice", "/home/alice/disk.img"])
    process = machine.popen(["runuser", "-l", "alice", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert any(said.startswith(b"{") for said in process.stdout), "it is ready"
        (interface,) = asked(machine, "interfaces")
        yield interface["address"]
    finally:
        machine.run(["pkill", "-u", "alice"], check=False)
        print(process.communicate(timeout=20)[0].decode(errors="replace"))


@contextlib.contextmanager
def stream_to(machine, address):
    """Over one connection all the time; yields a function that waits until more has arrived."""
    inside = ["nsenter", "--net", "--target", str(machine.leader)]
    client = [*inside, "iperf3", "--json", "--time", "600", "--client", address]

    def arrived():
        said = here(machine, "ss", "-HtinO", "state", "established", "dst", f"{address}:5201")
        return sum(int(count) for count in re.findall(r"bytes_acked:(\d+)", said))

    def wait_for_more():
        before = arrived()
        wait_for(lambda: arrived() > before + (1 << 20), 30, "a megabyte more arrives")

    with subprocess.Popen(client, stdout=subprocess.PIPE, text=True) as stream:
        wait_for_more()
        yield wait_for_more
        stream.send_signal(signal.SIGINT)
        report = json.loads(stream.communicate(timeout=30)[0])
    seconds = [interval["sum"]["bytes"] for interval in report["intervals"]]
    print("MB of each second:", *(count >> 20 for count in seconds))
    assert "interrupt" in report["error"], "it ended because it was told to"
    assert all(seconds[:-1]), "no second without data; the last one is a part"


def test_the_readmes_first_example_and_an_upgrade_under_it(machine, web, built, upgrade_build, tmp_path):
    reached = ["nsenter", "--net", "--target", str(machine.leader), "ping", "-c", "1", "-W", "1", web]
    wait_for(lambda: subprocess.run(reached, capture_output=True).returncode == 0, 60, "the guest answers")
    before = {unit: machine.pid(unit) for unit in (FRONT, PRIV)}
    broker = upgrade_build / "src/broker/vmnet-broker"
    newer = archive.as_version(built["vmnet-broker"], NEWER, {"usr/libexec/vmnet-broker": broker}, tmp_path)
    machine.path("/root/newer.deb").write_bytes(newer.read_bytes())
    with stream_to(machine, web) as wait_for_more:
        machine.run(["apt-get", "install", "/root/newer.deb"])
        for unit in (FRONT, PRIV):
            wait_for(lambda unit=unit: machine.pid(unit) not in (0, before[unit]), 20, f"another {unit}")
            assert f"version: {NEWER}\n" in machine.run([f"/proc/{machine.pid(unit)}/exe", "--version"]).stdout
        wait_for_more()
    assert [network["running"] for network in asked(machine, "networks") if network["name"] == "shared"] == [True]
    (interface,) = asked(machine, "interfaces")
    assert interface["address"] == web


# Its end


def test_a_removal_leaves_running_vms_their_network_until_they_end(machine):
    with running_vm(machine) as vm:
        assert f"net.ipv4.conf.{UPLINK}.forwarding = 1" in network_settings(machine) - machine.settings_before
        with streaming(machine, vm):
            removed = machine.run(["apt-get", "remove", "vmnet-broker", "vmnet-tools"])
            assert "VMs still use networks" in removed.stdout + removed.stderr
            assert machine.show("vmnet-broker.socket", "LoadState") == "not-found"
            assert not machine.path("/usr/libexec/vmnet-broker").exists()
        vm.stop()
        assert wait_for(vm.lease, 20, "DHCP answers") == vm.address
    wait_until_nothing_is_left(machine)
    assert machine.show(FAREWELL, "ActiveState") == "inactive"
    assert machine.path("/var/lib/vmnet-broker/instance").exists()


def test_an_installation_after_a_removal_takes_over(machine):
    with running_vm(machine) as vm:
        machine.run(["apt-get", "purge", "vmnet-broker"])
        assert machine.show(FAREWELL, "ActiveState") == "active"
        with streaming(machine, vm):
            install(machine)
            with machine.connect(alice(machine)) as peer:
                (interface,) = peer.call("ListInterfaces")[0]["interfaces"]
        assert (interface["interfaceName"], interface["address"]) == (vm.interface, vm.address)
        assert machine.show(FAREWELL, "ActiveState") == "inactive"
        assert machine.show(FRONT, "ActiveState") == "active"


def test_a_purge_leaves_nothing_after_the_last_vm(machine):
    file = machine.path("/etc/vmnet-broker/networks.d/lab.json")
    file.write_text('{"lab": {"mode": "shared", "pinned": true}}')
    machine.run(["systemctl", "restart", FRONT])
    with running_vm(machine) as vm:
        with streaming(machine, vm):
            said = machine.run(["apt-get", "purge", "vmnet-broker", "vmnet-tools", "libvmnet-broker0"])
        assert "goes after the last VM" in said.stdout + said.stderr
        assert not file.exists()
    wait_until_nothing_is_left(machine)
    wait_for(lambda: not files_of_ours(machine), 10, "no file is left")
    assert machine.run(["id", "-u", "vmnet-broker"]).stdout.strip(), "Debian's users stay"


def test_a_purge_of_an_idle_broker_leaves_nothing(machine):
    machine.run(["vmnet-client", "--network", "shared", "--", "true"], user="alice")
    machine.run(["apt-get", "purge", "vmnet-broker", "vmnet-tools", "libvmnet-broker0"])
    wait_until_nothing_is_left(machine)
    assert not files_of_ours(machine)
    assert machine.run(["systemctl", "--failed", "--no-legend"]).stdout.count("vmnet") == 0
