"""vmnet-client as a supervisor, with small programs in the place of the VM."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess

import pytest

from lib.broker import MEMBER
from lib.cable import full_pipe
from lib.lab import all_pids, children_of, command_line, is_running, open_fds, process_name, read_proc, wait_for

SHOW = "env | grep ^VMNET_ | sort; echo fds $(ls /proc/self/fd | grep -v '^[012]$' | tr '\\n' ' ')"


@pytest.fixture
def client(broker, bin_dir, show_on_failure):
    """start(*arguments): vmnet-client running; run(*arguments): to its end."""

    class Client:
        environment = {"VMNET_BROKER_SOCKET": str(broker.socket_path)}
        program = bin_dir / "vmnet-client"

        def start(self, *arguments, user=MEMBER, stdout=subprocess.PIPE, env=None, **options):
            log = open(broker.directory / "client.log", "a")
            with log:
                return broker.namespace.popen(
                    [self.program, *arguments], user=user, env={**self.environment, **(env or {})}, stdout=stdout,
                    stderr=log, text=True, **options,
                )

        def run(self, *arguments, user=MEMBER, env=None, timeout=20):
            return broker.namespace.run(
                [self.program, *arguments], user=user, env={**self.environment, **(env or {})}, check=False,
                timeout=timeout,
            )

    (broker.directory / "client.log").touch()
    show_on_failure("vmnet-client", (broker.directory / "client.log").read_text)
    return Client()


def shell(text):
    return ("--", "sh", "-c", text)


def descendants(pid):
    found = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def running_with(mark):
    return [pid for pid in all_pids() if is_running(pid) and any(mark in word for word in command_line(pid))]


# What the command gets


def test_socket_attach(client, broker):
    result = client.run("--network", "shared", "--hostname", "web", *shell(SHOW))
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    line = json.loads(first)
    values = dict(entry.split("=", 1) for entry in rest if entry.startswith("VMNET_"))
    assert values["VMNET_FD"] == "4"
    assert values["VMNET_MAC_ADDRESS"] == line["vmnet_mac_address"]
    assert values["VMNET_ADDRESS"] == line["vmnet_ipv4_address"]
    assert values["VMNET_INTERFACE_NAME"] == line["vmnet_interface_name"]
    assert values["VMNET_NETWORK"] == "shared"
    assert values["VMNET_MTU"] == "1500"
    assert rest[-1].split()[1:] in (["4"], ["3", "4"]), "ls itself opens the folder at the lowest free number"
    wait_for(lambda: not [link for link in broker.links() if link["ifname"].startswith("vmtap")], 3, "the TAP is gone")


def test_stream_attach(client):
    probe = (
        "import os,socket;s=socket.socket(fileno=4);s.settimeout(20);print(s.type.name);"
        "f=b'\\xff'*6+bytes.fromhex(os.environ['VMNET_MAC_ADDRESS'].replace(':',''))+b'\\x88\\xb5'+bytes(46);"
        "s.sendall(len(f).to_bytes(4,'big')+f);print(sorted(k for k in os.environ if k.startswith('VMNET_')))"
    )
    result = client.run("--network", "shared", "--attach", "stream", "--", "/usr/bin/python3", "-c", probe)
    assert result.returncode == 0, result.stderr
    line, kind, names = result.stdout.splitlines()
    assert json.loads(line)["vmnet_network"] == "shared" and kind == "SOCK_STREAM"
    assert "'VMNET_FD'" in names
    assert "'VMNET_QUEUES'" not in names and "'VMNET_VHOST_USER_SOCKET'" not in names


@pytest.fixture
def runtime_dir(lab):
    """An ordinary user's XDG_RUNTIME_DIR."""
    directory = lab.public_directory("xdg", MEMBER)
    directory.chmod(0o700)
    return directory


