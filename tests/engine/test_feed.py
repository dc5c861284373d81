"""Feeds: a bounded ring, cursors, fences, and subscribers that cannot miss a frame unnoticed."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import CursorUnusable, Lagging, Stopping
from engine.feed import Feed, Frame, Subscription
from engine.metrics import Metrics


def make_feed(head: int = 0, frames_max: int = 8, bytes_max: int = 1000) -> Feed:
    feed = Feed("store:s1", frames_max, bytes_max, Metrics())
    feed.prime(head)
    return feed


def publish(feed: Feed, count: int = 1, size: int = 10) -> None:
    feed.publish([Frame(feed.head + 1 + n, "OrderPlaced", b"x" * size) for n in range(count)])


def subscribe(feed: Feed, version: int) -> Subscription:
    return Subscription(feed, "e", version, None, None, Metrics())


def test_the_ring_is_bounded_in_count() -> None:
    """The oldest frames leave, and a cursor before them is expired."""
    feed = make_feed(frames_max=3)
    publish(feed, 10)
    assert [frame.version for frame in feed.after(7, 100)] == [8, 9, 10]
    with pytest.raises(CursorUnusable, match="expired"):
        feed.after(6, 1)
    with pytest.raises(CursorUnusable, match="ahead"):
        feed.after(11, 1)


def test_the_ring_is_bounded_in_bytes() -> None:
    """A large frame pushes out small ones, and the last one stays whatever its size."""
    feed = make_feed(bytes_max=100)
    publish(feed, 5, size=20)
    publish(feed, 1, size=90)
    assert (feed.bytes, len(feed)) == (90, 1)
    publish(feed, 1, size=500)
    assert (feed.bytes, len(feed)) == (500, 1)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60)), max_size=60), st.integers(1, 9))
def test_what_is_kept_is_what_was_published_last(batches: list[tuple[int, int]], frames_max: int) -> None:
    """After any publishing the ring holds exactly the versions low+1 … head, within its bounds."""
    feed = make_feed(frames_max=frames_max, bytes_max=200)
    for count, size in batches:
        publish(feed, count, size)
        kept = feed.after(feed.low, 10_000)
        assert [frame.version for frame in kept] == list(range(feed.low + 1, feed.head + 1))
        assert feed.bytes == sum(len(frame.body) for frame in kept)
        assert len(kept) <= frames_max
        assert feed.bytes <= 200 or len(kept) == 1


def test_a_fence_hides_what_was_before() -> None:
    """Cursors from before the fence start afresh; the fence itself is still delivered to those just before
    it.
    """
    feed = make_feed()
    publish(feed, 5)
    feed.fence(5)
    assert [frame.version for frame in feed.after(4, 10)] == [5]
    with pytest.raises(CursorUnusable):
        feed.after(3, 10)


def test_a_slow_subscriber_is_told() -> None:
    """Falling out of the ring raises, and never leaves a hole."""
    feed = make_feed(frames_max=4)
    subscription = subscribe(feed, 0)
    publish(feed, 3)
    assert [frame.version for frame in subscription.take(2)] == [1, 2]
    publish(feed, 5)
    with pytest.raises(Lagging):
        subscription.take()


async def test_waiting_ends_with_a_frame_or_with_the_feed() -> None:
    """Every waiting subscriber wakes for one publish; a closed feed lets them take the rest first."""
    feed = make_feed()
    seen: list[int] = []

    async def follow(subscription: Subscription) -> None:
        try:
            while True:
                await subscription.wait()
                seen.extend(frame.version for frame in subscription.take())
        except Stopping:
            subscription.close()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(follow, subscribe(feed, 0))
            await trio.testing.wait_all_tasks_blocked()
            publish(feed)
            await trio.testing.wait_all_tasks_blocked()
            assert seen == [1, 1, 1]
            publish(feed)
            feed.close()
    assert seen == [1, 1, 1, 2, 2, 2]
    assert not feed.subscriptions
