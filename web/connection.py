"""One accepted connection: a socket whose sends are bounded in time, under Hypercorn's protocols.

Hypercorn's trio server sends under a shield and without a deadline, so a client that stops reading would hold
its task for ever, also at shutdown. Here each piece of a send has a deadline; when it passes, or when
somebody aborts the connection, the socket is closed hard and every task of the connection is cancelled.

A close that comes while the client is still sending (an answer 413, say) first says that we are done and
reads on for a moment, because closing at once would make the kernel throw away the answer with the rest.
"""

from __future__ import annotations

import re
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer

SEND_BYTES = 16 * 1024
"""Size of the pieces that each have to go out within the send timeout."""

CLOSE_S = 2.0
"""How long a WebSocket stays after the server's close frame."""

LINGER_S = 0.5
LINGER_BYTES_MAX = 4 << 20

_CLOSE_FRAME = b"\x88"
_RAW = re.compile(rb"[\x80-\xff]")
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class BoundedStream:
    """A socket stream as Hypercorn uses it. `scope` is that of all tasks of the connection."""

    def __init__(self, stream: trio.SocketStream, send_timeout_s: float) -> None:
        self.socket = stream.socket
        self.scope = trio.CancelScope()
        self.aborted = False
        self._stream = stream
        self._send_timeout_s = send_timeout_s
        self._ended = False
        self._reading = False
        self._lingering: trio.Event | None = None
        self._closed = False

    async def send_all(self, data: bytes) -> None:
        """Send, piece by piece.

        Who is gone is cut as well: Hypercorn may be reading no further until the answer is out, and would
        wait for ever.

        Raises:
            BrokenResourceError: the client is gone, or took nothing for too long and was cut.
        """
        for start in range(0, len(data), SEND_BYTES):
            try:
                with trio.move_on_after(self._send_timeout_s) as scope:
                    await self._stream.send_all(memoryview(data)[start : start + SEND_BYTES])
            except trio.BrokenResourceError:
                self.abort()
                raise
            if scope.cancelled_caught:
                self.abort()
                raise trio.BrokenResourceError("the client takes nothing")

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive; while the connection lingers what comes is thrown away, and once it is closing there is
        nothing more.
        """
        if self._closed:
            return b""
        self._reading = True
        try:
            data = bytes(await self._stream.receive_some(bytes_max))
            self._ended = not data
            if self._lingering is not None:
                await self._discard()
                return b""
            return data
        finally:
            self._reading = False
            if self._lingering is not None:
                self._lingering.set()

    async def _discard(self) -> None:
        taken = 0
        while not self._ended and taken < LINGER_BYTES_MAX:
            data = await self._stream.receive_some(MAX_RECV)
            self._ended = not data
            taken += len(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close, giving the client a moment to take what was sent."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._ended and not self.aborted:
                with trio.move_on_after(LINGER_S), suppress(*_GONE, trio.BusyResourceError):
                    await self._stream.send_eof()
                    if self._reading:
                        self._lingering = trio.Event()
                        await self._lingering.wait()
                    else:
                        await self._discard()
        finally:
            self.socket.close()

    def abort(self) -> None:
        """Close the socket hard and cancel every task of the connection."""
        if not self.aborted:
            self.aborted = True
            make_abrupt(self.socket)
            self.socket.close()
            self.scope.cancel()


class SecureStream(BoundedStream):
    """A TLS connection as Hypercorn uses it: it has its handshake, and asks which protocol was agreed on."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream], send_timeout_s: float) -> None:
        super().__init__(stream.transport_stream, send_timeout_s)
        self.transport_stream = stream.transport_stream
        self._stream = stream  # type: ignore[assignment]
        self._secure = stream

    async def do_handshake(self) -> None:
        await self._secure.do_handshake()

    def selected_alpn_protocol(self) -> str | None:
        protocol: str | None = self._secure.selected_alpn_protocol()
        return protocol

    async def aclose(self) -> None:
        """Close, saying so to the client if it listens."""
        self._closed = True
        try:
            with trio.move_on_after(LINGER_S), suppress(*_GONE, trio.BusyResourceError):
                await self._stream.aclose()
        finally:
            self.socket.close()


