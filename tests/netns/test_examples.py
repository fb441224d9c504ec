"""examples/: programs that speak to the broker without the library, and a driver in shell."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from lib.broker import MEMBER
from lib.lab import wait_for

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LINES_MAX = 60
BUILD_S = 120


@pytest.fixture(scope="module")
def interface_programs(public_directory):
    """Where each is, for an ordinary user to run; the Go one is built as its reader would."""
    place = public_directory / "examples"
    shutil.copytree(EXAMPLES, place)
    environment = {**os.environ, "GOCACHE": str(public_directory / "go-cache"), "GO111MODULE": "off"}
    for step in (["vet"], ["build", "-o", str(place / "interface-go")]):
        subprocess.run(["go", *step, "interface.go"], cwd=place, env=environment, check=True, timeout=BUILD_S)
    formatted = subprocess.run(["gofmt", "-l", "."], cwd=place, check=True, capture_output=True, text=True)
    assert formatted.stdout == ""
    return {"python": place / "interface.py", "go": place / "interface-go", "shell": place / "driver.sh"}


@pytest.fixture
def environment(broker, bin_dir):
    return {"VMNET_BROKER_SOCKET": str(broker.socket_path), "PATH": f"{bin_dir}:{os.environ['PATH']}"}


def arguments(broker, kind, network):
    return [network] if kind == "python" else [str(broker.socket_path), network]


def listed(broker):
    with broker.connect(MEMBER) as peer:
        return {entry["interfaceName"]: entry for entry in peer.call("ListInterfaces")[0]["interfaces"]}


@pytest.mark.parametrize("file", ["interface.py", "interface.go", "driver.sh"])
def test_they_are_short(file):
    assert len((EXAMPLES / file).read_text().splitlines()) < LINES_MAX


@pytest.mark.parametrize("kind", ["python", "go"])
def test_interface(broker, interface_programs, environment, kind):
    process = broker.namespace.popen(
        [interface_programs[kind], *arguments(broker, kind, "shared")],
        user=MEMBER, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    network = dict(word.split("=") for word in process.stdout.readline().split())
    interface = dict(word.split("=") for word in process.stdout.readline().split())
    assert network == {"network": "shared", "mode": "shared", "gateway": "192.168.64.1", "mtu": "1500"}
    entry = listed(broker)[interface["interface"]]
    assert (interface["mac"], interface["address"]) == (entry["mac"], entry["address"])
    held = os.readlink(f"/proc/{process.pid}/fd/{interface['fd']}")
    assert held == "/dev/net/tun"
    process.stdin.close()
    assert process.wait(5) == 0
    wait_for(lambda: not listed(broker), 3, "the interface's end")


@pytest.mark.parametrize("kind", ["python", "go"])
def test_refusals_say_why(broker, interface_programs, environment, kind):
    result = broker.namespace.run(
        [interface_programs[kind], *arguments(broker, kind, "blue")], user=MEMBER, env=environment, check=False
    )
    assert result.returncode == 1
    assert "org.vmnet.Broker.NotFound: " in result.stderr and 'network "blue" does not exist' in result.stderr


def test_driver(broker, interface_programs, environment, lab):
    directory = lab.public_directory("vm", MEMBER) / "web"

    def driver(*words, status=0):
        result = broker.namespace.run(
            [interface_programs["shell"], *words], user=MEMBER, env=environment, check=False
        )
        assert result.returncode == status, result.stderr
        return result.stdout + result.stderr

    first = driver("start", str(directory), "--network", "shared")
    said = re.fullmatch(rf"socket={directory}/net mac=(\S+) address=(\S+)\n", first)
    assert said and (directory / "net").is_socket()
    (entry,) = listed(broker).values()
    assert said.groups() == (entry["mac"], entry["address"])
    pid = int((directory / "pid").read_text())
    assert driver("status", str(directory)) == f"runs as process {pid}\n"
    assert "runs already" in driver("start", str(directory), status=1)

    driver("stop", str(directory))
    wait_for(lambda: not listed(broker), 3, "the interface's end")
    assert driver("status", str(directory)) == "stopped\n" and not (directory / "net").exists()

    assert driver("start", str(directory), "--network", "shared") == first, "the same MAC and address again"
    os.kill(int((directory / "pid").read_text()), signal.SIGKILL)
    wait_for(lambda: driver("status", str(directory)) == "stopped\n", 3, "it is noticed")
    assert driver("start", str(directory), "--network", "shared") == first
    driver("stop", str(directory))
    assert 'network "blue" does not exist' in driver("start", str(directory), "--network", "blue", status=1)
    assert driver("status", str(directory)) == "stopped\n"
