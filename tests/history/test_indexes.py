"""Indexes of the history: those that came later are added to tables that were there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from engine.history import tables
from engine.history.database import Database, database_url

NEW = {"events_id", "events_cause"}


def indexes(database: Database) -> set[str]:
    return {str(one["name"]) for one in inspect(database._engine).get_indexes("events")}


def without_them(url: str) -> Database:
    """A database whose tables were made before there were these indexes."""
    made = database_url(url, "")
    assert made is not None
    database = Database(made)
    database.open()
    for index in [one for one in tables.events.indexes if one.name in NEW]:
        index.drop(database._engine)
    assert not NEW & indexes(database)
    return database


def test_indexes_are_added_once(new_database: Callable[[], str]) -> None:
    """With the next start, on every database; a start after that finds them."""
    database = without_them(new_database())
    for _ in range(2):
        database.open()
        assert indexes(database) >= NEW
    database.close()


def test_an_index_that_cannot_be_made_holds_nothing_up(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is for speed."""
    database = without_them(f"sqlite:///{tmp_path_factory.mktemp('db')}/history.db")

    def refuse(*_: object, **__: object) -> None:
        raise OperationalError(
            "CREATE INDEX", None, Exception("canceling statement due to statement timeout")
        )

    for index in tables.events.indexes:
        monkeypatch.setattr(index, "create", refuse)
    assert database.open().position == 0
    assert "events_cause" in caplog.text
    database.close()


def test_the_index_of_causes_is_used(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What follows from an event is found without reading everything."""
    url = make_url(f"sqlite:///{tmp_path_factory.mktemp('db')}/history.db")
    database = Database(url)
    database.open()
    with database.connect() as connection:
        for column in ("id", "cause"):
            plan = connection.execute(
                text(f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {column} IN ('a', 'b')")
            )
            assert f"events_{column}" in str(plan.fetchall())
    database.close()
