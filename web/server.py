"""The HTTP server: takes connections within its caps, tells its clients when it ends, and waits for none."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from quart_trio import QuartTrio

from engine import Config
from engine.errors import ConfigError
from web.app import make_app
from web.connection import BoundedStream, Connection, tune
from web.conversation import MESSAGE_BYTES_MAX
from web.handlers import problem_response
from web.logs import HypercornLogger
from web.messages import Response
from web.site import Site

BACKLOG = 1024
HEAD_BYTES_MAX = 32 * 1024
"""Bytes of a request's first line and headers."""

DRAIN_S = 0.7
"""Time for clients to take their last bytes once the node has stopped."""

LEAVING_MAX = 64
"""Clients turned away that are still being told why; further ones are cut."""

LEAVING_S = 1.0

_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = structlog.get_logger("onda.server")


class Server:
    """An accept loop and its connections. Made by `open_server`."""

    def __init__(self, site: Site, app: QuartTrio, listeners: list[trio.SocketListener]) -> None:
        self.site = site
        self.url = _url(site.config.host, listeners[0])
        self._config = site.config
        self._listeners = listeners
        self._app = wrap_app(app, 0, "asgi")
        self._hypercorn = _hypercorn_config(site.config)
        self._context = WorkerContext(None)
        self._streams: set[BoundedStream] = set()
        self._addresses: Counter[str] = Counter()
        self._accepting = trio.CancelScope()
        self._empty = trio.Event()
        self._leaving = 0

    async def run(self, nursery: trio.Nursery) -> None:
        """Accept until told to stop."""
        with self._accepting:
            async with trio.open_nursery() as accepting:
                for listener in self._listeners:
                    accepting.start_soon(self._accept, listener, nursery)

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _NO_FILES:
                    raise
                _log.error("cannot accept", error=str(error))
                await trio.sleep(0.1)  # until somebody closes something
                continue
            self._admit(stream, nursery)

    def _admit(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        """Start a connection, or turn it away at once when there are too many."""
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:  # gone already
            stream.socket.close()
            return
        bounded = BoundedStream(stream, self._config.send_timeout_s)
        if len(self._streams) >= self._config.connections_max:
            self._turn_away(bounded, nursery, "overloaded", "Too many connections.")
        elif self._addresses[address] >= self._config.connections_per_address_max:
            self._turn_away(bounded, nursery, "too_many_requests", "Too many connections from this address.")
        else:
            tune(stream.socket, self._config.send_timeout_s, self._config.send_buffer_bytes)
            self._streams.add(bounded)
            self._addresses[address] += 1
            nursery.start_soon(self._serve, bounded, address)

    def _turn_away(self, stream: BoundedStream, nursery: trio.Nursery, code: str, detail: str) -> None:
        self.site.turned_away += 1
        if self._leaving >= LEAVING_MAX:
            stream.abort()
            return
        self._leaving += 1
        response = problem_response(code, detail, [("retry-after", "2"), ("connection", "close")])
        nursery.start_soon(self._dismiss, stream, _plain(response))

    async def _dismiss(self, stream: BoundedStream, answer: bytes) -> None:
        try:
            with stream.scope, trio.move_on_after(LEAVING_S), suppress(trio.BrokenResourceError):
                await stream.send_all(answer)
                await stream.aclose()
        finally:
            self._leaving -= 1
            stream.abort()

    async def _serve(self, stream: BoundedStream, address: str) -> None:
        self.site.connections += 1
        try:
            with stream.scope:
                connection = Connection(
                    self._app,
                    self._hypercorn,
                    self._context,
                    ConnectionState({}),
                    stream,
                    head_timeout_s=self._config.head_timeout_s,
                )
                await connection.run()
        except* Exception as group:  # noqa: BLE001 - whatever it is, this connection alone must fail
            _log.error("connection failed", exc_info=group)
        finally:
            stream.abort()
            self.site.connections -= 1
            self._streams.discard(stream)
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
            if not self._streams:
                self._empty.set()

    async def stop(self) -> None:
        """Stop accepting, stop the node (its streams say `bye`), and let clients take what is theirs."""
        self._close_listeners()
        await self._context.terminated.set()
        await self.site.node.stop()
        with trio.move_on_after(DRAIN_S):
            while self._streams:
                self._empty = trio.Event()
                await self._empty.wait()

    def abort(self) -> None:
        """End everything at once."""
        self._close_listeners()
        if self._streams:
            _log.warning("connections cut at the end", count=len(self._streams))
        for stream in list(self._streams):
            stream.abort()

    def _close_listeners(self) -> None:
        self._accepting.cancel()
        for listener in self._listeners:
            listener.socket.close()


@asynccontextmanager
async def open_server(site: Site) -> AsyncIterator[Server]:
    """Serve a site until the `async with` ends; then stop it and its node in an orderly way.

    Raises:
        ConfigError: the address cannot be served (taken, not ours, not allowed).
    """
    listeners = await _listen(site.config)
    server = Server(site, make_app(site), listeners)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.gate.revoked.follow)
        nursery.start_soon(server.run, nursery)
        try:
            yield server
            await server.stop()
        finally:
            server.abort()
            nursery.cancel_scope.cancel()


async def _listen(config: Config) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(config.port, host=config.host or None, backlog=BACKLOG)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "is taken by another program",
            errno.EACCES: "is not allowed to this user",
        }
        why = reasons.get(error.errno or 0, f"cannot be served: {error}")
        raise ConfigError(f"{config.host}:{config.port} {why}") from error
    if config.port == 0:  # each listener picked a port of its own: keep one
        for listener in listeners[1:]:
            listener.socket.close()
        return listeners[:1]
    return listeners


def _url(host: str, listener: trio.SocketListener) -> str:
    port = listener.socket.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _hypercorn_config(config: Config) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.logger_class = HypercornLogger  # type: ignore[assignment]
    hypercorn.accesslog = "-" if config.access_log else None
    hypercorn.include_server_header = False
    hypercorn.keep_alive_timeout = config.idle_timeout_s
    hypercorn.keep_alive_max_requests = 1_000_000
    hypercorn.h11_max_incomplete_size = HEAD_BYTES_MAX
    hypercorn.websocket_max_message_size = MESSAGE_BYTES_MAX
    return hypercorn


def _plain(response: Response) -> bytes:
    """Return an answer as HTTP/1.1 bytes, for a connection that gets nothing else."""
    lines = [f"HTTP/1.1 {response.status} Refused", f"content-length: {len(response.body)}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    return "\r\n".join([*lines, "", ""]).encode() + response.body
