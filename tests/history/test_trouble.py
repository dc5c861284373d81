"""What goes wrong with the history's database, or with one record, delays the history and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trio

from engine import Node, open_node
from engine.domain.times import to_text
from engine.history import keeper
from engine.history.database import Database
from engine.history.rows import Rows
from engine.mailbox import Committed
from tests.engine.shop import OWNER, STORE, ManualClock, make_shop, order, wait_until
from tests.history.evening import config, dump, settled, spend
from tests.history.servers import Server


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


async def test_a_database_that_is_gone_delays_only_the_history(tmp_path: Path, server: Server) -> None:
    """It ends in the middle and comes back; orders are taken all the time, the log waits, nothing is lost."""
    db = server.new_database().render_as_string(hide_password=False)
    settings = config(str(tmp_path), db, segment_bytes=1 << 16, refill_bytes=0, timer_tick_s=1.0)
    async with open_node(settings) as node:
        await make_shop(node)
        await settled(node)
        await trio.to_thread.run_sync(server.stop)
        try:
            for number in range(150):
                await node.ask(STORE, order(order=f"n{number}"), by=OWNER)
            await settled(node, history=False)
            await wait_until(lambda: not node.statistics()["history_up"], 20)
            await node.upkeep.take()
            assert node.history is not None
            assert node.log.first <= node.history.position + 1 < node.log.head
        finally:
            await trio.to_thread.run_sync(server.start)
        await settled(node, seconds=60)
        assert not node.parked()
        await node.ask(STORE, order(), by=OWNER)
        await settled(node)
        await node.upkeep.take()
        assert node.log.first > 1
        head = node.log.head
    assert [row[0] for row in dump(db)["events"]] == list(range(1, head + 1))


async def test_a_database_that_is_not_there_yet_is_waited_for(tmp_path: Path, server: Server) -> None:
    """A node starts without it."""
    db = server.new_database().render_as_string(hide_password=False)
    await trio.to_thread.run_sync(server.stop)
    try:
        async with open_node(config(str(tmp_path), db)) as node:
            await make_shop(node)
            await wait_until(lambda: node.metrics.history_errors.labels("database")._value.get() > 0, 20)
            with pytest.raises(keeper.DatabaseDown):
                assert node.history is not None
                await node.history.query(lambda database: database.open())
            await trio.to_thread.run_sync(server.start)
            await settled(node, seconds=60)
    finally:
        if not server.running:
            server.start()
    assert len(dump(db)["events"]) > 0


def refuse(monkeypatch: pytest.MonkeyPatch, *orders: str) -> set[str]:
    """Make these orders records that no database takes; the set may be changed."""
    refused = set(orders)
    take = Rows.take

    def choosy(self: Rows, records: Iterable[Committed]) -> None:
        for record in records:
            if (
                getattr(record.event, "order", None) in refused
                and type(record.event).__name__ == "OrderCreated"
            ):
                raise ValueError("not this one")
            take(self, (record,))

    monkeypatch.setattr(Rows, "take", choosy)
    return refused


async def test_a_record_that_nobody_takes_is_parked_with_its_stream(
    tmp_path: Path, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 + 4 attempts; other streams go on; a replay puts everything where it belongs, as if nothing was."""
    refused = refuse(monkeypatch, "bad")
    data, db = str(tmp_path / "data"), new_database()
    async with open_node(config(data, db)) as node:
        await make_shop(node)
        await make_shop(node, "store:s2")
        for name in ("a", "bad", "c"):
            await node.ask(STORE, order(order=name), by=OWNER)
            await node.ask("store:s2", order(order=name + "2"), by=OWNER)
        await settled(node)
        first, *behind = node.parked()
        assert (first["reaction"], first["stream"], first["attempts"]) == ("history", STORE, 5)
        assert "not this one" in first["error"]
        assert {parked["stream"] for parked in behind} == {STORE}
        parked = len(behind) + 1
    async with open_node(config(data, db)) as node:
        assert len(node.parked()) == parked
        await node.ask(STORE, order(order="d"), by=OWNER)
        await settled(node)
        assert len(node.parked()) == parked + 2
        assert [row[1] for row in dump(db)["orders"] if row[0] == "s1"] == ["a"]
        refused.clear()
        await node.replay_parked(first["id"])
        assert not node.parked()
        await node.ask(STORE, order(order="e"), by=OWNER)
        await settled(node)
        head = node.log.head
    kept = dump(db)
    assert [row[0] for row in kept["events"]] == list(range(1, head + 1))
    assert sorted(row[1] for row in kept["orders"] if row[0] == "s1") == ["a", "bad", "c", "d", "e"]


