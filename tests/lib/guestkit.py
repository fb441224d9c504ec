"""A small Linux guest for tests: Debian's cloud kernel, busybox, iperf3, ping.

build() makes the kernel and the initramfs once and keeps them under cache/ in the repository. qemu_command() is the
command line without any network device: vmnet-client or the caller appends that. Guest drives a running one.

The guest has two serial ports. ttyS0 carries the kernel's log into CONSOLE.log, also when nobody is connected.
ttyS1 is the unix socket CONSOLE and carries nothing but the commands of Guest.run() and their answers, so no kernel
message can ever get between them.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import programs

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / "cache" / "guest"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
GUEST_PACKAGES = ("busybox-static", "iperf3", "iputils-ping", "libc6")
MODULES = ("virtio_pci", "virtio_net")
LAYOUT = 1  # another number for another way to pack the same files, so that no old kit is taken for a new one
PROBE_MARKER = "vmnet-guest-probe"
KVM_PROBE_S = 8
INSTALLED_EMULATOR = ("qemu-system-x86_64",)

# Chosen by the CPU time of a boot to the first command under TCG, least of five: 3.1 s with qemu64 and no arguments,
# 2.8 s without the kernel's self-tests of its ciphers and its CPU mitigations, 2.4 s with rodata=off on top. -cpu max
# then needs 3.3 s and moves 0.8 Gbit/s where qemu64 moves 2.2 (for it the kernel copies with "rep movsb", which TCG
# does byte by byte); an uncompressed kernel or q35 gain nothing.
TCG_CPU = "qemu64"
KERNEL_ARGUMENTS = "console=ttyS0,115200 loglevel=4 panic=-1 cryptomgr.notests mitigations=off rodata=off"

Progress = Callable[[str], None]


class KitError(Exception):
    """The kit can't be made; the text says what to do."""


class GuestError(Exception):
    """The guest ended or doesn't answer; the text carries the end of its log."""


@dataclass(frozen=True)
class Kit:
    """Files of one version of the guest, all below directory, and the accelerator that works here."""

    directory: Path
    accelerator: str

    @property
    def kernel(self) -> Path:
        return self.directory / "kernel"

    @property
    def initramfs(self) -> Path:
        return self.directory / "initramfs"


# The guest's own files

INIT = """#!/bin/sh
export PATH=/usr/bin:/bin HOME=/
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir /dev/pts
mount -t devpts devpts /dev/pts

hostname=guest
dhcp=on
for word in $(cat /proc/cmdline); do
    case $word in
    vmnet.hostname=*) hostname=${word#*=} ;;
    vmnet.dhcp=*) dhcp=${word#*=} ;;
    vmnet.probe) echo PROBE_MARKER; reboot -f ;;
    esac
done
hostname "$hostname"
for module in $(cat /lib/modules/order); do insmod "/lib/modules/$module.ko"; done
ip link set lo up
for path in /sys/class/net/eth*; do
    [ -e "$path" ] && /etc/interface-up "${path##*/}" "$hostname" "$dhcp" &
done
iperf3 -s -D
/etc/agent &
wait $!
""".replace("PROBE_MARKER", PROBE_MARKER)

# Serves the console; Guest._request() has the protocol. Not process 1, to which every orphan's end is told (each use of
# timeout leaves one, which ends up to a second later): busybox's "read" forgets half a line when SIGCHLD comes.
AGENT = """#!/bin/sh
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
last=
while read -r id limit code digest <&3; do
    if [ "$limit" = ask ]; then
        [ "$id" = "$last" ] || printf '?%s %s\\n' "$id" "$code" >&3
    elif [ "$(printf %s "$id $limit $code" | sha256sum)" != "$digest  -" ]; then
        continue
    elif [ "$id" != "$last" ]; then
        printf %s "$code" | base64 -d >/run/command
        rm -f /run/output
        timeout -s KILL "$limit" sh /run/command </dev/null >/run/output 2>&1 3>&-
        status=$?
        cp /run/output /run/answer
        checksum=$(sha256sum </run/answer)
        printf '@%s %s %s %s\\n' "$id" "$status" "$(stat -c %s /run/answer)" "${checksum%% *}" >/run/answer-head
        last=$id
    fi
    [ "$id" = "$last" ] && cat /run/answer-head /run/answer >&3
done
"""

# Discovers at once and again every second: a lost first frame should cost a test little.
INTERFACE_UP = """#!/bin/sh
mkdir -p "/run/net/$1"
now >"/run/net/$1/up"
ip link set "$1" up
[ "$3" = on ] && exec udhcpc -f -i "$1" -t 20 -T 1 -A 1 -O mtu -x "hostname:$2" -s /etc/udhcpc
"""

