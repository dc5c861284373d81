"""Questions to Redis beside appends: meeting a server, looking at partitions, reading, trimming.

Blocking, for threads. What is read may be read again, so a question whose line was lost is asked once more
on a fresh one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from engine.errors import ConfigError, LogFailed, LogMoved, LogTooNew, OndaError
from engine.log import frames
from engine.log.opening import new_epoch
from engine.log.redis_lines import Address, Away, Command, Cut, Line, has_moved, refusal_of
from engine.log.redis_route import Lines, Route
from engine.log.redis_scripts import FORK, FORMAT, MEET, MOVED, MOVING, READ, TRIM, Keys
from engine.records import Entry

READ_MAX = 1000
"""Records of one trip."""
TRIM_MAX = 256
"""Records that one run of the script takes away: nobody else is served meanwhile."""
ENTRY_BYTES = 700
"""About what an entry takes, until some have been seen."""

T = TypeVar("T")


class Gone(LogFailed):
    """Keys of the log are missing in Redis."""

    def __init__(self, partition: int, what: str) -> None:
        lost = f"{{onda:{partition}}}: {what} is missing in Redis (deleted, evicted, or never on disk)"
        super().__init__(f"{lost}; what was acknowledged is lost: restore it, or begin anew on purpose")
        self.partition = partition


class Refused(Exception):
    """Redis answered with an error that may pass."""


PASSING = (Away, Cut, Refused)
"""What goes wrong with a question that may be asked again."""


class Record(NamedTuple):
    """A record in a partition's log. `previous`: id of the one before it."""

    position: int
    id: str
    previous: str
    entry: Entry


class Meta(NamedTuple):
    """What a partition says about itself. `last`: id of the record at `head`."""

    epoch: str
    head: int
    first: int
    last: str


class Witness(NamedTuple):
    """A record that was acknowledged: where and which. `epoch`: in which, where that is kept."""

    position: int
    id: str
    epoch: str = ""


def meet(line: Line, partitions: Sequence[int], count: int, make: bool = False) -> dict[int, Meta | None]:
    """Meet a server before anything is appended over this line: begin a new epoch if this is another run of
    it, which may have lost something. `None` for partitions that are not there.

    Args:
        line: to the server.
        partitions: those that are on it.
        count: how many there are in all.
        make: make those that are missing.

    Raises:
        ConfigError: Redis has another number of partitions.
        LogMoved: the log goes on elsewhere, or a move into here was not finished.
        LogTooNew, ConfigError: it is laid out in another way.
        Gone: keys are missing, though not all of a partition's.
        Refused: not just now.
        Cut: the line was lost.
    """
    server, calls = line.server, []
    for partition in partitions:
        keys = Keys.of(partition)
        arguments = (server.run, new_epoch(os.urandom), int(server.safe), int(make), count, FORMAT)
        calls.append(((keys.meta, keys.log, keys.heads, keys.epochs), arguments))
    met: dict[int, Meta | None] = {}
    for partition, answer in zip(partitions, line.run(MEET, calls), strict=True):
        if isinstance(answer, Exception):
            raise Refused(f"{type(answer).__name__} {answer}") from answer
        if answer[0] == b"partitions":
            raise other_log(count, answer[1].decode())
        if answer[0] == b"format":
            check_format(answer[1])
        if answer[0] == b"gone":
            what = answer[1].decode()
            if what != "meta":
                raise Gone(partition, what)
            met[partition] = None
        else:
            met[partition] = read_meta(answer[1:])
    return met


def other_log(count: int, there: str) -> OndaError:
    """Return what to say of a Redis that has something else in place of a number of partitions."""
    if there == MOVING:
        return LogMoved("a move into this Redis was not finished: `onda migrate --again` begins it anew")
    if there == MOVED:
        back = "`onda migrate --undo` lets nodes use it again, without what came since"
        return LogMoved(f"the log in this Redis was moved into a data folder; {back}")
    return ConfigError(f"redis_partitions is {count}, but Redis has {there}")


