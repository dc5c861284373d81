"""The edge's framing against h11: requests made up and then spoilt, cut anywhere.

`--framing-examples` (ONDA_FRAMING_EXAMPLES) sets how many; `tests/fuzz_framing.py` goes on from there, guided
by coverage.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.web.verdicts import check, judge, pieces

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
PLAIN = st.binary(max_size=12)
VALUES = st.one_of(
    st.text("abcXYZ019 ,;:=/\"'\t\x80\xa0\xffé", max_size=12).map(lambda text: text.encode("latin-1")),
    st.sampled_from([b"close", b"keep-alive", b"Upgrade", b"websocket", b"100-continue", b"h2c", b""]),
    st.sampled_from([b"\xa0close", b"close\x85", b"x,\tclose ,y", b"upgrade\xa0", b"\x85100-continue"]),
)
NAMES = st.one_of(
    st.text(TOKEN, min_size=1, max_size=8).map(str.encode),
    st.sampled_from([b"Connection", b"Expect", b"Upgrade", b"Accept", b"Cookie", b"X-Forwarded-For", b"TE"]),
)
RESERVED = {b"host", b"content-length", b"transfer-encoding"}
SPACE = st.sampled_from([b"", b" ", b"  ", b"\t"])
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"post", b"PROPFIND", b"X-Y"])
TARGETS = st.one_of(
    st.sampled_from(
        [b"/", b"/v1/x?since=1", b"http://h/x?a", b"HTTPS://h?b/c", b"//a//b?c?d", b"/\xed\x8c\xa5"]
    ),
    st.text("abc/%?&=.:@#é\xff", max_size=16).map(lambda text: b"/" + text.encode("latin-1")),
)


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Some bytes, and the same in chunks."""
    parts = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    wire = bytearray()
    for part in parts:
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x"])) % len(part)
        wire += size + b"\r\n" + part + b"\r\n"
    return b"".join(parts), bytes(wire) + draw(st.sampled_from([b"0", b"000"])) + b"\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request that is to be accepted."""
    version = draw(st.sampled_from([b"1.1"] * 5 + [b"1.0"]))
    fields = [
        name + b":" + draw(SPACE) + draw(VALUES) + draw(SPACE)
        for name in draw(st.lists(NAMES, max_size=4))
        if name.lower() not in RESERVED
    ]
    body = b""
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    if framing == "length":
        body = draw(PLAIN)
        fields.append(draw(st.sampled_from([b"Content-Length: %d", b"content-length:%03d\t"])) % len(body))
    elif framing == "chunked" and version == b"1.1":
        body = draw(chunked())[1]
        fields.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:\tChunked "])))
    if version == b"1.1" or draw(st.booleans()):
        fields.append(draw(st.sampled_from([b"Host: onda.example", b"host:[::1]:80", b"HOST:"])))
    fields = draw(st.permutations(fields))
    line = draw(METHODS) + b" " + draw(TARGETS) + b" HTTP/" + version
    return b"\r\n".join([line, *fields, b"", b""]) + body


LINES = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Content-Length: +3",
        b"Content-Length: 3, 3",
        b"Content-Length: 0x3",
        b"Content-Length:",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Host: other",
        b" folded",
        b"\tfolded",
        b"no colon",
        b": no name",
        b"",
        b"GET / HTTP/1.1",
        b"GET /",
        b"PRI * HTTP/2.0",
        b"0",
        b"5;x=y",
        b"-1",
        b"0x5",
        b"5 ",
        b"ffffffffffffffff",
        b"00000000000000000000005",
    ]
)
BYTES = st.one_of(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b",", b";", b"0", b"\x7f"]
    ),
    st.sampled_from([b"\x0b", b"\x0c", b"\x1f", b"\x85", b"\xa0", b"\xff", b"?", b"%", b"/"]),
    st.binary(min_size=1, max_size=3),
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Some requests behind each other, with some bytes or lines put in, taken out, replaced or doubled."""
    data = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(
            st.sampled_from(["insert", "delete", "replace", "double", "line", "take", "twice", "swap"])
        )
        if kind in ("line", "take", "twice", "swap"):
            lines = data.split(b"\r\n")
            at = draw(st.integers(0, len(lines) - 1))
            if kind == "line":
                lines.insert(at, draw(LINES))
            elif kind == "take":
                del lines[at]
            elif kind == "twice":
                lines.insert(at, lines[at])
            else:
                lines[at] = draw(LINES)
            data = b"\r\n".join(lines)
            continue
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(1, 3)) if kind in ("delete", "replace") else 0
        new = {"delete": b"", "double": data[at : at + 7]}.get(kind)
        data = data[:at] + (draw(BYTES) if new is None else new) + data[at + gone :]
    return data


CUTS = st.lists(st.integers(0, 400), max_size=6)


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """How many requests are made up."""
    return int(request.config.getoption("--framing-examples"))


def run(examples: int) -> settings:
    """How a search is run: without shrinking time limits, and never slow to give up on size."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )


def test_what_is_accepted_h11_reads_in_the_same_way(examples: int) -> None:
    """Spoilt requests: either refused, or what h11 sees, to the same byte; wherever the bytes were cut."""
    counts = {"accepted": 0, "refused": 0, "waiting": 0}

    @run(examples)
    @given(spoilt(), CUTS)
    def search(data: bytes, cuts: list[int]) -> None:
        verdict = check(data, cuts)
        counts["accepted"] += len(verdict.messages)
        kind = verdict.end if verdict.end in ("idle", "head", "body") else "refused"
        counts["refused"] += kind == "refused"
        counts["waiting"] += kind in ("head", "body")

    search()
    print(counts)
    assert all(counts.values()), "the search has to reach all of them"


def test_what_is_well_formed_is_accepted(examples: int) -> None:
    """Requests as the standard has them, several behind each other: all of them come out, in any cutting."""

    @run(max(1, examples // 5))
    @given(st.lists(requests(), min_size=1, max_size=4), CUTS)
    def search(several: list[bytes], cuts: list[int]) -> None:
        verdict = check(b"".join(several), cuts)
        assert (len(verdict.messages), verdict.end) == (len(several), "idle")

    search()


def test_noise_is_refused_or_waited_for(examples: int) -> None:
    """Bytes that are nothing at all: no other error than a refusal, the same one in any cutting."""

    @run(max(1, examples // 5))
    @given(st.binary(max_size=200), CUTS)
    def search(data: bytes, cuts: list[int]) -> None:
        check(data, cuts)

    search()


@run(50)
@given(st.lists(chunked(), min_size=1, max_size=3))
def test_chunks_come_out_as_what_went_in(bodies: list[tuple[bytes, bytes]]) -> None:
    """Byte by byte: each body is what was cut into chunks."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = b"".join(head + wire for _, wire in bodies)
    verdict = judge(pieces(data, range(len(data))))
    assert [message.body for message in verdict.messages] == [body for body, _ in bodies]
