"""What is kept of a log in Redis, read from outside: it meets no server, so it begins no epoch and makes no
partition. Blocking, for the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from engine.errors import ConfigError, LogAway
from engine.log.redis_asking import Asking, Meta, Refused, check_format, good, other_log
from engine.log.redis_lines import Away, Cut
from engine.log.redis_route import Route
from engine.log.redis_scripts import Keys
from engine.records import Entry

CHUNK_BYTES = 1 << 20

T = TypeVar("T")


class KeptLog:
    """The log at a URL. `partitions`: how many it has.

    Raises:
        ConfigError: there is none, or the URL makes no sense.
        LogMoved: it was moved into a data folder, or a move into here was not finished.
        LogTooNew, ConfigError: it is laid out in another way.
        LogAway: Redis does not answer.
    """

    def __init__(self, url: str) -> None:
        self.partitions = 1
        self._asking = Asking(Route(url, 1, "onda-reader"))
        count, layout = self.ask(0, "HMGET", Keys.of(0).meta, "partitions", "format")
        self.close()
        if count is None:
            raise ConfigError("there is no log in this Redis")
        if not count.isdigit():
            raise other_log(0, count.decode())
        check_format(layout)
        self.partitions = int(count)
        self._asking = Asking(Route(url, self.partitions, "onda-reader"))

    def ask(self, partition: int, *command: Any) -> Any:
        """Return the answer to a command that only reads, of the server that has a partition."""
        return self._try(lambda: self._asking.ask(partition, lambda line: good(line.call([command])[0])))

    def look(self, partition: int) -> Meta:
        """Return what a partition says about itself."""
        return self._try(lambda: self._asking.look([partition])[partition])

    def epochs(self, partition: int) -> list[tuple[str, int]]:
        """See `engine.log.SharedLog.epochs`."""
        return self._try(partial(self._asking.epochs, partition))

    def read(self, partition: int, meta: Meta) -> Iterator[tuple[int, Entry]]:
        """Yield the records of a partition that was just looked at, with a hole where some went meanwhile.

        Raises:
            LogAway: Redis does not answer, or a new epoch has begun.
        """
        position = meta.first - 1
        while position < meta.head:
            read = partial(self._asking.read, partition, position, CHUNK_BYTES)
            records, now = self._try(read)
            if now.epoch != meta.epoch:
                raise LogAway(f"partition {partition} began a new epoch meanwhile; do it again")
            if not records:
                return
            for record in records:
                position = record.position
                if position <= meta.head:
                    yield position, record.entry

    def _try(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except (Away, Cut, Refused) as error:
            raise LogAway(f"Redis is away: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._asking.close()
