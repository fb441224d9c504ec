"""What VM programs that Debian 12 does not have do with the TAP that vmnet-client gives them, call by call.

    vm_program_calls.py PROGRAM GATEWAY        run under vmnet-client, with --attach native or tap

After the sources that docs/vm-programs/ names. Then it asks for the gateway's MAC, and says "answered". It imports nothing of
the tests, as its user may not reach them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x800454D2, 0x400454D0, 0x400454D8
SIOCGIFFLAGS, SIOCGIFMTU = 0x8913, 0x8921
IFF_UP, IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x2, 0x100, 0x1000, 0x4000
FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
OFFLOADS = 1 | 2 | 4 | 16  # TUN_F_CSUM, TSO4, TSO6, UFO
VNET_HDR = 12


def request(name: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack("16sH22x", name, flags)


def flags_of(answer: bytes) -> int:
    return struct.unpack_from("16xH", answer)[0]


def open_named(name: bytes) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, TUNSETIFF, request(name, FLAGS))
    return tap


def set_header(tap: int) -> None:
    fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR))


def firecracker() -> int:
    """Tap::open_named(), then the header and, when the guest's driver is there, the offloads."""
    tap = open_named(os.environ["VMNET_INTERFACE_NAME"].encode())
    set_header(tap)
    fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS)
    return tap


def libkrun_tap() -> int:
    """Tap::new(): the same, and non-blocking only at the end."""
    return firecracker()


def crosvm_named() -> int:
    """Tap::new_with_name(), validate_and_configure_tap()."""
    tap = open_named(os.environ["VMNET_INTERFACE_NAME"].encode())
    set_header(tap)
    fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS)
    return tap


def crosvm_fd() -> int:
    """Tap::from_raw_descriptor(): takes what TUNGETIFF says, and wants all three flags."""
    tap = int(os.environ["VMNET_FD"])
    fcntl.fcntl(tap, fcntl.F_SETFL, fcntl.fcntl(tap, fcntl.F_GETFL) | os.O_NONBLOCK)
    flags = flags_of(fcntl.ioctl(tap, TUNGETIFF, request()))
    assert flags & FLAGS == FLAGS, f"missing flags: {flags:#x}"
    set_header(tap)
    fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS)
    return tap


def cloud_hypervisor_named() -> int:
    """open_tap(): looks at the queues in sysfs, opens, and has nothing to enable as the link is up."""
    name = os.environ["VMNET_INTERFACE_NAME"]
    path = f"/sys/class/net/{name}/tun_flags"
    if os.path.exists(path):
        with open(path) as file:
            assert not int(file.read(), 16) & IFF_MULTI_QUEUE
    tap = open_named(name.encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        assert flags_of(fcntl.ioctl(probe, SIOCGIFFLAGS, request(name.encode()))) & IFF_UP
    set_header(tap)
    fcntl.ioctl(tap, TUNSETOFFLOAD, OFFLOADS)
    return tap


def cloud_hypervisor_fds() -> int:
    """Tap::from_tap_fd() for each queue: TUNSETIFF again, which says EEXIST, and the MTU by the name."""
    count = int(os.environ["VMNET_QUEUES"])
    first = int(os.environ["VMNET_FD"])
    for fd in [os.dup(number) for number in range(first, first + count)]:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        name = fcntl.ioctl(fd, TUNGETIFF, request())[:16].rstrip(b"\0")
        try:
            fcntl.ioctl(fd, TUNSETIFF, request(name, FLAGS | (IFF_MULTI_QUEUE if count > 1 else 0)))
        except OSError as error:
            assert error.errno == errno.EEXIST, error
        set_header(fd)
        fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        mtu = struct.unpack_from("16xi", fcntl.ioctl(probe, SIOCGIFMTU, request(name)))[0]
    assert mtu == int(os.environ["VMNET_MTU"])
    return first


PROGRAMS = {
    "firecracker": firecracker,
    "libkrun-tap": libkrun_tap,
    "crosvm-named": crosvm_named,
    "crosvm-fd": crosvm_fd,
    "cloud-hypervisor-named": cloud_hypervisor_named,
    "cloud-hypervisor-fds": cloud_hypervisor_fds,
}


def asks(tap: int, gateway: str) -> bool:
    """ARP, until there is an answer on one of the queues: the bridge may notice the carrier late."""
    mac = bytes.fromhex(os.environ["VMNET_MAC_ADDRESS"].replace(":", ""))
    own, other = socket.inet_aton(os.environ["VMNET_ADDRESS"]), socket.inet_aton(gateway)
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + own + bytes(6) + other
    queues = [tap + i for i in range(int(os.environ.get("VMNET_QUEUES", "1")))] if "VMNET_FD" in os.environ else [tap]
    for _ in range(20):
        os.write(tap, bytes(VNET_HDR) + b"\xff" * 6 + mac + b"\x08\x06" + arp)
        while ready := select.select(queues, [], [], 0.25)[0]:
            frame = os.read(ready[0], 65600)[VNET_HDR:]
            if frame[12:14] == b"\x08\x06" and frame[28:32] == other:
                return True
    return False


if __name__ == "__main__":
    print("answered" if asks(PROGRAMS[sys.argv[1]](), sys.argv[2]) else "no answer", flush=True)
