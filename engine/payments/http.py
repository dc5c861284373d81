"""Requests to a gateway: what was certainly not sent is tried again, what may have been is never hidden.

`NotSent`: no connection came about, so the gateway knows nothing of it. `Lost`: the request may have arrived,
but there is no usable answer. Time is bounded by the caller's cancel scope; here only the wait for a
connection is.

Nothing of a request or an answer is ever logged, and what a gateway says is cleared of our secrets before it
goes anywhere: error messages end up in events.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import msgspec
import trio

ANSWER_BYTES_MAX = 256 * 1024
"""Largest answer that is read; what goes beyond is thrown away, and the answer with it."""

CONNECT_S_MAX = 5.0
PAUSE_FIRST_S = 0.05
PAUSE_MOST_S = 2.0
TEXT_MAX = 200
"""Characters that are kept of a gateway's message."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class NotSent(Exception):
    """The request certainly never reached the gateway."""


class Lost(Exception):
    """The request may have reached the gateway, and there is no answer to go by. `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Answer(NamedTuple):
    """A gateway's answer: its HTTP status and its JSON object."""

    status: int
    body: dict[str, Any]

    def text(self, name: str) -> str:
        """Return a field as text; "" when it is not there or no text."""
        value = self.body.get(name)
        return value if isinstance(value, str) else ""

    def part(self, name: str) -> dict[str, Any]:
        """Return an object within the answer; an empty one when it is not there."""
        value = self.body.get(name)
        return value if isinstance(value, dict) else {}


class Line:
    """The connection to one gateway.

    Args:
        url: `https://host/path`; requests go below it.
        headers: on every request; who we are.
        secrets: what must never come back out of here.
        timeout_s: what a whole call may take; bounds the wait for a connection.
        transport: instead of the network, for tests.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        secrets: tuple[str, ...] = (),
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._secrets = tuple(secret for secret in secrets if secret)
        self._connect_s = min(CONNECT_S_MAX, timeout_s / 3)
        self._http = httpx.AsyncClient(
            headers={"accept": "application/json", "accept-encoding": "identity", **headers},
            timeout=httpx.Timeout(None, connect=self._connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=3.0),
            verify=not self.url.startswith("http://"),  # a plain address needs no list of authorities
            trust_env=False,
            transport=transport,
        )

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """Ask for something that changes nothing. Raises as `post`."""
        query = f"?{urlencode(params)}" if params else ""
        return await self._ask("GET", f"{self.url}{path}{query}", {}, b"")

    async def post(
        self,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        key: str = "",
        key_header: str = "Idempotency-Key",
    ) -> Answer:
        """Send a request with a JSON body or a form, and an idempotency `key` if there is one.

        Raises:
            NotSent: no connection until shortly before the caller's deadline.
            Lost: it may have been sent, and there is no answer that can be read.
        """
        if form is not None:
            content, kind = urlencode(form).encode(), "application/x-www-form-urlencoded"
        else:
            content, kind = msgspec.json.encode(json or {}), "application/json"
        headers = {"content-type": kind} | ({key_header: key} if key else {})
        return await self._ask("POST", self.url + path, headers, content)

    async def _ask(self, method: str, url: str, headers: dict[str, str], content: bytes) -> Answer:
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                return await self._once(method, url, headers, content)
            except _NO_CONNECTION as error:
                latest = trio.current_effective_deadline() - self._connect_s
                if trio.current_time() + pause_s >= latest:
                    raise NotSent(type(error).__name__) from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Lost(_code(error)) from None
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)

    async def _once(self, method: str, url: str, headers: dict[str, str], content: bytes) -> Answer:
        request = self._http.build_request(method, url, headers=headers, content=content or None)
        request.stream = _Body(content)
        response = await self._http.send(request, stream=True)
        try:
            kept = await _read(response)
        finally:
            await response.aclose()
        if kept is None:
            raise Lost("answer_too_large")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Lost("unreadable_answer")
        try:
            body = msgspec.json.decode(kept, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Lost(f"http_{response.status_code}_unreadable") from None
        return Answer(response.status_code, body)

    def clean(self, text: object) -> str:
        """Return what a gateway said, short, in one line and without our secrets."""
        shown = _UNPRINTABLE.sub(" ", str(text)) if text else ""
        for secret in self._secrets:
            shown = shown.replace(secret, "[hidden]")
        return shown[:TEXT_MAX].strip()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class _Body(httpx.AsyncByteStream):
    """A request's body. httpx's own is an async generator, which a broken connection leaves unfinished."""

    def __init__(self, content: bytes) -> None:
        self._parts = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


async def _read(response: httpx.Response) -> bytes | None:
    """Return the body, `None` when it is too large. It is read to its end in any case: whoever stops in the
    middle leaves httpx's nested generators open.
    """
    kept = bytearray()
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size <= ANSWER_BYTES_MAX:
            kept += part
    return bytes(kept) if size <= ANSWER_BYTES_MAX else None


def _code(error: Exception) -> str:
    """Return why there is no answer, in snake_case: `read_timeout`, `remote_protocol_error` …"""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
