"""Forwards where the front is a unit that sees little of the host: what it has to read there, and over restarts."""

from __future__ import annotations

import json
import subprocess

import pytest

from lib.broker import VarlinkError
from lib.lab import wait_for
from lib.machine import FRONT, PRIV

# Sends a datagram, again when nothing comes for a second, and prints what comes back.
ASK = """if True:
    import socket, sys
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(1)
    asker.connect((sys.argv[1], int(sys.argv[2])))
    for _ in range(3):
        asker.send(b"hello")
        try:
            print(asker.recv(100).decode())
            break
        except TimeoutError:
            pass
"""
LISTEN = """if True:
    import socket, sys
    listener = socket.create_server(("127.0.0.1", 8081))
    print("listens", flush=True)
    sys.stdin.read()
"""


def answers(machine, address, port):
    return machine.run(["python3", "-c", ASK, address, str(port)], check=False).stdout == "hello\n"


def test_a_pinned_forward_over_restarts(machine, vm):
    with machine.connect(machine.alice) as peer:
        made = peer.call(
            "Forward", network="shared", protocol="udp", listen="8080", target=f"{vm.address}:7", pin=True
        )[0]["forward"]
        assert made["address"] == f"{vm.address}:7"
    assert answers(machine, "127.0.0.1", 8080)
    for units in ((FRONT,), (PRIV,), (FRONT, PRIV)):
        machine.run(["systemctl", "restart", *units])
        assert answers(machine, "127.0.0.1", 8080), "the rules need no broker"
    machine.run(["nft", "flush", "ruleset"])
    wait_for(lambda: answers(machine, "127.0.0.1", 8080), 10, "rules again")
    result = machine.run(["vmnetctl", "forward", "--list", "--json"], user="alice")
    (told,) = json.loads(result.stdout)["forwards"]
    assert told == made
    machine.run(["vmnetctl", "forward", "--remove", str(made["id"])], user="alice")
    assert not answers(machine, "127.0.0.1", 8080)


def test_the_front_sees_who_listens(machine, vm):
    """Of /proc it has its own part only."""
    program = machine.popen(["python3", "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "listens\n"
        with machine.connect(machine.alice) as peer, pytest.raises(VarlinkError) as error:
            peer.call("Forward", network="shared", listen="8081", target=f"{vm.address}:7")
        assert error.value.name == "Conflict"
        assert "a program of user 0 listens on 127.0.0.1:8081" in error.value.parameters["reason"]
    finally:
        program.communicate("", timeout=10)
