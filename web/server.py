"""The HTTP server: takes connections within its caps, tells its clients when it ends, and waits for none."""

from __future__ import annotations

import errno
import socket
import ssl
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
from web import ops
from web.app import make_app
from web.connection import BoundedStream, Connection, SecureStream, make_abrupt, tune
from web.conversation import MESSAGE_BYTES_MAX
from web.edge import Edge, Visit
from web.fanout import Hub
from web.files import raise_file_limit
from web.framing import HEAD_BYTES_MAX
from web.handlers import problem_response
from web.http1 import whole
from web.lane import Handed, Lane, Pages
from web.logs import HypercornLogger
from web.site import Site
from web.standing import keep_told
from web.wheel import Wheel

BACKLOG = 1024
DRAIN_S = 0.7
"""Time for clients to take their last bytes once the node has stopped."""

LEAVING_MAX = 64
"""Clients turned away that are still being told why; further ones are cut."""

LEAVING_S = 1.0

ACCEPTS_MAX = 64
"""Connections let in before others get their turn."""

_NO_LISTENER = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = structlog.get_logger("onda.server")


class Seat:
    """One connection's place, kept for as long as its socket is open."""

    __slots__ = ("_server", "address")

    def __init__(self, server: Server, address: str) -> None:
        self._server = server
        self.address = address

    def resume(self, sock: socket.socket, alive: bool) -> None:
        """Take a socket back from the hub: alive when it may go on with another request."""
        self._server.resume(self, sock, alive)


