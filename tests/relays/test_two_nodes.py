"""Two servers with folders of their own on one Redis: what is made on one is seen on the other, by curl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.relays.redis_server import RedisServer, find_server, redis_server
from tests.web.process import Process, serving

pytestmark = [
    pytest.mark.skipif(find_server() is None, reason="no redis-server"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl"),
]

ACCOUNT = '{"name":"다중서버테스트","balance":999999}'
HOP_S_MAX = 5.0


class Curl:
    """`curl -N`, and when each line came."""

    def __init__(self, url: str) -> None:
        self.popen = subprocess.Popen(["curl", "-sN", url], stdout=subprocess.PIPE, text=True)
        self.lines: list[tuple[float, str]] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._came:
                self.lines.append((time.perf_counter(), line.rstrip("\n")))
                self._came.notify_all()

    def wait_for(self, text: str, count: int = 1, within_s: float = 20.0) -> list[tuple[float, str]]:
        """Wait for lines with a text in them."""

        def found() -> list[tuple[float, str]]:
            return [line for line in self.lines if text in line[1]]

        with self._came:
            assert self._came.wait_for(lambda: len(found()) >= count, within_s), self.lines[-5:]
            return found()

    def end(self) -> None:
        self.popen.terminate()
        self.popen.wait(5)
        self._reader.join(5)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextmanager
def listening(process: Process) -> Iterator[Curl]:
    """The listening half of the session."""
    curl = Curl(f"{process.url}/events/sse")
    try:
        curl.wait_for("retry:")
        yield curl
    finally:
        curl.end()


@contextmanager
def two_nodes(folder: Path, server: RedisServer) -> Iterator[tuple[Process, Process]]:
    """backend-1 and backend-2."""
    shared = ["--open", "--no-demo", "--plugin", "examples.accounts", "--redis", server.url]
    with (
        serving(folder / "1", *shared, "--node-id", "backend-1") as one,
        serving(folder / "2", *shared, "--node-id", "backend-2") as two,
    ):
        for process in (one, two):
            until = time.monotonic() + 10
            while not httpx.get(f"{process.url}/events/status").json()["redisConnected"]:
                assert time.monotonic() < until
                time.sleep(0.02)
        yield one, two


def create(process: Process) -> str:
    """The sending half."""
    url, kind = f"{process.url}/accounts", "Content-Type: application/json"
    done = subprocess.run(
        ["curl", "-s", "-X", "POST", url, "-H", kind, "-d", ACCOUNT],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def test_an_event_made_on_one_reaches_the_stream_of_the_other(tmp_path: Path, server: RedisServer) -> None:
    """The account is answered at once on backend-2, its snapshots are told on backend-1, once."""
    with two_nodes(tmp_path, server) as (one, two), listening(one) as far, listening(two) as near:
        began = time.perf_counter()
        account = create(two)
        answered = time.perf_counter()
        [(came, told)] = far.wait_for("snapshots.generated")
        [(came_near, told_near)] = near.wait_for("snapshots.generated")
        answer_ms, event_ms, hop_ms = (1000 * s for s in (answered - began, came - began, came - came_near))
        print(f"\nanswered {answer_ms:.0f} ms, event {event_ms:.0f} ms after the request;", end=" ")
        print(f"{hop_ms:.1f} ms later than on the maker's own stream\n{told}\n{account}")
        assert came - began < HOP_S_MAX
        assert json.loads(account) | {"createdAt": ""} == {
            "id": 1,
            "name": "다중서버테스트",
            "balance": 999999,
            "createdAt": "",
        }
        pattern = (
            r'data: {"eventType":"snapshots\.generated","snapshotCount":1,'
            r'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","serverId":"backend-2"}'
        )
        assert re.fullmatch(pattern, told)
        assert told == told_near
        create(two)
        far.wait_for('"snapshotCount":2')
        near.wait_for('"snapshotCount":2')
        assert len(far.wait_for("snapshots.generated")) == len(near.wait_for("snapshots.generated")) == 2


def test_the_death_of_one_stops_nobody(tmp_path: Path, server: RedisServer) -> None:
    """The other goes on, and with it outside publishers."""
    with two_nodes(tmp_path, server) as (one, two), listening(one) as curl:
        two.popen.kill()
        two.wait()
        create(one)
        curl.wait_for('"serverId":"backend-1"')


def test_redis_is_away_under_load(tmp_path: Path, server: RedisServer, pytestconfig: pytest.Config) -> None:
    """Streams stay up on both sides; everything made meanwhile reaches the other node, once, in order."""
    away_s = pytestconfig.getoption("--redis-away")
    with two_nodes(tmp_path, server) as (one, two), listening(one) as far, listening(two) as near:
        with httpx.Client(base_url=two.url) as http:

            def send(numbers: range, within_s: float = 0.0) -> None:
                for number in numbers:
                    time.sleep(within_s / len(numbers))
                    body = {"event_type": "test.event", "data": {"n": number}}
                    assert http.post("/v1/users/123/send-event", json=body).status_code == 200

            send(range(100))
            far.wait_for("test.event", 100)
            server.stop()
            send(range(100, 300), away_s)
            near.wait_for("test.event", 300)
            server.start()
            send(range(300, 400))
            found = far.wait_for("test.event", 400, within_s=50)
        assert [int(line.partition('"n":')[2].partition(",")[0]) for _, line in found] == list(range(400))
        assert far.popen.poll() is None
        assert near.popen.poll() is None
