"""Connections to Redis: the log's one door to redis-py. Blocking, so nothing here runs in trio's thread.

A line is one connection to one server. It never connects anew behind the caller's back and never sends
anything twice: redis-py's own retries would do both, and an append must know whether it may have been sent.
A line that had any trouble is closed for good. A server that is not the primary is as good as none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import redis
from redis.connection import Connection
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from engine.errors import LogAway, ReadOnly, Unavailable
from engine.log.redis_scripts import Script

Address = tuple[str, int]
Command = Sequence[Any]
"""The words of a command; a script in place of the first stands for running it: `(script, count, *keys,
*arguments)`, where `count` is how many of the words are keys.
"""
T = TypeVar("T")

REDIS_MIN = (7, 0)
AT_ONCE = 16
"""Commands that are packed and sent together."""


class Away(Exception):
    """No connection: nothing was sent. The text says why, without the password."""


class Cut(Exception):
    """The connection was lost: what was sent may have been done."""


class Server(NamedTuple):
    """A server that a line met. `run`: the name of its process; `safe`: a restart of it cannot have lost what
    it had acknowledged.
    """

    run: str
    safe: bool


class Line:
    """One connection to the primary at an address.

    Raises:
        Away: it cannot be reached, or is no primary.
    """

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self.address = address
        self._connection: Any = connect(address, options)
        try:
            self.server = self._greet()
        except Cut as error:
            raise Away(str(error)) from None
        except Exception:
            self.close()
            raise

    def call(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one trip; return their answers, errors among them as exceptions.

        Raises:
            Cut: the connection is closed now.
        """
        line = self._connection

        def work() -> list[Any]:
            for start in range(0, len(commands), AT_ONCE):  # Redis works on some while the next are packed
                packed = line.pack_commands(commands[start : start + AT_ONCE])
                line.send_packed_command(packed, check_health=False)
            return [_read(line) for _ in commands]

        return self._guarded(work)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (redis.RedisError, OSError) as error:
            self.close()
            raise Cut(f"{self.address[0]}:{self.address[1]}: {error}") from None

    def run(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run a script once for each (keys, arguments), in one trip; return the answers as `call`.

        A server that does not know the script is sent its text, for all calls again: those that were done
        in between must be such that this changes nothing.
        """
        answers = self.call([("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls])
        if any(isinstance(answer, NoScriptError) for answer in answers):
            answers = self.call([("EVAL", script.text, len(keys), *keys, *args) for keys, args in calls])
        return answers

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As `call`, for commands that have nothing to do with each other: a script that the server does not
        know is sent once more, as text.
        """
        scripts = {n: words[0] for n, words in enumerate(commands) if isinstance(words[0], Script)}
        asked = [
            ("EVALSHA", scripts[n].sha, *words[1:]) if n in scripts else words
            for n, words in enumerate(commands)
        ]
        answers = self.call(asked)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            texts = [("EVAL", scripts[n].text, *commands[n][1:]) for n in unknown]
            for n, answer in zip(unknown, self.call(texts), strict=True):
                answers[n] = answer
        return answers

    def say(self, command: Sequence[Any]) -> None:
        """Send a command and wait for no answer: for listening (see `hear`). Raises as `call`."""
        line = self._connection
        self._guarded(lambda: line.send_packed_command(line.pack_command(*command), check_health=False))

    def has_more(self, timeout_s: float) -> bool:
        """Wait for something to hear, at most so long; return whether there is."""
        return bool(self._guarded(lambda: self._connection.can_read(timeout_s)))

    def hear(self) -> Any:
        """Return the next message."""
        return self._guarded(self._connection.read_response)

    def close(self) -> None:
        """Close it; a second call has no effect."""
        self._connection.disconnect()

    def _greet(self) -> Server:
        server, replication, settings = self.call(
            [("INFO", "server"), ("INFO", "replication"), ("CONFIG", "GET", "append*")]
        )
        for answer in (server, replication):
            if isinstance(answer, Exception):
                raise Away(f"{self.address[0]}:{self.address[1]}: {answer}")
        about, role = read_info(server), read_info(replication)
        if role.get("role") != "master":
            raise Away(f"{self.address[0]}:{self.address[1]} is a replica")
        version = tuple(int(part) for part in about.get("redis_version", "0").split(".")[:2])
        if version < REDIS_MIN:
            raise Away(f"Redis {about.get('redis_version')} is too old: 7.0 is needed")
        known = {} if isinstance(settings, Exception) else read_pairs(settings)
        promoted = int(role.get("second_repl_offset", "-1")) >= 0
        synced = known.get("appendonly") == "yes" and known.get("appendfsync") == "always"
        return Server(about.get("run_id", ""), synced and not promoted)


def _read(line: Any) -> Any:
    try:
        return line.read_response(disconnect_on_error=False)
    except (ResponseError, BusyLoadingError) as error:
        return error


def connect(address: Address, options: dict[str, Any]) -> Any:
    """Connect as the URL says.

    Raises:
        Away: that is not possible.
    """
    options = dict(options)
    make = options.pop("connection_class", Connection)
    line: Any = make(host=address[0], port=address[1], **options)
    try:
        line.connect()
    except (redis.RedisError, OSError) as error:
        line.disconnect()
        raise Away(f"{address[0]}:{address[1]}: {error}") from None
    return line


def read_info(answer: bytes) -> dict[str, str]:
    """Read the answer to INFO."""
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def read_pairs(answer: Sequence[bytes]) -> dict[str, str]:
    """Read names and values that stand one after the other."""
    words = [word.decode("utf-8", "replace") for word in answer]
    return dict(zip(words[::2], words[1::2], strict=True))


def refusal_of(error: Exception) -> Unavailable | None:
    """Return what an error answer means for those who wait: nothing was done, and later it may work. `None`:
    it is none of those, so a fault of ours.
    """
    text = str(error)
    word = text.partition(" ")[0]
    if isinstance(error, OutOfMemoryError) or word == "OOM":
        return ReadOnly("Redis has no memory left: reading works, orders come back when there is some")
    if word == "MISCONF":
        return ReadOnly("Redis cannot write to its disk: reading works, orders come back when it can")
    if word in ("NOREPLICAS", "NOGOODSLAVE"):
        return ReadOnly("Redis has too few replicas: reading works, orders come back with them")
    away = (ReadOnlyError, BusyLoadingError, ClusterDownError, AskError, TryAgainError, NoPermissionError)
    if isinstance(error, away) or word in ("MASTERDOWN", "BUSY", "NOAUTH"):
        return LogAway(f"Redis takes nothing just now: {type(error).__name__} {text}")
    return None


def has_moved(error: Exception) -> bool:
    """Return whether an answer says that another server is to be asked."""
    return isinstance(error, AskError | ReadOnlyError | ClusterDownError)
