"""How long until an order is on every screen? 100 SSE clients of one store, 50 orders a second, loopback.

Open loop: orders are sent at their time whether or not earlier ones were answered. Each carries the
monotonic clock in its note, taken just before its request is written, so `screen` is from the customer's
tap to each of the screens, commit with fdatasync included; `answer` is until the reply to the one who
ordered. The server has a core to itself.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections import deque
from pathlib import Path

from benchmarks.harness import (
    LOAD_CPU,
    Row,
    folder,
    median_row,
    parser,
    pin,
    repeated,
    report,
    served,
    spread,
    token,
)
from benchmarks.readers import Readers

STORE = "bench"
GRACE_S = 2.0
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def main() -> None:
    """Measure and report."""
    options = parser("latency", __doc__.partition("\n")[0])
    options.add_argument("--clients", type=int, nargs="+", default=[1, 100])
    options.add_argument("--rate", type=float, default=50.0, help="orders a second")
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--warm-up", type=float, default=2.0)
    given = options.parse_args()
    pin(LOAD_CPU)
    rows = []
    for clients in given.clients:

        def once(clients: int = clients) -> Row:
            with folder(given.folder) as data:
                return measure(data, clients, given.rate, given.seconds, given.warm_up)

        rows.append(median_row(repeated(given.runs, once)))
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "seconds": given.seconds})
    if any(row["gaps"] or row["lost"] for row in rows):
        raise SystemExit("a gap: this run has failed")


def measure(data: Path, clients: int, rate: float, seconds: float, warm_up: float) -> Row:
    """One run against a fresh server."""
    with served(data, "--no-demo") as (port, pid):
        make_store(port)
        readers = Readers(clients, port, f"/v1/stores/{STORE}/stream", token())
        while readers.ready < clients:
            readers.turn(time.monotonic_ns() + 10_000_000)
        orders = Orders(port)
        flow(readers, orders, rate, warm_up)
        readers.latencies_ms.clear()
        orders.answers_ms.clear()
        cpu, began = cpu_s(pid), time.monotonic()
        sent = flow(readers, orders, rate, seconds)
        cpu, took = cpu_s(pid) - cpu, time.monotonic() - began
        screens, answers = readers.latencies_ms, orders.answers_ms
        readers.close()
        orders.close()
        return {
            "clients": clients,
            "orders/s": rate,
            **spread("screen ms", screens),
            **spread("answer ms", answers),
            "server cpu %": round(100 * cpu / took, 1),
            "gaps": readers.gaps,
            "lost": sent * clients - len(screens),
            "closed": readers.closed,
        }


class Orders:
    """Orders on connections of their own, answered in whatever order."""

    def __init__(self, port: int, connections: int = 4) -> None:
        self.answers_ms: list[float] = []
        self._socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        self._waiting: list[deque[int]] = [deque() for _ in self._socks]
        self._rests = [b"" for _ in self._socks]
        self._auth = token()
        self._sent = 0
        for sock in self._socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)

    def send(self) -> None:
        """Write one order to the connection that waits least."""
        at = min(range(len(self._socks)), key=lambda at: len(self._waiting[at]))
        self._sent += 1
        stamp = time.monotonic_ns()
        body = json.dumps({"lines": [{"product": "ramen", "quantity": 1, "note": str(stamp)}]}).encode()
        head = (
            f"POST /v1/stores/{STORE}/create-order HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self._auth}\r\nIdempotency-Key: n{self._sent}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socks[at].send(head.encode() + body)
        self._waiting[at].append(stamp)

    def collect(self) -> None:
        """Take the answers that are there."""
        for at, sock in enumerate(self._socks):
            try:
                data = self._rests[at] + sock.recv(256 << 10)
            except BlockingIOError:
                continue
            now = time.monotonic_ns()
            while (end := whole_answer(data)) > 0:
                if not data.startswith(b"HTTP/1.1 200"):
                    raise SystemExit(f"an order was not taken: {data[:300]!r}")
                self.answers_ms.append((now - self._waiting[at].popleft()) / 1e6)
                data = data[end:]
            self._rests[at] = data

    def close(self) -> None:
        """Close the connections."""
        for sock in self._socks:
            sock.close()


def whole_answer(data: bytes) -> int:
    """Where the first answer ends; 0 while it is not complete."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return 0
    length = int(LENGTH.search(head)[1])  # type: ignore[index]
    return len(head) + 4 + length if len(body) >= length else 0


def flow(readers: Readers, orders: Orders, rate: float, seconds: float) -> int:
    """Send orders at their times and read all the while; return how many, once all are on every screen."""
    began, sent = time.monotonic_ns(), 0
    gap_ns = int(1e9 / rate)
    expected = len(readers.latencies_ms)
    while sent < int(rate * seconds):
        due = began + sent * gap_ns
        while time.monotonic_ns() < due:
            readers.turn(min(due, time.monotonic_ns() + 1_000_000))
            orders.collect()
        orders.send()
        sent += 1
    until = time.monotonic() + GRACE_S
    expected += sent * len(readers._by_fd)
    while len(readers.latencies_ms) < expected and time.monotonic() < until:
        readers.turn(time.monotonic_ns() + 5_000_000)
        orders.collect()
    return sent


def make_store(port: int) -> None:
    """A store with one product, open."""
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for command, body in (
        ("configure-store", {"name": "Bench", "payment_mode": "postpay"}),
        ("put-product", {"product": "ramen", "name": "Ramen", "price": 4500}),
        ("open-store", {}),
    ):
        connection.request("POST", f"/v1/stores/{STORE}/{command}", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
