"""`onda trace EVENT_ID`: one event end to end, out of log, history and checkpoint, beside a server too.

What is known exactly is when each record was decided (its envelope's time) and what followed from what (the
`cause` in each envelope). A record that follows can only be decided once its cause is durable: so the first
of them bounds that time. Records of topics have an `event_id` of their own, which their publishers know: it
names them too, and the groups that handle customers send what follows under ids made of it. How far reactions
are is what the last checkpoint says; what relays sent outside is among them. Who watched is not written down
per event: a running server's metrics have averages (`--url`).
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx
import msgspec

from engine import Config, load
from engine.customers import GROUPS
from engine.domain.customer import EVENT_TYPE, TOPIC
from engine.domain.times import to_ms
from engine.domain.topic import PARTITIONS_MAX
from engine.errors import ConfigError, OndaError
from engine.log.backup import LOG
from engine.log.disk import OSDisk
from engine.log.frames import Frame, unpack_entries
from engine.log.segments import load as load_segment
from engine.log.segments import scan, segment_numbers, segment_path
from engine.opening import CHECKPOINT
from web.cli_history import asked, open_database

if TYPE_CHECKING:
    from engine.history.database import Database

FOLLOWING_MAX = 1_000
AVERAGES = {
    "durable": "onda_append_seconds",
    "delivered": "onda_delivery_lag_seconds",
    "relayed": "onda_relay_seconds",
}
"""Step -> histogram whose average says how long it takes on the server that runs."""


class NoSuchEvent(OndaError):
    """Neither log nor history has the event."""

    code = "not_found"


class Record(msgspec.Struct, omit_defaults=True):
    """What is shown of one record. `event_id`: what a record of a topic is called by its publisher."""

    position: int
    id: str
    stream: str
    version: int
    type: str
    time: str
    by: str
    cause: str
    event_id: str = ""


class Step(msgspec.Struct, omit_defaults=True):
    """What happened to the event: `at` exactly, or `by` then at the latest; `ms` after it was received."""

    step: str
    at: str | None = None
    by: str | None = None
    ms: int | None = None
    note: str = ""


class Trace(msgspec.Struct):
    """All that is known of one event. `causes` begin with the nearest; `follows` are in the log's order."""

    event: Record
    causes: list[Record]
    steps: list[Step]
    follows: list[Record]


def add_commands(cli: click.Group) -> None:
    """Add the command of this module."""
    cli.add_command(trace)


@click.command()
@click.argument("event_id")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--url", help="A running server, for how long steps take there on average.")
@click.option("--data", metavar="DIR", help="Data folder.")
@click.option("--log", "log_url", metavar="URL", help="Redis that has the log of several nodes.")
@click.option("--db", metavar="URL", help="Database of the history.")
@click.option("--config", "file", metavar="FILE", help="Settings in TOML.")
def trace(
    event_id: str,
    as_json: bool,
    url: str | None,
    data: str | None,
    log_url: str | None,
    db: str | None,
    file: str | None,
) -> None:
    """Follow one event end to end: received, durable, published, reacted, delivered, with times."""
    config = load({"data": data, "db": db}, file)[0]
    log_url, folder = log_url or config.log_url, config.data
    records = {record.id: record for record in _history(config, event_id, bool(log_url))}
    if log_url:
        made = _trace_redis(event_id, records, log_url)
    else:
        records |= {record.id: record for record in _log(os.path.join(folder, LOG))}
        made = make_trace(event_id, records.values(), _positions(folder), _parked(folder))
    if url is not None:
        made.steps += _averages(url)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(made)).decode() if as_json else tell(made))
    sys.stdout.write("\n")


