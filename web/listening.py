"""The client's end of an SSE response: one connection of its own, read with h11, closed without ceremony.

httpx would do, but its responses are nested async generators, which trio wants closed one by one when they
are left early, and nothing closes the inner ones.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import h11
import httpx
import trio

from web.exchange import TryLater, judge

RECEIVE_BYTES = 64 << 10
"""Read from the socket at once, at most."""

REFUSAL_BYTES_MAX = 64 << 10
"""Bound of the body of an answer that is not a stream."""


@asynccontextmanager
async def open_stream(
    base: str, target: str, headers: dict[str, str]
) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Ask for an event stream and give the function that receives its bytes; `b""` is its end.

    Args:
        base: `http://HOST:PORT`, or https.
        target: path and query.
        headers: beside those that every stream needs.

    Raises:
        Refused: a definite no, with its code.
        TryLater: no stream now, something that is not one, or it broke off.
    """
    url = urlsplit(base)
    try:
        stream = await _connect(url.scheme, url.hostname or "", url.port)
        try:
            wire = _Wire(stream)
            await wire.ask(f"{url.path.rstrip('/')}{target}", {"Host": url.netloc, **headers})
            yield wire.receive
        finally:
            await trio.aclose_forcefully(stream)
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError, ssl.SSLError) as error:
        raise TryLater(f"{type(error).__name__}: {error}") from error


async def _connect(scheme: str, host: str, port: int | None) -> trio.abc.Stream:
    tcp = await trio.open_tcp_stream(host, port or (443 if scheme == "https" else 80))
    if scheme != "https":
        return tcp
    return trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=host, https_compatible=True)


class _Wire:
    """One request and its response on one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, target: str, headers: dict[str, str]) -> None:
        """Send the request; return when the response is an event stream."""
        wanted = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **headers}
        request = h11.Request(method="GET", target=target, headers=list(wanted.items()))
        sent = self._http.send(request) or b""
        await self._stream.send_all(sent + (self._http.send(h11.EndOfMessage()) or b""))
        response = await self._next()
        while not isinstance(response, h11.Response):
            response = await self._next()
        if response.status_code != 200:
            body = b""
            while (part := await self.receive()) and len(body) < REFUSAL_BYTES_MAX:
                body += part
            judge(httpx.Response(response.status_code, headers=list(response.headers), content=body))
        kind = dict(response.headers).get(b"content-type", b"")
        if not kind.startswith(b"text/event-stream"):
            raise TryLater(f"this is not an event stream but {kind!r:.80}")

    async def receive(self) -> bytes:
        """Return the next bytes of the body, `b""` when it has ended."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            self._http.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
