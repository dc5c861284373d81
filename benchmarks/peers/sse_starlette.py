"""sse-starlette on uvicorn with uvloop and httptools: a bounded queue for each subscriber."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.loadgen import Target, event, get, post
from benchmarks.peers.having import peers_python, python_versions, spawn

NAME = "sse-starlette on uvicorn"

APP = """
import asyncio

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

queues = set()


async def subscribe(request):
    queue = asyncio.Queue(4096)
    queues.add(queue)

    async def events():
        try:
            while True:
                yield {"data": await queue.get()}
        finally:
            queues.discard(queue)

    return EventSourceResponse(events(), ping=3600, sep="\\n")


async def publish(request):
    text = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(text)
    return Response(b"ok")


app = Starlette(routes=[Route("/sub", subscribe), Route("/pub", publish, methods=["POST"])])
"""


def prepare() -> str:
    """Return the versions of what takes part."""
    return python_versions("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools")


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One worker."""
    (folder / "peer_app.py").write_text(APP)
    options = f"--host 127.0.0.1 --port {port} --backlog 4096 --loop uvloop --http httptools"
    app = ("-m", "uvicorn", "peer_app:app", "--app-dir", str(folder), "--log-level", "critical")
    patience = ("--no-access-log", "--timeout-keep-alive", "600")
    return spawn([peers_python(), *app, *patience, *options.split()])


def target(port: int, size: int) -> Target:
    """One channel."""
    return Target(port, [], get("/sub"), [post("/pub", event(size))])
