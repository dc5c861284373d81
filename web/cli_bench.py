"""`onda bench URL`: how fast a running server is from here, in a store of its own, in half a minute.

It is made for a shop that is open: commands come one at a time or at a low rate, connections are few, and all
of it has bounds. What it changes is the stock of one product that it puts on the menu as sold out; in a store
that somebody else made it does so only when told, because the events stay in that store's history.
"""

from __future__ import annotations

import base64
import binascii
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import click
import msgspec
import trio

from web.client import Client, ClientError, Refused, open_client
from web.sse import Message, Parser

NAME = "onda bench"
"""Of a store that an earlier run made: no other store is used without being told."""

PRODUCT = "onda-bench"
IN_A_ROW = 100
CONNECTIONS_MAX = 500
RATE_MAX = 50.0
SECONDS_MAX = 30.0
"""A stream rotates after a minute; a run must be over by then."""

GRACE_S = 5.0


@click.command()
@click.argument("url")
@click.option("--token", required=True, help="Of the store's owner.")
@click.option("--store", required=True, help="Where to measure; made when it does not exist.")
@click.option("--in-use", is_flag=True, help="Also in a store that this command did not make.")
@click.option("--connections", type=click.IntRange(1, CONNECTIONS_MAX), default=100, show_default=True)
@click.option("--rate", type=click.FloatRange(1, RATE_MAX), default=10.0, help="Events a second.")
@click.option("--seconds", type=click.FloatRange(1, SECONDS_MAX), default=5.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def bench(
    url: str,
    token: str,
    store: str,
    in_use: bool,
    connections: int,
    rate: float,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure a running server: one command after the other, then events on many screens.

    Exit code 1 when an event was left out or did not come.
    """
    if _role(token) not in ("owner", "service"):
        raise click.UsageError("the token must be an owner's: onda token --role owner --store STORE")
    failure = None
    try:
        seen = trio.run(_measure, url, token, store, in_use, connections, rate, seconds)
    except* ClientError as group:
        failure = _first(group)
    if failure is not None:
        raise click.ClickException(f"{url}: {failure}")
    print(msgspec.json.encode(seen.summary()).decode() if as_json else seen.tell())
    sys.exit(1 if seen.gaps or seen.lost else 0)


@dataclass
class Seen:
    """What a run saw. Times in ms; `lost` are deliveries that did not come in time."""

    connections: int
    published: int = 0
    gaps: int = 0
    answers_ms: list[float] = field(default_factory=list)
    screens_ms: list[float] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.published * self.connections - len(self.screens_ms)

    def summary(self) -> dict[str, object]:
        """Return all figures for machines."""
        counts = {name: getattr(self, name) for name in ("connections", "published", "gaps", "lost")}
        return {**counts, "answer_ms": _spread(self.answers_ms), "screen_ms": _spread(self.screens_ms)}

    def tell(self) -> str:
        """Return all figures for people."""
        return (
            f"a command answered, {len(self.answers_ms)} one after the other: {_said(self.answers_ms)}\n"
            f"an event on {self.connections} screens, {self.published} events: {_said(self.screens_ms)}\n"
            f"left out or out of order: {self.gaps}; did not come: {self.lost}"
        )


def _spread(values_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values_ms) or [0.0]
    at = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {name: round(ordered[place], 2) for name, place in at.items()}


def _said(values_ms: Sequence[float]) -> str:
    return ", ".join(f"{name} {value:.1f} ms" for name, value in _spread(values_ms).items())


def _first(group: BaseExceptionGroup[ClientError]) -> ClientError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _role(token: str) -> str:
    """Return the role that a token says it has; whether that is true is for the server."""
    try:
        part = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(claims["role"])
    except (IndexError, KeyError, TypeError, binascii.Error, msgspec.DecodeError):
        return ""


async def _measure(
    url: str, token: str, store: str, in_use: bool, connections: int, rate: float, seconds: float
) -> Seen:
    seen = Seen(connections)
    async with open_client(url, token) as client:
        await _prepare(client, store, in_use)
        for _ in range(IN_A_ROW):
            began = time.monotonic_ns()
            cursor = await _change(client, store, "", len(seen.answers_ms))
            seen.answers_ms.append((time.monotonic_ns() - began) / 1e6)
        async with trio.open_nursery() as watching:
            for _ in range(connections):
                await watching.start(_watch, client, store, cursor, seen)
            await _publish(client, store, rate, seconds, seen)
            with trio.move_on_after(GRACE_S):
                while seen.lost > 0:  # noqa: ASYNC110 (a deadline of seconds; nothing else runs)
                    await trio.sleep(0.02)
            watching.cancel_scope.cancel()
    return seen


async def _prepare(client: Client, store: str, in_use: bool) -> None:
    """Make sure that there is a store to measure in, and a product that nobody can order."""
    try:
        state = (await client.sync(f"stores/{store}"))["state"]
    except Refused as refused:
        if refused.code != "unknown_store":
            raise
        await client.send(f"stores/{store}/configure-store", {"name": NAME, "payment_mode": "postpay"})
    else:
        if state["shop"]["self"]["name"] != NAME and not in_use:
            raise click.UsageError(f"store {store} is in use; name another, or add --in-use")
        if PRODUCT in state["products"]:
            return
    product = {"product": PRODUCT, "name": NAME, "price": 1000, "stock": 1000}
    await client.send(f"stores/{store}/put-product", product)
    await client.send(f"stores/{store}/set-sold-out", {"product": PRODUCT, "sold_out": True})


async def _change(client: Client, store: str, reason: str, number: int) -> str:
    """One event: a piece more or less; return the cursor behind it."""
    body = {"product": PRODUCT, "delta": -1 if number % 2 else 1, "reason": reason or NAME}
    return (await client.send(f"stores/{store}/adjust-stock", body)).cursor


async def _publish(client: Client, store: str, rate: float, seconds: float, seen: Seen) -> None:
    """Send commands at their time, whether or not those before were answered."""
    began = time.monotonic_ns()
    async with trio.open_nursery() as sending:
        for number in range(int(rate * seconds)):
            due = began + int(number * 1e9 / rate)
            await trio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            seen.published += 1
            sending.start_soon(_change, client, store, str(due), number)


class _Data(msgspec.Struct):
    reason: str = ""


class _Envelope(msgspec.Struct):
    version: int
    type: str
    data: _Data


class _Heading(msgspec.Struct):
    version: int
    type: str


async def _watch(
    client: Client,
    store: str,
    cursor: str,
    seen: Seen,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be one screen: read from a cursor on, check the order, note how old each of our events is."""
    parser = Parser(last_id=cursor)
    version = 0
    async with client.stream(f"stores/{store}", cursor) as receive:
        parser.feed(await receive())  # where it starts: nothing is published before all have begun
        task_status.started()
        while data := await receive():
            now = time.monotonic_ns()
            for item in parser.feed(data):
                if not isinstance(item, Message) or item.event != "message":
                    continue
                heading = msgspec.json.decode(item.data, type=_Heading)
                seen.gaps += version not in (0, heading.version - 1)
                version = heading.version
                if heading.type == "StockAdjusted":
                    reason = msgspec.json.decode(item.data, type=_Envelope).data.reason
                    if reason.isdigit():
                        seen.screens_ms.append((now - int(reason)) / 1e6)
