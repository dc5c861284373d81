"""The checkpoint in a data folder, read and written as a whole; see `engine/checkpoint_sqlite.py`."""

from __future__ import annotations

import os
import pathlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain

import msgspec

from engine.answers import Answer, Known
from engine.checkpoint import Parked, SavedState
from engine.checkpoint_sqlite import FORMAT, insert_answers, open_file
from engine.errors import LogCorrupt, LogFailed
from engine.migrating.places import Places

ROWS = 500

_decode_bodies = msgspec.json.Decoder(list[msgspec.Raw]).decode


class KeptFile:
    """An open checkpoint file."""

    def __init__(self, db: sqlite3.Connection, file: str) -> None:
        self._db = db
        self._file = file

    # Reading

    def places(self) -> Places:
        """Return everything that is said in positions of the log."""
        db = self._db
        meta = dict(db.execute("SELECT name, value FROM meta"))
        return Places(
            meta.get("position", 0),
            meta.get("floor", 0),
            meta.get("refill", 0),
            dict(db.execute("SELECT reaction, position FROM positions")),
            db.execute("SELECT reaction, low, high FROM reruns").fetchall(),
            db.execute("SELECT reaction, position, count FROM attempts").fetchall(),
            [Parked(*row) for row in db.execute("SELECT * FROM parked ORDER BY position, id")],
        )

    def versions(self) -> Iterator[tuple[str, int]]:
        """Yield each saved stream and the version of its state."""
        yield from self._db.execute("SELECT stream, version FROM states")

    def states(self) -> Iterator[SavedState]:
        """Yield the saved states.

        Raises:
            LogCorrupt: one does not match its checksum.
        """
        for stream, version, state, crc, due_ms in self._db.execute(
            "SELECT stream, version, state, crc, deadline_ms FROM states"
        ):
            if zlib.crc32(state) != crc:
                raise LogCorrupt(self._file, 0, f"the saved state of {stream} does not match its checksum")
            yield SavedState(stream, version, state, due_ms)

    def answers(self) -> Iterator[tuple[str, str, Known]]:
        """Yield the saved answers, with their stream and key."""
        for stream, key, at_ms, digest, cursor, version, result, events in self._db.execute(
            "SELECT stream, key, at_ms, digest, cursor, version, result, events FROM answers"
        ):
            answer = Answer(cursor, version, [bytes(body) for body in _decode_bodies(events)], result)
            yield stream, key, Known(at_ms, digest, answer)

    def tasks(self) -> Iterator[tuple[str, str]]:
        """Yield tasks and their users."""
        yield from self._db.execute("SELECT task, user FROM tasks")

    # Writing

    def add_states(self, states: Iterable[SavedState]) -> None:
        """Write states."""
        self._db.executemany(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
            ((one.stream, one.version, one.state, zlib.crc32(one.state), one.deadline_ms) for one in states),
        )

    def add_answers(self, answers: Iterable[tuple[str, str, Known]]) -> None:
        """Write answers."""
        some: list[tuple[str, str, Known]] = []
        for answer in chain(answers, (None,)):
            if answer is not None:
                some.append(answer)
            if some and (answer is None or len(some) == ROWS):
                insert_answers(self._db, some)
                some = []

    def add_tasks(self, tasks: Iterable[tuple[str, str]]) -> None:
        """Write tasks."""
        self._db.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?)", tasks)

    def add_places(self, places: Places) -> None:
        """Write what is said in positions of the log."""
        db = self._db
        for name in ("position", "floor", "refill"):
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, getattr(places, name)))
        db.executemany("INSERT INTO positions VALUES (?, ?)", places.positions.items())
        db.executemany("INSERT INTO reruns VALUES (?, ?, ?)", places.reruns)
        db.executemany("INSERT INTO attempts VALUES (?, ?, ?)", places.attempts)
        db.executemany(
            "INSERT INTO parked VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", (one[1:] for one in places.parked)
        )


@contextmanager
def reading(file: str) -> Iterator[KeptFile]:
    """Open a checkpoint file for reading, an empty one when there is none.

    Raises:
        LogCorrupt: a newer version wrote it.
        LogFailed: it is damaged.
    """
    with _said(file), closing(_open_for_reading(file)) as db:
        yield KeptFile(db, file)


@contextmanager
def writing(file: str) -> Iterator[KeptFile]:
    """Make a checkpoint file: all of it is there in the end, or nothing.

    Raises:
        LogFailed: the disk does not take it.
    """
    with _said(file), closing(open_file(file)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield KeptFile(db, file)
        db.execute("COMMIT")


def _open_for_reading(file: str) -> sqlite3.Connection:
    if not os.path.exists(file):
        return open_file(":memory:")
    db = sqlite3.connect(f"{pathlib.Path(file).absolute().as_uri()}?mode=ro", uri=True)
    if (format_ := db.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
        db.close()
        raise LogCorrupt(file, 0, f"written in format {format_}, this version reads {FORMAT}")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'tasks'").fetchone():
        db.execute("CREATE TEMP TABLE tasks (task TEXT, user TEXT)")  # came later than the others
    return db


@contextmanager
def _said(file: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise LogFailed(f"{file}: {error}") from error
