"""What the tests of kernel facts share: a fresh network namespace for each, other users, and the TAP's ioctls."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
SIOCSIFHWADDR = 0x8924
ARPHRD_ETHER = 1
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_MULTI_QUEUE = 0x0100
STRANGER = 4242

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION = 0x20080522

DEADLINE_S = 10.0

libc = ctypes.CDLL(None, use_errno=True)


def in_namespace(function: Callable[[], None]) -> Callable[[], None]:
    """Runs the test in a process of its own, in a network namespace of its own, with lo up."""

    @functools.wraps(function)
    def test() -> None:
        path = sys.modules[function.__module__].__file__
        assert path
        result = subprocess.run(
            ["unshare", "--net", sys.executable, path, function.__name__],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stdout

    test.body = function  # type: ignore[attr-defined]
    return test


def run_named_test(module: dict[str, object]) -> None:
    """What a test module does as a program, inside its namespace."""
    shell("ip link set lo up")
    module[sys.argv[1]].body()  # type: ignore[attr-defined]


def shell(command: str) -> str:
    """Runs it, insists that it worked, and returns what it printed."""
    result = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, f"{command}: {result.stdout}"
    return result.stdout


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Until the condition holds, or the deadline fails the test."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def link_exists(name: str) -> bool:
    """By asking the kernel: /sys shows the namespace in which it was mounted."""
    return name in [link for _, link in socket.if_nameindex()]


def open_tap(name: str, flags: int = 0) -> int:
    """A queue of the TAP, which is made if there is none."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | flags))
    except OSError:
        os.close(fd)
        raise
    return fd


def set_mac(fd: int, name: str, mac: bytes) -> None:
    fcntl.ioctl(fd, SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), ARPHRD_ETHER, mac))


def become(uid: int) -> None:
    """For good, with no group and no capability."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def as_stranger(action: Callable[[], object], expected: int = 0) -> None:
    """Does it as another user without any capability, and insists on its errno; 0: it works."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            become(STRANGER)
            action()
            code = 0
        except OSError as error:
            code = error.errno or 255
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == expected, f"errno {code} ({os.strerror(code)}), expected {expected}"


@contextlib.contextmanager
def child_namespace(name: str) -> Iterator[str]:
    """A second namespace, named for `ip -n`; the name is made unique."""
    unique = f"{name}-{os.getpid()}"
    shell(f"ip netns add {unique}")
    try:
        yield unique
    finally:
        shell(f"ip netns del {unique}")


def is_running(pid: int) -> bool:
    """False for a zombie too."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