class Server:
    """An accept loop and its connections. Made by `open_server`."""

    def __init__(
        self,
        site: Site,
        app: QuartTrio,
        listeners: list[socket.socket],
        files_max: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.site = site
        self.url = _url(site.config, listeners[0])
        self._config = site.config
        self._listeners = listeners
        self._tls = tls
        self._connections_max = min(site.config.connections_max, files_max)
        self._app = wrap_app(app, 0, "asgi")
        self._hypercorn = _hypercorn_config(site.config)
        self._context = WorkerContext(None)
        self._wheel = Wheel()
        self._hub = Hub(site, self._wheel)
        self._edge = Edge(site, self._wheel, self._hub, Pages(app), self._hand, lambda: self._stopping)
        self._visits: set[Visit] = set()
        self._streams: set[BoundedStream] = set()
        self._addresses: Counter[str] = Counter()
        self._accepting = trio.CancelScope()
        self._empty = trio.Event()
        self._leaving = 0
        self._stopping = False
        self._nursery: trio.Nursery

    async def run(self, nursery: trio.Nursery) -> None:
        """Accept until told to stop."""
        self._nursery = nursery
        nursery.start_soon(self._wheel.run)
        nursery.start_soon(keep_told, self.site)
        nursery.start_soon(self._hub.run)
        nursery.start_soon(self._edge.turnstile.run)
        with self._accepting:
            async with trio.open_nursery() as accepting:
                for listener in self._listeners:
                    accepting.start_soon(self._accept, listener)

    async def _accept(self, listener: socket.socket) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # stopped before it began: the listener is closed
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPTS_MAX):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _NO_FILES:
                        _log.error("cannot accept", error=str(error))
                        await trio.sleep(0.1)  # until somebody closes something
                        break
                    if error.errno in _NO_LISTENER:
                        raise
                    continue  # this client was gone before it was let in
                sock.setblocking(False)
                self._admit(sock, str(address[0]))

    def _admit(self, sock: socket.socket, address: str) -> None:
        """Start a connection, or turn it away at once when there are too many."""
        if self.site.connections >= self._connections_max:
            self._turn_away(sock, "overloaded", "Too many connections.")
            return
        per_address = self._config.connections_per_address_max
        if self._addresses[address] >= per_address and not self.site.proxies.trusts(address):
            self._turn_away(sock, "too_many_requests", "Too many connections from this address.")
            return
        tune(sock, self._config.send_timeout_s, self._config.send_buffer_bytes)
        self.site.connections += 1
        self._addresses[address] += 1
        seat = Seat(self, address)
        if self._tls is not None:
            transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            secure = trio.SSLStream(transport, self._tls, server_side=True, https_compatible=True)
            self._nursery.start_soon(self._serve, SecureStream(secure, self._config.send_timeout_s), seat)
        elif self._config.edge:
            self._nursery.start_soon(self._visit, sock, seat)
        else:
            self._nursery.start_soon(self._serve, _bounded(sock, self._config.send_timeout_s), seat)

    def _turn_away(self, sock: socket.socket, code: str, detail: str) -> None:
        self.site.turned_away += 1
        if self._leaving >= LEAVING_MAX:
            make_abrupt(sock)
            sock.close()
            return
        self._leaving += 1
        response = problem_response(code, detail, [("retry-after", "2")])
        stream = _bounded(sock, self._config.send_timeout_s)
        self._nursery.start_soon(self._dismiss, stream, whole(response, close=True))

    async def _dismiss(self, stream: BoundedStream, answer: bytes) -> None:
        try:
            with stream.scope, trio.move_on_after(LEAVING_S), suppress(trio.BrokenResourceError):
                await stream.send_all(answer)
                await stream.aclose()
        finally:
            self._leaving -= 1
            stream.abort()

    async def _visit(self, sock: socket.socket, seat: Seat) -> None:
        """Serve one connection at the edge until it ends or becomes the hub's."""
        visit = Visit(self._edge, sock, seat)
        self._visits.add(visit)
        kept = False
        try:
            kept = await visit.run()
        except* Exception as group:  # noqa: BLE001 - whatever it is, this connection alone must fail
            _log.error("connection failed", exc_info=group)
        finally:
            self._visits.discard(visit)
            if not kept:
                self._leave(seat)

    def resume(self, seat: Seat, sock: socket.socket, alive: bool) -> None:
        """Go on with a connection whose stream is over, or take note that it is closed."""
        if alive and not self._stopping:
            self._nursery.start_soon(self._visit, sock, seat)
            return
        sock.close()
        self._leave(seat)

    def _hand(self, lane: Lane) -> None:
        self._nursery.start_soon(self._serve_lane, lane)

    async def _serve_lane(self, lane: Lane) -> None:
        try:
            await self._run_hypercorn(Handed, lane)
        finally:
            lane.closed.set()

    async def _serve(self, stream: BoundedStream, seat: Seat) -> None:
        """Serve one connection by Hypercorn alone."""
        self._streams.add(stream)
        try:
            await self._run_hypercorn(Connection, stream)
        finally:
            self._streams.discard(stream)
            self._leave(seat)

    async def _run_hypercorn(self, kind: type[Connection], stream: BoundedStream) -> None:
        try:
            with stream.scope:
                connection = kind(
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

    def _leave(self, seat: Seat) -> None:
        self.site.connections -= 1
        self._addresses[seat.address] -= 1
        if not self._addresses[seat.address]:
            del self._addresses[seat.address]
        if not self.site.connections:
            self._empty.set()

    async def stop(self) -> None:
        """Stop accepting, stop the node (its streams say `bye`), and let clients take what is theirs."""
        self._stopping = True
        self._close_listeners()
        await self._context.terminated.set()
        for visit in list(self._visits):
            visit.finish()
        await self.site.node.stop()
        with trio.move_on_after(DRAIN_S):
            while self.site.connections:
                self._empty = trio.Event()
                await self._empty.wait()

    def abort(self) -> None:
        """End everything at once."""
        self._close_listeners()
        if self.site.connections:
            _log.warning("connections cut at the end", count=self.site.connections)
        for visit in list(self._visits):
            visit.abort()
        for stream in list(self._streams):
            stream.abort()
        self._hub.abort()

    def _close_listeners(self) -> None:
        self._accepting.cancel()
        for listener in self._listeners:
            listener.close()


@asynccontextmanager
async def open_server(site: Site) -> AsyncIterator[Server]:
    """Serve a site until the `async with` ends; then stop it and its node in an orderly way.

    Raises:
        ConfigError: the address cannot be served (taken, not ours, not allowed).
    """
    files_max = raise_file_limit(site.config.connections_max)
    tls = _tls_context(site.config)
    ops.answer_others(site)
    listeners = await _listen(site.config)
    server = Server(site, make_app(site), listeners, files_max, tls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.gate.revoked.follow)
        nursery.start_soon(server.run, nursery)
        try:
            yield server
            await server.stop()
        finally:
            server.abort()
            nursery.cancel_scope.cancel()


async def _listen(config: Config) -> list[socket.socket]:
    try:
        opened = await trio.open_tcp_listeners(config.port, host=config.host or None, backlog=BACKLOG)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "is taken by another program",
            errno.EACCES: "is not allowed to this user",
        }
        why = reasons.get(error.errno or 0, f"cannot be served: {error}")
        raise ConfigError(f"{config.host}:{config.port} {why}") from error
    listeners = [socket.socket(fileno=listener.socket.detach()) for listener in opened]
    if config.port == 0:  # each listener picked a port of its own: keep one
        for listener in listeners[1:]:
            listener.close()
        del listeners[1:]
    for listener in listeners:
        listener.setblocking(False)
    return listeners


def _tls_context(config: Config) -> ssl.SSLContext | None:
    """Return what TLS needs; none without a certificate.

    Raises:
        ConfigError: certificate or key cannot be read, or do not belong together.
    """
    if not config.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"] if config.http2 else ["http/1.1"])
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key or None)
    except OSError as error:  # ssl.SSLError is one, too
        raise ConfigError(f"tls_cert: {error}") from error
    return context


def _bounded(sock: socket.socket, send_timeout_s: float) -> BoundedStream:
    return BoundedStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)), send_timeout_s)


def _url(config: Config, listener: socket.socket) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{'https' if config.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


def _hypercorn_config(config: Config) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.logger_class = HypercornLogger  # type: ignore[assignment]
    hypercorn.accesslog = "-" if config.access_log else None
    hypercorn.include_server_header = False
    hypercorn.keep_alive_timeout = config.idle_timeout_s
    hypercorn.ssl_handshake_timeout = config.head_timeout_s
    hypercorn.keep_alive_max_requests = 1_000_000
    hypercorn.h11_max_incomplete_size = HEAD_BYTES_MAX
    hypercorn.websocket_max_message_size = MESSAGE_BYTES_MAX
    return hypercorn
