#!/usr/bin/python3
"""Attaches to a network as a VM program does, in plain varlink: prints what it got, and has the TAP until stdin ends.

    interface.py [NETWORK [HOSTNAME]]        (default: shared)

docs/protocol.md is the contract. An fd comes with the first bytes of the answer, which names it by its index.
"""

import json
import os
import socket
import sys

SOCKETS = [os.environ["VMNET_BROKER_SOCKET"]] if "VMNET_BROKER_SOCKET" in os.environ else [
    "/run/vmnet-broker/socket",
    os.environ.get("XDG_RUNTIME_DIR", "/nonexistent") + "/vmnet-broker/socket",
]


def connect():
    for path in SOCKETS:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError as error:
            print(f"{path}: {error.strerror}", file=sys.stderr)
    sys.exit("no broker answers: is vmnet-broker running, and are you in its group?")


def call(connection, method, **parameters):
    """The answer's parameters, and the fds that came with it: they are ours to close."""
    message = {"method": f"org.vmnet.Broker.{method}", "parameters": parameters}
    connection.sendall(json.dumps(message).encode() + b"\0")
    data, fds = b"", []
    while not data.endswith(b"\0"):
        more, new_fds, _, _ = socket.recv_fds(connection, 65536, 16, socket.MSG_CMSG_CLOEXEC)
        if not more:
            sys.exit("the broker closed the connection")
        data, fds = data + more, fds + list(new_fds)
    answer = json.loads(data[:-1])
    if "error" in answer:
        sys.exit(f"{answer['error']}: {answer['parameters'].get('reason')}")
    return answer["parameters"], fds


name = sys.argv[1] if len(sys.argv) > 1 else "shared"
hostname = {"hostname": sys.argv[2]} if len(sys.argv) > 2 else {}
with connect() as broker:
    network = call(broker, "AcquireNetwork", network=name)[0]["network"]
    interface, fds = call(broker, "CreateInterface", network=name, **hostname)
    tap = fds[interface["queues"][0]]  # 12 bytes of virtio-net header, then the frame
    print(f"network={name} mode={network['mode']} gateway={network.get('gateway')} mtu={network['mtu']}")
    print(f"interface={interface['interfaceName']} mac={interface['mac']} address={interface.get('address')} fd={tap}")
    sys.stdout.flush()
    sys.stdin.read()  # the interface is gone when the last copy of the fd is closed