def test_vhost_user_attach(client, runtime_dir):
    """The helper accepts a front-end that is the same user, and answers GET_FEATURES."""
    probe = (
        "import os,socket,struct;p=os.environ['VMNET_VHOST_USER_SOCKET'];s=socket.socket(socket.AF_UNIX);"
        "s.settimeout(20);s.connect(p);s.sendall(struct.pack('<III',1,1,0));"
        "request,flags,size,features=struct.unpack('<IIIQ',s.recv(20));"
        "print(request,flags,size,features>>32&1);print(p);print(oct(os.stat(os.path.dirname(p)).st_mode));"
        "print(os.environ.get('VMNET_FD'),os.environ['VMNET_QUEUES'],os.listdir('/proc/self/fd')[:-1])"
    )
    result = client.run(
        *("--network", "shared", "--attach", "vhost-user", "--queues", "2", "--", "/usr/bin/python3", "-c", probe),
        env={"XDG_RUNTIME_DIR": str(runtime_dir), "VMNET_FD": "99"},
    )
    assert result.returncode == 0, result.stderr
    line, reply, path, mode, rest = result.stdout.splitlines()
    assert json.loads(line)["vmnet_network"] == "shared"
    assert reply == "1 5 8 1", "a reply of version 1 that offers VIRTIO_F_VERSION_1"
    assert path.startswith(f"{runtime_dir}/vmnet-") and mode == "0o40700"
    assert rest.startswith("None 2 ") and "'4'" not in rest
    assert not list(runtime_dir.iterdir())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_directory_of_vhost_user_goes_with_the_client(client, runtime_dir, number):
    process = client.start(
        "--network", "shared", "--attach", "vhost-user", *shell("exec sleep 61.5"),
        env={"XDG_RUNTIME_DIR": str(runtime_dir)},
    )  # fmt: skip
    json.loads(process.stdout.readline())
    assert [path.is_socket() for path in runtime_dir.glob("vmnet-*/net")] == [True]
    process.send_signal(number)
    process.wait(10)
    wait_for(lambda: not list(runtime_dir.iterdir()), 8, "removal of the directory")


def test_native_attach(client):
    result = client.run("--network", "shared", "--attach", "native", *shell(SHOW))
    assert result.returncode == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    line = json.loads(first)
    assert line["vmnet_network"] == "shared"
    assert f"VMNET_MAC_ADDRESS={line['vmnet_mac_address']}" in rest
    probe = (
        "import fcntl,struct;"
        "print(struct.unpack('16sH22x',fcntl.ioctl(4,0x800454d2,bytes(40))))"
    )
    result = client.run("--network", "shared", "--attach", "native", "--", "/usr/bin/python3", "-c", probe)
    assert result.returncode == 0, result.stderr
    name, flags = re.search(r"b'(vmtap[0-9a-f]+).*', (\d+)\)", result.stdout).groups()
    assert int(flags) & 0x5002 == 0x5002, "TAP, no packet information, virtio header"


def test_native_queues(client):
    result = client.run("--network", "shared", "--attach", "native", "--queues", "3", *shell(SHOW))
    assert result.returncode == 0, result.stderr
    assert "VMNET_QUEUES=3" in result.stdout and "VMNET_VHOST_FDS=" in result.stdout
    fds = result.stdout.splitlines()[-1].split()[1:]
    assert {"4", "5", "6"} <= set(fds) and not set(fds) - {"3", "4", "5", "6"}


def test_helper_and_command_get_only_their_own_fds(client):
    process = client.start("--network", "shared", *shell("exec sleep 60"))
    json.loads(process.stdout.readline())
    command = wait_for(lambda: [p for p in children_of(process.pid) if process_name(p) == "sleep"], 5, "the command")[0]
    helper = next(p for p in children_of(process.pid) if process_name(p) == "vmnet-helper")
    # It opens its libraries before anything else.
    wait_for(lambda: set(open_fds(command)) == {0, 1, 2, 4}, 5, "the command has these fds and no others")
    own, theirs = os.readlink(f"/proc/{helper}/fd/3"), os.readlink(f"/proc/{command}/fd/4")
    assert own.startswith("socket:") and theirs.startswith("socket:")
    assert theirs not in open_fds(helper).values(), "the helper does not hold the VM's end"
    assert os.getpgid(command) == os.getpgid(helper)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM


def test_stable_mac(client):
    identity = "8F2D5C1E-13AB-4C1D-9A55-0C5D7AB0F1E2"
    macs = [
        json.loads(client.run(*arguments, *shell("true")).stdout.splitlines()[0])["vmnet_mac_address"]
        for arguments in (
            ("--network", "shared", "--interface-id", identity),
            ("--network", "shared", "--interface-id", identity.lower(), "--attach", "native"),
            ("--network", "shared", "--mac", "52:54:00:AB:00:01"),
            ("--network", "shared", "--hostname", "one"),
            ("--network", "shared", "--hostname", "one"),
            ("--network", "shared"),
        )
    ]
    assert macs[0] == macs[1] and macs[3] == macs[4]
    assert macs[2] == "52:54:00:ab:00:01"
    assert len(set(macs)) == 4


