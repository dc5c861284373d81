"""Servers on one Redis with one history: killed in the middle, asked at either, made again by command."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.history.evening import dump, names
from tests.history.servers import Server
from tests.log.redis_site import ALWAYS, client, needs_redis
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.process import Process, onda, serving

pytestmark = needs_redis

SHOP = "/v1/stores/s1"
WITHIN_S = 30.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *ALWAYS) as server:
        yield server


def node(folder: Path, redis: RedisServer, name: str, db: str, partitions: int = 3) -> Any:
    """Serve as one of several nodes with a history."""
    options = ("--open", "--no-demo", "--node-id", name, "--log", redis.url, "--db", db)
    return serving(
        folder / name, *options, env={"ONDA_REDIS_PARTITIONS": str(partitions), "ONDA_CHECKPOINT_S": "0.5"}
    )


def until(what: Callable[[], Any]) -> Any:
    """Return what `what` does, once that is something."""
    end = time.monotonic() + WITHIN_S
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def get(server: Process, path: str) -> Any:
    return httpx.get(server.url + path, timeout=15).raise_for_status().json()


def make_shop(server: Process) -> None:
    for command, body in (
        ("configure-store", {"name": "Corner", "payment_mode": "postpay"}),
        ("put-product", {"product": "ramen", "name": "라면", "price": 5000, "stock": 10_000}),
        ("open-store", {}),
    ):
        httpx.post(f"{server.url}{SHOP}/{command}", json=body, timeout=15).raise_for_status()


def order(server: Process, key: str) -> dict[str, Any] | None:
    """Order, as `key`; `None` when there is no answer, or it is not now."""
    lines = [{"product": "ramen", "quantity": 1}]
    headers = {"Idempotency-Key": key}
    try:
        answer = httpx.post(
            f"{server.url}{SHOP}/create-order",
            json={"lines": lines, "user": key},
            headers=headers,
            timeout=15,
        )
    except httpx.TransportError:
        return None
    found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
    assert found or answer.status_code in (404, 500, 503, 504), answer.text
    return found


@pytest.mark.slow
def test_a_node_on_duty_that_is_killed_leaves_no_hole_and_no_double(
    tmp_path: Path, redis: RedisServer, postgres: Server
) -> None:
    """In the middle of orders, twice, with another that goes on and one that comes; then the history is, row
    by row, what `onda history --rebuild` makes of the log, and every order is in it once.
    """
    db, again = (postgres.new_database().render_as_string(hide_password=False) for _ in range(2))
    taken: set[str] = set()

    def guest(number: int, servers: list[Process], stop: Callable[[], bool]) -> None:
        count = 0
        while not stop():
            key = f"g{number}x{count}"
            while not order(servers[0], key):
                servers.reverse()
                time.sleep(0.02)
            taken.add(key)
            count += 1

    def busy(alive: Process, doomed: Process) -> None:
        ended: list[bool] = []
        goal = len(taken) + 60
        with ThreadPoolExecutor(3) as pool:
            guests = [
                pool.submit(guest, len(taken) * 10 + n, [doomed, alive], lambda: bool(ended))
                for n in range(3)
            ]
            until(lambda: len(taken) > goal)
            doomed.stop(signal.SIGKILL, 10)
            goal = len(taken) + 30
            until(lambda: len(taken) > goal)
            ended.append(True)
            for one in guests:
                one.result(60)

    with node(tmp_path, redis, "b", db) as b:
        make_shop(b)
        with node(tmp_path, redis, "a", db) as a:
            until(lambda: httpx.get(f"{a.url}{SHOP}/sync").status_code == 200)
            busy(b, a)
        with node(tmp_path, redis, "c", db) as c:
            until(lambda: httpx.get(f"{c.url}{SHOP}/sync").status_code == 200)
            busy(c, b)
            until(lambda: get(c, "/v1/history/store:s1?limit=1")["lag"] == 0 and _idle(c))
            report = get(c, f"{SHOP}/report")
            assert report["orders"]["placed"] == len(taken)
            assert c.stop() == 0
    made = onda("history", "--rebuild", "--log", redis.url, "--db", again)
    assert made.returncode == 0, made.stderr
    kept, rebuilt = dump(db), dump(again)
    assert rebuilt == kept
    assert {row["user_id"] for row in names("orders", kept["orders"])} == taken
    found = [int(number) for number in re.findall(r"up to (\d+) of partition \d of epoch", made.stdout)]
    assert len(found) == 3
    assert sum(found) == len(kept["events"]) == report["position"]


def _idle(server: Process) -> bool:
    """Whether everything that follows from orders has followed."""
    values = dict(
        line.split(" ", 1) for line in httpx.get(f"{server.url}/metrics").text.splitlines() if line[:1] != "#"
    )
    return float(values["onda_reaction_lag"]) == 0 == float(values["onda_history_lag"])


def test_what_is_asked_is_answered_at_either_node(tmp_path: Path, redis: RedisServer) -> None:
    """One partition, so one of them is not on duty: pages, report, metrics; and the commands beside them."""
    db = f"sqlite:///{tmp_path}/history.db"
    with node(tmp_path, redis, "a", db, 1) as a, node(tmp_path, redis, "b", db, 1) as b:
        make_shop(a)
        until(lambda: httpx.get(f"{b.url}{SHOP}/sync").status_code == 200)
        answers = [until(lambda n=n: order((a, b)[n % 2], f"u{n}")) for n in range(4)]
        for server in (a, b):
            until(lambda server=server: _idle(server))
            page = get(server, "/v1/history/store:s1?type=OrderPlaced")
            placed = [
                event for answer in answers for event in answer["events"] if event["type"] == "OrderPlaced"
            ]
            assert page["events"] == sorted(placed, key=lambda event: event["version"])
            report = get(server, f"{SHOP}/report")
            assert (report["orders"]["placed"], report["lag"]) == (4, 0)
            text = until(lambda server=server: "onda_history_up 1.0" in _metrics(server) and _metrics(server))
            assert "onda_history_lost 0.0" in text
        told = onda("report", "--store", "s1", "--json", "--db", db)
        assert json.loads(told.stdout) == {k: v for k, v in report.items() if k != "lag"}
        event = answers[0]["events"][0]["id"]
        command = ("trace", event, "--log", redis.url, "--db", db, "--json")
        until(lambda: "reacted: history" in onda(*command).stdout)  # a checkpoint was taken
        trace = json.loads(onda(*command).stdout)
        assert re.fullmatch(r"at position \d+ of partition 0 of the log", trace["steps"][1]["note"])
        assert {one["stream"] for one in trace["follows"]} >= {"user:u0"}
        alone = json.loads(onda("trace", event, "--log", redis.url, "--json").stdout)
        assert alone["follows"] == trace["follows"]
        status = onda("history", "--db", db).stdout
        assert re.search(rf"up to {report['position']} of partition 0 of epoch", status)
        full = onda("history", "--rebuild", "--log", redis.url, "--db", db)
        assert (full.returncode, "is not empty" in full.stderr) == (3, True)


def _metrics(server: Process) -> str:
    return httpx.get(f"{server.url}/metrics").text


def test_commands_say_in_one_line_what_is_wrong(tmp_path: Path, redis: RedisServer) -> None:
    """No log in that Redis, no Redis, no database."""
    db = f"sqlite:///{tmp_path}/history.db"
    shared = {"ONDA_LOG_URL": redis.url, "ONDA_SECRET": "s" * 32}
    for arguments, env, text in (
        (["history", "--rebuild", "--log", redis.url, "--db", db], {}, "there is no log in this Redis"),
        (["history", "--rebuild", "--log", "redis://127.0.0.1:1", "--db", db], {}, "Redis is away"),
        (["history"], shared, "with log_url db says where it is"),
        (["report", "--store", "s1"], shared, "with log_url db says where it is"),
        (["trace", "x"], shared, "there is no log in this Redis"),
    ):
        done = onda(*arguments, env=env)
        assert done.returncode != 0
        assert text in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("standing", ["moved", "moving"])
def test_a_log_that_is_moved_is_not_read(tmp_path: Path, redis: RedisServer, standing: str) -> None:
    """It goes on elsewhere, or is not all there yet: that is said, with the code of its own."""
    with client(redis) as direct:
        direct.hset("{onda:0}:meta", "partitions", standing)
    db = f"sqlite:///{tmp_path}/history.db"
    for arguments in (["history", "--rebuild", "--db", db], ["trace", "x"]):
        done = onda(*arguments, "--log", redis.url)
        assert (done.returncode, "onda migrate --" in done.stderr) == (7, True), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
