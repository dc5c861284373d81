"""The SSE parser against WHATWG HTML §9.2, for every way to cut the bytes into chunks."""

from __future__ import annotations

import pytest

from tests.browser.conftest import in_browser, show_blank
from tests.browser.fake_server import FakeServer

pytestmark = pytest.mark.browser

PARSE = """([bytes, cuts]) => {
    const out = [];
    const parser = new onda.SseParser({
        event: (type, data, id) => out.push(["event", type, data, id]),
        id: (id) => out.push(["id", id]),
        retry: (ms) => out.push(["retry", ms]),
    });
    const all = Uint8Array.from(bytes);
    let start = 0;
    for (const cut of [...cuts, all.length]) { parser.push(all.slice(start, cut)); start = cut; }
    return out;
}"""

ALL_CUTS = """(bytes) => {
    const run = (cuts) => JSON.stringify((PARSE)([bytes, cuts]));
    const whole = run([]);
    const wrong = [];
    for (let i = 0; i <= bytes.length; i += 1) {
        if (run([i]) !== whole) wrong.push([i]);
        if (run([i, Math.min(i + 1, bytes.length)]) !== whole) wrong.push([i, i + 1]);
    }
    if (run([...bytes.keys()]) !== whole) wrong.push("each byte alone");
    return wrong;
}""".replace("PARSE", PARSE)


@pytest.fixture(scope="module")
def page(tab):
    """One page for all of these tests: they leave nothing behind."""
    with FakeServer() as server:
        in_browser(lambda: show_blank(tab, server))
        yield tab


def parse(page, text, cuts=()):
    raw = text if isinstance(text, bytes) else text.encode()
    return page.evaluate(PARSE, [list(raw), list(cuts)])


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("data: a\n\n", [["event", "message", "a", ""]]),
        ("data: a\r\r", [["event", "message", "a", ""]]),
        ("data: a\r\n\r\n", [["event", "message", "a", ""]]),
        ("data: a\r\ndata: b\rdata: c\n\n", [["event", "message", "a\nb\nc", ""]]),
        ("data:a\n\ndata:  b\n\n", [["event", "message", "a", ""], ["event", "message", " b", ""]]),
        ("data\n\n", [["event", "message", "", ""]]),
        ("data\ndata\n\n", [["event", "message", "\n", ""]]),
        ("data:\tx\n\n", [["event", "message", "\tx", ""]]),
        ("event: ping\ndata: 1\n\ndata: 2\n\n", [["event", "ping", "1", ""], ["event", "message", "2", ""]]),
        ("event: lost\n\ndata: 2\n\n", [["event", "message", "2", ""]]),
        ("Data: a\nEVENT: b\ndata: c\n\n", [["event", "message", "c", ""]]),
        (": comment\n:\ndata: a\n\n", [["event", "message", "a", ""]]),
        ("unknown: x\ndata: a\n\n", [["event", "message", "a", ""]]),
        ("data: a: b\n\n", [["event", "message", "a: b", ""]]),
    ],
)
def test_fields_and_line_ends(page, text, events):
    """Lines end in LF, CR or CRLF; one space goes; names are case-sensitive; data lines join with LF."""
    assert parse(page, text) == events


def test_ids_persist_and_move_the_cursor_alone(page):
    """An id stays until the next; an id without data is told apart; NUL spoils an id; empty clears."""
    out = parse(
        page, "id: 1\n\ndata: a\n\nid: 2\ndata: b\n\nid: 3\0\ndata: c\n\nid\ndata: d\n\nid: 9\nevent: x\n\n"
    )
    assert out == [
        ["id", "1"],
        ["event", "message", "a", "1"],
        ["event", "message", "b", "2"],
        ["event", "message", "c", "2"],
        ["event", "message", "d", ""],
        ["id", "9"],
    ]


@pytest.mark.parametrize("value", ["", "-1", "1.5", "1s", "１２"])
def test_retry_is_ascii_digits_only(page, value):
    """Anything but digits is ignored."""
    assert parse(page, f"retry: {value}\nretry: 250\n\n") == [["retry", 250]]


def test_one_leading_byte_order_mark_goes(page):
    """A second one is part of the first line's name."""
    assert parse(page, "\ufeffdata: a\n\n\ufeffdata: b\n\n") == [["event", "message", "a", ""]]
    assert parse(page, "\ufeff\ufeffdata: a\n\ndata: b\n\n") == [["event", "message", "b", ""]]


@pytest.mark.parametrize("text", ["data: a", "data: a\n", "data: a\r\n", "id: 1\ndata: a\nevent: x\n"])
def test_an_unterminated_block_is_dropped(page, text):
    """What no empty line ended was never an event."""
    assert parse(page, text) == []


def test_other_separators_are_data(page):
    """U+2028, U+0085, vertical tab and form feed end no line."""
    assert parse(page, "data: a\u2028b\u0085c\x0bd\x0ce\n\n") == [
        ["event", "message", "a\u2028b\u0085c\x0bd\x0ce", ""]
    ]


def test_every_cut_gives_the_same_events(page):
    """CRLF, UTF-8 sequences and the byte order mark may straddle chunks."""
    text = "\ufeffid: 온다\r\ndata: 김밥 🍙\r\ndata: b\r\n\r\ndata: c\r\rretry: 10\r\n\n"
    text += "event: ping\ndata: {}\n\nid: 2\n\n"
    assert parse(page, text)[0] == ["event", "message", "김밥 🍙\nb", "온다"]
    assert page.evaluate(ALL_CUTS, list(text.encode())) == []
