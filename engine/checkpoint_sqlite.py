"""The checkpoint of a node with a log of its own.

One SQLite file with `synchronous=FULL`. Everything that belongs to one moment is written in one transaction
together with the log position up to which it is complete; each state may be a little newer than that position
(replay skips by version). What reactions must not forget between two checkpoints (attempts, parked records)
is written at once.

All calls run on one worker thread at a time; the connection is used nowhere else.

A full disk raises `ReadOnly` and leaves the last checkpoint in force; any other fault of the file is
`LogFailed`.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec
import trio

from engine.answers import Answer, Known
from engine.checkpoint import Kept, Moment, Parked, SavedState
from engine.errors import CursorUnusable, LogCorrupt, LogFailed, ReadOnly
from engine.log import SharedLog

FORMAT = 1

ANSWERS_PER_STATEMENT = 500
"""Rows of eight values; SQLite takes 32,766 values."""
PAGE_BYTES = 16_384
"""Of a new file: an answer of two or three kilobytes fits in, without a page of its own for its rest."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE states (stream TEXT PRIMARY KEY, version INTEGER NOT NULL, state BLOB NOT NULL, crc INTEGER NOT
NULL,
    deadline_ms INTEGER) WITHOUT ROWID;
CREATE INDEX states_deadline ON states (deadline_ms) WHERE deadline_ms IS NOT NULL;
CREATE TABLE answers (stream TEXT NOT NULL, key TEXT NOT NULL, at_ms INTEGER NOT NULL, digest TEXT NOT NULL,
    cursor TEXT NOT NULL, version INTEGER NOT NULL, result BLOB NOT NULL, events BLOB NOT NULL,
    PRIMARY KEY (stream, key)) WITHOUT ROWID;
