"""Followed streams of the Python client: what is shown has no hole and no double, whatever happens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.web.fake_onda import FakeOnda, open_fake
from web.client import Pace, open_client
from web.exchange import Refused
from web.follower import Follower
from web.mirror import Hole, Mirror, version_in

EAGER = Pace(retry_first_s=0.01, retry_most_s=0.05, answer_s=2.0, silence_s=2.0)


@asynccontextmanager
async def followed(
    pace: Pace = EAGER, *, after: str | None = None, seen: list[int] | None = None
) -> AsyncIterator[tuple[FakeOnda, Follower]]:
    """A fake with one event, and a follower of it."""
    versions = [] if seen is None else seen
    with trio.fail_after(10):
        async with open_fake(place_one) as fake, open_client(fake.base, pace=pace) as client:
            yield (
                fake,
                client.follow("stores/s1", after, on_event=lambda event: versions.append(event["version"])),
            )


def place_one(fake: FakeOnda) -> None:
    """Give the fake its first event."""
    fake.publish("o1", {"status": "PLACED"})


async def test_snapshot_then_live():
    """The state is there after sync, and changes with each event of the stream."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        assert feed.state == {"orders": {"o1": {"status": "PLACED"}}}
        fake.publish("o2", {"status": "PLACED"})
        fake.publish("o1", None)
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert feed.state == {"orders": {"o2": {"status": "PLACED"}}}


async def test_a_cut_stream_is_caught_up():
    """What happened while the stream was cut is there afterwards, each event once and in order."""
    seen: list[int] = []
    async with followed(seen=seen) as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        for count in range(2, 12):
            fake.publish(f"o{count}", {})
            if count % 3 == 0:
                await fake.cut()
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert seen == list(range(2, 12))
        assert feed.state == fake.state


async def test_a_lost_event_is_synced_and_never_shown_as_a_hole():
    """A version that the stream leaves out makes the client sync from the last one it had."""
    seen: list[int] = []
    async with followed(seen=seen) as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        fake.skip = {2}
        fake.publish("o2", {})
        fake.publish("o3", {})
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert seen == [2, 3]
        assert feed.statistics()["holes"] == 1


async def test_a_cursor_that_jumps_is_a_hole():
    """An id-only block that skips events is noticed as well."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        fake.skip = {2}
        fake.publish("o2", {})
        await trio.testing.wait_all_tasks_blocked(0.01)
        await fake.say(f"id: {fake.cursor()}\n\n")
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert feed.state == fake.state


async def test_without_a_stream_it_polls_and_heals():
    """While streams are refused the state stays fresh by long polls, until the stream works again."""
    async with followed(Pace(retry_first_s=3, retry_most_s=3, answer_s=2.0)) as (fake, feed):
        fake.streams_up = False
        await feed.wait(lambda feed: feed.status == "polling")
        fake.publish("o2", {})
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert feed.status == "polling"
        fake.streams_up = True
        await feed.wait(lambda feed: feed.status == "live")


async def test_offline_and_back():
    """Nothing works: offline. Then live again, with everything that was missed."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        fake.sync_up = False
        await fake.cut()
        await feed.wait(lambda feed: feed.status == "offline")
        assert feed.error is not None
        fake.publish("o2", {})
        fake.sync_up = True
        await feed.wait(lambda feed: feed.status == "live")
        assert feed.state == fake.state
        assert feed.error is None


async def test_a_silent_stream_is_left():
    """A stream that says nothing, not even a first word, is not live; the client goes on by polling."""
    async with followed(Pace(retry_first_s=2, answer_s=0.1)) as (fake, feed):
        fake.streams_silent = True
        await fake.cut()
        await feed.wait(lambda feed: feed.status == "polling")
        fake.publish("o2", {})
        await feed.wait(lambda feed: feed.cursor == fake.cursor())


async def test_a_stream_that_stops_talking_is_left():
    """After its first word a stream has to say something within the bound; pings count, comments do not."""
    async with followed(Pace(retry_first_s=0.01, answer_s=2, silence_s=0.1)) as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def comment() -> None:
                while True:
                    await fake.say(": still here\n\n")
                    await trio.sleep(0.02)

            await feed.wait(lambda feed: feed.statistics()["streams"] >= 3)
            nursery.cancel_scope.cancel()


async def test_pings_keep_a_stream():
    """A stream with nothing but pings stays."""
    async with followed(Pace(retry_first_s=0.01, answer_s=2, silence_s=0.4)) as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        until = trio.current_time() + 0.8
        while trio.current_time() < until:
            await fake.ping()
            await trio.sleep(0.02)
        assert feed.statistics()["streams"] == 1


async def test_pings_tell_whether_commands_are_taken():
    """While the server takes none the follower says so, and goes on."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        assert feed.writable
        await fake.ping(writable=False)
        await feed.wait(lambda feed: not feed.writable)
        assert feed.status == "live"
        await fake.ping()
        await feed.wait(lambda feed: feed.writable)


async def test_a_stream_that_does_not_begin_with_bad_news_is_good_news():
    """The server that said that it takes no commands may have gone: this is another one."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        await fake.ping(writable=False)
        await feed.wait(lambda feed: not feed.writable)
        await fake.cut()
        await feed.wait(lambda feed: feed.writable)
        assert feed.status == "live"


