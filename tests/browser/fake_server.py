"""A server for one feed that does what a test tells it to: sync, stream and commands, with faults on demand.

It keeps the contract where a test says nothing: versions count up, a cursor is `<epoch>-<version>`, a
stream begins with an id-only block and the events after its cursor, and a command with a known key gets
its first answer.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

STATIC = Path(__file__).parents[2] / "web" / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FEED = "stores/s1"
STREAM = "store:s1"

Answer = tuple[int, dict[str, str], Any]


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None


@dataclass
class FakeServer:
    """Use as a context manager; every attribute may be changed while it runs."""

    down: bool = False
    """Cut every connection without an answer, as a dead server's router would."""
    sync_answer: Answer | None = None
    """Answer every sync with this instead."""
    stream_answer: Answer | None = None
    prime: bool = True
    """Begin streams with an id-only block and what was missed. Without it they stay silent."""
    command: Callable[[Seen], Answer] | None = None
    """Answers commands; None: acknowledge."""
    seen: list[Seen] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    epoch: str = "e1"
    covered_from: int = 0
    """Cursors before this version are expired."""

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.streams: list[queue.Queue[bytes | None]] = []
        self.answers: dict[str, Answer] = {}

    def __enter__(self) -> FakeServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end_streams()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def cursor(self) -> str:
        return f"{self.epoch}-{len(self.records)}"

    def emit(self, entity: str, value: Any, *, cause: str = "", send: bool = True) -> dict[str, Any]:
        """Append an event that sets `things[entity]`; with `send` also tell the open streams."""
        with self.changed:
            version = len(self.records) + 1
            envelope = {
                "id": f"id-{version}",
                "cursor": f"{self.epoch}-{version}",
                "stream": STREAM,
                "version": version,
                "type": "Changed",
                "time": "2026-11-20T18:15:30.123Z",
                "by": "service:test",
                "cause": cause,
                "data": {},
                "patch": {"things": {entity: value}},
            }
            self.records.append(envelope)
            self.state.setdefault("things", {})[entity] = value
            self.changed.notify_all()
            if send:
                self.send(frame(envelope))
        return envelope

    def send(self, raw: bytes) -> None:
        """Put bytes on every open stream."""
        with self.changed:
            for stream in self.streams:
                stream.put(raw)

    def ping(self, cursor: str | None = None, time: str = "2026-11-20T18:15:30.123Z", **more: Any) -> None:
        data = json.dumps({"time": time, "node": "n1", "cursor": cursor or self.cursor, **more})
        self.send(f"event: ping\ndata: {data}\n\n".encode())

    def end_streams(self, bye: dict[str, Any] | None = None) -> None:
        with self.changed:
            for stream in self.streams:
                if bye is not None:
                    stream.put(f"event: bye\ndata: {json.dumps(bye)}\n\n".encode())
                stream.put(None)
            self.streams.clear()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10) -> None:
        """Block until `condition`, which is looked at after every request and event."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), f"not in {timeout} s: {self.seen[-5:]}"

    def count(self, suffix: str) -> int:
        return sum(1 for seen in self.seen if seen.path.endswith(suffix))

    def commands(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == "POST"]


def frame(envelope: dict[str, Any]) -> bytes:
    return f"id: {envelope['cursor']}\ndata: {json.dumps(envelope)}\n\n".encode()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the browser hung up: so it goes

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/":
            self._reply(200, {"Content-Type": "text/html"}, b"<!doctype html><title>test</title>")
        elif path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            self._reply(200, {"Content-Type": TYPES[file.suffix]}, file.read_bytes())
        elif not path.startswith("/v1/"):
            self._reply(404, {}, b"")
        elif self._note():
            return
        elif path == f"/v1/{FEED}/sync":
            self._sync()
        elif path == f"/v1/{FEED}/stream":
            self._stream()
        else:
            self._json((404, {}, {"code": "unknown_store"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._note(body):
            return
        seen = self.fake.seen[-1]
        key = seen.headers["idempotency-key"]
        with self.fake.changed:
            known = self.fake.answers.get(key)
            answer = known or (self.fake.command or _acknowledge)(seen)
            if 200 <= answer[0] < 300:
                self.fake.answers[key] = answer
            self.fake.changed.notify_all()
        if answer[0] == 0:  # the answer is lost on its way
            self.close_connection = True
        else:
            self._json(answer)

    def _note(self, body: Any = None) -> bool:
        """Write the request down. True when the connection is to be cut."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.fake.changed:
            self.fake.seen.append(Seen(self.command, parts.path, query, headers, body))
            self.fake.changed.notify_all()
            down = self.fake.down
        if down:
            self.close_connection = True
        return down

    def _sync(self) -> None:
        fake = self.fake
        if fake.sync_answer is not None:
            self._json(fake.sync_answer)
            return
        query = fake.seen[-1].query
        with fake.changed:
            after = self._position(query.get("after"))
            if isinstance(after, int):
                fake.changed.wait_for(
                    lambda: len(fake.records) > after or fake.down, timeout=float(query.get("wait", 0))
                )
                body: dict[str, Any] = {"mode": "delta", "events": fake.records[after:], "more": False}
            else:
                body = {"mode": "snapshot", "state": fake.state} | after
            body |= {"feed": STREAM, "cursor": fake.cursor}
            answer: Answer = (200, {}, json.loads(json.dumps(body)))
        self._json(answer)

    def _position(self, cursor: str | None) -> int | dict[str, Any]:
        if cursor is None:
            return {}
        epoch, _, version = cursor.partition("-")
        if epoch != self.fake.epoch:
            return {"reset": {"reason": "epoch"}}
        if int(version) < self.fake.covered_from:
            return {"reset": {"reason": "expired"}}
        return int(version)

    def _stream(self) -> None:
        fake = self.fake
        if fake.stream_answer is not None:
            self._json(fake.stream_answer)
            return
        mine: queue.Queue[bytes | None] = queue.Queue()
        with fake.changed:
            after = fake.seen[-1].query["after"]
            if fake.prime:
                mine.put(f"id: {after}\n\n".encode())
                for envelope in fake.records[int(after.partition("-")[2]) :]:
                    mine.put(frame(envelope))
            fake.streams.append(mine)
            fake.changed.notify_all()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        while (raw := mine.get()) is not None:
            self.wfile.write(raw)
            self.wfile.flush()

    def _json(self, answer: Answer) -> None:
        status, headers, body = answer
        self._reply(status, {"Content-Type": "application/json"} | headers, json.dumps(body).encode())

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _acknowledge(seen: Seen) -> Answer:
    return 200, {}, {"cursor": "e1-0", "events": [], "result": {}}
