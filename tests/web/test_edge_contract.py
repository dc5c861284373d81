"""One contract, two paths: every answer of the edge is, byte for byte, that of Quart behind Hypercorn.

Both servers stand over the same node, so they answer from the same state. Each row is a request as bytes;
what differs by nature is evened out: the date, and where a body is cut into chunks.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from engine import open_node
from tests.web.site import Running, config, set_up, token
from web.server import open_server
from web.site import make_site

pytestmark = pytest.mark.one_node("an edge and Hypercorn in front of the same node")

DATE = re.compile(rb"date: [^\r]+\r\n")
CONTINUE = re.compile(rb"HTTP/1.1 100 .*?\r\n\r\n", re.DOTALL)


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Running, Running]]:
    """The same node behind an edge, and behind Hypercorn alone."""
    chosen = config(ping_s=0.0, rotate_s=0.0)
    async with open_node(chosen) as node:
        edge, plain = make_site(node, chosen), make_site(node, config(edge=False, ping_s=0.0, rotate_s=0.0))
        async with open_server(plain) as plain_server, open_server(edge) as edge_server:
            sides = Running(node, edge, edge_server), Running(node, plain, plain_server)
            async with sides[0].client("service") as client:
                await set_up(client, tables=("3",))
            yield sides


def request(line: str, *headers: str, body: bytes = b"", who: str = "service") -> bytes:
    """A request as it goes out; the token is the same for both."""
    lines = [f"{line} HTTP/1.1" if " HTTP/" not in line else line, "Host: onda.test"]
    lines += [f"Authorization: Bearer {TOKENS[who]}"] if who else []
    lines += headers
    if body:
        lines += [f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


TOKENS = {who: token(who, exp=4_000_000_000) for who in ("service", "owner:s1", "table:s1/3", "user:u1")}
JSON = "Content-Type: application/json"
ORDER = b'{"lines":[{"product":"ramen","quantity":2}]}'

REQUESTS = {
    "sync": request("GET /v1/stores/s1/sync"),
    "sync of a table": request("GET /v1/tables/s1/3/sync", who="table:s1/3"),
    "sync of a user": request("GET /v1/users/u1/sync", who="user:u1"),
    "sync, head": request("HEAD /v1/stores/s1/sync"),
    "sync after a cursor": request("GET /v1/stores/s1/sync?after=memory-2&limit=2"),
    "sync ahead": request("GET /v1/stores/s1/sync?after=memory-999"),
    "sync, not a cursor": request("GET /v1/stores/s1/sync?after=%00"),
    "sync, not modified": request("GET /v1/stores/s1/sync", "If-None-Match: *"),
    "sync that waits in vain": request("GET /v1/stores/s1/sync?after=memory-6&wait=0.05"),
    "sync twice a field": request("GET /v1/stores/s1/sync?limit=1&limit=2"),
    "no token": request("GET /v1/stores/s1/sync", who=""),
    "bad token": request("GET /v1/stores/s1/sync", "Authorization: Bearer x.y.z", who=""),
    "basic": request("GET /v1/stores/s1/sync", "Authorization: Basic eA==", who=""),
    "other store": request("GET /v1/stores/s2/sync", who="owner:s1"),
    "unknown store": request("GET /v1/stores/nobody/sync"),
    "unknown path": request("GET /v1/nothing"),
    "no path": request("GET /v1/"),
    "empty parts": request("GET /v1//stores/s1/sync"),
    "encoded": request("GET /v1/stores/%73%31/sync"),
    "dots": request("GET /v1/stores/../stores/s1/sync"),
    "raw Korean": request("GET /v1/stores/가게/sync"),
    "absolute": request("GET http://onda.test/v1/stores/s1/sync"),
    "target too long": request("GET /v1/stores/s1/sync?after=" + "x" * 9000),
    "too many fields": request("GET /v1/stores/s1/sync?" + "&".join(f"a{n}=1" for n in range(200))),
    "options": request("OPTIONS /v1/stores/s1/sync"),
    "options of a command": request("OPTIONS /v1/stores/s1/create-order"),
    "delete": request("DELETE /v1/stores/s1/sync"),
    "trace": request("TRACE /v1/stores/s1/sync"),
    "no such method": request("BREW /v1/stores/s1/sync"),
    "small method": request("get /v1/stores/s1/sync"),
    "command by get": request("GET /v1/stores/s1/create-order"),
    "unknown command": request("POST /v1/stores/s1/fly", JSON, body=b"{}"),
    "not JSON": request("POST /v1/stores/s1/create-order", JSON, body=b"{"),
    "not UTF-8": request("POST /v1/stores/s1/create-order", JSON, body=b'{"a":"\xff"}'),
    "unknown field": request("POST /v1/stores/s1/create-order", JSON, body=b'{"x":1}'),
    "no type": request("POST /v1/stores/s1/create-order", body=ORDER),
    "packed": request("POST /v1/stores/s1/create-order", JSON, "Content-Encoding: gzip", body=ORDER),
    "bad key": request("POST /v1/stores/s1/create-order", JSON, "Idempotency-Key: a b", body=ORDER),
    "refused": request(
        "POST /v1/stores/s1/create-order", JSON, body=b'{"lines":[{"product":"x","quantity":1}]}'
    ),
    "forbidden": request("POST /v1/stores/s1/open-store", JSON, body=b"{}", who="user:u1"),
    "repeated": request("POST /v1/stores/s1/create-order", JSON, "Idempotency-Key: k1", body=ORDER),
    "mismatch": request("POST /v1/stores/s1/create-order", JSON, "Idempotency-Key: k1", body=b'{"lines":[]}'),
    "nothing to do": request("POST /v1/stores/s1/open-store", JSON, "Idempotency-Key: k2", body=b"{}"),
    "in chunks": request("POST /v1/stores/s1/open-store", JSON, "Transfer-Encoding: chunked")
    + b"2\r\n{}\r\n0\r\n\r\n",
    "expects": request("POST /v1/stores/s1/open-store", JSON, "Expect: 100-continue", body=b"{}"),
    "too large": request("POST /v1/stores/s1/create-order", JSON, f"Content-Length: {2 << 20}"),
    "foreign cookie": request(
        "POST /v1/stores/s1/open-store",
        f"Cookie: onda_token={TOKENS['service']}",
        "Origin: http://evil.test",
        JSON,
        body=b"{}",
        who="",
    ),
    "closing": request("GET /v1/stores/s1/sync", "Connection: close"),
    "HTTP/1.0": request("GET /v1/stores/s1/sync HTTP/1.0"),
    "stream, head": request("HEAD /v1/stores/s1/stream"),
    "stream, forbidden": request("GET /v1/stores/s1/stream", who="user:u1"),
    "stream, bad types": request("GET /v1/stores/s1/stream?types=a-b"),
    "methods of payment": request("GET /v1/payments/methods"),
    "history": request("GET /v1/history/store:s1"),
    "topic": request("GET /v1/topics/none"),
    "websocket without upgrade": request("GET /v1/ws"),
    "progress": request("GET /api/v2/progress/status/none?userId=u1"),
    "events": request("GET /events/status"),
    "page": request("GET /"),
    "board": request("GET /board/s1", who=""),
    "asset": request("GET /static/none.js"),
    "page, encoded": request("GET /%62oard/s1"),
    "page, exact and encoded": request("GET /%6fps"),
    "page, two slashes": request("GET //board/s1"),
    "page, encoded slash": request("GET /board/s1%2Fx"),
    "page, absolute": request("GET http://other.test/ops"),
    "asset, encoded": request("GET /sta%74ic/none.js"),
    "asset, dots": request("GET /static/../v1/stores/s1/sync"),
    "API, two slashes": request("GET //v1/stores/s1/sync"),
    "server": request("OPTIONS *"),
    "openapi": request("GET /openapi.json"),
    "health": request("GET /healthz"),
}


ENDS = {"target too long", "too large"}
"""After these the edge closes, as it did not read the request to its end, and says so."""


async def answer(side: Running, raw: bytes) -> bytes:
    """What comes back until the connection is closed, or is ready for another request."""
    stream = await side.connect()
    async with stream:
        await stream.send_all(raw)
        got = b""
        with trio.fail_after(5):
            while not _complete(got, raw):
                data = await stream.receive_some(65_536)
                if not data:
                    return got + b"<end>"
                got = CONTINUE.sub(b"", got + data)  # the edge says it only to who waits for it
    return got


def _complete(got: bytes, raw: bytes) -> bool:
    head, found, body = got.partition(b"\r\n\r\n")
    if not found or b"Connection: close" in head or b"connection: close" in head:
        return False
    if raw.startswith(b"HEAD") or head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
        return True
    length = re.search(rb"content-length: (\d+)", head)
    if length is None:
        return got.endswith(b"0\r\n\r\n")
    return len(body) >= int(length[1])


async def test_every_answer_is_the_same_on_both_paths() -> None:
    async with both() as (edge, plain):
        for name in ("repeated", "nothing to do"):  # from now on both get the first answer again
            await answer(plain, REQUESTS[name])
        different = []
        for name, raw in REQUESTS.items():
            first, second = [DATE.sub(b"date: D\r\n", await answer(side, raw)) for side in (edge, plain)]
            if name in ENDS:
                first = first.replace(b"Connection: close\r\n", b"").removesuffix(b"<end>")
            if first != second:
                different.append(f"{name}:\n{first[:900]!r}\n{second[:900]!r}")
        assert not different, "\n\n".join(different)
        assert len(REQUESTS) > 50


async def test_the_edge_answers_many_requests_of_one_connection_in_their_order() -> None:
    """Hot ones, handed-over ones and refusals, all sent at once."""
    names = ["sync", "page", "unknown path", "repeated", "asset", "sync", "health", "HTTP/1.0"]
    async with both() as (edge, plain):
        await answer(plain, REQUESTS["repeated"])
        apart = [DATE.sub(b"", await answer(plain, REQUESTS[name])) for name in names]
        stream = await edge.connect()
        async with stream:
            await stream.send_all(b"".join(REQUESTS[name] for name in names))
            got = b""
            with trio.fail_after(5):
                while data := await stream.receive_some(65_536):
                    got += data
        assert DATE.sub(b"", got) + b"<end>" == b"".join(apart)


async def test_a_request_may_come_byte_by_byte() -> None:
    raw = REQUESTS["repeated"]
    async with both() as (edge, plain):
        await answer(plain, raw)
        expected = DATE.sub(b"", await answer(plain, raw))
        stream = await edge.connect()
        async with stream:
            for at in range(len(raw)):
                await stream.send_all(raw[at : at + 1])
                if at % 16 == 0:
                    await trio.lowlevel.checkpoint()
            got = b""
            with trio.fail_after(5):
                while not _complete(got, raw):
                    got += await stream.receive_some(65_536)
        assert DATE.sub(b"", got) == expected
