"""Real guests: the same Linux under QEMU, attached in every way there is. A guest is a line like any other."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import guestkit
from lib.broker import MEMBER
from lib.lab import INTERNET_ADDRESS, CommandError, User

from .cables import Cable, ended, helper_process, passt
from .place import LOOPBACK, Absent, Place

USER_NETWORK_GATEWAY = "10.0.2.2"  # QEMU's own, which stands for the host's loopback


@dataclass
class GuestLine:
    """A booted guest; what a Line has, so that the same measurements serve both."""

    name: str
    guest: guestkit.Guest
    target: str
    port: int
    mtu: int
    pids: list[int] = field(default_factory=list)
    vm_pids: list[int] = field(default_factory=list)
    stats: Callable[[], dict[str, Any]] = dict
    log_path: Path = Path("/dev/null")  # QEMU's own words

    def run(self, argv: Sequence[str], timeout: float = 30) -> str:
        """Runs a program in the guest; its output. CommandError as from a namespace."""
        status, output = self.guest.run(shlex.join(argv), timeout)
        if status:
            raise CommandError(f"{self.name}: {argv[0]}: status {status}\n{output}")
        return output

    def prepare(self) -> None:
        """Waits for the guest and its address, and holds it to the network's MTU."""
        try:
            self.guest.wait_ready(120)
        except guestkit.GuestError as error:
            raise CommandError(f"{error}\n{self.log_path.read_text().strip()}") from None
        self.guest.address(60)
        self.guest.check(f"ip link set eth0 mtu {self.mtu}")


@dataclass(frozen=True)
class Attachment:
    """What QEMU is told of a network, and by whom it is run."""

    netdev: str
    target: str
    server: str  # where the host's iperf3 server listens
    mac: str | None = None
    fds: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    user: User | None = MEMBER
    options: tuple[str, ...] = ()
    emulator: tuple[str, ...] = guestkit.INSTALLED_EMULATOR


Attach = Callable[[Place, int], AbstractContextManager[Attachment]]


@contextlib.contextmanager
def guest_line(place: Place, name: str, *, attach: Attach, mtu: int = 1500) -> Iterator[GuestLine]:
    """QEMU on the network of that MTU. It boots while others start; GuestLine.prepare() waits for it."""
    with contextlib.ExitStack() as stack:
        attachment = stack.enter_context(attach(place, mtu))
        console = place.lab.public_directory(f"g{place.number()}", MEMBER) / "console"
        command = guestkit.qemu_command(
            place.kit(), f"guest{place.number()}", console, emulator=attachment.emulator
        )
        mac = attachment.mac or f"52:54:00:b1:{place.number():02x}:01"
        device = f"virtio-net-pci,netdev=n0,mac={mac},host_mtu={mtu}"
        with open(f"{console}.qemu", "w") as log:
            qemu = place.host.popen(
                [*command, *attachment.options, "-netdev", attachment.netdev, "-device", device],
                user=attachment.user, pass_fds=attachment.fds, stdout=log, stderr=log,
            )  # fmt: skip
        stack.enter_context(ended(qemu))
        log_path = Path(f"{console}.qemu")
        port = place.start_server(attachment.server)
        with guestkit.Guest(console, qemu) as guest:
            pids = list(attachment.pids)
            yield GuestLine(name, guest, attachment.target, port, mtu, pids, [qemu.pid], log_path=log_path)


def network_of(mtu: int) -> str:
    return "small" if mtu == 1500 else "large"


def _on_bridge(place: Place, network: str, netdev: str, **more: Any) -> Attachment:
    gateway = place.gateway(network)
    return Attachment(netdev, gateway, gateway, **more)


