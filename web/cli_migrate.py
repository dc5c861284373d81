"""`onda migrate`: a shop's log into a Redis that nodes share, or back into a data folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click
from msgspec.structs import replace

from engine import Config, load
from engine.config import hide_password
from engine.errors import ConfigError, LogAway, LogFailed

if TYPE_CHECKING:
    from engine.history.database import Database
    from engine.history.places import Place
    from engine.migrating import Report

T = TypeVar("T")


@click.command()
@click.option("--to", "to", metavar="URL", help="Move into this Redis, which must be empty.")
@click.option("--from", "from_", metavar="URL", help="Bring back from this Redis into an empty data folder.")
@click.option("--partitions", type=int, metavar="N", help="Of the log in Redis; fixed from then on.")
@click.option("--again", is_flag=True, help="Take away what an unfinished move has left, and begin anew.")
@click.option("--undo", is_flag=True, help="Only let what such a move has left be used again.")
@click.option("--accept-loss", is_flag=True, help="Let pass settings of Redis that may lose what it had.")
@click.option("--data", metavar="DIR", help="Data folder.")
@click.option("--db", metavar="URL", help="Database of the history; none: leave it behind.")
@click.option("--config", "file", metavar="FILE", help="Settings in TOML.")
def migrate(
    to: str | None,
    from_: str | None,
    partitions: int | None,
    again: bool,
    undo: bool,
    accept_loss: bool,
    file: str | None,
    **options: str | None,
) -> None:
    """Move a shop from its data folder into a Redis that nodes share, or back. No server may run."""
    if (to is None) == (from_ is None):
        raise click.UsageError("say either --to URL or --from URL")
    config = load({**options, "redis_partitions": partitions}, file)[0]
    try:
        if undo:
            _undo(config, to, from_)
        elif to is not None:
            _move_to(config, to, again=again, accept_loss=accept_loss)
        elif from_ is not None:
            _move_from(config, from_, again=again)
    except OSError as error:
        raise LogFailed(str(error)) from error


def _move_to(config: Config, url: str, *, again: bool, accept_loss: bool) -> None:
    from engine.migrating import to_redis  # here, as redis-py takes its time to load
    from web.cli_check_redis import check_redis

    if check_redis(url, accept_loss=accept_loss):
        raise ConfigError("this Redis may lose what it acknowledged: mend that, or say --accept-loss")
    shown, began_s = hide_password(url), time.monotonic()
    report = to_redis(
        config.data,
        url,
        config.redis_partitions,
        again=again,
        name=f"into {shown}",
        seen=lambda epoch, head: _check_history(config, epoch, head, again=again),
        ready=lambda report: _split_history(config, report),
        told=_show,
    )
    _print(report, f"{config.data} is in {shown} now", time.monotonic() - began_s)
    if _has_history(config):
        print("the history goes on with the partitions: name its database with --db at each node")
    print(f"{config.data} is left as it was, but `onda serve` refuses it: it has the mark log/MOVED")
    print(f"next: onda serve --log {shown}, with redis_partitions {report.partitions}, on each node")


def _move_from(config: Config, url: str, *, again: bool) -> None:
    from engine.migrating import Sizes, from_redis

    _check_no_history(config)
    shown, began_s = hide_password(url), time.monotonic()
    sizes = Sizes(config.segment_bytes, config.pad_bytes, config.reserve_bytes)
    report = from_redis(config.data, url, sizes, again=again, told=_show)
    _print(report, f"the log in {shown} is in {config.data} now", time.monotonic() - began_s)
    if report.fresh:
        print("Redis has lost records, or may have when it ended: a new epoch begins, with snapshots for all")
    print(f"{shown} is left as it was, but nodes refuse it: it is marked as moved")
    print(f"next: onda serve --data {config.data}")


def _undo(config: Config, to: str | None, from_: str | None) -> None:
    from engine.migrating import undo_from_redis, undo_to_redis

    if to is not None:
        done, what = undo_to_redis(config.data, first=lambda: _take_back(config, to)), config.data
    else:
        assert from_ is not None
        done, what = undo_from_redis(from_), hide_password(from_)
    said = "can be used again, as it was when it was left" if done else "was not marked as moved"
    print(f"{what} {said}")


def _take_back(config: Config, url: str) -> None:
    """Take into the folder what must not be undone with the move, and let its history go on with it.

    Raises:
        HistoryFailed: its database does not answer.
    """
    from engine.migrating import bring_revoked

    if _has_history(config) and not _ask(config, _join):
        more = "the history has records of the nodes, too, and cannot go on with this log"
        print(f"{more}: name another database with --db (`onda history --rebuild` fills it)")
    again = "a token that was revoked there since the move counts again: revoke it again"
    try:
        count = bring_revoked(config.data, url)
    except LogAway as error:
        print(f"{error}; {again}")
        return
    if count is None:
        print(f"there is no log in {hide_password(url)}; {again}")
    elif count:
        print(f"tokens that were revoked there since the move, and are here now, too: {count}")


def _print(report: Report, headline: str, took_s: float) -> None:
    rate = report.records / max(took_s, 0.001)
    print(f"{headline}: epoch {report.epoch}")
    print(
        f"{report.records} records of {report.streams} streams, {report.partitions} partitions, "
        f"{report.bytes / 1e6:.1f} MB in {took_s:.1f} s ({rate:,.0f} a second)"
    )
    print(
        f"{report.states} states, {report.answers} answers, {report.tasks} tasks, "
        f"{report.reactions} reactions, {report.parked} parked records"
    )
    print(f"read back: the same counts, heads and digest ({report.digest[:16]})")


_STEPS = {"checkpoint": "the checkpoint", "close": "closing what is left", "open": "opening what was made"}


def _show(what: str, count: int) -> None:
    if sys.stderr.isatty():
        text = _STEPS.get(what, f"{what} {count} records")
        print(f"\r{text:50}", end="\n" if what == "open" else "", file=sys.stderr, flush=True)


def _check_history(config: Config, epoch: str, head: int, *, again: bool) -> None:
    """See that the history has all of the log: nodes on Redis do not give it what it lacks.

    Raises:
        ConfigError: it has not.
        HistoryFailed: its database does not answer.
    """
    if not _has_history(config):
        return
    places = _ask(config, _places)
    if any(place.partition is not None for place in places):
        mine = {place.epoch for place in places} == {epoch}  # an unfinished move of this log has split it
        if not (again and mine and _ask(config, _join)):
            of = "the history's database has that of a shared log"
            raise ConfigError(f"{of}: name the one that is beside this log, or say --db none")
    place = _place(config)
    if place.position and (place.position, place.epoch) != (head, epoch):
        behind = f"the history has records up to {place.position} of epoch {place.epoch}, the log {head}"
        raise ConfigError(f"{behind} of {epoch}: serve until `onda history` says {head}, or say --db none")
    if not place.position and head:
        raise ConfigError(f"the history has none of {head} records: serve until it has, or say --db none")


def _split_history(config: Config, report: Report) -> None:
    """Let the history, which has all of the log, go on in the partitions.

    Raises:
        HistoryFailed: its database does not answer; the move is not finished.
    """
    from engine.history.places import Place
    from web.cli_history import HistoryFailed

    if not _has_history(config):
        return
    ends = [Place(at, report.epoch, name, number) for number, (at, name) in enumerate(report.ends)]
    try:
        if (place := _place(config)).epoch:
            _ask(config, lambda database: database.split_place(place, ends))
    except HistoryFailed as error:
        left = "the move is not finished: say the same with --again, or --undo"
        raise HistoryFailed(f"{error}; {left}") from error


def _check_no_history(config: Config) -> None:
    """See that no history counts positions that this folder will not have.

    Raises:
        ConfigError: there is one.
    """
    if not config.db or config.db == "none":
        return
    places = _ask(config, _places)
    if any(place.position or place.partition is not None for place in places):
        has = "the history's database has records by positions of another log"
        raise ConfigError(f"{has}: name an empty one (`onda history --rebuild` fills it), or say --db none")


def _has_history(config: Config) -> bool:
    from engine.history.database import FILE  # here, as SQLAlchemy takes its time to load

    if config.db:
        return config.db != "none"
    return os.path.exists(os.path.join(config.data, FILE))


def _ask(config: Config, ask: Callable[[Database], T]) -> T:
    """Return what the history's database answers.

    Raises:
        HistoryFailed: it does not.
    """
    from web.cli_history import asked, open_database

    database = open_database(replace(config, log_url=""))  # that of the folder is meant, whoever is next
    try:
        return asked(database, ask)
    finally:
        database.close()


def _places(database: Database) -> list[Place]:
    database.make()
    return database.read_places()[0]


def _join(database: Database) -> bool:
    database.make()
    return database.join_place()


def _place(config: Config) -> Place:
    return _ask(config, _open)


def _open(database: Database) -> Place:
    return database.open()
