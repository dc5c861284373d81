"""What nginx sends to a node, and when it asks a second one: seen from two servers that write it down."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from tests.deploy.cluster import Nginx, needs_nginx, nginx
from tests.ports import free_port

pytestmark = needs_nginx

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Written:
    """The requests that reached the two servers, head and body as they came."""

    def __init__(self, answer: bytes) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self._answer = answer

    async def serve(self, stream: trio.SocketStream) -> None:
        """Take requests on a connection; answer each, or hang up without a word."""
        self.connections += 1
        data = b""
        async for chunk in stream:
            data += chunk
            head, found, body = data.partition(b"\r\n\r\n")
            if not found or len(body) < _length(head):
                continue
            self.requests.append(data.decode())
            data = b""
            if not self._answer:
                return
            await stream.send_all(self._answer)


def _length(head: bytes) -> int:
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    return next((int(value) for name, _, value in lines if name == b"content-length"), 0)


@asynccontextmanager
async def written(
    folder: Path,
    answer: bytes = ANSWER,
    serving: Sequence[int] = (0, 1),
    changes: dict[str, str] | None = None,
) -> AsyncIterator[tuple[Nginx, Written]]:
    """nginx in front of two servers; those in `serving` are there."""
    log = Written(answer)
    ports = [free_port(), free_port()]
    async with trio.open_nursery() as nursery:
        for at in serving:
            await nursery.start(partial(trio.serve_tcp, log.serve, ports[at], host="127.0.0.1"))
        with nginx(folder / "nginx", ports, changes) as front:
            await front.wait_listening()
            yield front, log
        nursery.cancel_scope.cancel()


async def test_headers(tmp_path: Path) -> None:
    """HTTP/1.1 without `Connection: close`; who asked and for which host, not what the client claims."""
    claims = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "https", "connection": "close"}
    async with written(tmp_path) as (front, log), front.client() as http:
        answer = await http.get("/v1/stores/s1/sync", headers=claims | {"upgrade": "h2c"})
    assert answer.status_code == 200
    first, *lines = log.requests[0].lower().rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first == "get /v1/stores/s1/sync http/1.1"
    assert not {"connection", "upgrade"} & set(headers)
    assert headers["host"] == headers["x-forwarded-host"] == f"127.0.0.1:{front.port}"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert "authorization" in headers


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
async def test_with_a_certificate(tmp_path: Path) -> None:
    """The lines that are commented out in the shipped file, as they stand; a node learns that it is https."""
    folder, port = tmp_path / "nginx", free_port()
    folder.mkdir()
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=onda"]
    request += ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    request += ["-addext", "subjectAltName=IP:127.0.0.1"]
    await trio.run_process(request, capture_stderr=True)
    changes = {"# listen 443 ": f"listen 127.0.0.1:{port} ", "# ssl_": "ssl_"}
    async with written(tmp_path, changes=changes) as (_, log):
        trusted = ssl.create_default_context(cafile=str(folder / "tls.crt"))
        async with httpx.AsyncClient(verify=trusted) as http:
            answer = await http.get(f"https://127.0.0.1:{port}/v1/stores/s1/sync")
    assert answer.status_code == 200
    assert "x-forwarded-proto: https" in log.requests[0].lower()
    assert f"host: 127.0.0.1:{port}" in log.requests[0].lower()


async def test_connections_to_nodes_are_kept(tmp_path: Path) -> None:
    """Many requests, each on a connection of its own to nginx, use few to a node."""
    async with written(tmp_path) as (front, log):
        for _ in range(12):
            async with front.client() as http:
                assert (await http.get("/v1/stores/s1/sync")).status_code == 200
    assert len(log.requests) == 12
    assert log.connections <= 2  # one for each of nginx's workers, as one shop has one node


STALL_BYTES_MAX = 32 << 20
"""What sockets on the way may hold (some MB each); with buffering, nginx would put 1 GB into files."""


async def test_a_client_that_reads_nothing_holds_up_its_node(tmp_path: Path) -> None:
    """nginx takes no more than its sockets hold, so the node sees that a screen does not keep up."""
    port, taken = free_port(), 0
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    async def flood(stream: trio.SocketStream) -> None:
        nonlocal taken
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with trio.move_on_after(2):
            while taken < 4 * STALL_BYTES_MAX:
                await stream.send_all(chunk)
                taken += len(chunk)
        stopped.set()

    stopped = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, flood, port, host="127.0.0.1"))
        with nginx(tmp_path / "nginx", [port, port]) as front:
            await front.wait_listening()
            async with await trio.open_tcp_stream("127.0.0.1", front.port) as client:
                await client.send_all(b"GET /v1/stores/s1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
                await stopped.wait()
        nursery.cancel_scope.cancel()
    assert 0 < taken < STALL_BYTES_MAX


SHOP, ELSE = "/v1/stores/s1/create-order", "/accounts"


@pytest.mark.parametrize(
    ("method", "path", "key", "times"),
    [
        ("GET", ELSE, None, 2),
        ("POST", ELSE, None, 1),
        ("POST", ELSE, "till-7-1", 2),
        ("GET", SHOP, None, 2),
        ("POST", SHOP, None, 1),
        ("POST", SHOP, "", 1),
        ("POST", SHOP, "till-7-1", 2),
    ],
)
async def test_nodes_that_die_over_a_request(
    tmp_path: Path, method: str, path: str, key: str | None, times: int
) -> None:
    """Both take it and hang up. A POST is sent once, unless it has a key."""
    headers = {} if key is None else {"idempotency-key": key}
    async with written(tmp_path, answer=b"") as (front, log), front.client() as http:
        answer = await http.request(method, path, content=b"{}", headers=headers)
    assert len(log.requests) == times
    assert {request.split()[0] for request in log.requests} == {method}
    assert all(request.endswith("\r\n\r\n{}") for request in log.requests)
    check_own_words(answer)


@pytest.mark.parametrize("path", ["/v1/stores/s{}/create-order", "/accounts?n={}"])
async def test_a_node_that_is_not_there_is_passed_over(tmp_path: Path, path: str) -> None:
    """Also for a POST without a key, as nothing of it was sent."""
    async with written(tmp_path, serving=[0]) as (front, log), front.client() as http:
        for number in range(20):
            answer = await http.post(path.format(number), content=b"{}")
            assert answer.status_code == 200
    assert len(log.requests) == 20


async def test_each_shop_has_its_node(tmp_path: Path) -> None:
    """All paths of a shop, or of a user, go to the same node; shops, users and all else are spread."""
    async with written(tmp_path) as (front, _), front.client() as http:
        for number in range(20):
            for path in ("stores/s{}/sync", "stores/s{}/create-order", "tables/s{}/3/sync?after=x"):
                assert (await http.get("/v1/" + path.format(number))).status_code == 200
            for path in ("users/u{}/sync", "users/u{}/notify", "topics/t/x"):
                assert (await http.get("/v1/" + path.format(number))).status_code == 200
        lines = [line.split() for line in front.log.splitlines()]
    nodes: dict[str, set[str]] = {}
    for line in lines:
        place = line[3].rstrip('"').split("/")[3]
        nodes.setdefault(place, set()).add(next(word for word in line if word.startswith("upstream=")))
    assert len(nodes.pop("t")) == 2
    assert len(nodes) == 40
    assert all(len(of_place) == 1 for of_place in nodes.values())
    for kind in "su":
        assert len(set.union(*(found for place, found in nodes.items() if place[0] == kind))) == 2


async def test_a_node_that_takes_no_orders_still_feeds_its_screens(tmp_path: Path) -> None:
    """503 is its word on a command, not on itself: it is asked again and again, and no other one instead."""
    head = b"HTTP/1.1 503 X\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}"
    async with written(tmp_path, answer=head) as (front, log), front.client() as http:
        for number in range(12):
            answer = await http.post(SHOP, content=b"{}", headers={"idempotency-key": f"k{number}"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert len(set(front.answered("POST", SHOP))) == 1
    assert len(log.requests) == 12


async def test_no_node_at_all(tmp_path: Path) -> None:
    """502 in nginx's own words, with a time to come back."""
    async with written(tmp_path, serving=[]) as (front, _), front.client() as http:
        check_own_words(await http.get("/v1/stores/s1/sync"))


async def test_answers_of_nodes_pass_as_they_are(tmp_path: Path) -> None:
    """A node's own 502 to 504 keep their bodies: `unknown_outcome` is for the client."""
    body = b'{"code":"unknown_outcome"}'
    head = b"HTTP/1.1 504 X\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    async with written(tmp_path, answer=head + body) as (front, log), front.client() as http:
        answer = await http.post("/v1/stores/s1/create-order", content=b"{}")
    assert (answer.status_code, answer.content) == (504, body)
    assert len(log.requests) == 1


def check_own_words(answer: httpx.Response) -> None:
    """Nothing that a client could take for Onda's."""
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["retry-after"] == "2"
    assert answer.text.startswith("nginx: ")