def check_format(found: bytes | None) -> None:
    """Make sure that a log is laid out as this version does it.

    Raises:
        LogTooNew: by a newer version.
        ConfigError: by an older one.
    """
    number = int(found or 0)
    if number > FORMAT:
        raise LogTooNew(f"the log in this Redis has format {number}, this version reads {FORMAT}")
    if number < FORMAT:
        older = "a version of that time moves it into a data folder (`onda migrate --from`)"
        raise ConfigError(f"the log in this Redis has format {number}, this version reads {FORMAT}; {older}")


def read_meta(values: Sequence[Any]) -> Meta:
    """Read epoch, head, first and last as Redis gives them."""
    epoch, head, first, last = values
    return Meta(epoch.decode(), int(head), int(first), last.decode())


def read_records(found: Sequence[Any]) -> list[Record]:
    """Read the answer to XRANGE."""
    records = []
    for name, fields in found:
        entry, _ = frames.unpack_entry(fields[5])
        records.append(Record(int(name[:-2]), fields[1].decode(), fields[3].decode(), entry))
    return records


def read_message(data: bytes) -> tuple[str, list[Record]]:
    """Read a message of a partition's channel: the epoch and the records of one append.

    Raises:
        ValueError: it is none.
    """
    end = data.index(b"\n")
    epoch, position, previous = data[:end].decode().split(" ")
    records = []
    at, number = end + 1, int(position)
    while at < len(data):
        end = data.index(b"\n", at)
        name = data[at:end].decode()
        entry, at = frames.unpack_entry(data, end + 1)
        records.append(Record(number, name, previous, entry))
        number, previous = number + 1, name
    return epoch, records


def read_message_head(data: bytes) -> tuple[str, int]:
    """Read the epoch of a message, and the position of its first record; as `read_message`."""
    epoch, position, _ = data[: data.index(b"\n")].decode().split(" ")
    return epoch, int(position)