DEVICE = r"-device virtio-net-pci,netdev=\1,mac={mac}"
DGRAM = rf"-netdev dgram,id=(\S+),local.type=fd,local.str=4 {DEVICE}$"
STREAM = rf"-netdev stream,id=(\S+),server=off,addr.type=fd,addr.str=4 {DEVICE}$"
TAP = rf"-netdev tap,id=(\S+),fd=4,vhost=off {DEVICE}$"
VHOST_USER = (
    r"-object memory-backend-memfd,id=(\S+),size=1073741824,share=on -machine memory-backend=\1 "
    r"-chardev socket,id=(\S+),path=/tmp/vmnet-[0-9a-f]{{16}}/net "
    r"-netdev vhost-user,id=(\S+),chardev=\2,queues=QUEUES -device virtio-net-pci,netdev=\3,mac={mac}"
)
QEMU_OPTIONS = {
    ("--attach", "socket"): DGRAM,
    ("--attach", "stream"): STREAM,
    ("--stats-interval", "60"): STREAM,
    (): TAP,
    ("--attach", "native"): TAP,
    ("--attach", "native", "--queues", "1"): TAP,
    ("--queues", "2"): rf"-netdev tap,id=(\S+),fds=4:5,vhost=off {DEVICE},mq=on,vectors=6$",
    ("--attach", "vhost-user"): VHOST_USER.replace("QUEUES", "1") + "$",
    ("--attach", "vhost-user", "--queues", "4"): VHOST_USER.replace("QUEUES", "4") + ",mq=on,vectors=10$",
}


@pytest.mark.parametrize("arguments", QEMU_OPTIONS, ids=lambda words: " ".join(words) or "nothing")
def test_qemu_options(client, arguments):
    result = client.run("--qemu", "--network", "shared", *arguments, "--", "echo", "-m", "1G")
    assert result.returncode == 0, result.stderr
    line, said = result.stdout.splitlines()
    pattern = QEMU_OPTIONS[arguments].format(mac=json.loads(line)["vmnet_mac_address"])
    assert re.match("-m 1G " + pattern, said), said


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("-mem-path", "/dev/hugepages"), "memory-backend-file"),
        (("-numa", "node"), "memdev=mem"),
        (("-m", "many"), "-m 512M"),
        (("-machine", "memory-backend=m", "-object", "memory-backend-ram,id=m,size=1G"), "size=1G,share=on"),
    ],
)
def test_qemu_memory_that_vhost_user_cannot_share(client, broker, words, advice):
    result = client.run("--qemu", "--network", "shared", "--attach", "vhost-user", "--", "echo", *words)
    assert result.returncode == 1 and result.stdout == ""
    assert advice in result.stderr and len(result.stderr.splitlines()) == 1
    assert not broker.links(), "it is said before anything exists"


@pytest.mark.parametrize("attach", ["socket", "stream"])
@pytest.mark.parametrize("options", [("--enable-tso", "--enable-checksum-offload"), ("--vnet-hdr",)], ids=" ".join)
def test_offloads_are_the_helpers(client, attach, options):
    process = client.start("--network", "shared", "--attach", attach, *options, *shell("exec sleep 61.5"))
    line = json.loads(process.stdout.readline())
    helper = next(p for p in children_of(process.pid) if process_name(p) == "vmnet-helper")
    assert set(options) <= set(command_line(helper))
    assert line["vmnet_max_packet_size"] > 1514
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM


# Exit codes


@pytest.mark.parametrize("attach", ["socket", "stream", "vhost-user", "native"])
@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_status_of_the_command(client, attach, command, status):
    assert client.run("--network", "shared", "--attach", attach, *shell(command)).returncode == status


def test_command_that_cannot_run(client, lab):
    result = client.run("--network", "shared", "--", "no-such-program")
    assert result.returncode == 127 and "no-such-program" in result.stderr
    result = client.run("--network", "shared", "--", "/etc/passwd")
    assert result.returncode == 126 and "/etc/passwd" in result.stderr


def test_no_command(client):
    result = client.run("--network", "shared")
    assert result.returncode == 1 and "usage" in result.stderr and result.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_client(client, number):
    process = client.start("--network", "shared", *shell("exec sleep 60"))
    json.loads(process.stdout.readline())
    family = wait_for(lambda: len(children := descendants(process.pid)) >= 2 and children, 5, "helper and command")
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    wait_for(lambda: not any(map(is_running, family)), 2, "end of its children")


@pytest.mark.parametrize("attach", ["socket", "stream", "vhost-user", "native"])
def test_signal_while_nobody_reads_the_line(client, broker, attach):
    with full_pipe() as stdout:
        process = client.start("--network", "shared", "--attach", attach, *shell("true"), stdout=stdout)
        wait_for(lambda: [link for link in broker.links() if link["ifname"].startswith("vmtap")], 5, "its TAP")
        family = descendants(process.pid)
        process.terminate()
        assert process.wait(10) == 128 + signal.SIGTERM
    wait_for(lambda: not any(map(is_running, family)), 2, "end of its children")


