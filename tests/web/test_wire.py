"""Server-sent events as bytes, read back by a parser that follows the standard; and composite cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Cursor
from web import wire
from web.sse import Message, Moved, Parser, Retry

ANY_TEXT = st.text(st.characters(codec="utf-8"))


@given(ANY_TEXT)
def test_whatever_stands_in_data_arrives_as_one_message(text: str) -> None:
    """A value can neither end its message nor begin a field; newlines of all kinds arrive as LF."""
    items = Parser().feed(wire.block(text.encode(), event="snapshot", id="e-1"))
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert items == [Message("snapshot", expected, "e-1")]


@given(st.binary().map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")))
def test_a_frame_is_one_block(body: bytes) -> None:
    """The block of a frame is its id and its envelope, whole."""
    assert wire.frame_block(b"e-7", body) == b"id: e-7\ndata: " + body + b"\n\n"


def test_a_frame_with_newlines_is_split() -> None:
    """An envelope with newlines, which we never make, could still not break out of its block."""
    block = wire.frame_block(b"e-7", b'{"a":\n\nid: evil\r\ndata: x}')
    assert Parser().feed(block) == [Message("message", '{"a":\n\nid: evil\ndata: x}', "e-7")]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_ids_and_events_with_newlines_or_nul_are_refused(bad: str) -> None:
    """What would end the line, or be ignored by clients, is an error and not silently sent."""
    with pytest.raises(ValueError, match="newline or NUL"):
        wire.id_block(bad)
    with pytest.raises(ValueError, match="newline or NUL"):
        wire.block(b"{}", event=bad)


def test_an_id_block_moves_the_cursor_and_shows_nothing() -> None:
    """The block that primes a client's cursor fires no message."""
    assert Parser().feed(wire.id_block("e-5")) == [Moved("e-5")]


@pytest.mark.parametrize("reason", sorted(wire.RETRY_MS))
def test_a_bye_names_its_reason_and_a_random_time_within_its_bounds(reason: str) -> None:
    """Clients are spread over the bounds; `retry:` and the data say the same."""
    seen = set()
    for _ in range(200):
        retry, message = Parser().feed(wire.bye_block(reason))
        assert isinstance(retry, Retry)
        assert isinstance(message, Message)
        assert message.event == "bye"
        assert message.data == f'{{"reason":"{reason}","retry_ms":{retry.ms}}}'
        assert wire.RETRY_MS[reason][0] <= retry.ms <= wire.RETRY_MS[reason][1]
        seen.add(retry.ms)
    assert len(seen) > 20


CURSORS = st.builds(Cursor, st.sampled_from(["e1", "e2", "abcdefgh"]), st.integers(0, 10**9))
NAMES = st.sampled_from(["store:s1", "store:s2", "table:s1/3", "user:u1", "user:u2"])


@given(st.dictionaries(NAMES, CURSORS, min_size=1))
def test_a_composite_cursor_reads_back_whatever_the_order_of_feeds(cursors: dict[str, Cursor]) -> None:
    """What was written for a set of feeds is read for the same set in any order, and is safe in a URL."""
    names = sorted(cursors)
    text = wire.write_composite(wire.feeds_mark(names), [cursors[name] for name in names])
    assert wire.read_composite(text, reversed(names)) == cursors
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~-")


OTHERS = "~ x~e-1~2 e-1 {m}~1~2 {m}~e-1 {m}~e-1~2~3 {m}~e-1~x"
WRONG = "{m}~0.1~e-2 {m}~e-1~1.2 {m}~e-1~.2 {m}~e-1~-1.2 {m}~e-1~x.2 {m}~e-1~0."


@pytest.mark.parametrize("text", ["", *OTHERS.split(), *WRONG.split()])
def test_a_composite_cursor_of_other_feeds_or_none_is_an_error(text: str) -> None:
    """A cursor is never taken for another feed's."""
    names = ["store:s1", "user:u1"]
    with pytest.raises(ValueError, match=r"cursor|unpack"):
        wire.read_composite(text.format(m=wire.feeds_mark(names)), names)


def test_a_composite_cursor_of_many_feeds_stays_short() -> None:
    """Feeds of one node share an epoch, which is written once: 32 feeds fit easily into a header."""
    names = [f"user:u{number}" for number in range(32)]
    text = wire.write_composite(wire.feeds_mark(names), [Cursor("abcdefgh", 123_456)] * 32)
    assert len(text) < 256
    epochs = [f"{number:08d}" for number in range(16)]  # of all partitions of a shared log
    cursors = [Cursor(epoch, 123_456) for epoch in epochs * 2]
    assert len(wire.write_composite(wire.feeds_mark(names), cursors)) < 512


def test_a_composite_cursor_of_two_partitions() -> None:
    names = ["store:s1", "table:s1/1", "user:u1", "user:u2"]
    cursors = [Cursor("aaaaaaaa", 1), Cursor("aaaaaaaa", 2), Cursor("bbbbbbbb", 3), Cursor("aaaaaaaa", 4)]
    mark = wire.feeds_mark(names)
    text = wire.write_composite(mark, cursors)
    assert text == f"{mark}~aaaaaaaa-1~2~bbbbbbbb-3~0.4"
    assert wire.read_composite(text, names) == dict(zip(names, cursors, strict=True))
    older = f"{mark}~aaaaaaaa-1~2~bbbbbbbb-3~aaaaaaaa-4"
    assert wire.read_composite(older, names) == dict(zip(names, cursors, strict=True))
