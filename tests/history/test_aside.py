"""Records that a shared log lost leave no trace in the history but in `history_lost`."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import open_node
from engine.history.database import Database, database_url
from engine.history.places import Moved, NotOurs, Place
from engine.history.rebuild import read_log
from engine.mailbox import Committed
from engine.payments import Gateways
from tests.history.evening import Bank, config, dump, pay_first, spend

PARTITION = 3


async def an_evening(folder: Path) -> list[Committed]:
    """The records of all kinds of orders and payments, as a shop's own log has them."""
    async with open_node(config(str(folder)), gateways=Gateways({"sandbox": Bank()})) as node:
        await spend(node)
        await pay_first(node)
    return [record for _, record in read_log(f"{folder}/log")]


def opened(db: str) -> tuple[Database, Place]:
    """A database with a place at the beginning of a partition."""
    url = database_url(db, "")
    assert url is not None
    database = Database(url, shared=True)
    return database, database.adopt(database.open(PARTITION), "e0", None, "")


def told(db: str) -> dict[str, Any]:
    """What the tables say, without what says how it came to that."""
    found = dump(db)
    return {name: rows for name, rows in found.items() if name not in ("history_places", "history_lost")}


async def test_what_was_lost_is_as_if_it_had_never_been(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """Back to any record and on again, many times: after each step the tables are, row by row, those of a
    database that was told just that much.
    """
    records = await an_evening(tmp_path / "data")
    plain = f"sqlite:///{tmp_path}/plain.db"
    database, place = opened(plain)
    after: list[dict[str, Any]] = [told(plain)]
    for record in records:
        reached = place._replace(position=record.position, last_id=record.id)
        database.write((record,), place, reached)
        place = reached
        after.append(told(plain))
    database.close()

    db = new_database()
    database, place = opened(db)
    drawn = random.Random(7)
    lost = 0
    for step in range(12):
        onward = drawn.randint(place.position + 1, len(records)) if step else len(records)
        reached = place._replace(position=onward, last_id=records[onward - 1].id)
        database.write(records[place.position : onward], place, reached)
        assert told(db) == after[onward], onward
        back = drawn.randint(0, onward)
        place, count = database.set_aside(reached, back, f"e{step + 1}", "now")
        assert (count, place.position, place.epoch) == (onward - back, back, f"e{step + 1}")
        assert place.last_id == (records[back - 1].id if back else "")
        assert told(db) == after[back], (onward, back)
        lost += count
        if place.position == len(records):
            break
    assert len(dump(db)["history_lost"]) == lost == database.read_places()[1] > 0
    assert dump(db)["history_lost"][-1][1].startswith("e")
    database.close()


async def test_who_comes_late_takes_nothing_out(tmp_path: Path, new_database: Callable[[], str]) -> None:
    """The place is compared first."""
    records = await an_evening(tmp_path / "data")
    db = new_database()
    database, place = opened(db)
    reached = place._replace(position=len(records), last_id=records[-1].id)
    database.write(records, place, reached)
    before = dump(db)
    with pytest.raises(Moved):
        database.set_aside(place._replace(position=5), 3, "e1", "now")
    with pytest.raises(Moved):
        database.write(records[:5], place, place._replace(position=5))
    with pytest.raises(Moved):
        database.look(place)
    assert dump(db) == before
    database.close()


async def test_the_history_of_one_log_becomes_that_of_its_partitions(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """Places are split once, and only where they are; then the database is the shared log's. What came along
    cannot be taken out, and another kind of log is refused.
    """
    records = await an_evening(tmp_path / "data")
    db = new_database()
    url = database_url(db, "")
    assert url is not None
    database = Database(url)
    reached = Place(len(records), "wal", records[-1].id)
    database.write(records, database.adopt(database.open(), "wal", None, ""), reached)
    before = dump(db)["events"]
    parts = [Place(0, "p0", "", 0), Place(9, "p1", "i9", 1)]
    with pytest.raises(NotOurs, match="of one node's own log"):
        database.open(0)
    with pytest.raises(Moved):
        database.split_place(reached._replace(position=1), parts)
    database.split_place(reached, parts)
    assert [database.open(0), database.open(1)] == parts
    assert database.read_places() == (parts, 0)
    with pytest.raises(NotOurs, match="of a shared log"):
        database.open()
    with pytest.raises(NotOurs, match="the log before this one"):
        database.set_aside(parts[1], 8, "p2", "now")
    assert dump(db)["events"] == before
    database.close()
