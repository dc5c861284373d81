"""The history of a log that several nodes share: complete, once, in order, whoever is on duty for what."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine import Node
from engine.errors import OndaError, Unavailable, UnknownOutcome
from engine.history.database import Database, database_url
from engine.history.keeper import DatabaseDown
from engine.history.places import Moved
from engine.history.rebuild import rebuild_shared
from engine.history.report import Report, day_of, make_report
from engine.lease_redis import RedisLease
from engine.log import partition_of
from engine.log.redis_kept import KeptLog
from tests.engine.cluster import RedisCluster
from tests.engine.shop import OWNER, STORE, make_shop, order, wait_until
from tests.engine.test_cluster import same
from tests.history.evening import dump, names, settled, spend
from tests.history.servers import Server
from tests.history.test_trouble import refuse
from tests.log.redis_site import ALWAYS, needs_redis, patiently
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = needs_redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", *ALWAYS) as server:
        yield server


def rebuilt(redis: RedisServer, db: str) -> dict[str, Any]:
    """What a history made again out of Redis says."""
    url = database_url(db, "")
    assert url is not None
    database = Database(url)
    with closing(KeptLog(redis.url)) as kept:
        rebuild_shared(kept, database, now_ms=0)
    database.close()
    return dump(db)


def check_whole(redis: RedisServer, live: str, again: str) -> dict[str, Any]:
    """The live history is, row by row, what the log says; returns it."""
    kept, made = dump(live), rebuilt(redis, again)
    for table, rows in made.items():
        if table != "history_lost":
            assert kept[table] == rows, table
    streams: dict[str, int] = {}
    for row in names("events", kept["events"]):
        assert row["version"] == streams.get(row["stream"], 0) + 1, row["stream"]
        streams[row["stream"]] = row["version"]
    return kept


async def ordered(node: Node, count: int) -> None:
    """Take some orders, repeated until they are answered."""
    for _ in range(count):
        await patiently(lambda: node.ask(STORE, order(), by=OWNER), Unavailable, UnknownOutcome)


async def test_what_two_nodes_keep_is_what_the_log_says(
    redis: RedisServer, new_database: Callable[[], str]
) -> None:
    """Orders at both, each node on duty for its half of the partitions; through a restart of both."""
    db = new_database()
    cluster = RedisCluster(redis, 4)
    async with cluster.open("a", "b", db=db) as (a, b):
        await wait_until(lambda: sum(part.on_duty for part in b.partitions) == 2, 20)
        await spend(a, b)
        await ordered(b, 5)
        await settled(a, b)
        for node in (a, b):
            assert node.statistics()["history_up"] == 1
            assert node.statistics()["history_lag"] == 0
    async with cluster.open("b", "c", db=db) as (b, c):
        await settled(b, c)
        await ordered(c, 5)
        await settled(b, c)
        heads = [part.log.head for part in b.partitions]
    kept = check_whole(redis, db, new_database())
    assert [row["position"] for row in names("history_places", kept["history_places"])] == heads
    assert sum(heads) == len(kept["events"])
    assert sum(map(bool, heads)) > 1


async def test_a_node_that_is_not_on_duty_answers_too(redis: RedisServer, tmp_path: Path) -> None:
    """Report, pages and lag come from the database, whoever writes it."""
    db = f"sqlite:///{tmp_path}/a.db"
    async with RedisCluster(redis, 1).open("a", "b", db=db) as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        await ordered(b, 3)
        await settled(a, b)
        other = a if b.runners else b
        assert not other.runners
        assert other.history is not None

        def ask(database: Database) -> Report:
            with database.connect() as connection:
                return make_report(connection, "s1", day_of(a.clock.now_ms(), "Asia/Seoul", "00:00"))

        report = await other.history.query(ask)
        assert (report.orders["placed"], report.position) == (3, other.partitions[0].log.head)
        assert (other.history.lag, other.history.up) == (0, True)


async def test_two_who_both_believe_to_be_on_duty_write_once(
    redis: RedisServer, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes late finds the place moved, and looks again."""

    async def hold(self: RedisLease, seconds: float) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    monkeypatch.setattr(RedisLease, "hold", hold)
    monkeypatch.setattr("engine.history.keeper.GATHER_S", 0.01)
    db, moved = new_database(), []
    both, write = threading.Barrier(2), Database.write

    def together(self: Database, *args: Any) -> None:
        try:
            both.wait(0.2)
        except threading.BrokenBarrierError:  # the other has nothing to write
            both.reset()
        try:
            write(self, *args)
        except Moved as error:
            moved.append(error)
            raise

    monkeypatch.setattr(Database, "write", together)
    async with RedisCluster(redis, 1).open("a", "b", db=db) as (a, b):
        await wait_until(lambda: all(part.on_duty for node in (a, b) for part in node.partitions), 20)
        await make_shop(a)
        await same(a, b, STORE)
        with trio.fail_after(40):
            while len(moved) < 3:
                await ordered(a, 2)
                await ordered(b, 2)
        await settled(a, b, seconds=60)
        assert not a.parked() + b.parked()
    check_whole(redis, db, new_database())