class Asking:
    """Asks questions, each from the thread that calls; the lines are kept for the next. Each meets its server
    with `greet` first.
    """

    def __init__(self, route: Route, greet: Callable[[Line, list[int]], None] | None = None) -> None:
        self.route = route
        self._greet = greet
        self._idle: list[Lines] = []
        self._lock = threading.Lock()
        self._entry_bytes = ENTRY_BYTES

    def ask(self, partition: int, question: Callable[[Line], T]) -> T:
        """Return what `question` makes of the line to a partition's server.

        Raises:
            Away, Cut, Refused: it cannot be asked.
        """
        again = True
        with self._some_lines() as lines:
            while True:
                address = None
                try:
                    address = self.route.addresses()[partition]
                    return question(lines.to(address))
                except PASSING:
                    if address is not None:
                        lines.drop(address)
                    self.route.forget()
                    if not again:
                        raise
                    again = False

    def ask_all(self, questions: Sequence[tuple[int, Command]]) -> list[Any]:
        """Ask partitions for the answers to commands, those of one server in one trip. Return each answer, or
        what went wrong with it: `Away`, `Cut`, `Refused`, `LogFailed`.
        """
        answers: list[Any] = [None] * len(questions)
        left = list(range(len(questions)))
        with self._some_lines() as lines:
            for _ in range(2):
                self._ask_servers(lines, questions, left, answers)
                left = [number for number in left if isinstance(answers[number], PASSING)]
                if not left:
                    break
                self.route.forget()
        return answers

    def _ask_servers(
        self, lines: Lines, questions: Sequence[tuple[int, Command]], left: list[int], answers: list[Any]
    ) -> None:
        """Get the answers to those questions that are `left`."""
        try:
            addresses = self.route.addresses()
        except Away as error:
            for number in left:
                answers[number] = error
            return
        servers: dict[Address, list[int]] = {}
        for number in left:
            servers.setdefault(addresses[questions[number][0]], []).append(number)
        for address, numbers in servers.items():
            try:
                found = lines.to(address).ask([questions[number][1] for number in numbers])
            except PASSING as error:
                found = [error] * len(numbers)
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = judged(answer)
            if any(isinstance(answers[number], PASSING) for number in numbers):
                lines.drop(address)

    @contextmanager
    def _some_lines(self) -> Iterator[Lines]:
        """Lines that nobody else uses meanwhile."""
        with self._lock:
            lines = self._idle.pop() if self._idle else Lines(self.route, self._greet)
        try:
            yield lines
        except BaseException:
            lines.close()
            raise
        with self._lock:
            self._idle.append(lines)

    def look(self, partitions: Sequence[int]) -> dict[int, Meta]:
        """Return what partitions of one server say about themselves.

        Raises:
            Gone: one is not there any more.
        """

        def question(line: Line) -> dict[int, Meta]:
            names = ("epoch", "head", "first", "last")
            role, *answers = line.call([("ROLE",), *(("HMGET", Keys.of(p).meta, *names) for p in partitions)])
            if good(role)[0] != b"master":  # it was one when the line was opened
                raise Refused(f"{line.address[0]}:{line.address[1]} is a replica now")
            told = {}
            for partition, answer in zip(partitions, answers, strict=True):
                if good(answer)[0] is None:
                    raise Gone(partition, "meta")
                told[partition] = read_meta(answer)
            return told

        return self.ask(partitions[0], question)

    def read(self, partition: int, after: int, bytes_max: int) -> tuple[list[Record], Meta]:
        """Return records after a position, about `bytes_max` (at least one, if there are any), and what the
        partition says afterwards.
        """
        keys = Keys.of(partition)
        count = max(1, min(READ_MAX, bytes_max // self._entry_bytes))

        def question(line: Line) -> tuple[list[Record], Meta]:
            (answer,) = line.run(READ, [((keys.meta, keys.log), (f"{after + 1}-0", count))])
            found, meta = good(answer)
            if meta[0] is None:
                raise Gone(partition, "meta")
            return read_records(found), read_meta(meta)

        records, meta = self.ask(partition, question)
        size = 0
        for number, record in enumerate(records, 1):
            size += frames.entry_bytes(record.entry)
            if size >= bytes_max:
                records = records[:number]
                break
        if records:
            self._entry_bytes = max(64, size // len(records))
        return records, meta

    def epochs(self, partition: int) -> list[tuple[str, int]]:
        """Return every epoch that there was, and after which position each began."""
        lines = self.ask(
            partition, lambda line: good(line.call([("LRANGE", Keys.of(partition).epochs, 0, -1)])[0])
        )
        words = [line.decode().split(" ") for line in lines]
        return [(name, int(position)) for name, position in words]

    def fork(self, partition: int, epoch: str, witness: Witness) -> Meta:
        """Begin a new epoch if a record that was acknowledged is not there; return what holds now."""
        keys = Keys.of(partition)

        def question(line: Line) -> Meta:
            arguments = (epoch, new_epoch(os.urandom), witness.position, witness.id, line.server.run)
            (answer,) = line.run(FORK, [((keys.meta, keys.log, keys.epochs), arguments)])
            if good(answer)[0] == b"gone":
                raise Gone(partition, "meta")
            return read_meta(answer[1:])

        return self.ask(partition, question)

    def trim(self, partition: int, upto: int, epoch: str, witness: Witness) -> int:
        """Let records at positions up to `upto` go, if the witness is there in this epoch; return the first
        that is kept.
        """
        keys = Keys.of(partition)
        arguments = (upto, TRIM_MAX, keys.at, epoch, witness.position, witness.id)

        def question(line: Line) -> int:
            while True:
                (answer,) = line.run(TRIM, [((keys.meta, keys.log, keys.heads), arguments)])
                if good(answer)[0] == b"gone":
                    raise Gone(partition, answer[1].decode())
                first: int = answer[1]
                if first > upto or answer[0] == b"lost":
                    return first

        return self.ask(partition, question)

    def close(self) -> None:
        """Close the lines that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for lines in idle:
            with suppress(OSError):
                lines.close()


def good(answer: Any) -> Any:
    """Return an answer that is no error.

    Raises:
        Refused: it may pass.
        LogFailed: a fault of ours.
    """
    if isinstance(answer, (*PASSING, LogFailed)):  # it was looked at before
        raise answer
    if isinstance(answer, Exception):
        if refusal_of(answer) is not None or has_moved(answer):
            raise Refused(f"{type(answer).__name__} {answer}")
        raise LogFailed(f"Redis: {answer}") from answer
    return answer


def judged(answer: Any) -> Any:
    """Return an answer, or what is wrong with it as `good` says."""
    try:
        return good(answer)
    except (*PASSING, LogFailed) as error:
        return error