def make_trace(
    event_id: str,
    records: Iterable[Record],
    positions: dict[str, int],
    parked: dict[tuple[str, int], str],
    *,
    shared: bool = False,
) -> Trace:
    """Put together what records, positions of reactions and parked records say of an event.

    Args:
        shared: positions are of several partitions, and say nothing about which of two was first.

    Raises:
        NoSuchEvent: none of the records is it.
    """
    ordered = sorted(records, key=lambda record: (record.time if shared else "", record.position))
    by_id = {record.id: record for record in ordered}
    published = {record.event_id: record for record in ordered if record.type == "Published"}
    seen = {record.event_id: record for record in ordered if record.type == EVENT_TYPE}

    def cause_of(record: Record) -> Record | None:
        name, _, group = record.cause.rpartition(".")
        if group in GROUPS and name in published:
            return published[name]
        if record.type == "Published" and record.event_id in seen:
            return seen[record.event_id]
        return by_id.get(record.cause)

    event = find_event(event_id, by_id, published)
    causes: list[Record] = []
    above = cause_of(event)
    while above is not None and above not in causes:
        causes.append(above)
        above = cause_of(above)
    below: dict[str, list[Record]] = {}
    for record in ordered:
        before = cause_of(record)
        if before is not None:
            below.setdefault(before.id, []).append(record)
    family, waiting = {event.id}, [event.id]
    while waiting:
        new = [record.id for record in below.get(waiting.pop(), ()) if record.id not in family]
        family.update(new)
        waiting += new
    follows = [record for record in ordered if record.id in family and record is not event][:FOLLOWING_MAX]
    return Trace(event, causes, list(_steps(event, follows, positions, parked)), follows)


def find_event(event_id: str, by_id: Mapping[str, Record], published: Mapping[str, Record]) -> Record:
    """Return the record of an id, its own or that of a topic's event.

    Raises:
        NoSuchEvent: none of the records is it.
    """
    event = by_id.get(event_id) or published.get(event_id) or published.get(event_id.lower())
    if event is None:
        raise NoSuchEvent(f"neither the log nor the history has an event {event_id}")
    return event


def _trace_redis(event_id: str, records: dict[str, Record], url: str) -> Trace:
    from engine.log.redis_kept import KeptLog  # here, as redis-py takes its time to load
    from web.cli_trace_redis import read_reached, read_records

    with closing(KeptLog(url)) as kept:
        records |= {record.id: record for record in read_records(kept)}
        published = {record.event_id: record for record in records.values() if record.type == "Published"}
        event = find_event(event_id, records, published)
        return make_trace(event_id, records.values(), *read_reached(kept, event.stream), shared=True)


def _steps(
    event: Record, follows: list[Record], positions: dict[str, int], parked: dict[tuple[str, int], str]
) -> Iterator[Step]:
    from engine.history.places import place_in  # here, as SQLAlchemy takes its time to load

    def after(time: str) -> int:
        return to_ms(time) - to_ms(event.time)

    yield Step("received", at=event.time, ms=0, note=f"by {event.by}")
    first = follows[0].time if follows else None
    first_ms = after(first) if first is not None else None
    within, of = place_in(event.position)
    yield Step("durable", by=first, ms=first_ms, note=f"at position {within}{of} of the log")
    told = f"to the feed of {event.stream}, with the answer to its sender"
    yield Step("published", by=first, ms=first_ms, note=told)
    for reaction, position in sorted(positions.items()):
        error = parked.get((reaction, event.position))
        done = "done" if position >= event.position else "not yet, by the last checkpoint"
        yield Step(f"reacted: {reaction}", note=done if error is None else f"PARKED: {error}")
    for record in follows:
        to = f"{record.stream} {record.version} {record.type}"
        yield Step("delivered", at=record.time, ms=after(record.time), note=f"to {to}")


def _log(folder: str) -> Iterator[Record]:
    disk = OSDisk()
    found: list[Record] = []

    def visit(frame: Frame) -> None:
        for number, entry in enumerate(unpack_entries(frame.payload, frame.entries)):
            found.append(read_record(frame.first_position + number, entry.body))

    try:
        numbers = segment_numbers(disk, folder)
        for number in numbers:
            scan(*load_segment(disk, segment_path(folder, number)), visit)
    except OSError as error:
        raise ConfigError(f"there is no log: {error.filename or error}") from error
    return iter(found)


def read_record(position: int, body: bytes) -> Record:
    """Return what an envelope says of a record."""
    envelope = msgspec.json.decode(body)
    name = envelope["data"].get("event_id")
    named = {"event_id": name} if isinstance(name, str) else {}
    return msgspec.convert(envelope | {"position": position} | named, Record)


