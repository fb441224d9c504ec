"""What keeps an ordinary user from having networks: said by the program that failed, and by vmnetctl doctor."""

from __future__ import annotations

import json
import os
import socket

import pytest

from lib.lab import is_running, wait_for
from lib.rootless import OrdinaryUser, RootlessBroker

PING_RANGE = "net/ipv4/ping_group_range"
PORT_START = "net/ipv4/ip_unprivileged_port_start"
SYSTEM_GROUP = "games"  # one that every Debian has, and this user is not in


@pytest.fixture
def user(lab):
    """Somebody on a host on which all is well."""
    lab.host.sysctl(PING_RANGE, "0 2147483647")
    lab.host.sysctl(PORT_START, 0)
    user = OrdinaryUser(lab)
    user.write_resolv_conf("198.51.100.1")
    yield user
    user.close()


@pytest.fixture
def doctor(user, bin_dir):
    """doctor(): its findings and its notes by their word; checks that both forms and the status agree."""

    def ask():
        run = lambda *options: user.run([bin_dir / "vmnetctl", "doctor", *options], check=False)  # noqa: E731
        machine, people = run("--json"), run()
        answer = json.loads(machine.stdout)
        assert answer.keys() == {"findings", "accepts", "notes"} and answer["accepts"] == []
        assert machine.returncode == people.returncode == (1 if answer["findings"] else 0), people.stderr
        assert all(f"    mend: {finding['mend']}\n" in people.stdout for finding in answer["findings"])
        assert all(f"    to change it: {note['mend']}\n" in people.stdout for note in answer["notes"])
        assert ("nothing found" in people.stdout) == (not answer["findings"])
        return tuple({one["problem"]: one for one in answer[part]} for part in ("findings", "notes"))

    return ask


@pytest.fixture
def start(user, bin_dir):
    """start(): a client to its end, with the broker that it starts; the broker is ended afterwards."""
    broker = RootlessBroker(user, bin_dir)

    def run():
        client = [bin_dir / "vmnet-client", "--attach", "native", "--network", "shared", "--", "true"]
        return user.run(client, check=False)

    yield run
    for pid in broker.parts().get("supervisor", []):
        os.kill(pid, 15)
        wait_for(lambda pid=pid: not is_running(pid), 15, "end of the broker")


def closed_tun(user):
    file = user.directory / "tun"
    file.touch(0o600)
    user.mount_over("/dev/net/tun", file)


def switch_off(user):
    file = user.directory / "zero"
    file.write_text("0\n")
    user.mount_over("/proc/sys/user/max_user_namespaces", file)


def without_dnsmasq(user):
    user.without_program("/usr/sbin/dnsmasq")


def without_pasta(user):
    user.without_program("/usr/bin/pasta")


def old_pasta(user):
    file = user.directory / "pasta"
    file.write_bytes(b"\x7fELF" + b"config-net\0ns-ifname\0dns-forward\0" * 10)
    file.chmod(0o755)
    user.mount_over("/usr/bin/pasta", file)


def without_ping(user):
    user.lab.host.sysctl(PING_RANGE, "1 0")


OBSTACLES = {
    "no-tun": (closed_tun, "chmod 0666 /dev/net/tun"),
    "userns-off": (switch_off, "sysctl user.max_user_namespaces=15000"),
    "no-dnsmasq": (without_dnsmasq, "apt install dnsmasq-base"),
    "no-pasta": (without_pasta, "apt install passt"),
    "old-pasta": (old_pasta, "apt install passt, or a newer one from https://passt.top"),
    "ping-range": (without_ping, "sysctl net.ipv4.ping_group_range='0 2147483647'"),
}


@pytest.mark.parametrize("problem", OBSTACLES)
def test_without_a_broker_doctor_looks_by_itself(user, doctor, problem):
    findings, notes = doctor()
    assert not findings and list(notes) == ["no-broker"]
    block, mend = OBSTACLES[problem]
    block(user)
    findings, notes = doctor()
    assert list(findings) == [problem] and findings[problem]["mend"] == mend
    assert list(notes) == ["no-broker"] and notes["no-broker"]["mend"] == "vmnet-broker --rootless"
    assert user.pids() == [], "asking starts nothing"


def test_the_mend_of_ping_mends_it(user, doctor):
    without_ping(user)
    user.lab.host.run(["sh", "-ec", doctor()[0]["ping-range"]["mend"]])
    assert not doctor()[0]


@pytest.mark.parametrize(
    ("problem", "said"),
    {
        "no-tun": "/dev/net/tun is not open to this user; as root: chmod 0666 /dev/net/tun",
        "no-dnsmasq": "dnsmasq is not installed: install it, as root: apt install dnsmasq-base",
    }.items(),
)
def test_what_ends_a_start_is_its_error(user, start, doctor, problem, said):
    OBSTACLES[problem][0](user)
    result = start()
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1 and said in errors[0], result.stderr
    # The broker that runs says the same as doctor without one.
    assert problem in doctor()[0]


