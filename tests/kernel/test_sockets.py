"""AF_UNIX sockets as cables: how many frames they hold, and when they say that they can take more."""

import errno
import select
import shlex
import socket
import sys

from kernelkit import as_stranger, child_namespace, in_namespace, run_named_test, shell

SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
IP_FREEBIND = 15
FRAME = b"x" * 1514
LARGE_FRAME = b"x" * 65550
DISTRIBUTION_WMEM_MAX = 212992
FORCED = 4 << 20


def make_pair() -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    return near, far


def fill(near: socket.socket, frame: bytes) -> int:
    """How many frames fit."""
    count = 0
    while True:
        try:
            near.send(frame)
        except BlockingIOError:
            return count
        count += 1


def depth(frame: bytes, sndbuf_bytes: int) -> int:
    near, far = make_pair()
    with near, far:
        near.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, sndbuf_bytes // 2)
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == sndbuf_bytes
        return fill(near, frame)


@in_namespace
def test_only_a_forced_buffer_holds_a_burst() -> None:
    """The default of a distribution holds a few large frames; one forced to 4 MiB more than a batch of 64."""
    assert depth(LARGE_FRAME, DISTRIBUTION_WMEM_MAX) < 8
    assert depth(FRAME, DISTRIBUTION_WMEM_MAX) < 200
    assert depth(LARGE_FRAME, 2 * FORCED) >= 64
    assert depth(FRAME, 2 * FORCED) >= 2000


@in_namespace
def test_an_ordinary_user_may_not_force() -> None:
    near, _far = make_pair()
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        as_stranger(lambda option=option: near.setsockopt(socket.SOL_SOCKET, option, FORCED), errno.EPERM)
        near.setsockopt(socket.SOL_SOCKET, option, FORCED)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * FORCED
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * FORCED


@in_namespace
def test_a_full_socket_polls_as_writable_late() -> None:
    """Only when three quarters have been read; a sender that waits for POLLOUT lets the queue run low."""
    near, far = make_pair()
    near.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, FORCED)
    queued = fill(near, FRAME)
    poll = select.poll()
    poll.register(near, select.POLLOUT)
    read = 0
    while not poll.poll(0):
        far.recv(len(FRAME))
        read += 1
        if read == 1:
            assert near.send(FRAME) == len(FRAME)
            queued += 1
    assert read > queued * 0.7
    assert read < queued


@in_namespace
def test_a_seqpacket_socket_that_polls_as_writable_takes_a_message() -> None:
    """So priv reads a request only when its reply is sure to fit."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    poll = select.poll()
    poll.register(near, select.POLLOUT)
    sent = 0
    while poll.poll(0):
        assert near.send(b"x" * 128) == 128
        sent += 1
    assert sent > 10
    far.close()


def bind_lock() -> socket.socket:
    lock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    lock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
    lock.bind(("127.118.109.110", 4))
    return lock


@in_namespace
def test_a_privileged_port_locks_a_namespace() -> None:
    """Once a namespace, for no ordinary user, also while lo is down, and until its holder closes it."""
    with bind_lock():
        with child_namespace("other") as other:
            code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); import test_sockets; test_sockets.bind_lock()"
            shell(f"ip netns exec {other} {sys.executable} -c {shlex.quote(code)}")
        try:
            bind_lock()
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
        else:
            raise AssertionError("bound twice")
    as_stranger(bind_lock, errno.EACCES)
    bind_lock().close()


if __name__ == "__main__":
    run_named_test(globals())
