"""`onda migrate` as an operator runs it: real processes, a real Redis, and kill -9 in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from engine.clock import SystemClock
from engine.history.database import Database, database_url
from engine.history.places import Place
from engine.log.disk import OSDisk
from engine.log.frames import pack_entry
from engine.migrating.folder import Filling, Folder, Sizes
from engine.records import Entry
from tests.engine.moved import by_stream, look
from tests.log.redis_site import ALWAYS, client, needs_redis
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.process import ROOT, Process, _environment, onda, serving
from web import cli

SHOP = "/v1/stores/s1"
WITHIN_S = 20.0
SMALL = {"ONDA_SEGMENT_BYTES": "1048576"}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", *ALWAYS) as server:
        yield server


def until(what: Callable[[], Any]) -> Any:
    """Return what `what` does, once that is something."""
    end = time.monotonic() + WITHIN_S
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def post(server: Process, command: str, key: str = "", **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return httpx.post(f"{server.url}{SHOP}/{command}", json=body, headers=headers, timeout=15)


def order(server: Process, key: str) -> httpx.Response:
    return post(server, "create-order", key, lines=[{"product": "ramen", "quantity": 1}])


def sync(server: Process, after: str = "") -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(
        f"{server.url}{SHOP}/sync", params={"after": after} if after else {}
    ).json()
    return found


def streamed(server: Process, after: str, count: int) -> list[Any]:
    """What an EventSource gets that comes back with the id of its last event."""
    found: list[Any] = []
    with httpx.stream(
        "GET", f"{server.url}{SHOP}/stream", headers={"Last-Event-ID": after}, timeout=10
    ) as answer:
        for line in answer.iter_lines():
            assert line not in ("event: snapshot", "event: reset"), found
            if line.startswith("data: ") and '"cursor"' in line and '"version"' in line:
                found.append(json.loads(line[6:]))
                if len(found) == count:
                    break
    return found


@pytest.mark.one_node("what moves is the folder of one node")
@pytest.mark.slow
@needs_redis
def test_a_shop_moves_and_comes_back(
    tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client's cursor and key from before are good at a node on Redis, and after the way back; what was
    left is refused with a code of its own, until somebody says otherwise.
    """
    old, back = tmp_path / "old", tmp_path / "back"
    options = ("--open", "--no-demo", "--db", "none")
    with serving(old, *options) as server:
        post(server, "configure-store", name="Corner", payment_mode="postpay").raise_for_status()
        post(server, "put-product", product="ramen", name="라면", price=5000).raise_for_status()
        post(server, "open-store").raise_for_status()
        cursor = sync(server)["cursor"]
        first = order(server, "key").raise_for_status().json()
        events = sync(server, cursor)["events"]
        assert run("migrate", "--data", str(old), "--to", redis.url, "--db", "none") == 4
        assert "is held by another process" in capsys.readouterr().err
        assert server.stop() == 0

    assert run("migrate", "--data", str(old), "--to", redis.url, "--db", "none") == 0
    assert "read back: the same counts, heads and digest" in capsys.readouterr().out
    refused = onda("serve", "--port", "0", "--data", str(old))
    assert (refused.returncode, "was moved into redis://" in refused.stderr) == (7, True)

    with serving(tmp_path / "node", *options, "--log", redis.url) as server:
        found = sync(server, cursor)
        assert (found["mode"], found["events"]) == ("delta", events)
        assert streamed(server, cursor, len(events)) == events
        again = order(server, "key")
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.json() == first
        order(server, "second").raise_for_status()
        events = sync(server, cursor)["events"]
        assert run("migrate", "--data", str(back), "--from", redis.url, "--db", "none") == 4
        assert "nodes run on this Redis" in capsys.readouterr().err
        assert server.stop() == 0

    assert run("migrate", "--data", str(back), "--from", redis.url, "--db", "none") == 0
    refused = onda("serve", "--port", "0", "--data", str(tmp_path / "node"), "--log", redis.url)
    assert (refused.returncode, "was moved into a data folder" in refused.stderr) == (7, True)
    with serving(back, *options) as server:
        found = sync(server, cursor)
        assert (found["mode"], found["events"]) == ("delta", events)
        assert streamed(server, cursor, len(events)) == events
        assert order(server, "key").json() == first
        assert server.stop() == 0
    with client(redis) as direct:
        direct.zadd("{onda:0}:revoked", {"t1": 2**50})
    assert run("token", "--role", "owner", "--store", "s1", "--data", str(old)) == 0
    made = capsys.readouterr().out.split()[-1]
    assert run("token", "--revoke", made, "--data", str(old)) == 7, "nobody would ask this folder"
    assert f"was moved into {redis.url}" in capsys.readouterr().err
    assert run("migrate", "--data", str(old), "--to", redis.url, "--undo", "--db", "none") == 0
    said = capsys.readouterr().out
    assert "revoked there since the move, and are here now, too: 1" in said
    assert "can be used again" in said
    assert (old / "revoked").read_text() == f"t1 {2**50}\n"
    with serving(old, *options) as server:
        assert len(sync(server)["state"]["orders"]) == 1


