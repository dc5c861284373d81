"""Node: `res.write` of each event to each response from an EventEmitter, as small servers are written."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.loadgen import Target, event, get, post
from benchmarks.peers.having import node_folder, run, spawn

NAME = "Node, EventEmitter"

SERVER = """
import http from "node:http";
import { EventEmitter } from "node:events";
%(imports)s

const events = new EventEmitter().setMaxListeners(0);
%(setup)s

http.createServer({ keepAliveTimeout: 600000 }, async (request, response) => {
  if (request.method === "POST") {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts).toString();
    %(publish)s
    response.writeHead(200, { "content-length": 2 }).end("ok");
    return;
  }
  %(subscribe)s
}).listen(+process.argv[2], "127.0.0.1", 4096);
"""
PLAIN = {
    "imports": "",
    "setup": "",
    "publish": 'events.emit("event", `data: ${body}\\n\\n`);',
    "subscribe": """
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.write(": hi\\n\\n");
  const write = (block) => response.write(block);
  events.on("event", write);
  response.on("close", () => events.off("event", write));""",
}


def prepare() -> str:
    """Return its version."""
    return f"Node {run('node', '--version').strip()}"


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """One process."""
    return serve(PLAIN, port, folder)


def serve(parts: dict[str, str], port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a server put together from its parts."""
    script = folder / "server.mjs"
    script.write_text(SERVER % parts)
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(node_folder() / "node_modules")
    return spawn(["node", script, str(port)])


def target(port: int, size: int) -> Target:
    """One channel."""
    return Target(port, [], get("/sub"), [post("/pub", event(size))])
