"""Whose history a database holds: of which log, and how it goes on when a log is copied into a shared one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import open_node
from engine.history import tables
from engine.history.database import Database, database_url
from engine.history.places import Place
from engine.history.rebuild import read_log
from engine.log import Basis
from engine.log.redis_shared import RedisLog
from engine.mailbox import Committed
from engine.records import Entry
from tests.engine.cluster import RedisCluster
from tests.engine.shop import OWNER, STORE, make_shop, order, wait_until
from tests.engine.test_cluster import same
from tests.history.evening import config, dump, names, settled, spend
from tests.log.redis_site import ALWAYS, needs_redis, opened
from tests.relays.redis_server import RedisServer, redis_server

PARTITIONS = 3


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", *ALWAYS) as server:
        yield server


def opened_at(db: str) -> Database:
    url = database_url(db, "")
    assert url is not None
    return Database(url)


async def copied(log: RedisLog, records: list[Committed], upto: int) -> list[Place]:
    """Copy records into a shared log; return the place in each partition that belongs to `upto`."""
    last: dict[str, str] = {}
    places = [Place(0, part.epoch, "", part.number) for part in log.partitions]
    for record in records:
        part = log.partition_of(record.stream)
        basis = Basis(part.epoch, last.get(record.stream, ""), [record.id])
        entry = Entry(record.stream, record.version, b"", record.body)
        position = await part.append([entry], basis)
        last[record.stream] = record.id
        if record.position <= upto:
            places[part.number] = places[part.number]._replace(position=position, last_id=record.id)
    return places


@needs_redis
async def test_a_history_goes_on_when_its_log_is_copied_into_a_shared_one(
    tmp_path: Path, redis: RedisServer, new_database: Callable[[], str]
) -> None:
    """It was some records behind: those come from the partitions. Nothing is there twice, nothing is missing,
    and each product's counts go on where they were.
    """
    async with open_node(config(str(tmp_path / "data"))) as node:
        await spend(node)
    records = [record for _, record in read_log(f"{tmp_path}/data/log")]
    behind, db = len(records) - 20, new_database()
    database = opened_at(db)
    place = Place(behind, "wal", records[behind - 1].id)
    database.write(records[:behind], database.adopt(database.open(), "wal", None, ""), place)
    async with opened(redis, PARTITIONS) as log:
        database.split_place(place, await copied(log, records, behind))
    database.close()

    async with RedisCluster(redis, PARTITIONS).open("a", "b", db=db) as (a, b):
        await settled(a, b)
        for node in (a, b):
            await node.ask(STORE, order(), by=OWNER)
        await settled(a, b)
        assert not a.parked() + b.parked()
        total = sum(part.log.head for part in a.partitions)
    kept = dump(db)
    events = names("events", kept["events"])
    assert len(events) == total > len(records)
    assert [row["id"] for row in events[:behind]] == [record.id for record in records[:behind]]
    versions = Counter(row["stream"] for row in events)
    assert {(row["stream"], row["version"]) for row in events} == {
        (stream, version) for stream, count in versions.items() for version in range(1, count + 1)
    }
    counts: dict[tuple[str, str], Any] = {}
    for row in names("stock_audit", kept["stock_audit"]):
        key = row["store"], row["product"]
        assert row["on_hand_before"] == counts.get(key, 0), row
        counts[key] = row["on_hand_after"]
    assert not kept["history_gaps"]


@needs_redis
async def test_the_history_of_another_shared_log_is_left_alone(tmp_path: Path, redis: RedisServer) -> None:
    """Also in partitions that have no records yet; orders go on, and it is told."""
    db = f"sqlite:///{tmp_path}/a.db"
    async with RedisCluster(redis, PARTITIONS).open("a", db=db) as (a,):
        await make_shop(a)
        await settled(a)
        await wait_until(lambda: a.statistics()["history_up"] == 1, 20)
    before = dump(db)
    (tmp_path / "other").mkdir()
    with redis_server(tmp_path / "other", *ALWAYS) as other:
        async with RedisCluster(other, PARTITIONS).open("a", "b", db=db) as (a, b):
            await make_shop(a)
            await same(a, b, STORE)
            for number in range(40):
                await b.ask(STORE, order(order=f"n{number}"), by=OWNER)
            await settled(a, b, history=False)
            errors = [node.metrics.history_errors.labels("database")._value for node in (a, b)]
            await wait_until(lambda: sum(one.get() for one in errors) >= PARTITIONS, 20)
            assert not a.statistics()["history_up"] + b.statistics()["history_up"]
    assert dump(db) == before


@needs_redis
async def test_each_kind_of_log_leaves_the_other_s_history_alone(tmp_path: Path, redis: RedisServer) -> None:
    """A shop's own, and one in Redis, both ways."""
    own, shared = f"sqlite:///{tmp_path}/own.db", f"sqlite:///{tmp_path}/shared.db"
    async with open_node(config(str(tmp_path / "data"), own)) as node:
        await make_shop(node)
        await settled(node)
    cluster = RedisCluster(redis, PARTITIONS)
    async with cluster.open("a", db=shared) as (a,):
        await make_shop(a)
        await settled(a)
    before = dump(own), dump(shared)
    async with open_node(config(str(tmp_path / "data"), shared)) as node:
        await wait_until(lambda: node.metrics.history_errors.labels("database")._value.get() > 0, 20)
        assert not node.statistics()["history_up"]
    async with cluster.open("a", db=own) as (a,):
        await wait_until(lambda: a.metrics.history_errors.labels("database")._value.get() > 0, 20)
        assert not a.statistics()["history_up"]
    assert (dump(own), dump(shared)) == before


async def test_a_database_from_before_partitions_keeps_opening(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """What it has stays, and what it lacks is made; also when only the report is asked of it first."""
    data, db = str(tmp_path / "data"), new_database()
    async with open_node(config(data, db)) as node:
        await make_shop(node)
        await settled(node)
        head = node.log.head
    database = opened_at(db)
    with database.connect() as connection:
        for table in (tables.history_places, tables.history_lost):
            table.drop(connection)
        connection.commit()
        from engine.history.report import make_report

        assert make_report(connection, "s1", "2026-11-20").position == head
    database.close()
    async with open_node(config(data, db)) as node:
        await node.ask(STORE, order(), by=OWNER)
        await settled(node)
        head = node.log.head
    kept = dump(db)
    assert [row[0] for row in kept["events"]] == list(range(1, head + 1))
    assert kept["history_position"][0][1] == tables.FORMAT
    assert kept["history_places"] == kept["history_lost"] == []
