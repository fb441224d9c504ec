"""A broker that a service manager starts: the listening socket is passed, and outlives it."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from lib.broker import MEMBER, Broker, Varlink
from lib.lab import wait_for
from lib.readiness import readable

LISTEN_FDS_START = 3  # sd_listen_fds(3)


class Manager:
    """As much of systemd's socket activation and notify protocol as a broker sees."""

    def __init__(self, lab, bin_dir, *arguments):
        self.broker = Broker(lab, bin_dir, idle_timeout_s=1, arguments=arguments, start=False)
        self.place = lab.public_directory("manager", MEMBER)
        self.path = self.place / "socket"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.path.chmod(0o666)
        self.listener.listen()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.place / "notify"))
        self.notify.settimeout(5)
        self.starts = 0

    def serve(self):
        """Starts the broker when somebody connects, as systemd does."""
        assert readable([self.listener], 5), "nobody connects"
        # LISTEN_PID has to be the broker's own, which exec keeps.
        script = f'exec {LISTEN_FDS_START}<&{self.listener.fileno()} && LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        with open(self.broker.log_path, "a") as log:
            self.broker.process = self.broker.namespace.popen(
                ["bash", "-c", script, "sh", *self.broker.command],
                env={"NOTIFY_SOCKET": str(self.place / "notify")},
                pass_fds=[self.listener.fileno()],
                stdout=log,
                stderr=log,
            )
        self.starts += 1
        self.wait_notify("READY=1")

    def wait_notify(self, text):
        while text not in self.notify.recv(4096).decode().split("\n"):
            pass


@pytest.fixture
def manager(lab, bin_dir, show_on_failure):
    manager = Manager(lab, bin_dir, "--exit-when-idle")
    show_on_failure("vmnet-broker", manager.broker.log)
    yield manager
    manager.broker.close()
    manager.listener.close()
    manager.notify.close()


def test_passed_socket_idle_exit_and_reactivation(manager):
    subnets = []
    for _ in range(2):
        with Varlink(manager.path, MEMBER) as peer:
            peer.send("AcquireNetwork", {"network": "shared"})
            manager.serve()
            subnets.append(peer.reply()[0]["network"]["subnet"])
        assert manager.broker.process.wait(10) == 0
        assert manager.path.exists(), "the socket is the manager's"
        assert not manager.broker.leftovers()
    assert manager.starts == 2 and len(set(subnets)) == 1


def test_network_in_use_survives_a_restart_by_the_manager(manager):
    with Varlink(manager.path, MEMBER) as peer:
        peer.send("CreateInterface", {"network": "shared"})
        manager.serve()
        reply, taps, _ = peer.reply()
    before = {link["ifname"] for link in manager.broker.links()}
    manager.broker.kill("priv")
    with Varlink(manager.path, MEMBER) as peer:
        peer.send("AcquireNetwork", {"network": "shared"})
        manager.serve()
        assert peer.reply()[0]["network"]["subnet"] == reply["network"]["subnet"]
    assert {link["ifname"] for link in manager.broker.links()} == before
    for tap in taps:
        os.close(tap)
    assert manager.broker.process.wait(10) == 0
    assert not manager.broker.leftovers()


def test_stop_is_told_to_the_manager(manager):
    with contextlib.closing(Varlink(manager.path, MEMBER)) as peer:
        peer.send("AcquireNetwork", {"network": "shared"})
        manager.serve()
        peer.reply()
    manager.broker.process.terminate()
    manager.wait_notify("STOPPING=1")
    wait_for(lambda: manager.broker.process.poll() is not None, 10, "the broker's end")
    assert manager.broker.process.returncode == 0


def test_embedded_broker_is_nothing_to_its_clients_manager(lab, bin_dir):
    """In mount and pid namespaces of its own, so that the machine's /run and /var/lib stay as they are."""
    script = """if True:
        import os, socket, subprocess, sys
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind("/run/notify")
        notify.setblocking(False)
        subprocess.run([sys.argv[1], "--", "true"], check=True, env={**os.environ, "NOTIFY_SOCKET": "/run/notify"})
        try:
            print(notify.recv(100))
        except BlockingIOError:
            print("nothing")
    """
    mounts = "mount -t tmpfs none /run; mount -t tmpfs none /var/lib; mount -t proc none /proc"
    shell = ["sh", "-c", f'{mounts}; /usr/bin/python3 -c "$@"', "sh", script, bin_dir / "vmnet-client"]
    result = lab.host.run(["unshare", "--mount", "--pid", "--fork", *shell])
    assert result.stdout.splitlines()[-1] == "nothing"
