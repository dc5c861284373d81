"""Redis: pub/sub as a fan-out (raw, volatile), and streams as a durable log (`appendfsync always`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.loadgen import Target, event
from benchmarks.peers.having import package, run, spawn

NAME = "Redis pub/sub (raw)"


def prepare() -> str:
    """Return its version."""
    return (
        run(package("redis-server", "redis-server"), "--version").split(" sha")[0].replace(" server v=", " ")
    )


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One server whose every write is on disk before it is answered."""
    network = f"--port {port} --bind 127.0.0.1 --maxclients 12000 --tcp-backlog 4096"
    disk = f"--dir {folder} --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0"
    patience = "--client-output-buffer-limit pubsub 0 0 0"
    command = [package("redis-server", "redis-server"), *f"{network} {disk} {patience}".split(), "--save", ""]
    return spawn(command)


def target(port: int, size: int) -> Target:
    """Pub/sub of one channel. The blank line that ends an event is part of it, as the protocol has none."""
    body = event(size) + "\n\n"
    return Target(
        port, [], _command("SUBSCRIBE", "bench"), [_command("PUBLISH", "bench", body)], options=_LINES
    )


def durable(port: int, size: int) -> Target:
    """Appends of entries of so many bytes to one stream; nobody subscribes."""
    return Target(
        port,
        [],
        b"",
        [_command("XADD", "bench", "*", "e", event(size))],
        options={**_LINES, "answer_lines": 2},
    )


_LINES: dict[str, object] = {"raw": True, "answer_lines": 1}


def _command(*parts: str) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part.encode()) for part in parts)