UDHCPC = """#!/bin/sh
run=/run/net/$interface
case $1 in
deconfig)
    rm -f "$run/lease"
    ip -4 addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound|renew)
    bound=$(now)
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    ip addr replace "$ip/$mask" broadcast + dev "$interface"
    for address in $router; do ip route replace default via "$address" dev "$interface"; break; done
    {
        [ -n "$domain" ] && echo "search $domain"
        for address in $dns; do echo "nameserver $address"; done
    } >/etc/resolv.conf
    [ -e "$run/lease_us" ] || echo $((bound - $(cat "$run/up"))) >"$run/lease_us"
    echo "$ip/$mask $serverid $lease" >"$run/lease.new"
    mv "$run/lease.new" "$run/lease"
    ;;
esac
"""

# Microseconds since boot: busybox offers a script no clock finer than 10 ms.
NOW = """#!/bin/sh
read -r _ _ nanoseconds _ <<END
$(grep -m 1 '^now at' /proc/timer_list)
END
echo $((nanoseconds / 1000))
"""

GUEST_SCRIPTS = {
    "init": INIT,
    "etc/agent": AGENT,
    "etc/interface-up": INTERFACE_UP,
    "etc/udhcpc": UDHCPC,
    "usr/bin/now": NOW,
}

GUEST_FILES = {
    "etc/passwd": "root::0:0:root:/:/bin/sh\nnobody::65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root::0:\nnogroup::65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


class Archive:
    """A cpio archive in the kernel's "newc" form, written here because cpio itself needs root for device nodes.

    https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.names: set[str] = set()

    def _add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        if name in self.names:
            return
        self.names.add(name)
        encoded = name.encode() + b"\0"
        fields = (len(self.names), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self.parts += [header, b"\0" * (-len(header) % 4), data, b"\0" * (-len(data) % 4)]

    def directory(self, name: str) -> None:
        if name and name not in self.names:
            self.directory(os.path.dirname(name))
            self._add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, data: bytes, executable: bool = False) -> None:
        self.directory(os.path.dirname(name))
        self._add(name, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def link(self, name: str, target: str) -> None:
        self.directory(os.path.dirname(name))
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        self.directory(os.path.dirname(name))
        self._add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def bytes(self) -> bytes:
        self._add("TRAILER!!!", 0)
        return b"".join(self.parts)


def output(*command: str) -> str:
    """What the command prints; KitError, with what it complained about, when it fails."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise KitError(f"{command[0]}: not found; run scripts/install-packages demo") from None
    except subprocess.CalledProcessError as error:
        raise KitError(f"{' '.join(command)}: {error.stderr.strip() or error.returncode}") from None


def _program(name: str) -> Path:
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if not path:
        raise KitError(f"{name}: not found; run scripts/install-packages demo")
    return Path(path)


def _shared_libraries(program: Path) -> list[str]:
    return re.findall(r"(/\S+) \(0x", output("ldd", str(program)))


def _modules_in_order(tree: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """The wanted modules after everything they depend on, as each module's own .modinfo says: no depmod needed."""
    files = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    ordered: dict[str, Path] = {}

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name not in files:
            raise KitError(f"kernel package has no module {name}.ko")
        found = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for dependency in found[1].decode().split(",") if found and found[1] else ():
            visit(dependency.replace("-", "_"))
        ordered[name] = files[name]

    for name in wanted:
        visit(name)
    return ordered


def _make_initramfs(module_tree: Path) -> bytes:
    archive = Archive()
    for directory in ("proc", "sys", "dev", "run", "tmp", "root"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    for name, text in GUEST_SCRIPTS.items():
        archive.file(name, text.encode(), executable=True)
    for name, text in GUEST_FILES.items():
        archive.file(name, text.encode())
    for name in ("iperf3", "ping"):
        program = _program(name)
        archive.file(f"usr/bin/{name}", program.read_bytes(), executable=True)
        for library in _shared_libraries(program):
            archive.file(library.lstrip("/"), Path(library).read_bytes(), executable=True)
    busybox = _program("busybox")
    archive.file("bin/busybox", busybox.read_bytes(), executable=True)
    for applet in output(str(busybox), "--list").split():
        if applet != "busybox":
            archive.link(f"bin/{applet}", "busybox")
    modules = _modules_in_order(module_tree, MODULES)
    archive.file("lib/modules/order", "".join(f"{name}\n" for name in modules).encode())
    for name, path in modules.items():
        archive.file(f"lib/modules/{name}.ko", path.read_bytes())
    return archive.bytes()


# Making and keeping it


def _kernel_package() -> tuple[str, str]:
    """Name and version of the package that has the kernel itself."""
    depends = re.search(r"Depends: (linux-image-\S+)", output("apt-cache", "depends", KERNEL_PACKAGE))
    if not depends:
        raise KitError(f"apt doesn't know {KERNEL_PACKAGE}: is this machine online, and Debian 12?")
    version = re.search(r"^Version: (\S+)", output("apt-cache", "show", "--no-all-versions", depends[1]), re.M)
    return depends[1], version[1] if version else ""


def _key(kernel: str, version: str) -> str:
    installed = output("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *GUEST_PACKAGES)
    parts = (LAYOUT, kernel, version, installed, MODULES, GUEST_SCRIPTS, GUEST_FILES)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def locked(directory: Path, progress: Progress) -> Iterator[None]:
    """Makes directory, and lets one process at a time work in it."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process makes the guest; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(directory: Path, kernel: str, version: str, progress: Progress) -> None:
    """Makes the kit beside its place and renames it there, so that nobody ever sees half of one."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="new-") as temporary:
        work = Path(temporary)
        progress(f"downloading {kernel} {version} (27 MB)")
        download = subprocess.run(
            # apt's own user can't write below /root and would only say so.
            ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", f"{kernel}={version}"],
            cwd=work,
            capture_output=True,
            text=True,
        )
        packages = list(work.glob("*.deb"))
        if download.returncode or not packages:
            raise KitError(f"apt-get download {kernel} failed; is this machine online?\n{download.stderr.strip()}")
        output("dpkg-deb", "-x", str(packages[0]), str(work / "tree"))
        progress("packing the initramfs")
        kit = work / "kit"
        kit.mkdir()
        shutil.copyfile(next((work / "tree/boot").glob("vmlinuz-*")), kit / "kernel")
        (kit / "initramfs").write_bytes(_make_initramfs(work / "tree/lib/modules"))
        (kit / "version").write_text(f"{kernel} {version}\n")
        os.chmod(kit, 0o755)
        os.rename(kit, directory)


def _kvm_works(directory: Path, progress: Progress) -> bool:
    """Some hosts have a /dev/kvm on which a distribution's kernel hangs, so only a boot tells."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    answer = directory / f"kvm-{os.uname().release}"
    if not answer.exists():
        progress(f"trying KVM for at most {KVM_PROBE_S} s")
        command = _base_command(Kit(directory, "kvm"), f"vmnet.probe {_arguments('probe', True)}")
        try:
            probe = subprocess.run(
                [*command, "-serial", "stdio"], stdin=subprocess.DEVNULL, capture_output=True, timeout=KVM_PROBE_S
            )
            works = PROBE_MARKER.encode() in probe.stdout
        except subprocess.TimeoutExpired:
            works = False
        temporary = answer.with_suffix(".new")
        temporary.write_text("yes\n" if works else "no\n")
        temporary.rename(answer)
    return answer.read_text() == "yes\n"


def _find_or_make(cache: Path, progress: Progress) -> Path:
    kernel, version = _kernel_package()
    directory = cache / _key(kernel, version)
    if not directory.exists():
        _make(directory, kernel, version, progress)
    return directory


def build(progress: Progress | None = None, cache: Path = CACHE) -> Kit:
    """The kit for the versions installed now, made if it isn't there. VMNET_ACCEL=kvm or tcg skips the KVM probe."""
    progress = progress or (lambda text: print(f"guest kit: {text}", file=sys.stderr, flush=True))
    with locked(cache, progress):
        try:
            directory = _find_or_make(cache, progress)
        except KitError:
            # A machine's package lists may be absent, or so old that what they name is gone from the archive.
            progress("fetching package lists")
            subprocess.run(["apt-get", "update", "-q"], capture_output=True)
            directory = _find_or_make(cache, progress)
        accelerator = os.environ.get("VMNET_ACCEL") or ("kvm" if _kvm_works(directory, progress) else "tcg")
    return Kit(directory, accelerator)


def reachable(kit: Kit, place: Path) -> Kit:
    """The kit, copied below place where not every user can reach it."""
    if programs.everybody_can_reach(kit.directory):
        return kit
    copy = place / "guest"
    shutil.copytree(kit.directory, copy)
    return Kit(copy, kit.accelerator)


# Running it


def _arguments(hostname: str, dhcp: bool) -> str:
    return f"vmnet.hostname={hostname} vmnet.dhcp={'on' if dhcp else 'off'}"


def _base_command(
    kit: Kit, arguments: str, memory_mb: int = 256, emulator: Sequence[str] = INSTALLED_EMULATOR
) -> list[str]:
    accelerator, cpu = ["-accel", "tcg"], TCG_CPU
    if kit.accelerator == "kvm":
        accelerator, cpu = ["-accel", "kvm", *accelerator], "max"  # TCG for a user who may not open /dev/kvm
    return [
        *emulator, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "pc", *accelerator, "-cpu", cpu, "-smp", "1", "-m", str(memory_mb),
        "-kernel", str(kit.kernel), "-initrd", str(kit.initramfs),
        "-append", f"{KERNEL_ARGUMENTS} {arguments}",
        "-global", "virtio-net-pci.romfile=",  # no network boot: it would cost boot time and a package
    ]  # fmt: skip


def qemu_command(
    kit: Kit,
    name: str,
    console_path: str | os.PathLike[str],
    extra: Sequence[str] = (),
    hostname: str | None = None,
    dhcp: bool = True,
    memory_mb: int = 256,
    emulator: Sequence[str] = INSTALLED_EMULATOR,
) -> list[str]:
    """The guest's command line, extra at its end, without a network device. emulator: its first words, see qemukit.

    The console's directory must be writable for the user who runs it, and its path short (a unix socket's limit is 107
    bytes). hostname is sent by DHCP and is the guest's own name; name when not given.
    """
    console = os.fspath(console_path)
    return [
        *_base_command(kit, _arguments(hostname or name, dhcp), memory_mb, emulator),
        "-name", name,
        "-serial", f"file:{console}.log",
        "-chardev", f"socket,id=console,path={console},server=on,wait=off",
        "-serial", "chardev:console",
        *extra,
    ]  # fmt: skip


class Guest:
    """Drives a running guest over its console. Not for use by several threads at once."""

    ask_after_s = 2.0  # from a request to the first look whether it got lost

    def __init__(
        self, console_path: str | os.PathLike[str], process: subprocess.Popen[bytes] | None = None
    ) -> None:
        """process, QEMU or what started it, is only looked at, to tell at once when it ended."""
        self.console_path = Path(console_path)
        self._process = process
        self._socket: socket.socket | None = None
        self._received = b""

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def log(self) -> str:
        """The kernel's and init's messages so far."""
        with contextlib.suppress(OSError):
            return Path(f"{self.console_path}.log").read_text(errors="replace")
        return ""

    def _fail(self, what: str) -> GuestError:
        return GuestError(f"guest at {self.console_path}: {what}; its log ends with:\n{self.log()[-3000:]}")

    def _connect(self, deadline: float) -> socket.socket:
        while self._socket is None:
            attempt = socket.socket(socket.AF_UNIX)
            try:
                attempt.connect(str(self.console_path))
                self._socket = attempt
            except (FileNotFoundError, ConnectionRefusedError):
                attempt.close()
                if self._process and self._process.poll() is not None:
                    raise self._fail(f"QEMU ended with status {self._process.returncode}") from None
                if time.monotonic() > deadline:
                    raise self._fail("no console; did QEMU start?") from None
                time.sleep(0.02)
        return self._socket

    def _send(self, line: str, deadline: float) -> None:
        connection = self._connect(deadline)
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            # An own line, whatever half of one came before.
            connection.sendall(f"\n{line}\n".encode())
        except (TimeoutError, BrokenPipeError, ConnectionResetError) as error:
            raise self._fail(f"takes no command ({error})") from None

    def _receive(self, deadline: float) -> None:
        """Waits for more bytes from the guest until the deadline."""
        connection = self._connect(deadline)
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            chunk = connection.recv(65536)
        except TimeoutError:
            return
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise self._fail("ended")
        self._received += chunk

    def _wait_for(
        self, done: Callable[[int], bool], identity: str, deadline: float, interval_s: float, factor: float
    ) -> None:
        """Receives until done(asks so far); asks about the request each interval, which then grows by factor.

        An ask is answered with the request's answer, or with "?ID NUMBER" when the guest has not got such a request.
        """
        number = 0
        self._connect(deadline)  # QEMU may take long to start, and an ask is due soon
        ask_at = time.monotonic() + interval_s
        while not done(number):
            now = time.monotonic()
            if now > deadline:
                raise self._fail(f"doesn't answer, and said last {self._received[-200:]!r}")
            if now >= ask_at:
                number += 1
                self._send(f"{identity} ask {number}", deadline)
                interval_s *= factor
                ask_at = now + interval_s
            self._receive(min(deadline, ask_at))

    def _find_answer(self, identity: str) -> tuple[int, bytes] | None:
        """The answer, once it is there and undamaged; drops everything up to its end."""
        head = re.compile(rb"@%s (\d+) (\d+) (\w{64})\n" % identity.encode())
        for found in head.finditer(self._received):
            end = found.end() + int(found[2])
            output = self._received[found.end() : end]
            if len(self._received) >= end and hashlib.sha256(output).hexdigest().encode() == found[3]:
                self._received = self._received[end:]
                return int(found[1]), output
        return None

    def _request(self, limit_s: int, command: str, deadline: float) -> tuple[int, bytes]:
        """Sends a request, "ID LIMIT CODE CHECKSUM", and returns its answer: status and output.

        The answer is "@ID STATUS SIZE CHECKSUM" and the output. Either may be lost or damaged on its way: the guest
        passes over what is no request, keeps its last answer, and never runs the same ID twice. While it runs a command
        it reads nothing, and a tty keeps only 4,095 bytes for it; so the host asks, seldom and in short lines, and sends
        the request again only when the guest, having read everything until then, says that it has none.
        """
        identity = secrets.token_hex(8)  # unguessable: whatever else comes, an echo or an older answer, is dropped
        request = f"{identity} {limit_s} {base64.b64encode(command.encode()).decode()}"
        line = f"{request} {hashlib.sha256(request.encode()).hexdigest()}"
        answer: tuple[int, bytes] | None = None

        def done(asks: int) -> bool:
            nonlocal answer
            answer = self._find_answer(identity)
            if answer is None and f"?{identity} {asks}\n".encode() in self._received:
                self._received = b""
                self._send(line, deadline)
            return answer is not None

        self._send(line, deadline)
        self._wait_for(done, identity, deadline, self.ask_after_s, 2)
        assert answer
        return answer

    def wait_ready(self, deadline_s: float = 60) -> None:
        """Waits until the guest takes commands; it may have no lease yet."""
        identity = secrets.token_hex(8)
        known = re.compile(rb"\?%s \d+\n" % identity.encode())
        deadline = time.monotonic() + deadline_s
        self._wait_for(lambda asks: bool(known.search(self._received)), identity, deadline, 0.1, 1)

    def run(self, command: str, timeout_s: float = 30) -> tuple[int, str]:
        """Runs a shell command: exit status, and standard output and error together.

        After timeout_s the guest kills it, so that the console stays usable; the status is 137 then.
        """
        status, output = self._request(max(1, round(timeout_s)), command, time.monotonic() + timeout_s + 15)
        return status, output.decode(errors="replace")

    def check(self, command: str, timeout_s: float = 30) -> str:
        """run(), and its output; GuestError when the status isn't 0."""
        status, output = self.run(command, timeout_s)
        if status:
            raise GuestError(f"in the guest: {command}: status {status}\n{output}")
        return output

    def wait_lease(self, deadline_s: float = 30, interface: str = "eth0") -> str:
        """Waits for a DHCP lease: "address/prefix server seconds"."""
        lease = f"/run/net/{interface}/lease"
        tries = max(1, round(deadline_s * 20))
        wait = f"for i in $(seq {tries}); do [ -e {lease} ] && exec cat {lease}; usleep 50000; done; exit 1"
        status, output = self.run(wait, deadline_s + 5)
        if status:
            raise self._fail(f"no DHCP lease on {interface} in {deadline_s} s")
        return output.strip()

    def address(self, deadline_s: float = 30, interface: str = "eth0") -> str:
        """The IPv4 address of the lease, waited for."""
        return self.wait_lease(deadline_s, interface).split("/")[0]

    def lease_ms(self, deadline_s: float = 30, interface: str = "eth0") -> float:
        """Milliseconds from the interface going up to the first lease, measured in the guest."""
        self.wait_lease(deadline_s, interface)
        return int(self.check(f"cat /run/net/{interface}/lease_us")) / 1000

    def power_off(self, deadline_s: float = 10) -> None:
        """Ends the guest and waits for QEMU to close the console."""
        with contextlib.suppress(GuestError):
            self._request(5, "reboot -f", time.monotonic() + deadline_s)
            raise TimeoutError(f"guest at {self.console_path} didn't end")
        self.close()
