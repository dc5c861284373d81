"""Publishing: records to the partitions of a topic, each accepted once. The rules: `engine.domain.topic`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import trio

from engine.answers import Answer
from engine.clock import Clock
from engine.codec import encode
from engine.config import Config
from engine.domain.contract import Command
from engine.domain.fields import Id, Time
from engine.domain.nesting import DEPTH_MAX, is_too_deep
from engine.domain.times import read_time
from engine.domain.topic import PARTITIONS, RECORDS_MAX, Key, MakeTopic, Publish, Record, partition_of
from engine.errors import Malformed
from engine.metrics import Metrics
from engine.records import stream_name

DATA_BYTES_MAX = 64 * 1024
"""Largest `data` of one record, as JSON."""
SEGMENT_SHARE = 4
"""One call may fill one part in so many of a segment of the log."""
ENVELOPE_BYTES = 600
"""About what a record needs beside its data."""

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record to publish. Without an `event_id` it gets one, and cannot be repeated."""

    data: Any
    key: Key | None = None
    type: Id = "Record"
    event_id: Id | None = None
    time: Time | None = None


class Placed(NamedTuple):
    """Where a record is; `duplicate`: it was there already."""

    event_id: str
    partition: int
    offset: int
    duplicate: bool


class _Placed(msgspec.Struct):
    event_id: str
    offset: int
    duplicate: bool


class _Accepted(msgspec.Struct):
    records: list[_Placed]


class Host(Protocol):
    """What publishing needs of its node."""

    config: Config
    clock: Clock
    metrics: Metrics

    async def ask(self, stream: str, command: Command, *, by: str = ..., id: str | None = ...) -> Answer: ...

    async def examine(self, stream: str, look: Callable[[Any, int], T]) -> T: ...


class Publisher:
    """What takes the records of one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._counts: dict[str, int] = {}

    async def partitions(self, topic: str, *, make: bool = False) -> int:
        """Return how many partitions a topic has, 0 when there is no such topic.

        Raises:
            Malformed: this is no name of a topic.
        """
        count = self._counts.get(topic, 0)
        if count:
            return count
        stream = topic_stream("topic", topic, PARTITIONS)
        count = await self._host.examine(stream, lambda state, version: int(state.partitions))
        if not count and make:
            answer = await self._host.ask(stream, MakeTopic(self._host.config.topic_partitions))
            count = msgspec.json.decode(answer.result)["partitions"]
        if count:
            self._counts[topic] = count
        return count

    async def publish(
        self, topic: str, messages: Sequence[Message], *, by: str = "service:embedded"
    ) -> list[Placed]:
        """Make records durable and return where each is, in order. A topic is made by its first record.

        Records with one key (without a key: with one event_id) go to one partition, in the order in which
        they are given. What was accepted of a failed call is a duplicate when it is sent again.

        Raises:
            Malformed: no name of a topic, more than 500 records, or one that is too large or not JSON.
            Rejected: `time_invalid`.
            OndaError: as `Node.ask`.
        """
        started_s = time.monotonic()
        metrics = self._host.metrics
        try:
            placed = await self._publish(topic, messages, by)
        except Exception:
            metrics.published.labels("failed").inc(len(messages))
            raise
        metrics.publish_s.observe(time.monotonic() - started_s)
        doubles = sum(one.duplicate for one in placed)
        metrics.published.labels("accepted").inc(len(placed) - doubles)
        metrics.published.labels("duplicate").inc(doubles)
        return placed

    async def _publish(self, topic: str, messages: Sequence[Message], by: str) -> list[Placed]:
        if not 1 <= len(messages) <= RECORDS_MAX:
            raise Malformed(f"publish 1 to {RECORDS_MAX} records at a time")
        records = [self._record(message) for message in messages]
        most = self._host.config.segment_bytes // SEGMENT_SHARE
        if sum(len(bytes(one.data)) + ENVELOPE_BYTES for one in records) > most:
            raise Malformed(f"publish less at a time: {most} bytes at most")
        count = await self.partitions(topic, make=True)
        places = [partition_of(one.key or one.event_id, count) for one in records]
        answers: dict[int, dict[str, _Placed]] = {}

        async def send(partition: int) -> None:
            mine = tuple(one for one, place in zip(records, places, strict=True) if place == partition)
            stream = topic_stream("topic", topic, str(partition))
            answer = await self._host.ask(stream, Publish(mine), by=by)
            told = msgspec.json.decode(answer.result, type=_Accepted).records
            answers[partition] = {one.event_id: one for one in reversed(told)}

        chosen = sorted(set(places))
        if len(chosen) == 1:
            await send(chosen[0])
        else:
            await _all(send, chosen)
        placed, seen = [], set()
        for record, place in zip(records, places, strict=True):
            one = answers[place][record.event_id]
            again = one.duplicate or record.event_id in seen
            seen.add(record.event_id)
            placed.append(Placed(one.event_id, place, one.offset, again))
        return placed

    def _record(self, message: Message) -> Record:
        try:
            data = encode(message.data)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Malformed(f"`data` cannot be written as JSON: {error}") from None
        if len(data) > DATA_BYTES_MAX:
            raise Malformed(f"`data` may have {DATA_BYTES_MAX} bytes, this has {len(data)}")
        if is_too_deep(message.data):
            raise Malformed(f"`data` may be nested {DEPTH_MAX} deep")
        read_time(message.time)  # its pattern lets a 30 February through
        name = message.event_id or self._host.clock.new_id()
        return Record(name, msgspec.Raw(data), message.key, message.type, message.time)


def topic_stream(kind: str, *ids: str) -> str:
    """Return the name of a stream of ours.

    Raises:
        Malformed: one of the ids is none.
    """
    try:
        return stream_name(kind, *ids)
    except ValueError:
        raise Malformed(f"`{'/'.join(ids)[:80]}`: a name has 1-64 characters of A-Z a-z 0-9 _ . -") from None


async def _all(send: Callable[[int], Any], partitions: Sequence[int]) -> None:
    """Send to all partitions at once; raise the first error alone."""
    failed: list[Exception] = []

    async def one(partition: int) -> None:
        try:
            await send(partition)
        except Exception as error:  # noqa: BLE001 - told below, once all have ended
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for partition in partitions:
            nursery.start_soon(one, partition)
    if failed:
        raise failed[0]
