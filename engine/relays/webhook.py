"""Webhooks: each chosen record as a signed POST to each target, at least once, in order per stream.

Headers and signature are those of Standard Webhooks 1.0; `webhook-id` is the id of the event, by which
receivers tell a repeat. What a receiver answers decides:

    2xx                                             delivered
    no answer, a broken one, 408, 425, 429, 5xx     nobody's fault: waited out, however many tries it takes
    anything else, redirects too                    the record's fault: counted, and parked in the end

`Retry-After` (of 429 and 503, capped) stops everything for that target. A record that was waited out for
`webhook_patience_s` is the record's fault from then on: a receiver that is down for days, or fails at one
record only, must not keep the log from ever getting shorter.
"""

from __future__ import annotations

import base64
import hmac
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

import httpx
import msgspec
import trio

from engine.clock import Clock
from engine.codec import decode_envelope, encode
from engine.config import Config
from engine.errors import Undelivered, Unreachable
from engine.mailbox import Committed
from engine.metrics import Metrics
from engine.reactions import Reaction
from engine.relays.names import outside_name
from engine.relays.targets import Target, read_targets, read_types

BODY_BYTES_MAX = 1 << 20
ANSWER_BYTES_MAX = 64 << 10
"""What is read of an answer's body, only so that its connection can be used again."""
AT_ONCE_MAX = 8
"""Requests to one target at a time."""
RETRY_AFTER_S_MAX = 300.0
"""The longest that a receiver may make us wait with `Retry-After`."""
WAITED_OUT = frozenset({408, 425, 429})
"""Answers beside 5xx that say nothing about the record."""

logger = logging.getLogger("onda.webhook")


class Message(msgspec.Struct, gc=False):
    """The body of a webhook: the record, under its name outside. `data` is the event as it is stored."""

    type: str
    event: str
    id: str
    stream: str
    version: int
    time: str
    data: msgspec.Raw


class Webhook:
    """Sends to one target."""

    def __init__(
        self, target: Target, http: httpx.AsyncBaseTransport, config: Config, metrics: Metrics, clock: Clock
    ) -> None:
        self._target = target
        self._http = http
        self._timeout_s = config.webhook_timeout_s
        self._patience_s = config.webhook_patience_s or math.inf
        self._metrics = metrics
        self._clock = clock
        self._room = trio.CapacityLimiter(AT_ONCE_MAX)
        self._closed_until = -math.inf
        self._waiting: dict[str, tuple[str, float]] = {}  # stream -> the record it waits for, and since when
        self._away = False

    async def deliver(self, record: Committed) -> None:
        """Send one record until the receiver's word is there.

        Raises:
            Unreachable: not now; try again later.
            Undelivered: the receiver does not want it.
        """
        async with self._room:
            if trio.current_time() < self._closed_until:
                raise Unreachable(f"{self._target.host} asked to be left alone for a while")
            began = trio.current_time()
            try:
                await self._send(record)
            except Unreachable as error:
                self._note(away=str(error))
                waited_s = self._waited_s(record)
                if waited_s < self._patience_s:
                    self._count("retried")
                    raise
                self._count("failed")
                raise Undelivered(f"waited out for {waited_s:.0f} s: {error}") from error
            except Undelivered:
                self._note()
                self._count("failed")
                raise
        self._note()
        self._count("sent")
        self._metrics.relay_s.labels(self._target.name).observe(trio.current_time() - began)
        self._waiting.pop(record.stream, None)

    def _count(self, outcome: str) -> None:
        self._metrics.relay_requests.labels(self._target.name, outcome).inc()

    def _note(self, away: str = "") -> None:
        """Log when the receiver goes away (`away` says why), and when it is back."""
        if bool(away) == self._away:
            return
        self._away = bool(away)
        if away:
            logger.warning("%s takes no webhooks, they wait: %s", self._target.host, away)
        else:
            logger.info("%s answers webhooks again", self._target.host)

    def _waited_s(self, record: Committed) -> float:
        """Return how long this record has been waited out."""
        now = trio.current_time()
        id_, since = self._waiting.get(record.stream, ("", now))
        if id_ != record.id:
            since = now
            self._waiting[record.stream] = (record.id, now)
        return now - since

    async def _send(self, record: Committed) -> None:
        content = message(record)
        if len(content) > BODY_BYTES_MAX:
            raise Undelivered(f"a webhook of {len(content)} bytes is too large")
        timestamp = self._clock.now_ms() // 1000
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "onda",
            "webhook-id": record.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._target.keys, record.id, timestamp, content),
        }
        request = httpx.Request("POST", self._target.url, content=content, headers=headers)
        request.stream = _Content(content)
        response = await self._exchange(request)
        status = response.status_code
        if 200 <= status < 300:
            return
        if status >= 500 or status in WAITED_OUT:
            self._close(response.headers.get("retry-after", ""))
            raise Unreachable(f"{self._target.host} answered {status}")
        raise Undelivered(f"{self._target.host} answered {status}")

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        """Return the answer once its head is there; of its body only what is needed to go on is read."""
        response: httpx.Response | None = None
        with trio.move_on_after(self._timeout_s) as scope:
            try:
                response = await self._http.handle_async_request(request)
                size = 0
                # Never left early: an iterator of httpx is unfinished then. Cancelling ends it in good order.
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > ANSWER_BYTES_MAX:
                        scope.cancel()
            except httpx.RequestError as error:
                if response is None:
                    raise Unreachable(f"{self._target.host}: {type(error).__name__}") from error
        if response is None:
            raise Unreachable(f"{self._target.host} gave no answer within {self._timeout_s:g} s")
        return response

    def _close(self, retry_after: str) -> None:
        """Send nothing to this target for as long as it asks for."""
        wait_s = min(_retry_after_s(retry_after, self._clock.now_ms() / 1000), RETRY_AFTER_S_MAX)
        self._closed_until = max(self._closed_until, trio.current_time() + wait_s)


class _Content(httpx.AsyncByteStream):
    """A request's body. httpx's own is a generator, which a broken connection leaves unfinished."""

    def __init__(self, content: bytes) -> None:
        self._parts = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


def message(record: Committed) -> bytes:
    """Return the body of a record's webhook: the same bytes at every try."""
    stored = decode_envelope(record.body)
    return encode(
        Message(
            outside_name(stored.type),
            stored.type,
            stored.id,
            stored.stream,
            stored.version,
            stored.time,
            stored.data,
        )
    )


def sign(keys: Sequence[bytes], id_: str, timestamp: int, content: bytes) -> str:
    """Return the signature header: one signature for each key that the receiver may know us by."""
    signed = b"%s.%d.%s" % (id_.encode(), timestamp, content)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in keys)


def _retry_after_s(text: str, now_s: float) -> float:
    """Read `Retry-After`, seconds or a date; 0 when it is neither."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except ValueError:
        return 0.0


@asynccontextmanager
async def open_webhooks(
    config: Config,
    metrics: Metrics,
    clock: Clock,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[list[Reaction]]:
    """Give a reaction for each target of the settings; their connections close at the end.

    Args:
        transport: how requests travel; tests hand in their own.

    Raises:
        ConfigError: a target's settings make no sense.
    """
    targets, types = read_targets(config), read_types(config)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE_MAX * len(targets))
    # The transport alone: httpx's client would log whole URLs, and follow what we do not want to be followed.
    async with transport or httpx.AsyncHTTPTransport(limits=limits, trust_env=False) as http:
        yield [
            Reaction(
                target.name,
                types,
                Webhook(target, http, config, metrics, clock).deliver,
                retries=config.webhook_retries,
            )
            for target in targets
        ]
