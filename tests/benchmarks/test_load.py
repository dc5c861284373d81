"""The load generator finds every fault that a hub could make: it is the judge of all figures."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.loadgen import Target, event, faults, get, post, run_load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler"),
]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST = 100
QUIET_S = 0.6
"""Until the generator, whose streams have all begun, measures."""

BLOCKS = [b'id: e-%d\ndata: {"version":%d,"note":"%019d"}\n\n' % (n, n, n) for n in range(FIRST, FIRST + 20)]


def chunks(data: bytes, size: int) -> bytes:
    """Some bytes in the chunked coding, however the blocks are cut by it."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


@contextmanager
def hub(second: list[bytes]) -> Iterator[int]:
    """A server of two subscribers: the first is given `BLOCKS`, the second what is given."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        socks = [listener.accept()[0] for _ in range(2)]
        for sock in socks:
            sock.recv(4096)
            sock.sendall(HEAD)
        time.sleep(QUIET_S)
        socks[0].sendall(chunks(b"".join(BLOCKS), 1000))
        data = chunks(b": a comment\n\n" + b"".join(second), 7)
        for at in range(0, len(data), 100):
            socks[1].sendall(data[at : at + 100])
            time.sleep(0.001)
        for sock in socks:
            sock.recv(1)
            sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(10)
        listener.close()


SWAPPED = [*BLOCKS[:5], BLOCKS[6], BLOCKS[5], *BLOCKS[7:]]
ALTERED = [*BLOCKS[:5], BLOCKS[5].replace(b'"note":"0', b'"note":"1'), *BLOCKS[6:]]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (BLOCKS, set()),
        (BLOCKS[:5] + BLOCKS[6:], {"gaps"}),
        (BLOCKS[:5] + BLOCKS[4:], {"gaps"}),
        (SWAPPED, {"gaps"}),
        (ALTERED, {"different"}),
        (BLOCKS[:-1], {"lost", "drained"}),
    ],
    ids=["in order", "left out", "doubled", "swapped", "altered", "not the last one"],
)
def test_each_fault_is_found(tmp_path: Path, second: list[bytes], found: set[str]) -> None:
    """However the stream is cut into chunks and segments, and whatever comments are in it."""
    times = {"warm_s": 0.1, "seconds": 1.0, "drain_s": 0.3}
    with hub(second) as port:
        target = Target(port, [], get("/"), first_number=FIRST)
        result = run_load(target, tmp_path, subs=2, pubs=0, publish=False, **times)
    seen = set(faults(result)) - {"first"}
    assert found <= seen, result
    assert bool(found) == bool(seen), result
    if not found:
        assert result["deliveries"] == 2 * len(BLOCKS)


def test_a_refused_request_is_an_error(tmp_path: Path) -> None:
    """An answer that is not 2xx is counted and shown, and a good one that lacks what it must have."""
    answers = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine",
        b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno",
    ]
    for number, answer in enumerate(answers):
        with answering(lambda _, answer=answer: answer) as port:
            target = Target(port, [], requests=[post("/", event(100))], options={"expect": "fine"})
            result = run_load(target, tmp_path, pubs=1, warm_s=0.1, seconds=0.2, drain_s=1)
        assert result["answered"] > 0
        assert bool(result["errors"]) == bool(number), result


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """A server of one connection that answers each request with the same."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock = listener.accept()[0]
        while request := sock.recv(65536):
            sock.sendall(answer(request))
        sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(10)
        listener.close()