async def test_skipping_leaves_one_record_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are there."""
    refuse(monkeypatch, "bad")
    db = f"sqlite:///{tmp_path}/a.db"
    async with open_node(config(str(tmp_path / "data"), db)) as node:
        await make_shop(node)
        for name in ("bad", "c"):
            await node.ask(STORE, order(order=name), by=OWNER)
        await settled(node)
        await node.skip_parked(node.parked()[0]["id"])
        assert not node.parked()
        assert len(dump(db)["events"]) == node.log.head - 1


async def test_a_slow_database_does_not_hold_the_loop_or_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it hangs, orders are answered, and the node ends in time; afterwards nothing is missing."""
    hangs = threading.Event()
    begun = threading.Event()
    write = Database.write

    def hanging(self: Database, *args: object) -> None:
        begun.set()
        hangs.wait(20)
        write(self, *args)  # type: ignore[arg-type]

    data, db = str(tmp_path / "data"), f"sqlite:///{tmp_path}/a.db"
    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", hanging)
        with trio.fail_after(5):
            async with open_node(config(data, db)) as node:
                await make_shop(node)
                await wait_until(begun.is_set)
                for name in "abc":
                    await node.ask(STORE, order(order=name), by=OWNER)
                assert node.history is not None
                assert node.history.lag > 0
    hangs.set()
    async with open_node(config(data, db)) as node:
        await settled(node)
        assert len(dump(db)["events"]) == node.log.head


async def test_the_history_of_another_log_is_left_alone(tmp_path: Path) -> None:
    """Neither mixed nor held against the shop: it takes orders, and says what is wrong."""
    db = f"sqlite:///{tmp_path}/a.db"
    async with open_node(config(str(tmp_path / "one"), db)) as node:
        await spend(node)
    before = dump(db)
    async with open_node(config(str(tmp_path / "two"), db)) as node:
        await make_shop(node)
        await wait_until(lambda: node.metrics.history_errors.labels("database")._value.get() > 0)
        assert not node.statistics()["history_up"]
        for number in range(3 * len(before["events"])):
            await node.ask(STORE, order(order=f"n{number}"), by=OWNER)
        await settled(node, history=False)
    assert dump(db) == before


async def test_old_events_go_and_the_rest_stays(tmp_path: Path, new_database: Callable[[], str]) -> None:
    """In steps; orders and the audit have no end."""
    clock = ManualClock()
    data, db = str(tmp_path / "data"), new_database()
    async with open_node(config(data, db), clock=clock) as node:
        await make_shop(node, stock=9)
        await node.ask(STORE, order(order="old"), by=OWNER)
        await settled(node)
        old = node.log.head
        clock.ms += 401 * 86_400_000
        await node.ask(STORE, order(order="new"), by=OWNER)
        await settled(node)
        before = dump(db)
    async with open_node(config(data, db), clock=clock) as node:
        assert node.history is not None
        horizon = to_text(clock.ms - 400 * 86_400_000)
        await wait_until(lambda: dump(db)["events"][0][0] == old + 1)
        assert await node.history.query(lambda database: database.forget(horizon, 3)) == 0
    after = dump(db)
    assert after["events"] == before["events"][old:]
    assert {name: rows for name, rows in after.items() if name != "events"} == {
        name: rows for name, rows in before.items() if name != "events"
    }


async def test_events_go_in_small_steps(tmp_path: Path) -> None:
    """Never more than was said at once."""
    db = f"sqlite:///{tmp_path}/a.db"
    async with open_node(config(str(tmp_path / "data"), db, history_days=0)) as node:
        await spend(node)
        count = len(dump(db)["events"])
        assert await _forget(node, 10) == 10
        assert [row[0] for row in dump(db)["events"]] == list(range(11, count + 1))


async def _forget(node: Node, limit: int) -> int:
    assert node.history is not None
    return await node.history.query(lambda database: database.forget("9999", limit))
