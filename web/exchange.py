"""What a request of the client can come back as: an answer, a definite no, or a reason to try again later."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import httpx
import msgspec

_T = TypeVar("_T")

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same command may be sent again; 500 only when the outcome is unknown."""

WAIT_MOST_S = 60.0
"""Bound of what a server may make us wait with Retry-After."""


class ClientError(Exception):
    """Something kept the client from an answer."""


class Refused(ClientError):
    """The server said no for good: the same again would be refused again. Nothing happened."""

    def __init__(self, code: str, status: int, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.status = status
        self.detail = detail


class Unanswered(ClientError):
    """No answer came in time. Unlike after `Refused`, it may have happened: send it again with this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no answer yet for {key}")
        self.key = key


class TryLater(ClientError):
    """No answer now, and not for good. `wait_s`: what the server asked for, 0 when it did not say."""

    def __init__(self, detail: str, wait_s: float = 0.0) -> None:
        super().__init__(detail)
        self.wait_s = wait_s


class Pace(msgspec.Struct, frozen=True):
    """How patient and how eager a client is; all in seconds."""

    retry_first_s: float = 0.25
    """The first retry waits a random time up to this; each further one up to twice as long …"""

    retry_most_s: float = 10.0
    """… but never longer than up to this."""

    silence_s: float = 35.0
    """A stream that says nothing for so long is dead: two pings of 15 s and some."""

    answer_s: float = 10.0
    """How long one request may take (a long poll: beyond its wait), and a stream's first word."""

    poll_s: int = 20
    """How long one long poll waits while there is no stream; the server's bound is 30."""

    def pause_s(self, tries: int, asked_s: float = 0.0) -> float:
        """Return how long to wait after `tries` failures: full jitter on top of what the server asked for."""
        return asked_s + random.uniform(0, min(self.retry_most_s, self.retry_first_s * 2 ** min(tries, 16)))


class Reply(msgspec.Struct, frozen=True):
    """The answer to a command."""

    cursor: str
    events: list[dict[str, Any]]
    result: dict[str, Any]
    replayed: bool
    """This is the first answer again: the command had been carried out before."""

    pending: bool
    """202: accepted, but its outcome comes later, as an event."""

    @classmethod
    def read(cls, response: httpx.Response) -> Reply:
        """Read a good answer.

        Raises:
            TryLater: this is not Onda's answer (a captive portal's page, say).
        """
        body = parse(response.content)
        return cls(
            cursor=field(body, "cursor", str),
            events=field(body, "events", list),
            result=field(body, "result", dict),
            replayed=response.headers.get("Idempotent-Replayed") == "true",
            pending=response.status_code == 202,
        )


def judge(response: httpx.Response) -> None:
    """Return when this is a good answer.

    A no is definite only if it is ours (a problem with a code): what a proxy or a captive portal in between
    says must never make a client drop an order.

    Raises:
        Refused: a definite no.
        TryLater: anything else.
    """
    status = response.status_code
    if status in (200, 202):
        return
    code, detail = _problem(response)
    retryable = status in RETRYABLE and not (status == 500 and code not in ("", "unknown_outcome"))
    if retryable or not code:
        raise TryLater(f"{status} {code or 'without a code'}", _retry_after_s(response))
    raise Refused(code, status, detail)


def parse(content: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        TryLater: it is none.
    """
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise TryLater(f"not a JSON object: {error}") from error


def field(body: dict[str, Any], name: str, kind: type[_T]) -> _T:
    """Return one field of what the server sent.

    Raises:
        TryLater: it is not there, or something else.
    """
    value = body.get(name)
    if not isinstance(value, kind):
        raise TryLater(f"`{name}` should be {kind.__name__}, and is {value!r:.80}")
    return value


def bearer(token: str | Callable[[], str]) -> dict[str, str]:
    """Return the header that proves who is asking; none without a token."""
    text = token if isinstance(token, str) else token()
    return {"Authorization": f"Bearer {text}"} if text else {}


def _problem(response: httpx.Response) -> tuple[str, str]:
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return "", ""
    try:
        body = parse(response.content)
    except TryLater:
        return "", ""
    return str(body.get("code", "")), str(body.get("detail", ""))


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), WAIT_MOST_S) if text.isascii() and text.isdigit() else 0.0


class RequestBody(httpx.AsyncByteStream):
    """A request's body. httpx's own is an async generator, which a broken connection leaves unfinished."""

    def __init__(self, content: bytes) -> None:
        self._parts = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()
