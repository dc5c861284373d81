"""Many SSE readers in one process on raw sockets: one epoll loop, a timestamp per chunk, versions counted.

Not the client that people use: it does as little as it can, so that what is measured is the server. It reads
only the blocks that our streams have (LF, one `data` line).
"""

from __future__ import annotations

import re
import select
import socket
import time

ID = re.compile(rb"(?:^|\n)id: ?[^\n]*-(\d+)\n")
STAMP = re.compile(rb'"type":"OrderCreated".*?"note":"(\d+)"')
RECEIVE_BYTES = 256 << 10


class Reader:
    """One connection: its head is skipped, versions are counted, stamps are compared with the clock."""

    __slots__ = ("bytes", "gaps", "rest", "sock", "started", "version")

    def __init__(self, port: int, target: str, token: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        self.sock.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        self.sock.setblocking(False)
        self.rest = b""
        self.started = False
        self.version: int | None = None
        self.gaps = 0
        self.bytes = 0


class Readers:
    """A set of connections. `latencies_ms` holds one entry per stamped event and connection."""

    def __init__(self, many: int, port: int, target: str, token: str) -> None:
        self.latencies_ms: list[float] = []
        self.events = 0
        self.closed = 0
        self._epoll = select.epoll()
        self._by_fd: dict[int, Reader] = {}
        for _ in range(many):
            reader = Reader(port, target, token)
            self._by_fd[reader.sock.fileno()] = reader
            self._epoll.register(reader.sock, select.EPOLLIN)

    @property
    def ready(self) -> int:
        """Connections whose first block has come."""
        return sum(reader.version is not None for reader in self._by_fd.values())

    @property
    def gaps(self) -> int:
        """Versions that were left out or came twice, over all connections."""
        return sum(reader.gaps for reader in self._by_fd.values())

    @property
    def slowest(self) -> int:
        """The lowest version that any connection has."""
        return min((reader.version or 0 for reader in self._by_fd.values()), default=0)

    def turn(self, until_ns: int) -> None:
        """Take what comes until a moment of the monotonic clock; at least what is there already."""
        while True:
            left = max(0.0, (until_ns - time.monotonic_ns()) / 1e9)
            for fd, _ in self._epoll.poll(left):
                self._receive(self._by_fd[fd])
            if time.monotonic_ns() >= until_ns:
                return

    def close(self) -> None:
        """Close every connection."""
        for reader in self._by_fd.values():
            reader.sock.close()
        self._epoll.close()

    def _receive(self, reader: Reader) -> None:
        try:
            chunk = reader.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        now = time.monotonic_ns()
        if not chunk:
            self.closed += 1
            self._epoll.unregister(reader.sock)
            return
        reader.bytes += len(chunk)
        data = reader.rest + chunk
        if not reader.started:
            head, found, body = data.partition(b"\r\n\r\n")
            if not found:
                reader.rest = data
                return
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise SystemExit(f"no stream: {data[:300]!r}")
            reader.started, data = True, body
        *blocks, reader.rest = data.split(b"\n\n")
        for block in blocks:
            self._take(reader, block, now)

    def _take(self, reader: Reader, block: bytes, now: int) -> None:
        found = ID.search(block + b"\n")
        if found is None:
            return  # a ping, or the length of an HTTP chunk
        version = int(found[1])
        if b"data:" in block and b"event:" not in block:
            self.events += 1
            if reader.version is not None and version != reader.version + 1:
                reader.gaps += 1
            stamp = STAMP.search(block)
            if stamp is not None:
                self.latencies_ms.append((now - int(stamp[1])) / 1e6)
        reader.version = version
