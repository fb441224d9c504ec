"""An fd that takes its time to close."""

from __future__ import annotations

import contextlib
import socket
import struct

from .lab import Lab


class Lingering:
    """A TCP connection whose last close waits ten minutes for a peer that doesn't read (SO_LINGER, socket(7))."""

    def __init__(self, lab: Lab) -> None:
        with lab.host.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.socket = lab.host.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.socket.connect(listener.getsockname())
            self.peer, _ = listener.accept()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.send(bytes(65536))

    def close(self) -> None:
        self.peer.close()