async def test_a_ping_that_is_ahead_shows_a_loss():
    """When the last event of all is lost, the next ping tells: its cursor is ahead of what came."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        fake.skip = {2}
        fake.publish("o2", {})
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert feed.state != fake.state
        await fake.ping()
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert feed.state == fake.state
        assert feed.statistics()["holes"] == 1


async def test_bye_is_no_failure_and_its_pause_is_kept():
    """After `bye` the client waits what it was told, polling meanwhile, and no longer."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        began = trio.current_time()
        await fake.say('retry: 400\nevent: bye\ndata: {"reason":"rotate","retry_ms":400}\n\n')
        await feed.wait(lambda feed: feed.status != "live")
        await feed.wait(lambda feed: feed.status == "live")
        assert 0.4 <= trio.current_time() - began < 1.5


NONSENSE = [
    "data: {\n\n",
    "data: []\n\n",
    'data: {"version":2}\n\n',
    "event: bye\ndata: {}\n\n",
    'event: reset\ndata: {"cursor":1}\n\n',
]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_on_the_stream_is_survived(nonsense: str):
    """What does not follow the contract ends the stream, not the client."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        await fake.say(nonsense)
        fake.publish("o2", {})
        await feed.wait(lambda feed: feed.status == "live" and feed.cursor == fake.cursor())


async def test_a_cursor_that_expired_gives_the_state_anew():
    """`reset` replaces the state: what went away meanwhile is gone."""
    snapshots: list[str | None] = []
    with trio.fail_after(10):
        async with (
            open_fake(lambda fake: fake.publish("o1", {})) as fake,
            open_client(fake.base, pace=EAGER) as client,
        ):
            feed = client.follow("stores/s1", on_snapshot=lambda _state, why: snapshots.append(why))
            await feed.wait(lambda feed: feed.status == "live")
            fake.sync_up = fake.streams_up = False
            await fake.cut()
            fake.publish("o1", None)
            fake.publish("o2", {})
            fake.kept_from = 3
            fake.sync_up = fake.streams_up = True
            await feed.wait(lambda feed: feed.cursor == fake.cursor())
            assert feed.state == {"orders": {"o2": {}}}
            assert snapshots == [None, "expired"]


async def test_following_goes_on_from_a_cursor():
    """With `after`, only what came later is shown."""
    seen: list[int] = []
    async with followed(after="e1-1", seen=seen) as (fake, feed):
        fake.publish("o2", {})
        await feed.wait(lambda feed: feed.cursor == fake.cursor())
        assert seen == [2]
        assert feed.state == {"orders": {"o2": {}}}


async def test_close_ends_the_following():
    """A closed follower takes nothing more, and its connection goes."""
    async with followed() as (fake, feed):
        await feed.wait(lambda feed: feed.status == "live")
        feed.close()
        while fake.open_streams:
            fake.publish("o2", {})
            await trio.testing.wait_all_tasks_blocked()
        assert feed.status == "offline"


async def test_a_refusal_shows_in_the_error():
    """A feed that one may not read says so in `error`."""
    with trio.fail_after(10):
        async with open_fake() as fake, open_client(fake.base, pace=EAGER) as client:
            feed = client.follow("stores/nobody")
            await feed.wait(lambda feed: feed.status == "offline")
            assert isinstance(feed.error, Refused)
            assert feed.error.code == "unknown_store"


ORDERS = st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(), min_size=1, max_size=2)


@given(st.lists(ORDERS, max_size=12), st.data())
def test_snapshot_and_patches_give_the_same_state_from_anywhere(
    patches: list[dict[str, Any]], data: st.DataObject
):
    """From whichever version a client starts, and whatever comes twice, it ends with the server's state."""
    states: list[dict[str, Any]] = [{}]
    for patch in patches:
        merged = states[-1] | patch
        states.append({key: value for key, value in merged.items() if value is not None})
    start = data.draw(st.integers(0, len(patches)))
    mirror = Mirror()
    mirror.replace(f"e-{start}", {"orders": dict(states[start])})
    for version, patch in enumerate(patches, 1):
        envelope = {"version": version, "cursor": f"e-{version}", "patch": {"orders": patch}}
        assert mirror.take(envelope) == (version > start)
        if data.draw(st.booleans()):
            assert not mirror.take(envelope)
    assert mirror.state["orders"] == states[-1]


def test_a_missing_version_is_a_hole_and_changes_nothing():
    """An event that comes too early is not applied."""
    mirror = Mirror()
    mirror.replace("e-4", {"orders": {}})
    with pytest.raises(Hole):
        mirror.take({"version": 6, "cursor": "e-6", "patch": {"orders": {"a": 1}}})
    assert (mirror.cursor, mirror.state) == ("e-4", {"orders": {}})


CURSORS = [("e1-42", 42), ("e-1-7", 7), ("opaque", None), ("x-y", None), ("", None), (None, None)]


@pytest.mark.parametrize(("cursor", "version"), CURSORS)
def test_the_version_in_a_cursor(cursor: str | None, version: int | None):
    """Today's cursors end in a version; one that does not is no error."""
    assert version_in(cursor) == version


def test_an_opaque_cursor_still_counts_from_the_first_event():
    """Without a version in the cursor the first event tells where counting starts."""
    mirror = Mirror()
    mirror.replace("opaque", {})
    assert mirror.take({"version": 9, "cursor": "opaque2"})
    with pytest.raises(Hole):
        mirror.take({"version": 11, "cursor": "opaque3"})
