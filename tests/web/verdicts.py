"""What the edge's framing and h11 make of the same bytes, and how the two are held against each other.

One direction only: the framing is the stricter one. Whatever it accepts, h11 has to accept as well, as
Hypercorn configures it and after the one thing that is done to requests before Hypercorn sees them (other
bytes than ASCII in the first line are percent-encoded).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import h11

from web.framing import HEAD_BYTES_MAX, Framer, Message, Refused

HOST = b"Host: onda.example\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

_RAW = re.compile(rb"[\x80-\xff]")


class Seen(NamedTuple):
    """What a reader made of one request. `keep_alive` is h11's only in HTTP/1.1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    minor: int
    keep_alive: bool


class Verdict(NamedTuple):
    """What came of a whole connection: requests, and the code of the refusal, or the state at its end."""

    messages: list[Message]
    end: str


def head(*lines: bytes, line: bytes = b"POST /x HTTP/1.1", host: bytes = HOST) -> bytes:
    """A head with these further lines."""
    return line + b"\r\n" + host + b"".join(text + b"\r\n" for text in lines) + b"\r\n"


def pieces(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """Cut bytes at the given places."""
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


def judge(parts: Iterator[bytes]) -> Verdict:
    """Run the framing over what arrives in parts."""
    framer = Framer()
    messages: list[Message] = []
    for part in parts:
        framer.feed(part)
        try:
            while (message := framer.next()) is not None:
                messages.append(message)
        except Refused as refused:
            return Verdict(messages, refused.code)
    return Verdict(messages, framer.state)


def seen(message: Message) -> Seen:
    """Return a message as what is compared."""
    return Seen(
        message.method, message.target, message.headers, message.body, message.minor, message.keep_alive
    )


def ask_h11(data: bytes) -> tuple[Seen, int]:
    """Return the first request of some bytes as h11 sees it, and how many bytes it took.

    Raises:
        RemoteProtocolError: h11 refuses it, or it is not whole.
    """
    line, newline, after = data.partition(b"\n")
    escaped = _RAW.sub(lambda match: b"%%%02X" % match[0][0], line) + newline + after
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    connection.receive_data(escaped)
    request = connection.next_event()
    if not isinstance(request, h11.Request):
        raise h11.RemoteProtocolError("no whole head")
    body = bytearray()
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    if not isinstance(event, h11.EndOfMessage):
        raise h11.RemoteProtocolError("no whole body")
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    taken = len(data) - len(connection.trailing_data[0])
    connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    stays = connection.our_state is not h11.MUST_CLOSE  # known only now: an upgrade was possible
    version = request.http_version.decode()
    got = Seen(
        request.method.decode().upper(),
        request.target.decode(),
        headers,
        bytes(body),
        int(version == "1.1"),
        stays,
    )
    assert version in ("1.0", "1.1")
    return got, taken


def check(data: bytes, cuts: Sequence[int] = ()) -> Verdict:
    """Return the verdict on some bytes, once it is sure that cutting changes nothing and h11 agrees."""
    verdict = judge(iter([data]))
    if cuts:
        apart = judge(pieces(data, cuts))
        assert apart.end == verdict.end
        assert [(seen(one), one.raw) for one in apart.messages] == [
            (seen(one), one.raw) for one in verdict.messages
        ]
    start = 0
    for message in verdict.messages:
        ours = seen(message)
        theirs, taken = ask_h11(data[start:])
        if not ours.minor:
            theirs = theirs._replace(keep_alive=ours.keep_alive)  # h11 ends every 1.0 connection
        assert ours == theirs
        end = start + taken
        alone = judge(iter([data[start:end]]))
        assert (len(alone.messages), alone.end) == (1, "idle"), "h11 sees another end"
        assert not judge(iter([data[start : end - 1]])).messages, "h11 sees a later end"
        _check_raw(message, data[start:end])
        start = end
    if verdict.end == "idle":
        assert start == len(data)
    return verdict


def _check_raw(message: Message, data: bytes) -> None:
    """What is handed over is the same request, which no longer waits for `100 Continue`."""
    if "expect" not in message.headers:
        assert message.raw == data
    handed, taken = ask_h11(message.raw)
    assert taken == len(message.raw)
    expected = {name: value for name, value in message.headers.items() if name != "expect"}
    assert (handed.headers, handed.body, handed.target) == (expected, message.body, message.target)
