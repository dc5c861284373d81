"""The edge's framing in rows: what it takes, and what it refuses with which code, however the bytes come."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.web.verdicts import CHUNKED, HOST, check, head
from web.framing import Framer, Message, Refused

GET = b"GET /v1/stores/s1/sync?since=e-7&wait=25 HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n"
POST = b"POST /v1/tables/t1/call HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n{  }"


def verdict(data: bytes) -> tuple[list[Message], str]:
    """What comes of some bytes: the same whole, byte by byte, and cut in two anywhere; and h11 agrees."""
    found = check(data, range(len(data)))
    if len(data) < 400:
        for cut in range(1, len(data)):
            check(data, [cut])
    return found.messages, found.end


def accepted(data: bytes) -> Message:
    """The one request that the bytes are."""
    messages, end = verdict(data)
    assert end == "idle"
    (message,) = messages
    return message


def test_a_request_comes_out_whole() -> None:
    """All that stands in a request is in its message."""
    message = accepted(
        b"POST /v1/a%20b/call?x=1?2 HTTP/1.1\r\nHost: onda.example:80\r\n"
        b"Content-Length: 5\r\nA: one \r\na:\ttwo\r\nEmpty:\r\nLatin: \xe9\r\n\r\nhel\x00\n"
    )
    assert (message.method, message.target) == ("POST", "/v1/a%20b/call?x=1?2")
    assert (message.path, message.query) == ("/v1/a%20b/call", "x=1?2")
    assert message.headers == {
        "host": "onda.example:80",
        "content-length": "5",
        "a": "one, two",
        "empty": "",
        "latin": "é",
    }
    assert message.body == b"hel\x00\n"
    assert (message.minor, message.keep_alive, message.upgrade) == (1, True, False)


def test_chunks_are_put_together() -> None:
    """Sizes in either case and with zeros before them; `raw` is what came."""
    data = CHUNKED + b"00a\r\n0123456789\r\nB\r\n0123456789\n\r\n0\r\n\r\n"
    message = accepted(data)
    assert message.body == b"01234567890123456789\n"
    assert message.raw == data


def test_requests_behind_each_other_come_out_in_order() -> None:
    """Pipelining: one `feed`, many messages, and what has begun stays."""
    framer = Framer()
    framer.feed(GET + POST + CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + GET + POST[:-2])
    bodies = []
    while (message := framer.next()) is not None:
        bodies.append((message.method, message.body))
    assert bodies == [("GET", b""), ("POST", b"{  }"), ("POST", b"ab"), ("GET", b"")]
    assert framer.state == "body"
    framer.feed(POST[-2:] + GET)
    assert [framer.next().method, framer.next().method] == ["POST", "GET"]  # type: ignore[union-attr]
    assert (framer.next(), framer.state, framer.rest()) == (None, "idle", b"")
    verdict(GET + POST + CHUNKED + b"2\r\nab\r\n0\r\n\r\n" + GET)


def test_what_is_good_before_a_refusal_comes_out() -> None:
    """The requests before a bad one are there; then every `next` says no, whatever else is fed."""
    found = check(GET + POST + b"\r\n" + GET)
    assert (len(found.messages), found.end) == (2, "malformed")
    framer = Framer()
    framer.feed(GET + POST + b"bad\r\n")
    assert framer.next() is not None
    assert framer.next() is not None
    for _ in range(2):
        with pytest.raises(Refused):
            framer.next()
        framer.feed(GET)


def test_the_state_says_what_is_awaited() -> None:
    """idle, head, body, and idle again."""
    framer = Framer()
    states = []
    for part in (b"", b"POST / HTTP/1.1\r\n", HOST, b"Content-Length: 2\r\n\r\n", b"a"):
        framer.feed(part)
        assert framer.next() is None
        states.append(framer.state)
    assert states == ["idle", "head", "head", "body", "body"]
    framer.feed(b"b")
    assert framer.next() is not None
    assert framer.state == "idle"


FORMS = [
    (b"GET / HTTP/1.1", "/", "/", ""),
    (b"GET /? HTTP/1.1", "/?", "/", ""),
    (b"GET //x//?a?b HTTP/1.1", "//x//?a?b", "//x//", "a?b"),
    (b"GET /caf\xc3\xa9?\xff HTTP/1.1", "/caf%C3%A9?%FF", "/caf%C3%A9", "%FF"),
    (b"GET http://onda.example/v1/x?y=1 HTTP/1.1", "http://onda.example/v1/x?y=1", "/v1/x", "y=1"),
    (b"GET HTTP://onda.example HTTP/1.1", "HTTP://onda.example", "/", ""),
    (b"GET https://onda.example?u=/v1/x HTTP/1.1", "https://onda.example?u=/v1/x", "/", "u=/v1/x"),
    (b"OPTIONS * HTTP/1.1", "*", "/", ""),
    (b"CONNECT onda.example:443 HTTP/1.1", "onda.example:443", "/", ""),
]


@pytest.mark.parametrize("method", ["GET", "post", "PROPFIND", "M-SEARCH", "No_Such'Method!"])
def test_any_token_is_a_method(method: str) -> None:
    """Which methods there are is not decided here; small letters count as capitals, as in Hypercorn."""
    assert accepted(head(line=method.encode() + b" / HTTP/1.1")).method == method.upper()


@pytest.mark.parametrize(("line", "target", "path", "query"), FORMS)
def test_each_form_of_target(line: bytes, target: str, path: str, query: str) -> None:
    """Targets as the standard has them, reduced as the handlers want them, in ASCII."""
    message = accepted(head(line=line))
    assert (message.target, message.path, message.query) == (target, path, query)


class Stay(NamedTuple):
    version: bytes
    lines: tuple[bytes, ...]
    keep_alive: bool
    upgrade: bool = False


STAYS = [
    Stay(b"1.1", (), True),
    Stay(b"1.1", (b"Connection: close",), False),
    Stay(b"1.1", (b"Connection: keep-alive", b"connection: x, CLOSE"), False),
    Stay(b"1.1", (b"Connection: closed",), True),
    Stay(b"1.1", (b"Connection: \xa0close",), True),
    Stay(b"1.0", (), False),
    Stay(b"1.0", (b"Connection: Keep-Alive",), True),
    Stay(b"1.0", (b"Connection: keep-alive, close",), False),
    Stay(b"1.1", (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"), True, True),
    Stay(b"1.1", (b"Connection: Upgrade",), True),
    Stay(b"1.1", (b"Upgrade: websocket",), True),
    Stay(b"1.0", (b"Connection: Upgrade", b"Upgrade: websocket"), False),
]


@pytest.mark.parametrize("row", STAYS)
def test_whether_the_connection_stays(row: Stay) -> None:
    """Version, `Connection` and `Upgrade` decide how it goes on."""
    message = accepted(head(*row.lines, line=b"GET / HTTP/" + row.version))
    assert (message.keep_alive, message.upgrade) == (row.keep_alive, row.upgrade)


def test_http_1_0_needs_no_host() -> None:
    """It is older than Host."""
    assert accepted(head(line=b"GET / HTTP/1.0", host=b"")).minor == 0


def test_an_upgrade_leaves_what_follows() -> None:
    """The other protocol's bytes are nobody's request."""
    framer = Framer()
    framer.feed(head(b"Connection: Upgrade", b"Upgrade: websocket", line=b"GET / HTTP/1.1") + b"\x81\x80abcd")
    message = framer.next()
    assert message is not None
    assert message.upgrade
    assert framer.rest() == b"\x81\x80abcd"
    assert (framer.state, framer.rest()) == ("idle", b"")


REFUSED = [
    # where a body ends
    ("two lengths", head(b"Content-Length: 5", b"Content-Length: 6") + b"hello", "malformed"),
    ("the same length twice", head(b"Content-Length: 5", b"Content-Length: 5") + b"hello", "malformed"),
    ("a list of lengths", head(b"Content-Length: 5, 5") + b"hello", "malformed"),
    ("length +5", head(b"Content-Length: +5") + b"hello", "malformed"),
    ("length -1", head(b"Content-Length: -1"), "malformed"),
    ("length 0x5", head(b"Content-Length: 0x5") + b"hello", "malformed"),
    ("length 5_0", head(b"Content-Length: 5_0") + b"hello", "malformed"),
    ("no length in Content-Length", head(b"Content-Length:"), "malformed"),
    ("superscript length", head(b"Content-Length: \xb2"), "malformed"),
    ("length over 2^64", head(b"Content-Length: 18446744073709551621") + b"hello", "malformed"),
    ("length of 21 digits", head(b"Content-Length: " + b"0" * 20 + b"5") + b"hello", "malformed"),
    ("length and chunks", head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), "malformed"),
    ("chunks and length", head(b"Transfer-Encoding: chunked", b"Content-Length: 5"), "malformed"),
    ("chunks in 1.0", head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"), "malformed"),
    ("chunked, identity", head(b"Transfer-Encoding: chunked, identity"), "malformed"),
    ("gzip, chunked", head(b"Transfer-Encoding: gzip, chunked"), "not_implemented"),
    ("chunked twice", head(b"Transfer-Encoding: chunked", b"transfer-encoding: chunked"), "malformed"),
    ("chunked and empty", head(b"Transfer-Encoding: chunked", b"Transfer-Encoding:"), "malformed"),
    ("identity", head(b"Transfer-Encoding: identity"), "malformed"),
    ("chunked, gzip, chunked", head(b"Transfer-Encoding: chunked, gzip, chunked"), "malformed"),
    ("gzip and chunked", head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"), "not_implemented"),
    ("gzip and nbsp chunked", head(b"Transfer-Encoding: gzip,\xa0chunked"), "malformed"),
    ("xchunked", head(b"Transfer-Encoding: xchunked"), "malformed"),
    ("chunked;q=1", head(b"Transfer-Encoding: chunked;q=1"), "malformed"),
    ("'chunked'", head(b'Transfer-Encoding: "chunked"'), "malformed"),
    ("empty coding", head(b"Transfer-Encoding:"), "malformed"),
    ("space before the colon", head(b"Transfer-Encoding : chunked"), "malformed"),
    ("vertical tab before chunked", head(b"Transfer-Encoding: \x0bchunked"), "malformed"),
    ("nbsp before chunked", head(b"Transfer-Encoding: \xa0chunked"), "malformed"),
    # chunks
    ("size 0x5", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("size -1", CHUNKED + b"-1\r\n", "malformed"),
    ("size +5", CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("size with a space after it", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", "malformed"),
    ("size with a space before it", CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("no size", CHUNKED + b"\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("size of 17 digits", CHUNKED + b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("huge size", CHUNKED + b"ffffffffffffffff\r\n", "too_large"),
    ("size that wraps at 2^64", CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("extension", CHUNKED + b"5;a=b\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("extension that is a line end", CHUNKED + b"5;\nx\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("size with a bare LF", CHUNKED + b"5\nhello\r\n0\r\n\r\n", "malformed"),
    ("size with a bare CR", CHUNKED + b"5\rhello\r\n0\r\n\r\n", "malformed"),
    ("nothing after the chunk", CHUNKED + b"5\r\nhello0\r\n\r\n", "malformed"),
    ("LF after the chunk", CHUNKED + b"5\r\nhello\n0\r\n\r\n", "malformed"),
    ("CR CR after the chunk", CHUNKED + b"5\r\nhello\r\r0\r\n\r\n", "malformed"),
    ("chunk longer than its size", CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", "malformed"),
    ("trailer", CHUNKED + b"0\r\nA: b\r\n\r\n", "malformed"),
    ("smuggled in a trailer", CHUNKED + b"0\r\nGET / HTTP/1.1\r\n\r\n", "malformed"),
    # lines
    ("bare LF", GET.replace(b"\r\n", b"\n"), "malformed"),
    ("one bare LF", head(b"A: b\nC: d"), "malformed"),
    ("bare LF at the end", b"GET / HTTP/1.1\r\n" + HOST + b"\n", "malformed"),
    ("bare CR", head(b"A: b\rC: d"), "malformed"),
    ("CR CR LF", head(b"A: b\r"), "malformed"),
    ("NUL in a value", head(b"A: b\x00c"), "malformed"),
    ("NUL in a name", head(b"A\x00: b"), "malformed"),
    ("escape in a value", head(b"A: \x1b[2J"), "malformed"),
    ("DEL in a value", head(b"A: \x7f"), "malformed"),
    ("folded", head(b"A: b", b" c"), "malformed"),
    ("folded with a tab", head(b"A: b", b"\tc"), "malformed"),
    ("folded Content-Length", head(b"Content-Length:", b" 5") + b"hello", "malformed"),
    ("folded first header", b"GET / HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n", "malformed"),
    ("no name", head(b": b"), "malformed"),
    ("no colon", head(b"A"), "malformed"),
    ("space in a name", head(b"A B: c"), "malformed"),
    ("slash in a name", head(b"A/B: c"), "malformed"),
    ("not ASCII in a name", head(b"\xe9: c"), "malformed"),
    # Host
    ("no Host", head(host=b""), "malformed"),
    ("two Hosts", head(HOST[:-2]), "malformed"),
    ("two Hosts in 1.0", head(HOST[:-2], line=b"GET / HTTP/1.0"), "malformed"),
    ("an empty Host and another", head(b"Host:"), "malformed"),
    ("two Hosts in one", head(host=b"Host: a, b\r\n"), "malformed"),
    ("Host with a user", head(host=b"Host: a@b\r\n"), "malformed"),
    ("Host with a path", head(host=b"Host: a/b\r\n"), "malformed"),
    # the first line
    ("empty line first", b"\r\n" + GET, "malformed"),
    ("LF first", b"\n" + GET, "malformed"),
    ("space first", b" " + GET, "malformed"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "malformed"),
    ("HTTP/0.9", b"GET /\r\n", "malformed"),
    ("HTTP/0.9 with a version", head(line=b"GET / HTTP/0.9"), "http_version"),
    ("HTTP/1.2", head(line=b"GET / HTTP/1.2"), "http_version"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http_version"),
    ("HTTP/2", head(line=b"GET / HTTP/2"), "malformed"),
    ("HTTP/1.10", head(line=b"GET / HTTP/1.10"), "malformed"),
    ("HTTP/01.1", head(line=b"GET / HTTP/01.1"), "malformed"),
    ("http/1.1", head(line=b"GET / http/1.1"), "malformed"),
    ("two spaces", head(line=b"GET  / HTTP/1.1"), "malformed"),
    ("two spaces before the version", head(line=b"GET /  HTTP/1.1"), "malformed"),
    ("a tab", head(line=b"GET\t/ HTTP/1.1"), "malformed"),
    ("space after the version", head(line=b"GET / HTTP/1.1 "), "malformed"),
    ("space in the target", head(line=b"GET /a b HTTP/1.1"), "malformed"),
    ("NUL in the target", head(line=b"GET /a\x00b HTTP/1.1"), "malformed"),
    ("DEL in the target", head(line=b"GET /a\x7fb HTTP/1.1"), "malformed"),
    ("no method", head(line=b" / HTTP/1.1"), "malformed"),
    ("no token for a method", head(line=b"G(T / HTTP/1.1"), "malformed"),
    ("not ASCII in the method", head(line=b"G\xc9T / HTTP/1.1"), "malformed"),
    ("no path", head(line=b"GET x HTTP/1.1"), "malformed"),
    ("* for GET", head(line=b"GET * HTTP/1.1"), "malformed"),
    ("host:port for GET", head(line=b"GET onda.example:443 HTTP/1.1"), "malformed"),
    ("host for CONNECT", head(line=b"CONNECT onda.example HTTP/1.1"), "malformed"),
    ("another scheme", head(line=b"GET ftp://onda.example/ HTTP/1.1"), "malformed"),
    ("no host in the target", head(line=b"GET http:///v1/x HTTP/1.1"), "malformed"),
]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_it_is_refused(data: bytes, code: str) -> None:
    """Nothing comes out, and the code is the same however the bytes were cut; also behind a good request."""
    assert verdict(data) == ([], code)
    after = check(POST + data, range(len(POST + data)))
    assert (len(after.messages), after.end) == (1, code)


EARLY = [
    b"\x16",
    b" ",
    b"\r",
    b"G(",
    b"GET  ",
    b"GET / x",
    b"GET / HTTP/1.1\n",
    b"GET / HTTP/1.1\r\nA: b\n",
    b"GET / HTTP/1.1\r\nA: \x00",
    b"GET / HTTP/1.1\r\nA: b\rc",
    b"GET / HTTP/2.0\r\n",
    CHUNKED + b"x",
    CHUNKED + b"5;",
    CHUNKED + b"5\n",
    CHUNKED + b"1\r\nab",
    CHUNKED + b"0\r\nA",
]


@pytest.mark.parametrize("data", EARLY)
def test_what_cannot_become_good_is_not_waited_for(data: bytes) -> None:
    """The refusal comes with the byte that makes it certain, and not before."""
    framer = Framer()
    framer.feed(data[:-1])
    assert framer.next() is None
    framer.feed(data[-1:])
    with pytest.raises(Refused):
        framer.next()