def run(*arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    try:
        cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def make_large(data: Path, count: int) -> None:
    """Make a log that takes a while to move."""
    (data / "log").mkdir(parents=True)
    filling = Filling(Folder(str(data), OSDisk()), "abcdefgh", 1, Sizes(1 << 20, 0, 0))
    clock, versions = SystemClock(), [0] * 50
    for number in range(count):
        user = number * 7 % len(versions)
        versions[user] += 1
        body = json.dumps({"id": clock.new_id(), "cause": str(number), "data": "x" * 300}).encode()
        filling.add(pack_entry(Entry(f"user:u{user}", versions[user], b"", body)))
    filling.close()


def killed(*arguments: str, when: Callable[[], Any]) -> None:
    """Run a command, and kill it as soon as something is there."""
    command = [sys.executable, "-m", "web.cli", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=_environment(SMALL), stdout=subprocess.DEVNULL) as process:
        until(when)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@needs_redis
def test_killed_in_the_middle(tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways: nobody opens what is half done, the source is whole, and `--again` brings it to its end."""
    old, back = tmp_path / "old", tmp_path / "back"
    make_large(old, 20_000)
    there = ("migrate", "--data", str(old), "--to", redis.url, "--db", "none", "--partitions", "4")
    with client(redis) as direct:
        killed(*there, when=lambda: direct.xlen("{onda:1}:log") > 100)
        refused = onda("serve", "--port", "0", "--data", str(tmp_path / "node"), "--log", redis.url)
        assert (refused.returncode, "was not finished" in refused.stderr) == (7, True)
        assert run("check", "--redis", redis.url) == 0
        assert "nodes refuse the log that is there: moving" in capsys.readouterr().out
        assert not (old / "log" / "MOVED").exists()
        assert run("verify", "--data", str(old)) == 0
        assert (run(*there), "--again" in capsys.readouterr().err) == (3, True)
        assert run(*there, "--again") == 0
        assert sum(direct.xlen(f"{{onda:{number}}}:log") for number in range(4)) == 20_000

        here = ("migrate", "--data", str(back), "--from", redis.url, "--db", "none")
        killed(*here, when=lambda: len(list((back / "log").glob("*.seg"))) > 2)
        refused = onda("serve", "--port", "0", "--data", str(back))
        assert (refused.returncode, "not finished" in refused.stderr) == (5, True)
        assert direct.hget("{onda:0}:meta", "partitions") == "4"
        assert (run(*here), "--again" in capsys.readouterr().err) == (3, True)
        assert run(*here, "--again") == 0
    before, after = look(old), look(back)
    assert by_stream(before.entries) == by_stream(after.entries)
    assert before.epoch == after.epoch


@needs_redis
def test_a_redis_that_loses_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the words of `onda check --redis`, unless the loss is accepted."""
    make_large(tmp_path / "old", 10)
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru") as server:
        arguments = ("migrate", "--data", str(tmp_path / "old"), "--to", server.url, "--db", "none")
        assert run(*arguments) == 3
        said = capsys.readouterr()
        assert "bad  maxmemory-policy allkeys-lru evicts" in said.out
        assert "--accept-loss" in said.err
        assert run(*arguments, "--accept-loss") == 0
        assert "10 records of 10 streams" in capsys.readouterr().out


@needs_redis
def test_what_the_history_lacks_is_not_left_behind(
    tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A history that is behind has to catch up first, or be left on purpose; one by other positions has no
    place beside the folder that is made.
    """
    make_large(tmp_path / "old", 10)
    old = ("migrate", "--data", str(tmp_path / "old"), "--to", redis.url)
    url = database_url("", str(tmp_path / "old"))
    assert url is not None
    database = Database(url)
    place = database.open()
    assert run(*old) == 3
    assert "the history has none of 10 records" in capsys.readouterr().err
    after = Place(4, "abcdefgh", "x")
    place = database.adopt(place, "abcdefgh", None, "now")
    database.write([], place, after)
    assert run(*old) == 3
    assert "up to 4 of epoch abcdefgh" in capsys.readouterr().err
    database.write([], after, Place(10, "abcdefgh", "x"))
    database.close()
    assert run(*old) == 0
    back = ("migrate", "--data", str(tmp_path / "back"), "--from", redis.url)
    assert run(*back, "--db", f"sqlite:///{tmp_path / 'old' / 'history.db'}") == 3
    assert "by positions of another log" in capsys.readouterr().err
    assert run(*back) == 0


def make_history(data: Path, count: int) -> Database:
    """Make one that has all of a log of `make_large`."""
    url = database_url("", str(data))
    assert url is not None
    database = Database(url)
    place = database.adopt(database.open(), "abcdefgh", None, "now")
    database.write([], place, Place(count, "abcdefgh", "x"))
    return database


@needs_redis
def test_a_history_that_cannot_be_split_leaves_a_move_to_be_begun_anew(
    tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its database goes away when everything else is done, before or after it has split it: no node can open
    Redis yet. Once it is there the move is finished, with other partitions, too.
    """
    make_large(tmp_path / "old", 10)
    database = make_history(tmp_path / "old", 10)
    arguments = ("migrate", "--data", str(tmp_path / "old"), "--to", redis.url)
    split = Database.split_place

    def fail(self: Database, place: Place, parts: Sequence[Place]) -> None:
        if done:
            split(self, place, parts)
        raise OperationalError("", None, Exception("it went away"))

    for done in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(Database, "split_place", fail)
            assert run(*arguments, "--partitions", "3", *(["--again"] if done else [])) == 1
        assert "the move is not finished: say the same with --again" in capsys.readouterr().err
        with client(redis) as direct:
            assert direct.hget("{onda:0}:meta", "partitions") == "moving"
        assert len(database.read_places()[0]) == (3 if done else 1)
    assert run(*arguments, "--partitions", "2", "--again") == 0
    assert "the history goes on with the partitions" in capsys.readouterr().out
    places = database.read_places()[0]
    assert (len(places), sum(place.position for place in places)) == (2, 10)
    database.close()


@needs_redis
def test_an_undone_move_gives_the_history_back(
    tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on with the folder, unless nodes have written to it since: that is told."""
    make_large(tmp_path / "old", 10)
    database = make_history(tmp_path / "old", 10)
    arguments = ("migrate", "--data", str(tmp_path / "old"), "--to", redis.url)
    assert run(*arguments) == 0
    assert run(*arguments, "--undo") == 0
    assert database.open() == Place(10, "abcdefgh", "x")
    assert database.read_places()[0] == [Place(10, "abcdefgh", "x")]
    with client(redis) as direct:
        direct.flushall()
    assert run(*arguments) == 0
    place = database.open(1)
    database.write([], place, place._replace(position=place.position + 1, last_id="y"))
    capsys.readouterr()
    assert run(*arguments, "--undo") == 0
    assert "name another database with --db" in capsys.readouterr().out
    assert database.open(1).position == place.position + 1
    database.close()


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """One direction, and a number of partitions that can be."""
    assert run("migrate") == 2
    assert run("migrate", "--to", "redis://a", "--from", "redis://b") == 2
    assert "either --to URL or --from URL" in capsys.readouterr().err
