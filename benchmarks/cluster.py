"""Several nodes on one Redis as a target: real processes, each with a bounded share of a core where that is
asked for, so that two nodes, Redis and the load fit on two cores without being in each other's way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.harness import LOAD_CPU, served
from benchmarks.onda import ENVIRONMENT, calling, make_store
from benchmarks.peers.having import Unavailable, free_port, package, spawn, wait_for

PERIOD_US = 5_000
"""In which a share of a core is counted: short, so that a node never stands still for long."""

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 19000;
events {{ worker_connections 18000; }}
http {{
  access_log off; keepalive_requests 100000000; client_max_body_size 1m;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 90s;
{servers}
}}
"""
_SERVER = """
  upstream node{number} {{ server 127.0.0.1:{behind}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://node{number}; }} }}
"""
"""A door to each node, so that who measures chooses the node; the settings of the proxy are those of
`deploy/nginx`.
"""


@contextmanager
def redis(folder: Path, fsync: str = "always", cpu: int = LOAD_CPU) -> Iterator[tuple[str, int]]:
    """A fresh Redis with an append-only file; give its URL and its process id."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    disk = f"--dir {folder} --appendonly yes --appendfsync {fsync} --auto-aof-rewrite-percentage 0"
    command = [package("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    process = spawn([*command, *disk.split(), "--save", ""])
    os.sched_setaffinity(process.pid, {cpu})
    try:
        yield f"redis://127.0.0.1:{port}", process.pid
    finally:
        _end(process)


@contextmanager
def nodes(
    folder: Path,
    url: str,
    names: Sequence[str],
    place: Callable[[], None],
    settings: Mapping[str, str] | None = None,
) -> Iterator[list[tuple[int, int]]]:
    """Nodes of these names on a Redis, each where `place` puts it; give port and process id of each."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                served(
                    folder / name,
                    *("--no-demo", "--log", url, "--node-id", name),
                    env={**ENVIRONMENT, **(settings or {})},
                    place=place,
                )
            )
            for name in names
        ]


@contextmanager
def doors(folder: Path, ports: Sequence[int]) -> Iterator[list[int]]:
    """An nginx with a door to each node, on the core of the load; give their ports."""
    folder.mkdir(parents=True, exist_ok=True)
    own = [free_port() for _ in ports]
    servers = "".join(
        _SERVER.format(number=number, behind=behind, port=port)
        for number, (behind, port) in enumerate(zip(ports, own, strict=True))
    )
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, servers=servers))
    process = spawn([package("nginx", "nginx"), "-c", str(config)])
    os.sched_setaffinity(process.pid, {LOAD_CPU})
    try:
        for port in own:
            wait_for(port, process)
        yield own
    finally:
        _end(process)


@contextmanager
def share_of_a_core(share: float) -> Iterator[Callable[[], None]]:
    """Give what puts a process into a control group of its own with this share of a core (0: where it likes);
    it may run on either core.

    Raises:
        Unavailable: this system does not let us.
    """
    second = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    root = Path("/sys/fs/cgroup") if second else Path("/sys/fs/cgroup/cpu")
    mine = f"onda-bench-{os.getpid()}-"
    if share and not os.access(root, os.W_OK):
        raise Unavailable("no control groups for this user: run it as root, or with --share 0")

    def place() -> None:
        if not share:
            return
        group = root / f"{mine}{os.getpid()}"
        group.mkdir()
        if second:
            (group / "cpu.max").write_text(f"{round(share * PERIOD_US)} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
        (group / "cgroup.procs").write_text(str(os.getpid()))

    try:
        yield place
    finally:
        for group in root.glob(f"{mine}*"):
            group.rmdir()


@contextmanager
def neighbour(place: Callable[[], None]) -> Iterator[None]:
    """A process that does nothing but use up what share of a core `place` gives it."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=place)
    try:
        yield
    finally:
        _end(process)


def make_stores(ports: Sequence[int], stores: Sequence[str], payment_mode: str = "prepay") -> None:
    """Make stores at the first node, and wait until every node has heard of them."""
    for store in stores:
        make_store(ports[0], store, payment_mode)
    for port in ports:
        for store in stores:
            with calling(port, store) as call:
                _until_known(call)


def _until_known(call: Callable[[str, dict[str, object]], object]) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            call("adjust-stock", {"product": "p0", "delta": 1, "reason": "warm"})
        except SystemExit:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    finally:
        process.kill()
        process.wait()
