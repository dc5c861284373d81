"""The limits of the edge's framing, exact in any cutting; and when a client waits for `100 Continue`."""

from __future__ import annotations

import pytest

from tests.web.verdicts import CHUNKED, check, head, judge, pieces
from web.framing import Framer, Limits, Refused

SMALL = Limits(head_bytes=200, headers=3, target_bytes=20, body_bytes=10)


def small(data: bytes) -> tuple[int, str]:
    """How many requests come out under small limits, and the end: the same whole and byte by byte."""
    ends = set()
    for parts in ([data], list(pieces(data, range(len(data))))):
        framer, count = Framer(SMALL), 0
        try:
            for part in parts:
                framer.feed(part)
                while framer.next() is not None:
                    count += 1
            ends.add((count, framer.state))
        except Refused as refused:
            ends.add((count, refused.code))
    (end,) = ends
    return end


def filled(size: int) -> bytes:
    """A head of so many bytes."""
    bare = head(b"A: ")
    return head(b"A: " + b"x" * (size - len(bare)))


LIMITS = [
    ("head at its limit", filled(200), (1, "idle")),
    ("head over it", filled(201), (0, "headers_too_large")),
    ("head far over it", filled(2000), (0, "headers_too_large")),
    ("head that does not end", filled(2000)[:-2], (0, "headers_too_large")),
    ("line that does not end", b"GET /" + b"x" * 2000, (0, "uri_too_long")),
    ("line that ends too late", head(line=b"GET /" + b"x" * 2000 + b" HTTP/1.1"), (0, "uri_too_long")),
    ("headers at their limit", head(b"A: 1", b"B: 2"), (1, "idle")),
    ("a header too many", head(b"A: 1", b"B: 2", b"C: 3"), (0, "headers_too_large")),
    ("the same header too often", head(b"A: 1", b"A: 2", b"A: 3"), (0, "headers_too_large")),
    ("target at its limit", head(line=b"GET /" + b"p" * 9 + b"?" + b"q" * 10 + b" HTTP/1.1"), (1, "idle")),
    ("target over it", head(line=b"GET /" + b"p" * 9 + b"?" + b"q" * 11 + b" HTTP/1.1"), (0, "uri_too_long")),
    ("target over it once escaped", head(line=b"GET /" + b"\xe9" * 7 + b" HTTP/1.1"), (0, "uri_too_long")),
    ("body at its limit", head(b"Content-Length: 10") + b"0123456789", (1, "idle")),
    ("length over it", head(b"Content-Length: 11"), (0, "too_large")),
    ("length far over it", head(b"Content-Length: 9999999999999999999"), (0, "too_large")),
    ("chunks at it", CHUNKED + b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", (1, "idle")),
    ("chunks over it", CHUNKED + b"4\r\n0123\r\n7\r\n", (0, "too_large")),
    ("more sizes than body", CHUNKED + b"1\r\nx\r\n" * 9 + b"0\r\n\r\n", (0, "too_large")),
]


@pytest.mark.parametrize(("data", "end"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_limits_are_exact(data: bytes, end: tuple[int, str]) -> None:
    """At a limit is in, one more is out, in any cutting."""
    assert small(data) == end


def test_the_limits_of_the_server() -> None:
    """32 KiB of head, 100 headers, 8 KiB of target, 1 MiB of body."""
    hundred = head(*[b"A%d: x" % number for number in range(99)])
    assert len(judge(iter([hundred])).messages) == 1
    assert judge(iter([head(*[b"A%d: x" % number for number in range(100)])])).end == "headers_too_large"
    assert judge(iter([filled(32 * 1024)])).end == "idle"
    assert judge(iter([filled(32 * 1024 + 1)])).end == "headers_too_large"
    assert judge(iter([head(line=b"GET /" + b"x" * 8191 + b" HTTP/1.1")])).end == "idle"
    assert judge(iter([head(line=b"GET /" + b"x" * 8192 + b" HTTP/1.1")])).end == "uri_too_long"
    body = bytes(1 << 20)
    assert judge(iter([head(b"Content-Length: %d" % len(body)) + body])).messages[0].body == body
    assert judge(iter([head(b"Content-Length: %d" % (len(body) + 1))])).end == "too_large"
    assert judge(iter([CHUNKED + b"100000\r\n" + body + b"\r\n0\r\n\r\n"])).messages[0].body == body
    assert judge(iter([CHUNKED + b"100001\r\n"])).end == "too_large"


def test_the_client_waits_for_100_continue() -> None:
    """From the end of a good head until the first byte of the body; and who gets `raw` is not asked again."""
    framer = Framer()
    data = head(b"A: b", b"EXPECT: 100-Continue", b"Content-Length: 2")
    framer.feed(data[:-1])
    assert (framer.next(), framer.wants_continue) == (None, False)
    framer.feed(data[-1:])
    assert not framer.wants_continue, "nobody has looked yet whether the head is good"
    assert (framer.next(), framer.wants_continue) == (None, True)
    framer.feed(b"x")
    assert (framer.next(), framer.wants_continue) == (None, False)
    framer.feed(b"y")
    message = framer.next()
    assert message is not None
    assert message.raw == head(b"A: b", b"Content-Length: 2") + b"xy"
    assert message.headers["expect"] == "100-Continue"


@pytest.mark.parametrize(
    "data",
    [
        head(b"Expect: 100-continue", b"Content-Length: 2", line=b"POST / HTTP/1.0"),
        head(b"Expect: 200-ok", b"Content-Length: 2"),
        head(b"Content-Length: 2"),
    ],
)
def test_nobody_waits_for_100_continue(data: bytes) -> None:
    """HTTP/1.0 has none; other expectations are ignored, as h11 does."""
    framer = Framer()
    framer.feed(data)
    assert (framer.next(), framer.wants_continue) == (None, False)


def test_without_a_body_there_is_nothing_to_wait_for() -> None:
    """`Expect` with no body: the request is there at once."""
    found = check(head(b"Expect: 100-continue"))
    assert (len(found.messages), found.end) == (1, "idle")


def test_a_refused_head_is_not_waited_on() -> None:
    """A body that would be too large is refused before the client sends it."""
    framer = Framer()
    framer.feed(head(b"Expect: 100-continue", b"Content-Length: 1048577"))
    with pytest.raises(Refused, match="1048576"):
        framer.next()
    assert not framer.wants_continue
