"""Small questions to Redis: which of them go out together, and what each is told."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import LogAway, LogFailed, Stopping
from engine.log import redis_trips
from engine.log.redis_lines import Away
from engine.log.redis_scripts import READ_STREAM, script
from engine.log.redis_trips import BATCH_MAX, Questions, Trips
from tests.log.redis_site import ALWAYS, STREAM, Writing, client, needs_redis, opened, until
from tests.relays.redis_server import redis_server

ECHO = script("return ARGV[1]", "no-writes")


class Place:
    """Where questions are asked: it answers each with its own number, once it is `open`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[int]] = []

    def ask_all(self, questions: Questions) -> list[Any]:
        """Answer, but one of 13 with an error; without any answer to one of 99."""
        numbers = [command[0] for _, command in questions]
        self.batches.append(numbers)
        assert self.open.wait(10)
        if 99 in numbers:
            raise RuntimeError("a fault")
        return [Away("13") if number == 13 else number for number in numbers]


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[tuple[Trips, Callable[..., None]]]:
    """Trips that are under way, and what asks without waiting."""
    trips = Trips(place.ask_all)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trips.run)
        async with trio.open_nursery() as asking:

            def ask(*numbers: int) -> None:
                for number in numbers:
                    asking.start_soon(trips.ask, 0, (number,))

            try:
                yield trips, ask
            finally:
                place.open.set()
        trips.end()
        nursery.cancel_scope.cancel()


async def test_what_waits_goes_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask in the same moment share a trip, and those who ask while it is under way the next."""
    monkeypatch.setattr(redis_trips, "SLOW_S", 60.0)
    place = Place()
    async with running(place) as (trips, ask):
        ask(*range(10))
        await until(lambda: place.batches)
        ask(10, 11)
        await trio.testing.wait_all_tasks_blocked()
        ask(12)
        await trio.testing.wait_all_tasks_blocked()
        place.open.set()
        await until(lambda: len(place.batches) == 2)
        assert [sorted(batch) for batch in place.batches] == [list(range(10)), [10, 11, 12]]
        assert await trips.ask(0, (7,)) == 7
        assert (trips.questions, trips.trips) == (14, 3)


async def test_a_slow_trip_holds_nobody_up() -> None:
    """What is asked meanwhile goes out beside it."""
    place, slow = Place(), threading.Event()

    def ask_all(questions: Questions) -> list[Any]:
        if questions[0][1] == ("slow",):
            assert slow.wait(10)
        return [command for _, command in questions]

    place.ask_all = ask_all  # type: ignore[method-assign]
    async with running(place) as (trips, _):
        answers: list[Any] = []

        async def ask_slowly() -> None:
            answers.append(await trips.ask(0, ("slow",)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_slowly)
            await until(lambda: trips.trips)
            with trio.fail_after(5):
                assert await trips.ask(0, ("quick",)) == ("quick",)
            assert answers == []
            slow.set()
        assert answers == [("slow",)]


async def test_no_trip_is_too_large() -> None:
    """The rest goes next, though nobody else asks and the first trip takes its time."""
    place = Place()
    async with running(place) as (_, ask):
        ask(*[0] * (BATCH_MAX + 5))
        await until(lambda: len(place.batches) == 2)
        assert [len(batch) for batch in place.batches] == [BATCH_MAX, 5]


async def test_each_question_has_its_own_error() -> None:
    """And a fault of the trip is that of all who were on it; the next one is as good as any."""
    place = Place()
    place.open.set()
    told: dict[int, Any] = {}
    async with running(place) as (trips, _):

        async def ask(number: int) -> None:
            try:
                told[number] = await trips.ask(0, (number,))
            except (Away, RuntimeError) as error:
                told[number] = type(error)

        for numbers, expected in (
            ((12, 13), {12: 12, 13: Away}),
            ((12, 99), {12: RuntimeError, 99: RuntimeError}),
            ((1,), {1: 1}),
        ):
            told.clear()
            async with trio.open_nursery() as nursery:
                for number in numbers:
                    nursery.start_soon(ask, number)
            assert told == expected


async def test_a_question_that_nobody_waits_for_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up while it waits for the trip before takes it back."""
    monkeypatch.setattr(redis_trips, "SLOW_S", 60.0)
    place = Place()
    async with running(place) as (trips, ask):
        ask(1)
        await until(lambda: place.batches)
        with trio.move_on_after(0) as scope:
            await trips.ask(0, (2,))
        assert scope.cancelled_caught
        ask(3)
        place.open.set()
        await until(lambda: len(place.batches) == 2)
        assert place.batches == [[1], [3]]


async def test_at_the_end_everybody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose question is under way, those who wait, and those who come later; until then, who is
    shielded gets answers although the program around is cancelled.
    """
    monkeypatch.setattr(redis_trips, "SLOW_S", 60.0)
    place, told = Place(), []
    trips = Trips(place.ask_all)

    async def ask(number: int) -> None:
        try:
            told.append(await trips.ask(0, (number,)))
        except Stopping:
            told.append("stopping")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trips.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            place.open.set()
            await ask(1)
            place.open.clear()
            async with trio.open_nursery() as asking:
                asking.start_soon(ask, 2)
                await until(lambda: len(place.batches) == 2)
                asking.start_soon(ask, 3)
                await trio.testing.wait_all_tasks_blocked()
                trips.end()
            await ask(4)
            assert told == [1, "stopping", "stopping", "stopping"]
            place.open.set()


@needs_redis
async def test_questions_to_a_real_redis(tmp_path: Path) -> None:
    """One that is wrong is nobody else's; a script that Redis forgot is sent again, for those who need it; a
    line that was cut is opened anew; and when Redis is away, everybody is told.
    """
    with redis_server(tmp_path, *ALWAYS) as server:
        async with opened(server) as log:
            await Writing(log.partitions[0]).append(3)
            told: dict[str, Any] = {}

            async def ask(name: str, *words: Any, large: bool = False) -> None:
                try:
                    told[name] = await log.query(0, words, large=large)
                except (LogAway, LogFailed) as error:
                    told[name] = type(error)

            async def ask_all() -> None:
                told.clear()
                keys = log.partitions[0].keys
                read = (READ_STREAM, 4, keys.meta, keys.log, keys.heads, keys.at + STREAM, STREAM, 2, 1, 0)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, "read", *read)
                    nursery.start_soon(ask, "echo", ECHO, 1, keys.meta, "hello")
                    nursery.start_soon(ask, "length", "XLEN", keys.log)
                    nursery.start_soon(lambda: ask("large", "XLEN", keys.log, large=True))

            async def see_that_all_is_well() -> None:
                await ask_all()
                ok, version, last, found = told.pop("read")
                assert (ok, version, last, len(found)) == (b"ok", 3, b"e3", 2)
                assert told == {"echo": b"hello", "length": 3, "large": 3}

            trips = log.trips.trips
            await see_that_all_is_well()
            assert log.trips.trips == trips + 1
            with client(server) as plain:
                plain.script_flush()
                await see_that_all_is_well()
                assert plain.client_kill_filter(_type="normal", skipme=True) > 0
                await see_that_all_is_well()
            server.stop()
            await ask_all()
            assert told == dict.fromkeys(("read", "echo", "length", "large"), LogAway)
            server.start()
            await until(lambda: log.partitions[0].writable)
            await see_that_all_is_well()
            assert log.failure is None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "wrong", "NO-SUCH-COMMAND")
                nursery.start_soon(ask, "right", "XLEN", log.partitions[0].keys.log)
            assert (told["wrong"], told["right"]) == (LogFailed, 3)
            assert log.failure is not None