REFUSED = [
    (("--network", "blue"), "blue"),
    (("--network", "shared", "--operation-mode", "host"), "--operation-mode"),
    (("--operation-mode", "moon"), "--operation-mode"),
    (("--operation-mode", "bridged"), "bridged"),
    (("--shared-interface", "x"), "--shared-interface"),
    (("--start-address", "10.0.0.1"), "--start-address"),
    (("--enable-tso",), "--enable-checksum-offload"),
    (("--enable-checksum-offload",), "--enable-tso"),
    (("--enable-tso", "--enable-checksum-offload", "--vnet-hdr"), "--vnet-hdr"),
    (("--attach", "vhost-user", "--vnet-hdr"), "--vnet-hdr"),
    (("--qemu", "--vnet-hdr"), "--qemu"),
    (("--attach", "moon"), "--attach"),
    (("--queues", "2"), "--queues"),
    (("--attach", "stream", "--queues", "2"), "--queues"),
    (("--attach", "native", "--queues", "9"), "--queues"),
    (("--interface-id", "1"), "--interface-id"),
    (("--mac", "ff:ff:ff:ff:ff:ff"), "--mac"),
    (("--hostname", "a b"), "--hostname"),
    (("--fd", "3"), "--fd"),
    (("--colour",), "--colour"),
]


@pytest.mark.parametrize(("arguments", "named"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value)
def test_refused_by_name(client, arguments, named):
    result = client.run(*arguments, *shell("echo ran"))
    assert result.returncode == 1
    assert "ran" not in result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1 and named in errors[0]


# Deaths


def start_family(client, attach="socket", text="exec sleep 61.5"):
    process = client.start("--network", "shared", "--attach", attach, *shell(text))
    json.loads(process.stdout.readline())
    wait_for(lambda: [pid for pid in descendants(process.pid) if process_name(pid) == "sleep"], 5, "the command")
    return process, descendants(process.pid)


def test_killed_command_ends_everything(client):
    process, family = start_family(client)
    command = next(pid for pid in family if process_name(pid) == "sleep")
    os.kill(command, signal.SIGKILL)
    assert process.wait(5) == 137
    wait_for(lambda: not any(map(is_running, family)), 3, "end of the family")


def test_killed_helper_is_noticed(client, broker):
    process, family = start_family(client)
    os.kill(next(pid for pid in family if process_name(pid) == "vmnet-helper"), signal.SIGKILL)
    assert process.wait(8) == 1
    assert "vmnet-helper" in (broker.directory / "client.log").read_text()
    wait_for(lambda: not any(map(is_running, family)), 3, "end of the family")


@pytest.mark.parametrize("attach", ["socket", "stream", "vhost-user", "native"])
@pytest.mark.parametrize("text", ["exec sleep 61.5", "sleep 61.5 & wait", "sh -c 'sleep 61.5 & wait' & wait"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_client_leaves_nothing(client, broker, attach, text, number):
    process, family = start_family(client, attach, text)
    process.send_signal(number)
    process.wait(10)
    wait_for(lambda: not any(map(is_running, family)) and not running_with("61.5"), 8, "end of the family")
    wait_for(lambda: not [link for link in broker.links() if link["ifname"].startswith("vmtap")], 3, "the TAP is gone")


def test_command_that_ignores_term_is_killed(client):
    process, family = start_family(client, text="trap '' TERM; while :; do sleep 61.5; done")
    process.terminate()
    assert process.wait(15) == 128 + signal.SIGTERM
    wait_for(lambda: not any(map(is_running, family)), 2, "end of the family")


def test_grandchildren_end_with_the_command(client):
    result = client.run("--network", "shared", *shell("sleep 61.5 & exit 3"))
    assert result.returncode == 3
    assert not running_with("61.5")


# The broker that is not there


def test_group_is_named_when_the_socket_refuses(client, broker):
    from lib.broker import STRANGER

    result = client.run(*shell("true"), user=STRANGER)
    assert result.returncode == 1 and "Permission denied" in result.stderr and "group" in result.stderr


def test_root_starts_an_embedded_broker_once(lab, bin_dir):
    """Three at once, nothing configured: one broker. In mount and pid namespaces of its own, so that the machine's
    /run and /var/lib stay as they are and everything ends with the script."""
    client = shlex.quote(str(bin_dir / "vmnet-client"))
    script = f"""
        mount -t tmpfs none /run; mount -t tmpfs none /var/lib; mount -t proc none /proc
        for i in 1 2 3; do {client} -- sh -c "echo up $i" & jobs="$jobs $!"; done
        wait $jobs
        ls /run/vmnet-broker
        # Those that came second end when they know of the first.
        tries=0; until [ $(pgrep -x vmnet-broker | wc -l) = 2 ] || [ $((tries += 1)) -gt 100 ]; do sleep 0.1; done
        echo brokers $(pgrep -x vmnet-broker | wc -l)
    """
    result = lab.host.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script], check=False, timeout=40)
    lines = result.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("up")) == ["up 1", "up 2", "up 3"], result.stderr
    assert "socket" in lines
    assert lines[-1] == "brokers 2", "one broker: front and priv"