CREATE INDEX answers_at ON answers (at_ms);
CREATE TABLE positions (reaction TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reruns (reaction TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL);
CREATE TABLE attempts (reaction TEXT NOT NULL, position INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (reaction, position)) WITHOUT ROWID;
CREATE TABLE parked (id INTEGER PRIMARY KEY AUTOINCREMENT, reaction TEXT NOT NULL, stream TEXT NOT NULL,
    position INTEGER NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL, error TEXT NOT NULL,
    attempts INTEGER NOT NULL, at_ms INTEGER NOT NULL, UNIQUE (reaction, position));
"""

T = TypeVar("T")
_decode_bodies = msgspec.json.Decoder(list[msgspec.Raw]).decode

_TASKS = "CREATE TABLE IF NOT EXISTS tasks (task TEXT PRIMARY KEY, user TEXT NOT NULL) WITHOUT ROWID"
"""Came later than the others; a version that does not know it leaves it alone."""


class SqliteCheckpoint:
    """The open checkpoint file. `position`, `floor` and `refill` are those of the last one that was taken."""

    def __init__(self, db: sqlite3.Connection, file: str) -> None:
        self._db = db
        self._file = file
        self._limiter = trio.CapacityLimiter(1)
        self.position = 0
        self.floor = 0
        self.refill = 0

    async def _run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(self._guarded, work, limiter=self._limiter)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if self._db.in_transaction:
                self._db.rollback()
            if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise ReadOnly from error
            raise LogFailed(f"{self._file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise LogFailed(f"{self._file}: {error}") from error

    async def refresh(self) -> None:
        """Look again what was taken last: by this node, as nobody else writes here."""

    async def take(self, moment: Moment) -> None:
        """Write one checkpoint, all of it or nothing.

        Raises:
            ReadOnly: no space; the last one stays in force.
            LogFailed: the file cannot be written.
        """
        await self._run(lambda: self._take(moment))
        self.position = moment.position
        self.floor = moment.floor
        self.refill = moment.refill

    def _take(self, moment: Moment) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
            ((s.stream, s.version, s.state, zlib.crc32(s.state), s.deadline_ms) for s in moment.states),
        )
        insert_answers(db, moment.answers)
        db.execute("DELETE FROM answers WHERE at_ms < ?", (moment.horizon_ms,))
        db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", moment.positions.items())
        for reaction, position in moment.positions.items():
            db.execute("DELETE FROM attempts WHERE reaction = ? AND position <= ?", (reaction, position))
            db.execute("DELETE FROM reruns WHERE reaction = ? AND high <= ?", (reaction, position))
        for name in ("position", "floor", "refill"):
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, getattr(moment, name)))
        db.execute("COMMIT")

    async def load_states(self, streams: Iterable[str]) -> dict[str, SavedState]:
        """Return the saved states of those streams that have one.

        Raises:
            LogCorrupt: a state's bytes do not match their checksum.
        """
        wanted = list(streams)
        return await self._run(lambda: self._load_states(wanted))

    def _load_states(self, streams: list[str]) -> dict[str, SavedState]:
        found = {}
        for stream in streams:
            row = self._db.execute(
                "SELECT version, state, crc, deadline_ms FROM states WHERE stream = ?", (stream,)
            ).fetchone()
            if row is not None:
                if zlib.crc32(row[1]) != row[2]:
                    raise LogCorrupt(
                        self._file, 0, f"the saved state of {stream} does not match its checksum"
                    )
                found[stream] = SavedState(stream, row[0], row[1], row[3])
        return found

    async def load_known(self, stream: str) -> list[tuple[str, Known]]:
        """Return the commands of a stream whose answers are saved (without the answers), oldest first."""
        query = "SELECT key, at_ms, digest FROM answers WHERE stream = ? ORDER BY at_ms"
        rows = await self._run(lambda: self._db.execute(query, (stream,)).fetchall())
        return [(key, Known(at_ms, digest, None)) for key, at_ms, digest in rows]

    async def load_stream(self, stream: str, log: SharedLog, back: int, bytes_max: int) -> Kept:
        """See `Checkpoint.load_stream`: the state first, then the records."""
        saved = (await self.load_states([stream])).get(stream)
        known = await self.load_known(stream) if saved is not None else []
        version = saved.version if saved is not None else 0
        with suppress(CursorUnusable):  # ahead of what there is
            head, records = await log.read_stream(stream, max(0, version - back), bytes_max, oldest=True)
            if version <= head.version:
                return Kept(saved, known, head, records)
        return Kept(saved, known, *await log.read_stream(stream, 0, bytes_max, oldest=True))

    async def find_saved(self, stream: str, keys: Sequence[str]) -> list[str]:
        """Return those of some commands of a stream whose answers are saved."""
        wanted = set(keys)
        return [key for key, _ in await self.load_known(stream) if key in wanted]

    async def load_answer(self, stream: str, key: str) -> Answer | None:
        """Return a saved answer."""
        query = "SELECT cursor, version, result, events FROM answers WHERE stream = ? AND key = ?"
        row = await self._run(lambda: self._db.execute(query, (stream, key)).fetchone())
        if row is None:
            return None
        return Answer(row[0], row[1], [bytes(body) for body in _decode_bodies(row[3])], row[2])

    async def deadlines(self) -> list[tuple[str, int]]:
        """Return every saved stream that wants to be woken, and when (ms since 1970)."""
        query = "SELECT stream, deadline_ms FROM states WHERE deadline_ms IS NOT NULL"
        return await self._run(lambda: self._db.execute(query).fetchall())

    async def overdue(self, now_ms: int) -> list[tuple[str, int]]:
        """Return the saved streams that wanted to be woken by now, and when, the longest overdue first."""
        query = "SELECT stream, deadline_ms FROM states WHERE deadline_ms <= ? ORDER BY deadline_ms"
        return await self._run(lambda: self._db.execute(query, (now_ms,)).fetchall())

    async def stores(self) -> list[str]:
        """Return the names of every saved stream of kind `store`."""
        query = "SELECT stream FROM states WHERE stream >= 'store:' AND stream < 'store;'"
        return await self._run(lambda: [row[0] for row in self._db.execute(query)])

    async def positions(self) -> dict[str, int]:
        """Return each reaction's saved position: everything up to it is done."""
        return await self._run(lambda: dict(self._db.execute("SELECT reaction, position FROM positions")))

    async def add_rerun(self, reaction: str, low: int, high: int) -> None:
        """Write down that the records in (low, high] may have been tried before this start."""
        await self._write("INSERT INTO reruns VALUES (?, ?, ?)", (reaction, low, high))

    async def tries(self, reaction: str) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """Return a reaction's reruns as (low, high], and the counted attempts by position."""
        return await self._run(lambda: self._tries(reaction))

    def _tries(self, reaction: str) -> tuple[list[tuple[int, int]], dict[int, int]]:
        reruns = self._db.execute("SELECT low, high FROM reruns WHERE reaction = ?", (reaction,)).fetchall()
        attempts = self._db.execute("SELECT position, count FROM attempts WHERE reaction = ?", (reaction,))
        return reruns, dict(attempts)

    async def count_attempt(self, reaction: str, position: int, count: int) -> None:
        """Write down, before the handler runs, that this is its attempt number `count`."""
        await self._write("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", (reaction, position, count))

    async def park(self, parked: Parked) -> Parked:
        """Put a record aside, once per reaction and position; return it with its id."""
        return await self._run(lambda: self._park(parked))

    def _park(self, parked: Parked) -> Parked:
        self._db.execute("INSERT OR IGNORE INTO parked VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", parked[1:])
        query = "SELECT * FROM parked WHERE reaction = ? AND position = ?"
        return Parked(*self._db.execute(query, (parked.reaction, parked.position)).fetchone())

    async def unpark(self, id_: int) -> None:
        """Take a record out of the parking: it was handled or skipped."""
        await self._write("DELETE FROM parked WHERE id = ?", (id_,))

    async def parked(self) -> list[Parked]:
        """Return all parked records in the order of the log."""
        rows = await self._run(lambda: self._db.execute("SELECT * FROM parked ORDER BY position").fetchall())
        return [Parked(*row) for row in rows]

    async def add_task(self, task: str, user: str, gone: Iterable[str]) -> None:
        """Write down whose a task is, and that those in `gone` are nobody's (of this user's) any more. A task
        stays with the user who had it first.
        """
        await self._run(lambda: self._add_task(task, user, list(gone)))

    def _add_task(self, task: str, user: str, gone: list[str]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM tasks WHERE task = ? AND user = ?", [(old, user) for old in gone])
        if task:
            self._db.execute("INSERT OR IGNORE INTO tasks VALUES (?, ?)", (task, user))
        self._db.execute("COMMIT")

    async def task_user(self, task: str) -> str | None:
        """Return whose a task is."""
        query = "SELECT user FROM tasks WHERE task = ?"
        row = await self._run(lambda: self._db.execute(query, (task,)).fetchone())
        return None if row is None else str(row[0])

    async def count_tasks(self) -> int:
        """Return how many tasks are known."""
        row = await self._run(lambda: self._db.execute("SELECT COUNT(*) FROM tasks").fetchone())
        return int(row[0])

    async def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        await self._run(lambda: self._db.execute(statement, values))

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # in a cancelled scope the thread would never begin
            await self._run(self._db.close)


def insert_answers(db: sqlite3.Connection, answers: Sequence[tuple[str, str, Known]]) -> None:
    """Write answers in the order of their key, so that each page of the table is written once, and many with
    one statement: Python's lock is let go and taken back once per statement, in competition with trio's
    thread. (18,000 answers beside a busy thread: 25 us of processor time each and 9 us of that thread's;
    one by one and unsorted 122 and 160 us.)
    """
    rows = _answer_rows(sorted(answers, key=_stream_and_key))
    while some := list(islice(rows, ANSWERS_PER_STATEMENT)):
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(some))
        db.execute(f"INSERT OR REPLACE INTO answers VALUES {marks}", tuple(chain.from_iterable(some)))


def _stream_and_key(answer: tuple[str, str, Known]) -> tuple[str, str]:
    return answer[:2]


def _answer_rows(answers: Iterable[tuple[str, str, Known]]) -> Iterator[tuple[Any, ...]]:
    for stream, key, known in answers:
        answer = known.answer
        if answer is not None:
            events = b"[" + b",".join(answer.events) + b"]"
            yield stream, key, known.at_ms, known.digest, answer.cursor, answer.version, answer.result, events


async def open_checkpoint(file: str) -> SqliteCheckpoint:
    """Open a checkpoint file, making an empty one when there is none (`":memory:"`: on no disk).

    Raises:
        LogFailed: the file is damaged or cannot be opened.
        LogCorrupt: a newer version of Onda wrote it.
    """
    checkpoint = SqliteCheckpoint(await trio.to_thread.run_sync(open_file, file), file)
    rows = await checkpoint._run(lambda: dict(checkpoint._db.execute("SELECT name, value FROM meta")))
    checkpoint.position = rows.get("position", 0)
    checkpoint.floor = rows.get("floor", 0)
    checkpoint.refill = rows.get("refill", 0)
    return checkpoint


def open_file(file: str) -> sqlite3.Connection:
    """Open the database of a checkpoint; see `open_checkpoint`."""
    try:
        db = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=10.0)
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # changes nothing in a file that is there already
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        format_ = db.execute("PRAGMA user_version").fetchone()[0]
        if format_ == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
        elif format_ != FORMAT:
            db.close()
            raise LogCorrupt(file, 0, f"written in format {format_}, this version reads {FORMAT}")
        db.execute(_TASKS)
    except sqlite3.DatabaseError as error:
        raise LogFailed(f"{file}: {error}") from error
    return db
