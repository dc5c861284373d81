"""The SSE parser: each rule in a row, and a naive second parser that sees the whole text at once."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.sse import Item, Message, Moved, Parser, Retry, TooLarge


def parse(*chunks: bytes, **options: int) -> list[Item]:
    """Feed chunks one by one to a fresh parser."""
    parser = Parser(**options)
    return [item for chunk in chunks for item in parser.feed(chunk)]


def said(data: str, id_: str = "", event: str = "message") -> Message:
    """A message, most of whose fields are often the same."""
    return Message(event, data, id_)


RULES = {
    "a message without a name is `message`": (b"data: a\n\n", [said("a")]),
    "a name, an id and data": (b"event: ping\nid: 7\ndata: {}\n\n", [said("{}", "7", "ping")]),
    "data lines join with LF": (b"data: a\ndata: b\n\n", [said("a\nb")]),
    "exactly one space goes": (b"data:  a\n\ndata:a\n\n", [said(" a"), said("a")]),
    "a tab stays": (b"data:\ta\n\n", [said("\ta")]),
    "no colon means an empty value": (b"data\n\n", [said("")]),
    "two empty data lines are one newline": (b"data\ndata\n\n", [said("\n")]),
    "names are case-sensitive": (b"Data: a\n\n", []),
    "a comment is invisible": (b": hello\n\n", []),
    "only the first colon separates": (b"data: a: b\n\n", [said("a: b")]),
    "one leading BOM goes": (b"\xef\xbb\xbfdata: a\n\n", [said("a")]),
    "a second BOM stays": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [said("b")]),
    "a BOM later on stays": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [said("a")]),
    "lines end in CR": (b"data: a\rdata: b\r\r", [said("a\nb")]),
    "lines end in CRLF": (b"data: a\r\ndata: b\r\n\r\n", [said("a\nb")]),
    "line ends may be mixed": (b"data: a\rdata: b\r\ndata: c\n\r", [said("a\nb\nc")]),
    "other separators are data": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        [said("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg")],
    ),
    "an id with NUL is ignored": (b"id: 1\n\nid: 2\0\ndata: a\n\n", [Moved("1"), said("a", "1")]),
    "an empty id clears": (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [said("a", "1"), said("b", "")]),
    "an id stays": (b"id: 1\ndata: a\n\ndata: b\n\n", [said("a", "1"), said("b", "1")]),
    "a block with only an id moves the cursor": (b"id: 9\n\n", [Moved("9")]),
    "a name without data is forgotten": (b"event: x\n\ndata: a\n\n", [said("a")]),
    "retry is digits": (b"retry: 1500\n\n", [Retry(1500)]),
    "retry with anything else is ignored": (b"retry: 15s\nretry: -1\nretry:\nretry: 1.5\n\n", []),
    "retry in other digits is ignored": ("retry: ١٢\n\n".encode(), []),
    "an unterminated block is discarded": (b"data: a\n\ndata: b\n", [said("a")]),
    "bad UTF-8 is replaced": (b"data: \xff\n\n", [said("\ufffd")]),
    "unknown fields are ignored": (b"foo: bar\ndata: a\n\n", [said("a")]),
}


@pytest.mark.parametrize(("raw", "items"), RULES.values(), ids=RULES.keys())
def test_rule(raw: bytes, items: list[Item]):
    """Each rule of the standard holds, in one piece and byte by byte."""
    assert parse(raw) == items
    assert parse(*(raw[at : at + 1] for at in range(len(raw)))) == items


def naive(raw: bytes) -> list[Item]:
    """The standard's words, over the whole text at once."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _unterminated = re.split("\r\n|\r|\n", text)
    items: list[Item] = []
    data, event, last_id, id_seen = "", "", "", False
    for line in lines:
        if line == "":
            if data:
                items.append(Message(event or "message", data[:-1], last_id))
            elif id_seen:
                items.append(Moved(last_id))
            data, event, id_seen = "", "", False
            continue
        name, value = [*line.split(":", 1), ""][:2]
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            data += value + "\n"
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id, id_seen = value, True
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            items.append(Retry(int(value)))
    return items


WORDS = (b"data", b"id", b"event", b"retry", b"42", b"a", "온다".encode())
MARKS = (b":", b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\0", "\u2028".encode())
BROKEN = (b"\xef\xbb\xbf", b"\xff", b"\xed\xa0", b"\xf0\x9f")
PIECES = st.sampled_from((*WORDS, *MARKS, *BROKEN))


@given(st.lists(PIECES, max_size=40), st.data())
def test_any_chunking_gives_the_same_items(pieces: list[bytes], data: st.DataObject):
    """However the bytes are cut, the items are those of a parser that sees everything at once."""
    raw = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    chunks = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert parse(*chunks) == naive(raw)


@given(
    st.lists(st.tuples(st.text(), st.text("abc", min_size=1)), max_size=5),
    st.sampled_from(["\n", "\r", "\r\n"]),
)
def test_what_a_server_writes_is_what_comes_out(messages: list[tuple[str, str]], end: str):
    """Data split on all three newlines comes back with LF between the lines."""
    raw = ""
    for data, id_ in messages:
        raw += "".join(f"data: {line}{end}" for line in re.split("\r\n|\r|\n", data)) + f"id: {id_}{end}{end}"
    expected = [Message("message", re.sub("\r\n|\r", "\n", data), id_) for data, id_ in messages]
    assert parse(raw.encode()) == expected


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 100 + b"\n"],
        [b"data: ", *[b"x"] * 100],
        [b"data: x\n"] * 100,
        [b"data\n"] * 100,
        [b": " + b"x" * 100],
        [b"id: " + b"x" * 100],
    ],
    ids=["one long line", "a line that never ends", "many lines", "many empty lines", "a comment", "an id"],
)
def test_what_is_too_large_is_an_error(chunks: list[bytes]):
    """A line or a message beyond the bound raises instead of growing."""
    with pytest.raises(TooLarge):
        parse(*chunks, bytes_max=64)


def test_many_small_messages_are_not_too_large():
    """The bound is for one message, not for the stream."""
    assert len(parse(*[b"data: " + b"x" * 50 + b"\n\n"] * 100, bytes_max=64)) == 100


def test_unfinished_tells_that_a_block_has_begun():
    """A slow snapshot shows as unfinished, a comment that has ended does not."""
    parser = Parser()
    assert not parser.unfinished
    parser.feed(b": hello\n")
    assert not parser.unfinished
    parser.feed(b"data: a")
    assert parser.unfinished
    parser.feed(b"\n")
    assert parser.unfinished
    parser.feed(b"\n")
    assert not parser.unfinished
