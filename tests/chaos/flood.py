"""A crowd that means no good, a process of its own: `python -m tests.chaos.flood PORT CONNECTIONS SECONDS`.

Half of its connections say nothing, or the half of a request. The others ask as fast as they are answered:
for what they may not have, for pages, for nonsense, and some leave in the middle and come again. Prints
`ready` once all are connected, and at the end how many answers there were, by status.
"""

from __future__ import annotations

import random
import resource
import select
import socket
import sys
import time
from collections import Counter

ASKED = (
    b"GET /v1/stores/s1/sync HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/stores/s1/create-order HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer no\r\n"
    b"Content-Length: 0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /board/s1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
)
HALF = b"POST /v1/stores/s1/create-order HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
AT_ONCE = 200
"""Connections that are being opened at the same time."""

LEAVE = 0.01
"""How often one leaves instead of reading its answer."""


class Flood:
    """All connections of the crowd, in one epoll."""

    def __init__(self, port: int, count: int) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._count = count
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._silent: set[int] = set()
        self._chance = random.Random(7)

    def connect(self) -> None:
        """Open every connection."""
        for number in range(self._count):
            self._open(silent=number % 2 == 0)
            if number % AT_ONCE == 0:
                self.turn(0.001)

    def _open(self, *, silent: bool) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setblocking(False)
        self._socks[sock.fileno()] = sock
        self._poll.register(sock, select.EPOLLIN)
        if silent:
            self._silent.add(sock.fileno())
            if self._chance.random() < 0.5:
                self._say(sock, HALF[: self._chance.randrange(len(HALF))])
        else:
            self._say(sock, self._chance.choice(ASKED))

    def _say(self, sock: socket.socket, said: bytes) -> None:
        try:
            sock.send(said)
        except OSError:
            self.answers["send failed"] += 1

    def turn(self, wait_s: float) -> None:
        """Read what was answered, and ask again."""
        for fd, _ in self._poll.poll(wait_s):
            sock = self._socks[fd]
            try:
                data = sock.recv(65_536)
            except OSError:
                data = b""
            if data.startswith(b"HTTP/1.1 "):
                self.answers[data[9:12].decode()] += 1
            if not data or self._chance.random() < LEAVE:
                silent = fd in self._silent
                self._silent.discard(fd)
                del self._socks[fd]
                sock.close()
                self._open(silent=silent)
            elif fd not in self._silent:
                self._say(sock, self._chance.choice(ASKED))


def main() -> None:
    """Connect, ask for so many seconds, and tell."""
    port, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 256), hard))
    flood = Flood(port, count)
    flood.connect()
    print("ready", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        flood.turn(0.1)
    print(dict(flood.answers), flush=True)


if __name__ == "__main__":
    main()