async def test_what_is_parked_waits_for_whoever_is_on_duty(
    redis: RedisServer, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that no database takes is parked with its stream; after a take-over, too, others go on, and a
    replay puts everything where it belongs.
    """
    refused = refuse(monkeypatch, "bad")
    db, cluster = new_database(), RedisCluster(redis)
    async with cluster.open("a", db=db) as (a,):
        await make_shop(a)
        await make_shop(a, "store:s2")
        for name in ("one", "bad", "two"):
            await a.ask(STORE, order(order=name), by=OWNER)
            await a.ask("store:s2", order(order=name + "2"), by=OWNER)
        await settled(a)
        first, *behind = a.parked()
        assert (first["reaction"], first["stream"], first["attempts"]) == ("history", STORE, 5)
        assert {one["stream"] for one in behind} == {STORE}
    async with cluster.open("b", db=db) as (b,):
        await settled(b)
        assert [one["id"] for one in b.parked()] == [first["id"], *(one["id"] for one in behind)]
        assert [row[1] for row in dump(db)["orders"] if row[0] == "s1"] == ["one"]
        refused.clear()
        await b.replay_parked(first["id"])
        await b.ask(STORE, order(order="three"), by=OWNER)
        await settled(b)
        assert not b.parked()
    check_whole(redis, db, new_database())


async def test_a_new_epoch_without_a_loss_changes_nothing(tmp_path: Path) -> None:
    """A restart under `everysec` may have lost something and has not."""
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "everysec") as redis:
        db = f"sqlite:///{tmp_path}/a.db"
        async with RedisCluster(redis).open("a", "b", db=db) as (a, b):
            await make_shop(a)
            await same(a, b, STORE)
            await ordered(a, 5)
            await settled(a, b)
            epochs = [part.epoch for part in a.partitions]
            redis.stop()
            redis.start()
            for number, epoch in enumerate(epochs):
                await begun(number, epoch, a, b)
            await ordered(b, 5)
            await settled(a, b, seconds=40)
            for node in (a, b):
                await wait_until(lambda node=node: node.statistics()["history_up"] == 1, 20)
                assert node.statistics()["history_lost"] == 0
        kept = check_whole(redis, db, f"sqlite:///{tmp_path}/b.db")
        found = [row["epoch"] for row in names("history_places", kept["history_places"])]
        assert not set(found) & set(epochs)


async def begun(number: int, old: str, *nodes: Node) -> None:
    """Wait until nodes have met the new epoch of a partition."""
    for node in nodes:
        await wait_until(lambda part=node.partitions[number]: part.epoch != old, 15)


async def test_what_the_log_lost_leaves_the_history(
    redis: RedisServer, tmp_path: Path, new_database: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    """Redis comes back with an older copy: what is gone there is set aside, with everything that it did, and
    the history goes on with the log; both nodes say so.
    """
    db, folder = new_database(), tmp_path / "redis"
    async with RedisCluster(redis).open("a", "b", db=db) as (a, b):
        await spend(a, b)
        shutil.copytree(folder / "appendonlydir", folder / "older")
        survived = len(dump(db)["events"])
        await ordered(a, 7)
        await ordered(b, 7)
        await settled(a, b)
        before = len(dump(db)["events"])
        epochs = [part.epoch for part in a.partitions]
        redis.stop()
        shutil.rmtree(folder / "appendonlydir")
        shutil.move(folder / "older", folder / "appendonlydir")
        redis.start()
        number = partition_of(STORE, 2)
        await begun(number, epochs[number], a, b)
        for node in (a, b):
            await patiently(lambda node=node: node.read(STORE), OndaError)
        await ordered(b, 3)
        await settled(a, b, seconds=40)
        lost = before - survived
        for node in (a, b):
            await wait_until(lambda node=node: node.statistics()["history_lost"] == lost, 20)
            await wait_until(lambda node=node: node.statistics()["history_up"] == 1, 20)
        counted = [node.metrics.history_errors.labels("lost")._value.get() for node in (a, b)]
        assert sum(counted) == lost
        assert not a.parked() + b.parked()
    assert "which were in the history" in caplog.text
    kept = check_whole(redis, db, new_database())
    gone = names("history_lost", kept["history_lost"])
    assert {row["epoch"] for row in gone} <= set(epochs)
    here = {row["id"] for row in names("events", kept["events"])}
    assert not here & {row["id"] for row in gone}
    placed = {
        msgspec.json.decode(row["body"])["data"]["order"] for row in gone if row["type"] == "OrderPlaced"
    }
    assert len(placed) == 14
    assert not placed & {row["order_id"] for row in names("orders", kept["orders"])} - here_orders(kept)


def here_orders(kept: dict[str, Any]) -> set[str]:
    """Orders that events of the history place."""
    events = names("events", kept["events"])
    return {row["order_id"] for row in events if row["type"] == "OrderPlaced"}


async def test_an_epoch_that_is_lost_itself(tmp_path: Path) -> None:
    """The history was in it already: what both still have is found by comparing."""
    folder, db = tmp_path / "redis", f"sqlite:///{tmp_path}/a.db"
    folder.mkdir()
    with redis_server(folder, "--appendonly", "yes", "--appendfsync", "everysec") as redis:
        async with RedisCluster(redis).open("a", "b", db=db) as (a, b):
            number = partition_of(STORE, 2)
            await make_shop(a)
            await same(a, b, STORE)
            await ordered(a, 3)
            await settled(a, b)
            first = a.partitions[number].epoch
            shutil.copytree(folder / "appendonlydir", folder / "older")
            redis.stop()
            redis.start()
            await begun(number, first, a, b)
            await ordered(b, 3)
            await settled(a, b, seconds=40)
            second = a.partitions[number].epoch
            assert [row["epoch"] for row in places(db)][number] == second
            before = len(dump(db)["events"])
            redis.stop()
            shutil.rmtree(folder / "appendonlydir")
            shutil.move(folder / "older", folder / "appendonlydir")
            redis.start()
            await begun(number, second, a, b)
            await ordered(a, 1)
            await settled(a, b, seconds=40)
            for node in (a, b):
                await wait_until(lambda node=node: node.statistics()["history_up"] == 1, 20)
                await wait_until(lambda node=node: node.statistics()["history_lost"] > 0, 20)
        kept = check_whole(redis, db, f"sqlite:///{tmp_path}/b.db")
        assert {row["epoch"] for row in names("history_lost", kept["history_lost"])} == {second}
        assert len(kept["events"]) < before


def places(db: str) -> list[dict[str, Any]]:
    """The places of all partitions."""
    return names("history_places", dump(db)["history_places"])


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


async def test_while_the_database_is_away_orders_go_on(redis: RedisServer, server: Server) -> None:
    """Both nodes say that it is away, partitions keep what it does not have yet, and it catches up."""
    db = server.new_database().render_as_string(hide_password=False)
    async with RedisCluster(redis).open("a", "b", db=db, refill_bytes=0) as (a, b):
        await make_shop(a)
        await same(a, b, STORE)
        await settled(a, b)
        await trio.to_thread.run_sync(server.stop)
        try:
            await ordered(a, 10)
            await ordered(b, 10)
            await settled(a, b, history=False)
            for node in (a, b):
                await wait_until(lambda node=node: not node.statistics()["history_up"], 20)
                await wait_until(lambda node=node: node.statistics()["history_lag"] > 0, 20)
                assert node.history is not None
                with pytest.raises(DatabaseDown):
                    await node.history.query(lambda database: database.read_places())
            for node in (a, b):
                for part in node.partitions:
                    with trio.fail_after(20):
                        while not await part.upkeep.take():  # a stream at which both nodes are may be missed
                            await trio.sleep(0.05)
                    assert node.history is not None
                    assert part.log.first <= node.history.position_of(part) + 1
            low = a.partition_of(STORE).log.first
        finally:
            await trio.to_thread.run_sync(server.start)
        await settled(a, b, seconds=60)
        for node in (a, b):
            await wait_until(lambda node=node: node.statistics()["history_up"] == 1, 20)
        assert not a.parked() + b.parked()
        with trio.fail_after(20):
            while a.partition_of(STORE).log.first <= low:
                await ordered(a, 1)
                await settled(a, b)
                for part in (*a.partitions, *b.partitions):
                    await part.upkeep.take()
    kept = dump(db)
    assert len(kept["events"]) == sum(
        row["position"] for row in names("history_places", kept["history_places"])
    )
    assert not kept["history_gaps"]