@contextlib.contextmanager
def own_tap(place: Place, mtu: int) -> Iterator[Attachment]:
    """QEMU as root opens a TAP by name: the limit with a guest."""
    network = place.hold(network_of(mtu))
    tap = f"own{place.number()}"
    place.host.ip("tuntap", "add", tap, "mode", "tap", "vnet_hdr")
    try:
        place.join(network, tap)
        netdev = f"tap,id=n0,ifname={tap},script=no,downscript=no,vhost=off"
        yield _on_bridge(place, network, netdev, user=None)
    finally:
        place.host.ip("link", "delete", tap)


def by_cable(cable: Callable[..., AbstractContextManager[Cable]], netdev: str, **options: Any) -> Attach:
    """The VM's end of a cable as a passed fd, for which {fd} stands in netdev."""

    @contextlib.contextmanager
    def attach(place: Place, mtu: int) -> Iterator[Attachment]:
        with cable(place, network=network_of(mtu), **options) as made:
            yield _on_bridge(
                place, made.network, netdev.format(fd=made.vm_end), mac=made.mac, fds=(made.vm_end,),
                pids=tuple(made.pids),
            )  # fmt: skip

    return attach


DGRAM_NETDEV = "dgram,id=n0,local.type=fd,local.str={fd}"
STREAM_NETDEV = "stream,id=n0,server=off,addr.type=fd,addr.str={fd}"
TAP_NETDEV = "tap,id=n0,fd={fd}"
VHOST_OPTIONS = ("-object", "memory-backend-memfd,id=m0,size=256M,share=on", "-machine", "memory-backend=m0")


def _vhost_user(place: Place, path: Path) -> dict[str, Any]:
    """QEMU 7.2 crashes under TCG with such a device, so this is another one."""
    chardev = ("-chardev", f"socket,id=c0,path={path}")
    return {"options": (*VHOST_OPTIONS, *chardev), "emulator": tuple(place.vhost_emulator().command)}


def helper_vhost_user(**options: Any) -> Attach:
    """vmnet-helper --vhost-user."""

    @contextlib.contextmanager
    def attach(place: Place, mtu: int) -> Iterator[Attachment]:
        network = place.hold(network_of(mtu))
        directory = place.lab.public_directory(f"v{place.number()}", MEMBER)
        vhost = _vhost_user(place, directory / "vm")
        transport = ["--vhost-user", str(directory / "vm"), "--network", network]
        with helper_process(place, transport, **options) as (process, line, _):
            mac = line["vmnet_mac_address"]
            yield _on_bridge(place, network, "vhost-user,id=n0,chardev=c0", mac=mac, pids=(process.pid,), **vhost)

    return attach


@contextlib.contextmanager
def passt_stream(place: Place, mtu: int) -> Iterator[Attachment]:
    """passt's stream socket. The gateway's address stands for the host's loopback."""
    with passt(place, mtu=mtu) as (pid, path):
        netdev = f"stream,id=n0,server=off,addr.type=unix,addr.path={path}"
        yield Attachment(netdev, INTERNET_ADDRESS, LOOPBACK, pids=(pid,), user=None)


@contextlib.contextmanager
def passt_vhost_user(place: Place, mtu: int) -> Iterator[Attachment]:
    """passt's vhost-user, where it has it: Debian 12's has not."""
    said = subprocess.run([place.options.passt, "--help"], capture_output=True, text=True)
    if "--vhost-user" not in said.stdout + said.stderr:
        raise Absent("this passt has no --vhost-user; a newer one can be given by --passt PATH")
    with passt(place, mtu=mtu, extra=["--vhost-user"]) as (pid, path):
        vhost = _vhost_user(place, path)
        yield Attachment("vhost-user,id=n0,chardev=c0", INTERNET_ADDRESS, LOOPBACK, pids=(pid,), user=None, **vhost)


@contextlib.contextmanager
def user_network(place: Place, mtu: int) -> Iterator[Attachment]:
    """QEMU's own user network: no forwarder of its own, its CPU time is QEMU's."""
    yield Attachment("user,id=n0", USER_NETWORK_GATEWAY, LOOPBACK)
