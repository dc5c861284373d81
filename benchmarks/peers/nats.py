"""NATS: its core as a fan-out (raw, volatile), and JetStream with `sync_interval: always` as a log."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from benchmarks.loadgen import CONNECTION, Target, event
from benchmarks.peers.having import Unavailable, go_program, run, spawn

NAME = "NATS core (raw)"

_MODULE = "github.com/nats-io/nats-server/v2"
_CONFIG = """
host: 127.0.0.1
port: {port}
max_connections: 12000
max_pending: 268435456
write_deadline: "60s"
jetstream {{ store_dir: "{folder}", sync_interval: always }}
"""
_CONNECT = 'CONNECT {"verbose":false,"pedantic":false}\r\n'


def prepare() -> str:
    """Return its version."""
    return run(go_program(_MODULE), "--version").strip().replace(": v", " ")


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One server with JetStream."""
    config = folder / "nats.conf"
    config.write_text(_CONFIG.format(port=port, folder=folder / "jetstream"))
    return spawn([go_program(_MODULE), "-c", config])


def target(port: int, size: int) -> Target:
    """Core messages on one subject. A PING behind each is answered once the message was taken.

    One publisher with as many requests under way as others have connections: NATS promises an order for each
    publisher only, and its subscribers do see several of them in different orders.
    """
    body = event(size) + "\n\n"
    request = f"PUB bench {len(body)}\r\n{body}\r\nPING\r\n".encode()
    options = {"raw": True, "answer_lines": 1, "greeting_lines": 2, "pubs": 1, "pipeline": 32}
    greeting = f"{_CONNECT}PING\r\n".encode()
    return Target(
        port, [], f"{_CONNECT}SUB bench 1\r\n".encode(), [request], greeting=greeting, options={**options}
    )


def durable(port: int, size: int) -> Target:
    """Publishes to a JetStream stream, each answered when it is on disk; nobody subscribes."""
    _make_stream(port)
    body = event(size)
    request = f"PUB durable.bench _INBOX.{CONNECTION} {len(body)}\r\n{body}\r\n".encode()
    greeting = f"{_CONNECT}SUB _INBOX.{CONNECTION} 1\r\nPING\r\n".encode()
    options = {"raw": True, "answer_lines": 2, "greeting_lines": 2, "expect": '"seq":'}
    return Target(port, [], b"", [request], greeting=greeting, options={**options})


def _make_stream(port: int) -> None:
    config = (
        '{"name":"durable","subjects":["durable.>"],"storage":"file","retention":"limits","num_replicas":1}'
    )
    request = f"PUB $JS.API.STREAM.CREATE.durable _INBOX.make {len(config)}\r\n{config}\r\nPING\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(f"{_CONNECT}SUB _INBOX.make 1\r\n{request}".encode())
        said = b""
        while b"stream_create_response" not in said:
            got = sock.recv(65536)
            said += got
            if not got:
                break
    if b'"error"' in said or b"stream_create_response" not in said:
        raise Unavailable(f"JetStream made no stream: {said[-200:]!r}")
