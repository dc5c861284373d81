"""A small HTTP server that plays a gateway on a real socket: it answers as it is told, or breaks off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import h11
import trio


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its body as JSON."""
        given: dict[str, Any] = json.loads(self.body)
        return given

    @property
    def form(self) -> dict[str, str]:
        """Its body as a form."""
        return dict(parse_qsl(self.body.decode()))


class Played(NamedTuple):
    """An answer: JSON or plain bytes; `cut` ends the connection instead, `stall` never answers."""

    status: int = 200
    body: Any = None
    cut: bool = False
    stall: bool = False


Answering = Callable[[Asked], Played | Awaitable[Played]]


class Player:
    """The server. `asked` are the requests so far."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection."""
        http = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await self._one(stream, http):
                    http.start_next_cycle()
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                return

    async def _one(self, stream: trio.SocketStream, http: h11.Connection) -> bool:
        head, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert head is not None
        headers = {name.decode(): value.decode() for name, value in head.headers}
        asked = Asked(head.method.decode(), head.target.decode(), headers, body)
        self.asked.append(asked)
        answered = self.answer(asked)
        played = answered if isinstance(answered, Played) else await answered
        if played.cut:
            return False
        if played.stall:
            await trio.sleep_forever()
        content = played.body if isinstance(played.body, bytes) else json.dumps(played.body).encode()
        kinds = [("content-length", str(len(content))), ("content-type", "application/json")]
        sent = http.send(h11.Response(status_code=played.status, headers=kinds)) or b""
        sent += http.send(h11.Data(data=content)) or b""
        await stream.send_all(sent + (http.send(h11.EndOfMessage()) or b""))
        return http.our_state is h11.DONE


@asynccontextmanager
async def playing(answer: Answering) -> AsyncIterator[Player]:
    """Serve on a free port until the block ends."""
    player = Player(answer)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    player.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, player.serve, [listener])
        yield player
        nursery.cancel_scope.cancel()
