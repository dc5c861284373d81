"""How many nodes the servers of tests have: one, or several on one Redis (`--nodes 2`).

With several, `tests.web.site.running` opens as many nodes within the test, and its clients go from one to the
next with each request. Whatever serves as a process (`tests.web.process`, `tests.chaos.process`,
`tests.browser.shop`) serves as many, behind a `Front` on the port that the test knows: each connection goes
to the next node. The Redis keeps everything (`appendfsync always`) and outlives the nodes, as the data folder
of a single one does.

What is about one node by nature is marked `one_node`, with the reason, and skipped with several. What looks
inside a server is marked `first_node`: then there are several, and its clients go to the first.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import trio

from tests.relays.redis_server import RedisServer

COUNT = 1
"""Set by `--nodes`."""
ALL_TO_FIRST = False
"""Whether clients of the test go to the first node only."""
PARTITIONS = 2
"""Few, so that nodes start quickly."""
KEEPING = ("--appendonly", "yes", "--appendfsync", "always")
CHUNK_BYTES = 64 << 10

_servers: dict[Path, RedisServer] = {}


def several() -> bool:
    """Whether servers have more than one node."""
    return COUNT > 1


def names() -> list[str]:
    """What the nodes are called."""
    return [f"onda-{number}" for number in range(1, COUNT + 1)]


def log_of(data: Path) -> str:
    """Return the URL of the log that goes with a data folder; it lives until `end_log`."""
    server = _servers.get(data)
    if server is None:
        folder = data.with_name(f"{data.name}.redis")
        folder.mkdir(parents=True, exist_ok=True)
        server = _servers[data] = RedisServer(folder, *KEEPING)
        server.start()
    return server.url


def logs() -> set[Path]:
    """Return the folders that have one now."""
    return set(_servers)


def end_log(data: Path) -> None:
    """End the log of a data folder, if there is one."""
    if (server := _servers.pop(data, None)) is not None:
        server.stop()


def options_of(data: Path, name: str, log: str = "") -> list[str]:
    """Return the options with which a process is the node of a name, as those of one node are `--data`.

    Args:
        log: of a Redis that the test has itself.
    """
    return ["--data", str(data / name), "--node-id", name, "--log", log or log_of(data)]


def environment() -> dict[str, str]:
    """Return what else the settings of such a process are."""
    return {"ONDA_REDIS_PARTITIONS": str(PARTITIONS)}


class Front:
    """Forwards connections to a port to the nodes behind it, each to the next one that takes it.

    It buffers nothing and passes on how either end is closed. While it is down the port refuses.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._targets: Sequence[int] = ()
        self._turn = count()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread: threading.Thread | None = None

    def open(self, targets: Sequence[int]) -> None:
        """Listen, and forward to these ports of this machine."""
        self._targets = targets
        self._scope = trio.CancelScope()
        ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run, ready), daemon=True)
        self._thread.start()
        assert ready.wait(10), "the front does not listen"

    def close(self) -> None:
        """Stop listening and cut every connection; a second call has no effect."""
        if self._thread is not None:
            assert self._token is not None
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
            self._thread.join()
            self._thread = None

    async def _run(self, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1", backlog=1024)
            self.port = listeners[0].socket.getsockname()[1]
            ready.set()
            await trio.serve_listeners(self._forward, listeners)

    async def _forward(self, client: trio.SocketStream) -> None:
        async with client:
            node = await self._dial()
            if node is None:
                return
            async with node:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_pump, client, node)
                        nursery.start_soon(_pump, node, client)
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    for end in (client, node):
                        with suppress(OSError):
                            end.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, _ABRUPT)

    async def _dial(self) -> trio.SocketStream | None:
        first = next(self._turn)
        for number in range(len(self._targets)):
            port = self._targets[(first + number) % len(self._targets)]
            with suppress(OSError):
                return await trio.open_tcp_stream("127.0.0.1", port)
        return None


_ABRUPT = struct.pack("ii", 1, 0)
"""Linger for 0 s: the other end gets a reset."""


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some(CHUNK_BYTES):
        await sink.send_all(data)
    await sink.send_eof()


@contextmanager
def front(targets: Sequence[int], port: int = 0) -> Iterator[Front]:
    """Run a front until the block ends."""
    opened = Front(port)
    opened.open(targets)
    try:
        yield opened
    finally:
        opened.close()
