"""Two nodes on one Redis behind a real nginx: the shipped configuration, adapted by substitution only."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.deadline import wait_until, wait_until_it_holds
from tests.chaos.process import Server, free_port, token
from tests.relays.redis_server import find_server, redis_server

DEPLOY = Path(__file__).parents[2] / "deploy"

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

_USE = "}\nmap $request_method:$onda_keyed"
SHARED = {
    "include /etc/nginx/onda/shops.conf;": "include /etc/nginx/onda/nodes.conf;",
    f"    default  0;\n{_USE}": f"    default  1;\n{_USE}",
}
"""What is changed in nginx's files where the nodes share a log."""

needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx")
needs_redis = pytest.mark.skipif(find_server() is None, reason="no redis-server")


class Nginx:
    """A running nginx. `log` is what it wrote so far."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.port = port

    async def wait_listening(self) -> None:
        """Wait until it takes connections."""
        await wait_until(lambda: _listens(self.port), what="nginx listens")

    @property
    def log(self) -> str:
        """The access log and both error logs."""
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def client(self, **claims: str) -> httpx.AsyncClient:
        """A client of the site, with a token (`role="service"` unless told)."""
        headers = {"authorization": f"Bearer {token(**claims)}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10)


def adapted(folder: Path, port: int, nodes: list[int], changes: Mapping[str, str]) -> Path:
    """Write the shipped files with other paths, ports and `changes` (all must apply); return the main one."""
    replaced = {
        "/etc/nginx/conf.d/": f"{folder}/",
        "/etc/nginx/onda/": f"{folder}/",
        "/var/log/nginx/": f"{folder}/",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "user nginx;": "user root;" if os.geteuid() == 0 else "",
        "listen 80;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8081": f"127.0.0.1:{nodes[0]}",
        "127.0.0.1:8082": f"127.0.0.1:{nodes[1]}",
        "worker_processes auto;": "worker_processes 2;",
        "worker_rlimit_nofile 131072;": "",  # more than this machine may allow
        "worker_connections 65536;": "worker_connections 512;",
    }
    texts = {
        name: (DEPLOY / "nginx" / name).read_text()
        for name in ("nginx.conf", "onda.conf", "nodes.conf", "shops.conf")
    }
    for old, new in [*changes.items(), *replaced.items()]:
        assert any(old in text for text in texts.values()), f"the shipped configuration has no {old!r}"
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder / "nginx.conf"


@contextmanager
def nginx(folder: Path, nodes: list[int], changes: Mapping[str, str] | None = None) -> Iterator[Nginx]:
    """Run nginx in front of two ports of this machine until the block ends."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    config = adapted(folder, port, nodes, changes or {})
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(config), "-g", "daemon off;"]
    command += ["-e", str(folder / "start.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False, timeout=20)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    try:
        yield Nginx(folder, port)
    finally:
        process.send_signal(signal.SIGTERM)  # the master ends its workers
        process.wait(10)


class Cluster:
    """The nodes, and nginx in front of them."""

    def __init__(self, nodes: list[Server], front: Nginx) -> None:
        self.nodes = nodes
        self.front = front

    def named(self, node_id: str) -> Server:
        """The node that calls itself so."""
        return next(node for node in self.nodes if node.env["ONDA_NODE_ID"] == node_id)


@asynccontextmanager
async def cluster(
    folder: Path, *options: str, changes: Mapping[str, str] | None = None, **settings: str
) -> AsyncIterator[Cluster]:
    """Two nodes, `backend-1` and `backend-2`, ready and joined by Redis.

    Args:
        folder: for all data.
        options: of `onda serve`, beside those that every node has.
        changes: further substitutions in nginx's files.
        settings: of both nodes, as environment variables (`ping_s="0.4"`).
    """
    env = {f"ONDA_{name.upper()}": value for name, value in settings.items()}
    with redis_server(folder) as redis:
        nodes = [
            Server(
                folder / name,
                *["--no-demo", "--redis", redis.url, *options],
                env={**env, "ONDA_NODE_ID": name},
            )
            for name in ("backend-1", "backend-2")
        ]
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as starting:
                    for node in nodes:
                        starting.start_soon(node.start, nursery)
                with nginx(folder / "nginx", [node.port for node in nodes], changes) as front:
                    await front.wait_listening()
                    for node in nodes:
                        await wait_until_it_holds(lambda node=node: _joined(node), what="Redis is there")
                    yield Cluster(nodes, front)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    for node in nodes:
                        await node.kill()


async def _joined(node: Server) -> bool:
    async with httpx.AsyncClient(base_url=node.base) as http:
        headers = {"authorization": f"Bearer {token()}"}
        answer = await http.get("/events/status", headers=headers)
        return bool(answer.json()["redisConnected"])


def _die_with_parent() -> None:
    """In the child: SIGTERM once the tests are gone; SIGKILL would leave nginx's workers behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
