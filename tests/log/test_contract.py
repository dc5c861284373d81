"""What every log promises (`engine.log.Log`), over each of them."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import outcome
import pytest
import trio

from engine.errors import Conflict, CursorUnusable
from engine.log import Log
from engine.log.memory import MemoryLog
from engine.log.wal import open_wal
from engine.records import Entry
from tests.log.redis_site import needs_redis, opened
from tests.relays.redis_server import redis_server


def entry(stream: str, version: int, body: bytes = b"{}", meta: bytes = b"") -> Entry:
    """Return an entry."""
    return Entry(stream, version, meta, body)


@pytest.fixture(params=["memory", "wal", "wal padded", pytest.param("redis", marks=needs_redis)])
async def log(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Log]:
    """Each log, empty."""
    if request.param == "memory":
        yield MemoryLog()
        return
    if request.param == "redis":
        with redis_server(tmp_path) as server:
            async with opened(server) as shared:
                yield shared.partitions[0]
        return
    pad = 4096 if "padded" in request.param else 0
    async with open_wal(str(tmp_path / "log"), segment_bytes=1 << 18, pad=pad, reserve_bytes=0) as wal:
        yield wal


async def test_a_new_log_is_empty(log: Log) -> None:
    """Nothing is there, and the first position will be 1."""
    assert (log.head, log.first, log.writable) == (0, 1, True)
    assert await log.read(0) == []
    assert log.epoch.isalnum()
    assert log.statistics()["head"] == 0


async def test_what_is_appended_is_read(log: Log) -> None:
    """Entries come back whole, in order, at positions without a hole."""
    first = [entry("store:s1", 1, b'{"a": 1}', b"answer"), entry("store:s1", 2, b"")]
    second = [entry("table:s1/3", 1, bytes(range(256)) * 40, b"\0\xff")]
    assert await log.append(first) == 2
    assert await log.append(second) == 3
    assert log.head == 3
    assert await log.read(0) == list(enumerate([*first, *second], 1))
    assert await log.read(2) == [(3, second[0])]
    assert await log.read(3) == await log.read(9) == []


async def test_a_version_has_to_follow(log: Log) -> None:
    """A hole, a repeat or a start in the middle is a conflict, and nothing of that append happens."""
    await log.append([entry("store:s1", 1)])
    for versions in ([1], [3], [0], [2, 2], [2, 4]):
        with pytest.raises(Conflict):
            await log.append([entry("store:s1", version) for version in versions])
    with pytest.raises(Conflict):
        await log.append([entry("table:s1/3", 1), entry("store:s1", 9)])
    with pytest.raises(Conflict):
        await log.append([entry("user:u1", 2)])
    assert log.head == 1
    assert await log.append([entry("table:s1/3", 1), entry("store:s1", 2)]) == 3


async def test_one_append_may_span_streams(log: Log) -> None:
    """Entries of one append are next to each other, whatever their streams."""
    both = [entry("store:s1", 1), entry("table:s1/1", 1), entry("store:s1", 2)]
    assert await log.append(both) == 3
    assert [found for _, found in await log.read(0)] == both


async def test_reading_in_chunks(log: Log) -> None:
    """Any bound gives all entries, at least one at a time, and a middle one can be the start."""
    entries = [entry("store:s1", version, b"x" * (version * 37 % 900)) for version in range(1, 120)]
    for start in range(0, len(entries), 7):
        await log.append(entries[start : start + 7])
    for bytes_max in (1, 100, 5_000, 1 << 20):
        found: list[tuple[int, Entry]] = []
        while chunk := await log.read(len(found), bytes_max):
            assert sum(len(read.body) for _, read in chunk[:-1]) < bytes_max
            found.extend(chunk)
        assert found == list(enumerate(entries, 1))
    for after in range(0, len(entries), 5):
        assert (await log.read(after, 1))[0] == (after + 1, entries[after])


async def test_many_tasks_append_at_once(log: Log) -> None:
    """Appends of concurrent tasks never mix, and each task gets the position of its own."""
    told: dict[tuple[str, int], int] = {}

    async def act(stream: str) -> None:
        for version in range(1, 40, 2):
            pair = [entry(stream, version, stream.encode()), entry(stream, version + 1)]
            told[stream, version + 1] = await log.append(pair)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(act, f"table:s1/{number}")
    found = [(position, read) async for position, read in each(log)]
    assert len(found) == log.head == 800
    for position, read in found:
        if read.version % 2:
            assert found[position][1] == entry(read.stream, read.version + 1)
        else:
            assert told[read.stream, read.version] == position


async def each(log: Log) -> AsyncIterator[tuple[int, Entry]]:
    """Yield all entries of a log."""
    after = log.first - 1
    while chunk := await log.read(after, 4_000):
        for pair in chunk:
            yield pair
        after = chunk[-1][0]


async def test_a_cancelled_append_is_not_taken_back(log: Log) -> None:
    """Cancelling ends the wait; the entries were handed over and get there, in their place."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await log.append([entry("store:s1", 1, b"cancelled")])
    assert scope.cancelled_caught
    assert await log.append([entry("store:s1", 2)]) == 2
    assert [found.version for _, found in await log.read(0)] == [1, 2]


async def test_trimmed_entries_are_expired(log: Log) -> None:
    """`trim` may keep more, never less; what it dropped is an expired cursor, what it kept is there."""
    for version in range(1, 400):
        await log.append([entry("store:s1", version, b"x" * 2_000)])
    await log.trim(250)
    assert 1 < log.first <= 251
    assert log.head == 399
    with pytest.raises(CursorUnusable) as caught:
        await log.read(log.first - 2)
    assert caught.value.reason == "expired"
    for after in (log.first - 1, 250, 398):
        assert (await log.read(after, 1))[0][0] == after + 1
    await log.append([entry("store:s1", 400)])
    await log.trim(10_000)
    assert log.first <= 401
    await log.append([entry("store:s1", 401)])
    assert (await log.read(400))[0][0] == 401


async def test_what_is_submitted_is_reported_once_and_later(log: Log) -> None:
    """`submit` returns before anybody is told; what is refused is either raised at once or reported."""
    told: list[int | str] = []

    def done(result: outcome.Outcome[int]) -> None:
        told.append(result.value if isinstance(result, outcome.Value) else type(result.error).__name__)

    log.submit([entry("store:s1", 1)], done)
    log.submit([entry("store:s1", 2), entry("store:s1", 3)], done)
    reported = []
    try:
        log.submit([entry("store:s1", 5)], done)
        reported.append("Conflict")
    except Conflict:
        pass  # known at once
    assert told == []
    assert await log.append([entry("store:s1", 4)]) == 4
    assert told == [1, 3, *reported]


async def test_nothing_and_nonsense_are_refused(log: Log) -> None:
    """An append needs entries, and what they hold is bytes."""
    with pytest.raises(ValueError, match="append"):
        await log.append([])
    with pytest.raises(TypeError):
        await log.append([Entry("store:s1", 1, "text", b"")])  # type: ignore[arg-type]
    assert await log.append([entry("store:s1", 1)]) == 1


async def test_a_healthy_log_has_not_failed(log: Log) -> None:
    """`wait_failed` waits."""
    with trio.move_on_after(0.05) as scope:
        await log.wait_failed()
    assert scope.cancelled_caught