def _history(config: Config, event_id: str, shared: bool) -> list[Record]:
    """Return the event and all that belongs to it out of the history, if there is one."""
    nowhere = not config.db and (shared or not Path(config.data, "history.db").exists())
    if config.db == "none" or nowhere:
        return []
    database = open_database(config)
    try:
        return asked(database, lambda it: _family(it, event_id))
    finally:
        database.close()


def _family(database: Database, event_id: str) -> list[Record]:
    from sqlalchemy import and_, or_, select

    from engine.history import tables

    events = tables.events.c
    places = [f"topic:{TOPIC}/{number}" for number in range(PARTITIONS_MAX)]
    found: dict[str, Record] = {}

    def named(name: str, type_: str, where: Any) -> Any:
        text = events.body.contains(f'"event_id":"{name}"', autoescape=True)
        return and_(where, events.type == type_, text)

    def above(record: Record) -> Any:
        name, _, group = record.cause.rpartition(".")
        if group in GROUPS:
            return named(name, "Published", events.stream.in_(places))
        if record.type == "Published" and record.by.startswith("store:"):
            return named(record.event_id, EVENT_TYPE, events.stream == record.by)
        return events.id == record.cause

    def below(record: Record) -> Any:
        if record.type == EVENT_TYPE:
            return named(record.event_id, "Published", events.stream.in_(places))
        causes = [record.id]
        if record.type == "Published":
            causes += [f"{record.event_id}.{group}" for group in GROUPS]
        return events.cause.in_(causes)

    with database.connect() as connection:

        def look(condition: Any) -> list[Record]:
            query = select(events.position, events.body).where(condition).limit(FOLLOWING_MAX)
            rows = [read_record(position, body.encode()) for position, body in connection.execute(query)]
            new = [row for row in rows if row.id not in found]
            found.update((row.id, row) for row in new)
            return new

        start = look(events.id == event_id)
        if not start:
            names = (event_id, event_id.lower())
            topics = events.stream.like("topic:%")
            start = look(or_(*(named(name, "Published", topics) for name in names)))
        rows = start
        while rows := [before for row in rows if row.cause for before in look(above(row))]:
            pass
        rows = start
        while rows and len(found) < FOLLOWING_MAX:
            rows = [after for row in rows for after in look(below(row))]
    return list(found.values())


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _positions(folder: str) -> dict[str, int]:
    return dict(_checkpoint(folder, "SELECT reaction, position FROM positions"))


def _parked(folder: str) -> dict[tuple[str, int], str]:
    rows = _checkpoint(folder, "SELECT reaction, position, error FROM parked")
    return {(reaction, position): error for reaction, position, error in rows}


def _checkpoint(folder: str, question: str) -> list[Any]:
    path = Path(folder, CHECKPOINT)
    if not path.exists():
        return []
    with closing(_open(path)) as database:
        return database.execute(question).fetchall()


def _averages(url: str) -> Iterator[Step]:
    """Yield how long steps take on average, since that server started."""
    try:
        text = httpx.get(f"{url.rstrip('/')}/metrics", timeout=5).text
    except httpx.HTTPError as error:
        raise ConfigError(f"{url}: {type(error).__name__}") from error
    for step, name in AVERAGES.items():
        sums, counts = ([float(v) for v in _values(text, f"{name}_{what}")] for what in ("sum", "count"))
        if sum(counts):
            yield Step(f"average: {step}", note=f"{1000 * sum(sums) / sum(counts):.2f} ms ({name})")


def _values(text: str, name: str) -> list[str]:
    return re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)


def tell(made: Trace) -> str:
    """Return a trace for people to read."""
    event = made.event
    lines = [f"{event.type} {event.id}", f"  {event.stream} version {event.version}, by {event.by}"]
    for cause in made.causes:
        earlier_ms = to_ms(event.time) - to_ms(cause.time)
        where = f"({cause.stream} {cause.version}), {earlier_ms} ms earlier"
        lines.append(f"  caused by {cause.type} {cause.id} {where}")
    if not made.causes and event.cause:
        lines.append(f"  caused by {event.cause}")
    for step in made.steps:
        at = f"by {step.by}" if step.by else step.at or ""
        ms = "" if step.ms is None else f"+{step.ms} ms"
        lines.append(f"{at:27} {ms:>10}  {step.step:18} {step.note}".rstrip())
    return "\n".join(lines)
