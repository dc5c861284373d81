"""Two nodes on one log in Redis behind a real nginx: the shipped files, adapted by substitution only."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.chaos.deadline import wait_until
from tests.chaos.process import Server, token
from tests.ports import free_port
from tests.relays.redis_server import RedisServer, find_server, redis_server

DEPLOY = Path(__file__).parents[2] / "deploy"

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx")
needs_redis = pytest.mark.skipif(find_server() is None, reason="no redis-server")


def redis_options() -> list[str]:
    """The shipped redis/onda.conf as options of redis-server."""
    options: list[str] = []
    for line in (DEPLOY / "redis" / "onda.conf").read_text().splitlines():
        if words := shlex.split(line, comments=True):
            options += [f"--{words[0]}", *words[1:]]
    return options


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

    def answered(self, method: str, path: str) -> list[int]:
        """The ports of the nodes that answered requests for a path, as far as they are written down."""
        wanted = f' "{method} {path}" '
        lines = [line for line in self.log.splitlines() if wanted in line]
        return [int(line.partition(" upstream_status=")[0].rpartition(":")[2]) for line in lines]

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
        name: (DEPLOY / "nginx" / name).read_text() for name in ("nginx.conf", "onda.conf", "nodes.conf")
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
    """The nodes, nginx in front of them, and the Redis that has their log."""

    def __init__(self, nodes: list[Server], front: Nginx, redis: RedisServer | None) -> None:
        self.nodes = nodes
        self.front = front
        self._redis = redis

    @property
    def redis(self) -> RedisServer:
        """The one that was started for them."""
        assert self._redis is not None
        return self._redis

    def named(self, node_id: str) -> Server:
        """The node that calls itself so."""
        return next(node for node in self.nodes if node.env["ONDA_NODE_ID"] == node_id)

    def other(self, node: Server) -> Server:
        """The one that is not this one."""
        return next(each for each in self.nodes if each is not node)

    async def asked(self, http: httpx.AsyncClient, method: str, path: str, **more: Any) -> Server:
        """Ask through nginx for a path that nobody else asks for now; return the node that answered."""
        before = len(self.front.answered(method, path))
        answer = await http.request(method, path, **more)
        assert answer.is_success, answer.text
        await wait_until(lambda: len(self.front.answered(method, path)) > before, what="it is written down")
        port = self.front.answered(method, path)[-1]
        return next(node for node in self.nodes if node.port == port)


@asynccontextmanager
async def cluster(
    folder: Path,
    *options: str,
    changes: Mapping[str, str] | None = None,
    log: str | None = None,
    **settings: str,
) -> AsyncIterator[Cluster]:
    """Two nodes, `backend-1` and `backend-2`, that listen and share a log.

    Args:
        folder: for all data.
        options: of `onda serve`, beside those that every node has.
        changes: further substitutions in nginx's files.
        log: where it is; a Redis with the shipped settings is started unless told.
        settings: of both nodes, as environment variables (`ping_s="0.4"`).
    """
    env = {f"ONDA_{name.upper()}": value for name, value in settings.items()}
    with ExitStack() as stack:
        redis = None if log else stack.enter_context(redis_server(folder, *redis_options()))
        env["ONDA_LOG_URL"] = log or ("" if redis is None else redis.url)
        nodes = [
            Server(folder / name, "--no-demo", *options, env={**env, "ONDA_NODE_ID": name})
            for name in ("backend-1", "backend-2")
        ]
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as starting:
                    for node in nodes:
                        starting.start_soon(node.start, nursery)
                with nginx(folder / "nginx", [node.port for node in nodes], changes) as front:
                    await front.wait_listening()
                    yield Cluster(nodes, front, redis)
            except BaseException:
                for node in nodes:
                    print("\n".join([f"-- {node.env['ONDA_NODE_ID']} said:", *node.said]))
                raise
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    for node in nodes:
                        await node.kill()


def _die_with_parent() -> None:
    """In the child: SIGTERM once the tests are gone; SIGKILL would leave nginx's workers behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