@pytest.mark.parametrize("problem", ["no-pasta", "old-pasta", "ping-range"])
def test_what_only_the_world_misses_is_told_at_the_start(user, start, doctor, problem):
    block, mend = OBSTACLES[problem]
    block(user)
    result = start()
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("INFO") and f"as root: {mend}" in line]
    assert len(told) == 1, result.stderr
    findings, _ = doctor()
    assert list(findings) == [problem] and findings[problem]["text"] in told[0]
    assert "as root" not in start().stderr, "a broker that runs already has told it"


def test_nothing_is_told_where_all_is_well(start, doctor):
    result = start()
    assert result.returncode == 0 and result.stderr == ""
    assert doctor() == ({}, {})


def test_a_kernel_that_refuses(user, bin_dir):
    """As in a chroot, or in a container whose filter forbids it: no file tells."""
    place = user.directory / "chroot"
    place.mkdir()

    def inside(*argv):
        words = " ".join(map(str, argv))
        script = f"mount --rbind / {place}; exec chroot {place} {' '.join(user.user.prefix())} env HOME={user.home} {words}"
        return user.lab.host.run(["unshare", "--mount", "sh", "-ec", script], check=False)

    answer = json.loads(inside(bin_dir / "vmnetctl", "doctor", "--json").stdout)
    (finding,) = answer["findings"]
    assert finding["problem"] == "userns-refused" and "/etc/subuid" in finding["text"] and "chroot" in finding["mend"]
    result = inside(bin_dir / "vmnet-client", "--attach", "native", "--", "true")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "a namespace for the networks could not be made: Operation not permitted" in line
    assert "vmnetctl doctor finds out why" in line and "/etc/subuid are not needed" in line


def test_ports_of_root(user, start, doctor, bin_dir):
    user.lab.host.sysctl(PORT_START, 1024)
    assert list(doctor()[1]) == ["low-ports", "no-broker"]
    assert start().returncode == 0
    findings, notes = doctor()
    assert not findings and list(notes) == ["low-ports"]
    forward = [bin_dir / "vmnetctl", "forward", "80", "web"]
    refused = user.run(forward, check=False)
    mend = "sysctl net.ipv4.ip_unprivileged_port_start=80"
    assert refused.returncode == 1 and f"have root run \"{mend}\"" in refused.stderr
    assert notes["low-ports"]["mend"] == mend
    user.lab.host.run(["sh", "-ec", mend])
    assert doctor() == ({}, {})
    process = user.popen(forward, stdout=-1, text=True)
    assert process.stdout.readline().startswith("forward 1: tcp 0.0.0.0:80 leads to web:80")
    process.terminate()
    process.wait(5)


@pytest.fixture
def system_socket(user):
    """The socket of a system's broker that serves others."""
    directory = user.run_directory / "vmnet-broker"
    directory.mkdir()
    path = directory / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o660)
        yield path


@pytest.mark.parametrize("has_group", [True, False])
def test_the_systems_broker_is_not_for_this_user(user, start, doctor, bin_dir, system_socket, has_group):
    if has_group:
        import grp

        os.chown(system_socket, 0, grp.getgrnam(SYSTEM_GROUP).gr_gid)
    mend = f"usermod --append --groups {SYSTEM_GROUP if has_group else 'vmnet'} "
    findings, notes = doctor()
    assert not findings and list(notes) == ["no-broker", "not-in-group"] and mend in notes["not-in-group"]["mend"]
    refused = user.run([bin_dir / "vmnetctl", "networks"], check=False)
    assert refused.returncode == 1 and "start a VM with vmnet-client" in refused.stderr
    result = start()
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("INFO ") and "networks are this user's own, by vmnet-broker --rootless" in line and mend in line
    assert start().stderr == "", "told once"
    assert doctor() == ({}, {})


def test_commands_say_what_an_ordinary_user_does(user, bin_dir):
    result = user.run([bin_dir / "vmnetctl", "networks"], check=False)
    assert result.returncode == 1 and "vmnet-client" in result.stderr and "vmnet-broker --rootless" in result.stderr
    assert "as root" not in result.stderr and "systemctl" not in result.stderr
    for env, options in (({"VMNET_BROKER_SOCKET": "/nowhere"}, []), ({}, ["--socket", "/nowhere"])):
        for command in ("networks", "doctor"):
            result = user.run([bin_dir / "vmnetctl", command, *options], env=env, check=False)
            assert result.returncode == 1 and "/nowhere: No such file" in result.stderr and result.stdout == ""
            assert "leave --socket and VMNET_BROKER_SOCKET away" in result.stderr
    of_root = user.lab.host.run(["env", "-u", "VMNET_BROKER_SOCKET", bin_dir / "vmnetctl", "networks"], check=False)
    assert of_root.returncode == 1 and "systemctl start vmnet-broker.socket" in of_root.stderr
