"""Numbered datagrams from a machine to a VM that sends them back: whether any is lost while something else happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from .machine import Machine
from .tap_vm import TapVm

STREAM = """if True:
    # Numbered datagrams to a VM that sends them back, until stdin ends, and at least a hundred.
    import json, select, socket, sys, time
    vm = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    SO_RCVBUFFORCE = 33
    vm.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    vm.connect((sys.argv[1], int(sys.argv[2])))
    vm.setblocking(False)
    sent, back, end = 0, set(), None
    while end is None or (len(back) < sent and time.monotonic() < end):
        if end is None:
            vm.send(sent.to_bytes(4, "big") + bytes(1000))
            sent += 1
            if sent == 1:
                print("started", flush=True)
        if end is None and sent >= 100 and select.select([sys.stdin], [], [], 0)[0]:
            end = time.monotonic() + 5
        if select.select([vm], [], [], 0.002)[0]:
            while True:
                try:
                    back.add(int.from_bytes(vm.recv(2000)[:4], "big"))
                except BlockingIOError:
                    break
    print(json.dumps({"sent": sent, "back": len(back)}), flush=True)
"""


@contextlib.contextmanager
def streaming(machine: Machine, vm: TapVm, address: str | None = None, port: int = 7) -> Iterator[None]:
    """Sends to the VM, or to what leads there, thousands of datagrams a second meanwhile; all come back."""
    inside = ["nsenter", "--net", "--target", str(machine.leader)]  # with this machine's Python: the other may have none
    process = subprocess.Popen(
        [*inside, sys.executable, "-c", STREAM, address or vm.address, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "started\n"
        yield
        out, _ = process.communicate("", timeout=30)
        counts = json.loads(out)
        print(counts)
        assert counts["back"] == counts["sent"], f"lost: {counts}"
    finally:
        process.kill()
        process.wait()
