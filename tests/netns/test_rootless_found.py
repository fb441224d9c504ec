"""A broker whose namespaces nothing of it holds any more finds them again, in either of two ways."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib.holder import Holder
from lib.lab import Lab, wait_for
from lib.rootless import OrdinaryUser, RootlessBroker

# As Yama does from ptrace_scope 1 on: no fd of another process may be taken (pidfd_getfd, 438 everywhere).
KEPT_APART = """#!{python}
import ctypes, os, struct, sys
code = struct.pack("=HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, 438, 0x06, 0, 0, 0x00050001, 0x06, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("=H6xQ", 4, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, ctypes.get_errno()
os.execv({broker!r}, ["vmnet-broker", *sys.argv[1:]])
"""


@pytest.fixture
def broker(bin_dir, show_on_failure):
    with Lab() as lab:
        user = OrdinaryUser(lab)
        broker = RootlessBroker(user, bin_dir)
        show_on_failure("broker", broker.log)
        broker.start("--idle-timeout", "1")
        broker.wait_whole()
        yield broker
        user.close()


def keep_apart(broker):
    """From now on the broker is started with a filter."""
    place = broker.directory / "apart"
    place.mkdir()
    program = place / "vmnet-broker"
    program.write_text(KEPT_APART.format(python=sys.executable, broker=str(broker.bin_dir / "vmnet-broker")))
    program.chmod(0o755)
    broker.bin_dir = place


def kill_all(broker):
    """At once, so that nobody starts another or puts things in order: what is left is VMs and their clients."""
    pids = [pid for pids in broker.parts().values() for pid in pids]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    wait_for(lambda: not broker.parts(), 5, "the end of every process of the broker")


def start_again(broker):
    broker.start("--idle-timeout", "1")
    broker.wait_whole()
    return broker.namespace_cookie()


def start_client(broker, *options):
    """A client whose VM stays."""
    script = "echo ready; exec sleep infinity"
    command = [broker.bin_dir / "vmnet-client", "--network", "shared", *options, "--", "sh", "-c", script]
    process = broker.owner.popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("{") and process.stdout.readline() == "ready\n"
    return process


def end_client(process):
    process.terminate()
    process.wait(10)


@pytest.fixture
def tap_holder(broker):
    """A process of the user that has the TAP's fd from elsewhere, and nothing else."""
    holder = Holder(broker, "shared")
    process = broker.owner.popen(["sleep", "infinity"], stdin=holder.queues[0])
    holder.close()
    yield process
    process.kill()
    process.wait(10)


def test_by_the_fd_of_a_tap(broker, tap_holder):
    before, links = broker.namespace_cookie(), broker.links()
    kill_all(broker)
    assert start_again(broker) == before
    assert [link["ifindex"] for link in broker.links()] == [link["ifindex"] for link in links]


def test_not_by_the_fd_of_a_tap_where_processes_are_kept_apart(broker, tap_holder):
    """What makes the next test mean something."""
    before = broker.namespace_cookie()
    kill_all(broker)
    keep_apart(broker)
    assert start_again(broker) != before


@pytest.mark.parametrize("attach", ["native", "socket", "vhost-user"])
def test_by_the_namespace_that_a_client_keeps(broker, attach):
    process, before = start_client(broker, "--attach", attach), broker.namespace_cookie()
    kill_all(broker)
    keep_apart(broker)
    assert start_again(broker) == before
    with broker.connect() as peer:
        assert len(peer.call("ListInterfaces")[0]["interfaces"]) == 1
    end_client(process)
    wait_for(lambda: not broker.links(), 10, "the end of the network")


def test_the_library_keeps_it_while_its_handle_is_open(broker, bin_dir):
    """Where a TAP's fd went to somebody else, the handle is enough."""
    build = (bin_dir / "vmnetctl").resolve().parents[2]
    program = next(path for path in build.rglob("library-holder") if path.is_file())
    process = broker.owner.popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kept(done):
        assert process.stdout.readline() == f"{done}\n"
        fds = Path(f"/proc/{process.pid}/fd")
        targets = [os.readlink(fd) for fd in fds.iterdir()]
        process.stdin.write("\n")
        process.stdin.flush()
        return [target for target in targets if target.startswith("net:")]

    namespace = f"net:[{broker.network_namespace()[1]}]"
    assert kept("made") == [namespace]
    assert kept("tap closed") == [namespace]
    assert kept("handle closed") == []
    assert process.wait(10) == 0


def test_not_by_a_number_that_came_again(broker):
    """Of a namespace that is gone, which the kernel gave to another one of this user's: a container's, say."""
    record = broker.runtime_dir / "namespace"
    kill_all(broker)
    script = "exec 3</proc/self/ns/net; readlink /proc/self/ns/net; exec sleep infinity"
    stranger = broker.owner.popen(["unshare", "--map-root-user", "--net", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    inode = stranger.stdout.readline().strip().removeprefix("net:[").removesuffix("]")
    record.write_text(" ".join([inode, *record.read_text().split()[1:]]) + "\n")
    broker.start("--idle-timeout", "1")
    broker.wait_whole()
    assert os.stat(f"/proc/{broker.pid('pause')}/ns/net").st_ino != int(inode)
    stranger.kill()
    stranger.wait(10)
