"""Quart on Hypercorn with trio: an async generator and a channel for each subscriber."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.loadgen import Target, event, get, post
from benchmarks.peers.having import peers_python, python_versions, spawn

NAME = "Quart on Hypercorn"
MOST_CONNECTIONS = 5_000
"""With 9,000 it took most of a minute until all were connected."""

APP = """
import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import make_response, request
from quart_trio import QuartTrio

app = QuartTrio(__name__)
channels = set()


@app.get("/sub")
async def subscribe():
    send, receive = trio.open_memory_channel(4096)
    channels.add(send)

    async def events():
        try:
            yield b": hi\\n\\n"
            async for block in receive:
                yield block
        finally:
            channels.discard(send)

    response = await make_response(events(), {"Content-Type": "text/event-stream"})
    response.timeout = None
    return response


@app.post("/pub")
async def publish():
    block = b"data: %s\\n\\n" % await request.get_data()
    for channel in list(channels):
        channel.send_nowait(block)
    return "ok"


config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.backlog = 4096
config.keep_alive_max_requests = 1_000_000_000
config.keep_alive_timeout = 600
trio.run(serve, app, config)
"""


def prepare() -> str:
    """Return the versions of what takes part."""
    return python_versions("quart", "quart-trio", "hypercorn", "trio", "h11")


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One process."""
    (folder / "peer_app.py").write_text(APP)
    return spawn([peers_python(), folder / "peer_app.py", str(port)])


def target(port: int, size: int) -> Target:
    """One channel."""
    return Target(port, [], get("/sub"), [post("/pub", event(size))])