class Connection(TCPServer):
    """Hypercorn's server for one connection, with deadlines for a request's head and for a WebSocket's end.

    (After a message that is too large Hypercorn can overlook the client's answer to its close frame.)
    """

    stream: BoundedStream  # type: ignore[assignment]

    def __init__(self, *args: Any, head_timeout_s: float) -> None:
        super().__init__(*args)
        self._head_timeout_s = head_timeout_s
        self._idle = True
        self._head_begun = False
        self._in_target = False

    async def protocol_send(self, event: Event) -> None:
        """Send, or close, or begin or end being idle.

        What is not a send is shielded: Quart cancels a request's task as its stream ends, and it is there
        that Hypercorn goes on to close the connection or to make it idle.
        """
        if isinstance(event, RawData):
            await super().protocol_send(event)
            if event.data[:1] == _CLOSE_FRAME and self._is_websocket:
                await self.idle_task.restart(self._task_group, partial(self._abort_after, CLOSE_S))
            return
        if isinstance(event, Updated):
            self._idle = event.idle
            self._head_begun = False
        with trio.CancelScope(shield=True):
            await super().protocol_send(event)

    @property
    def _http(self) -> h11.Connection | H11WSConnection:
        assert isinstance(self.protocol.protocol, H11Protocol)
        return self.protocol.protocol.connection

    @property
    def _is_websocket(self) -> bool:
        return isinstance(self.protocol.protocol, H11Protocol) and isinstance(self._http, H11WSConnection)

    async def _read_data(self) -> None:
        """Read until the client ends; a head that has begun must be complete in time."""
        if not isinstance(self.protocol.protocol, H11Protocol):  # HTTP/2, agreed on by TLS
            await super()._read_data()
            return
        self.protocol.protocol._check_protocol = _stay_with_http_1  # type: ignore[method-assign, assignment]
        with suppress(*_GONE):
            while data := await self.stream.receive_some(MAX_RECV):
                await self.protocol.handle(RawData(self._escape(data)))
                if self._idle and not self._head_begun and self._http.trailing_data[0]:
                    self._head_begun = True
                    await self.idle_task.restart(
                        self._task_group, partial(self._abort_after, self._head_timeout_s)
                    )
            await self.protocol.handle(RawData(b""))
        await self.protocol.handle(Closed())
        await self.idle_task.stop()  # or the connection would be kept until its idle time is over

    def _escape(self, data: bytes) -> bytes:
        """Return a request with its target in ASCII: what people type into curl goes out as it is."""
        if not (self._in_target or self._between_requests):
            return data
        end = data.find(b"\n")
        self._in_target = end < 0
        if data.isascii():
            return data
        line, rest = (data, b"") if end < 0 else (data[:end], data[end:])
        return _RAW.sub(lambda match: b"%%%02X" % match[0][0], line) + rest

    @property
    def _between_requests(self) -> bool:
        http = self._http
        over = isinstance(http, h11.Connection) and http.their_state in (h11.IDLE, h11.DONE)
        return over and not http.trailing_data[0]

    async def _abort_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.stream.abort()


def make_abrupt(sock: socket.socket | trio.socket.SocketType) -> None:
    """Have the socket's close throw away what is unsent and reset the connection."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _stay_with_http_1(_request: h11.Request) -> None:
    """Ignore what asks for HTTP/2 (RFC 9110 §7.8): its streams would pass by our bounds per connection."""


def tune(sock: socket.socket | trio.socket.SocketType, send_timeout_s: float, send_buffer_bytes: int) -> None:
    """Set a connection's options, as far as the system has them: notice dead clients, and send at once."""
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(send_timeout_s * 1000) + 20_000),
        (socket.SOL_SOCKET, "SO_SNDBUF", send_buffer_bytes),
    ]
    for level, name, value in options:
        if value and hasattr(socket, name):
            with suppress(OSError):
                sock.setsockopt(level, getattr(socket, name), value)
