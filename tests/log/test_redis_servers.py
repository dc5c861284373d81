"""Finding the server: URLs, passwords, Sentinel, Cluster, and what error answers mean."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
import trio

from engine.errors import ConfigError, LogAway, ReadOnly
from engine.log.redis_lines import _read, connect, has_moved, refusal_of
from engine.log.redis_route import Route
from tests.log.redis_site import Writing, client, needs_redis, opened, patiently, until
from tests.ports import free_port
from tests.relays.redis_server import RedisServer, find_server, redis_server

pytestmark = needs_redis


@pytest.mark.parametrize(
    ("url", "seeds", "expected"),
    [
        ("redis://shop", [("shop", 6379)], {"db": 0}),
        (
            "redis://kim:p%40ss@shop:7000/2",
            [("shop", 7000)],
            {"username": "kim", "password": "p@ss", "db": 2},
        ),
        (
            "rediss://:word@shop?ssl_ca_certs=/ca.pem",
            [("shop", 6379)],
            {"password": "word", "ssl_ca_certs": "/ca.pem"},
        ),
        ("redis+sentinel://a,b:7000/orders/3", [("a", 26379), ("b", 7000)], {"db": 3}),
        ("rediss+cluster://kim:word@a:1,b:2", [("a", 1), ("b", 2)], {"username": "kim", "password": "word"}),
        ("redis://[::1]:7000", [("::1", 7000)], {}),
    ],
)
def test_urls(url: str, seeds: list[tuple[str, int]], expected: dict[str, object]) -> None:
    """What a URL says is what is used; retries of the client are off, and time-outs are ours."""
    route = Route(url, 4)
    assert route._seeds == seeds
    assert {name: route.options.get(name, 0) for name in expected} == expected
    assert ("connection_class" in route.options) == url.startswith("rediss")
    assert route.options["retry"]._retries == 0
    assert route.publish == ("SPUBLISH" if "cluster" in url else "PUBLISH")


@pytest.mark.parametrize(
    "url",
    [
        "http://shop",
        "redis+other://shop",
        "redis://",
        "redis://a,b",
        "redis+sentinel://a:1",
        "shop",
        "redis://a:x",
    ],
)
def test_urls_that_make_no_sense(url: str) -> None:
    """They are a mistake in the settings."""
    with pytest.raises(ConfigError, match="redis_url"):
        Route(url, 4)


@pytest.mark.parametrize(
    ("answer", "error", "moved"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", ReadOnly, False),
        ("MISCONF Errors writing to the AOF file: No space left on device", ReadOnly, False),
        ("NOREPLICAS Not enough good replicas to write.", ReadOnly, False),
        ("READONLY You can't write against a read only replica.", LogAway, True),
        ("LOADING Redis is loading the dataset in memory", LogAway, False),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", LogAway, True),
        ("CLUSTERDOWN The cluster is down", LogAway, True),
        ("MOVED 3999 127.0.0.1:6381", LogAway, True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", LogAway, False),
        ("BUSY Redis is busy running a script.", LogAway, False),
        ("NOPERM this user has no permissions to run the 'evalsha' command", LogAway, False),
        ("ERR user_script:1: a fault of ours", None, False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None, False),
    ],
)
async def test_what_error_answers_mean(answer: str, error: type[Exception] | None, moved: bool) -> None:
    """Each as the client makes it of the bytes: nothing happened and why, or a fault."""

    async def serve(stream: trio.SocketStream) -> None:
        async for sent in stream:
            if b"EVALSHA" in sent:
                await stream.send_all(f"-{answer}\r\n".encode())
            else:
                await stream.send_all(b"+OK\r\n" * (b"\r\n" + sent).count(b"\r\n*"))

    def ask(port: int) -> Exception:
        line = connect(("127.0.0.1", port), Route("redis://x", 1).options)
        try:
            line.send_command("EVALSHA")
            found = _read(line)
        finally:
            line.disconnect()
        assert isinstance(found, Exception)
        return found

    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serving)
        port = listeners[0].socket.getsockname()[1]
        found = await trio.to_thread.run_sync(ask, port)
        nursery.cancel_scope.cancel()
    refusal = refusal_of(found)
    assert type(refusal) is (error or type(None))
    assert has_moved(found) == moved


async def test_a_password(tmp_path: Path) -> None:
    """With the right one it opens; without, it does not, and no message has the password."""
    with redis_server(tmp_path, "--requirepass", "secret-word") as server:
        async with opened(server.url.replace("//", "//:secret-word@")) as shared:
            assert await Writing(shared.partitions[0]).append() == 1
            assert shared.writer.refusal(0) is None
        for url in (server.url, server.url.replace("//", "//:secret-wrong@")):
            with pytest.raises(LogAway) as caught:
                async with opened(url):
                    raise AssertionError("it opened")
            assert "secret" not in caught.value.detail


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
async def test_over_tls(tmp_path: Path) -> None:
    """With a certificate that the URL vouches for, and with no other."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    made = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", key, "-out", certificate]
    await trio.run_process(["openssl", *made.split(), *files], capture_stdout=True, capture_stderr=True)
    with redis_server(tmp_path) as free:
        port = str(free.port)
    tls = ["--port", "0", "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key]
    with redis_server(tmp_path, *tls, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}"
        async with (
            opened(f"{url}?ssl_ca_certs={certificate}") as one,
            opened(f"{url}?ssl_ca_certs={certificate}") as other,
        ):
            await until(lambda: other.listener.up)
            assert await Writing(one.partitions[0]).append(3) == 3
            await until(lambda: other.partitions[0].seen == 3)
        with pytest.raises(LogAway, match="certificate"):
            async with opened(url):
                raise AssertionError("it opened")


async def test_nobody_there() -> None:
    """A Redis that is not there is said so."""
    with pytest.raises(LogAway, match="refused"):
        async with opened("redis://127.0.0.1:1"):
            raise AssertionError("it opened")


@contextmanager
def sentinel(folder: Path, primary: RedisServer) -> Iterator[RedisServer]:
    """Run a Sentinel that watches a primary as `orders`, alone."""
    folder.mkdir()
    watcher = RedisServer(folder)
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {watcher.port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor orders 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds orders 300\nsentinel failover-timeout orders 3000\n"
    )
    program = find_server()
    assert program is not None
    process = subprocess.Popen([program, str(file), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield watcher
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
async def test_a_failover_by_sentinel(tmp_path: Path) -> None:
    """The primary is killed; the log finds the new one, under a new epoch, with what the replica had."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        one = stack.enter_context(redis_server(tmp_path / "one"))
        two = stack.enter_context(redis_server(tmp_path / "two", "--replicaof", "127.0.0.1", str(one.port)))
        with client(two) as lower:
            await until(lambda: lower.info("replication")["master_link_status"] == "up")
        watcher = stack.enter_context(sentinel(tmp_path / "sentinel", one))
        with redis.Redis(port=watcher.port, decode_responses=True, protocol=2) as asked:
            await until(lambda: ready(asked))
        async with opened(f"redis+sentinel://127.0.0.1:{watcher.port}/orders") as shared:
            log = shared.partitions[0]
            writing = Writing(log)
            await writing.append(5)
            epoch = log.epoch
            with client(two) as lower:
                await until(lambda: lower.exists("{onda:0}:log") and lower.xlen("{onda:0}:log") == 5)
            one.stop()
            with trio.fail_after(30):
                await until(lambda: not log.writable)
                await until(lambda: log.writable, 30)
                assert await log.wait_epoch(epoch) != epoch
            assert (log.head, log.seen) == (5, 5)
            assert await patiently(writing.append, LogAway) == 6
            with client(two) as lower:
                assert lower.xlen("{onda:0}:log") == 6


def ready(asked: redis.Redis) -> bool:
    """Return whether the Sentinel knows the replica, so that it could be promoted."""
    try:
        answer = asked.execute_command("SENTINEL", "REPLICAS", "orders")
    except redis.RedisError:
        return False
    return bool(answer)


@contextmanager
def cluster(folder: Path, count: int) -> Iterator[list[RedisServer]]:
    """Run a cluster of primaries."""
    with ExitStack() as stack:
        servers = []
        for number in range(count):
            (folder / str(number)).mkdir()
            bus = str(free_port())  # the default is port + 10000, which may be none
            options = ("--cluster-enabled", "yes", "--cluster-port", bus)
            servers.append(stack.enter_context(redis_server(folder / str(number), *options)))
        share = 16384 // count + 1
        for number, server in enumerate(servers):
            with client(server) as direct:
                last = min(16383, (number + 1) * share - 1)
                direct.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
                direct.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            with client(server) as direct:
                direct.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, bus_of(servers[0]))
        until_s = time.monotonic() + 20
        while not all(is_whole(server, count) for server in servers):
            assert time.monotonic() < until_s
            time.sleep(0.1)
        yield servers


def bus_of(server: RedisServer) -> str:
    """Return the port over which a server talks to the others."""
    with client(server) as direct:
        return str(direct.config_get("cluster-port")["cluster-port"])


def is_whole(server: RedisServer, count: int) -> bool:
    """Return whether a server of a cluster knows all others and serves."""
    with client(server) as direct:
        told = dict(line.split(":") for line in str(direct.execute_command("CLUSTER", "INFO")).split())
    return (told["cluster_state"], told["cluster_known_nodes"]) == ("ok", str(count))


@pytest.mark.slow
async def test_a_cluster(tmp_path: Path) -> None:
    """Partitions are spread over its servers; two nodes append to and hear all of them."""
    with cluster(tmp_path, 3) as servers:
        url = f"redis+cluster://127.0.0.1:{servers[1].port},127.0.0.1:{servers[0].port}"
        async with opened(url, 16) as one, opened(url, 16) as other:
            await until(lambda: one.listener.up and other.listener.up)
            streams = [f"user:{number}" for number in range(60)]
            async with trio.open_nursery() as nursery:
                for number, stream in enumerate(streams):
                    shared = one if number % 2 else other
                    nursery.start_soon(Writing(shared.partition_of(stream), stream).append, 2)
            await until(lambda: sum(log.seen for log in other.partitions) == 120)
            await until(lambda: sum(log.seen for log in one.partitions) == 120)
            assert one.listener.messages > 0
            head, found = await one.partition_of("user:7").read_stream("user:7", 0)
            assert (head.version, len(found)) == (2, 2)
            for server in servers:
                with client(server) as direct:
                    assert 0 < len(direct.keys("{onda:*}:meta")) < 16
