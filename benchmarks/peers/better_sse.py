"""better-sse on Node: one channel, `broadcast` for each event."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.loadgen import Target
from benchmarks.peers import node
from benchmarks.peers.having import node_folder

NAME = "better-sse on Node"

_PARTS = {
    "imports": 'import { createChannel, createSession } from "better-sse";',
    "setup": "const channel = createChannel();",
    "publish": "channel.broadcast(body);",
    "subscribe": """
  const session = await createSession(request, response, { keepAlive: null, serializer: (text) => text });
  channel.register(session);""",
}


def prepare() -> str:
    """Return the versions of what takes part."""
    about = json.loads((node_folder() / "node_modules" / "better-sse" / "package.json").read_text())
    return f"better-sse {about['version']}, {node.prepare()}"


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One process."""
    return node.serve(_PARTS, port, folder)


def target(port: int, size: int) -> Target:
    """One channel."""
    return node.target(port, size)
