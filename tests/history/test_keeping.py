"""The history follows the log: complete, once, the same when it is made again, on every database."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import open_node
from engine.errors import ConfigError
from engine.history.database import Database, database_url
from engine.history.reading import Page, read_events
from engine.history.rebuild import rebuild
from engine.history.report import Report, day_of, make_report
from engine.history.tables import metadata
from engine.payments import Gateways
from tests.engine.shop import OWNER, STORE, order, state_of
from tests.history.evening import PREPAID, Bank, config, dump, names, pay_first, settled, spend


async def test_what_is_kept_is_what_is_rebuilt_and_it_sums_to_the_ledger(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """Row by row; through a restart in the middle; and the audit of each product ends at its count."""
    data, live, again = str(tmp_path / "data"), new_database(), new_database()
    bank = Gateways({"sandbox": Bank()})
    async with open_node(config(data, live), gateways=bank) as node:
        await spend(node)
        await pay_first(node)
        head = node.log.head
    async with open_node(config(data, live), gateways=bank) as node:
        await node.ask(STORE, order(order="late"), by=OWNER)
        await settled(node)
        states = {stream[6:]: await state_of(node, stream) for stream in (STORE, "store:s2", PREPAID)}
        assert node.history is not None
        report = await node.history.query(lambda database: _report(database, node.clock.now_ms()))
        page = await node.history.query(_page)
    kept = dump(live)
    assert [row[0] for row in kept["events"]] == list(range(1, len(kept["events"]) + 1))
    assert len(kept["events"]) > head
    _rebuild(data, again)
    rebuilt = dump(again)
    for table, rows in kept.items():
        assert rebuilt[table] == rows, table
    _check_report(report)
    assert [msgspec.json.decode(body)["data"]["order"] for body in page.bodies] == ["p-a", "p-b"]
    assert page.next is not None
    _check_ledger(kept, states)
    _check_entities(kept, states)
    assert len(kept["shipping"]) == 5
    assert [row[2:4] for row in kept["coupon_issue"]] == [("ten", "u1")]
    assert [row[1] for row in kept["campaigns"]] == ["happy"]


def _report(database: Database, now_ms: int) -> Report:
    with database.connect() as connection:
        return make_report(connection, "s3", day_of(now_ms, "Asia/Seoul", "00:00"))


def _page(database: Database) -> Page:
    with database.connect() as connection:
        return read_events(
            connection, PREPAID, start="2020", end="9999", type_="OrderCreated", after=1, limit=2
        )


def _check_report(report: Report) -> None:
    """Two orders were paid for, one of them less a coupon; one went back whole, of the other a part."""
    assert (report.gross.amount, report.refunds.amount, report.net.amount) == (49_000, 32_777, 16_223)
    for money in (report.gross, report.refunds, report.net):
        assert money.amount == money.taxable + money.tax_free
    assert [(method.method, method.net) for method in report.methods] == [("sandbox", 16_223)]
    assert [(found.coupon, found.orders, found.amount) for found in report.discounts] == [("ten", 1, 1000)]
    assert report.orders == {"placed": 2, "cancelled": 2, "expired": 0, "rejected": 0}
    assert sorted(given.amount for given in report.given_back) == [7_777, 25_000]
    assert {given.by for given in report.given_back} == {OWNER}
    assert not report.unsettled


def _check_ledger(kept: dict[str, Any], states: dict[str, Any]) -> None:
    """Each change begins where the one before ended, and the last ends at what is there."""
    none = (0, 0, 0, 0)
    last: dict[tuple[str, str], tuple[int, ...]] = defaultdict(lambda: none)
    for row in names("stock_audit", kept["stock_audit"]):
        before, after = (
            tuple(row[f"{what}_{when}"] for what in ("available", "held", "pinned", "on_hand"))
            for when in ("before", "after")
        )
        assert before == last[row["store"], row["product"]], row
        assert sum(after[:3]) == after[3]
        last[row["store"], row["product"]] = after
    for store, state in states.items():
        for name, product in state["products"].items():
            counts = (product["stock"] or 0, product["held"], product["pinned"])
            assert last[store, name][:3] == counts, (store, name)
    assert any(sum(counts[1:3]) for counts in last.values())


def _check_entities(kept: dict[str, Any], states: dict[str, Any]) -> None:
    """Orders, payments, attempts and refunds are as the shop shows them."""
    orders = {(row["store"], row["order_id"]): row for row in names("orders", kept["orders"])}
    payments = {(row["store"], row["payment"]): row for row in names("payments", kept["payments"])}
    attempts = {row["attempt"]: row for row in names("payment_attempts", kept["payment_attempts"])}
    refunds = {row["refund"]: row for row in names("refunds", kept["refunds"])}
    for store, state in states.items():
        for name, seen in state["orders"].items():
            row = orders[store, name]
            for field in ("status", "number", "total", "paid", "refunded", "discount", "vat", "coupon"):
                assert row[field] == seen[field], (name, field)
        for name, seen in state["payments"].items():
            row = payments[store, name]
            for field in ("status", "amount", "taxable", "tax_free", "vat", "paid_at", "refunded"):
                assert row[field] == seen[field], (name, field)
            if seen["attempt"] is not None:
                assert attempts[seen["attempt"]["attempt"]]["status"] == seen["attempt"]["status"]
            for refund in seen["refunds"]:
                assert refunds[refund["refund"]]["status"] == refund["status"] == "DONE"
    assert sorted(row["status"] for row in payments.values()) == ["DECLINED", "PAID", "PAID"]
    assert sorted(row["amount"] for row in refunds.values()) == [7_777, 25_000]
    assert {("s1", "o-a"), ("s1", "O-A"), ("s2", "o-a")} <= set(orders)
    assert orders["s1", "o-a"]["reason"] == "없음 \N{REPLACEMENT CHARACTER}"
    assert orders["s3", "p-a"]["discount"] == 1000


def _rebuild(data: str, db: str, *, partial: bool = False) -> None:
    url = database_url(db, "")
    assert url is not None
    database = Database(url)
    try:
        rebuild(f"{data}/log", database, now_ms=0, partial=partial)
    finally:
        database.close()


async def test_a_rebuild_wants_an_empty_database_and_the_whole_log(tmp_path: Path) -> None:
    """What is there is not mixed with what comes; a log without its beginning has to be asked for."""
    data, live, again = str(tmp_path / "data"), f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    async with open_node(config(data, live, segment_bytes=1 << 16, refill_bytes=0)) as node:
        await spend(node)
        for number in range(150):
            await node.ask("store:s2", order(order=f"n{number}", table="9"), by=OWNER)
            if number % 50 == 49:
                await settled(node)
                await node.upkeep.take()
        assert node.log.first > 1
    with pytest.raises(ConfigError, match="not empty"):
        _rebuild(data, live)
    with pytest.raises(ConfigError, match="cannot be rebuilt"):
        _rebuild(data, again)
    _rebuild(data, again, partial=True)
    kept, rebuilt = dump(live), dump(again)
    first = rebuilt["events"][0][0]
    assert first > 1
    assert rebuilt["events"] == kept["events"][first - 1 :]
    assert rebuilt["history_gaps"] == [(1, first - 1, "1970-01-01T00:00:00.000Z")]


async def test_nothing_is_kept_twice_when_the_node_forgets_how_far_it_was(tmp_path: Path) -> None:
    """The place is in the database itself: an old checkpoint changes nothing."""
    data, db = str(tmp_path / "data"), f"sqlite:///{tmp_path}/a.db"
    async with open_node(config(data, db)) as node:
        await spend(node)
        before = dump(db)
        node.history._position = 0  # type: ignore[union-attr] # what the checkpoint gets to see
        await node.upkeep.take()
    async with open_node(config(data, db)) as node:
        await settled(node)
    assert dump(db) == before


def test_where_it_is() -> None:
    """The setting names the database; drivers are chosen here, and passwords are not shown."""
    shown = {
        "": "sqlite:///shop/history.db",
        "sqlite:////tmp/x.db": "sqlite:////tmp/x.db",
        "postgresql://a:b@h/d": "postgresql+psycopg://a:***@h/d",
        "postgres://a:b@h/d": "postgresql+psycopg://a:***@h/d",
        "mysql://a:b@h/d": "mysql+pymysql://a:***@h/d",
        "mariadb://a:b@h/d": "mariadb+pymysql://a:***@h/d",
    }
    for db, text in shown.items():
        assert str(database_url(db, "shop")) == text
    assert database_url("none", "shop") is None
    for wrong in ("oracle://h", "nonsense", "://"):
        with pytest.raises(ConfigError):
            database_url(wrong, "shop")


def test_no_password_is_shown() -> None:
    """Wherever in the URL it stands."""
    for db in ("postgresql://a:hush@h/d", "postgresql://h/d?user=a&password=hush", "mysql://h/d?passwd=hush"):
        url = database_url(db, "")
        assert url is not None
        assert "hush" not in Database(url).shown


def test_every_table_is_documented() -> None:
    """docs/history.md has a row for each, and names no column that is not there."""
    text = (Path(__file__).parents[2] / "docs" / "history.md").read_text()
    for table in metadata.sorted_tables:
        row = re.search(rf"^\| `{table.name}` \|.*\|(.*)\|$", text, re.MULTILINE)
        assert row is not None, table.name
        named = set(re.findall(r"`([a-z_]+)`", row[1])) - {
            "_before",
            "_after",
            "available",
            "held",
            "pinned",
            "on_hand",
        }
        assert named <= {column.name for column in table.columns}, table.name
