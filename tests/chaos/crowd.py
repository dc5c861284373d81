"""Verifying clients: staff, tables and screens that keep a shop busy and remember all that they were told."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from tests.chaos.deadline import LOOK_EVERY_S
from tests.chaos.evidence import Acknowledged, without_empty
from tests.chaos.process import token
from tests.chaos.screen import Screen
from web.client import Client, Pace, Refused, Reply, open_client
from web.exchange import TryLater
from web.follower import Follower

STORE = "s1"
COUNTED = "cola"
"""The product with a stock."""
PARTY_TABLE = "party"
"""Its guests come and go; those of the other tables stay all the time."""
USER = "u1"
COUNTED_PUT = 900_000
PRODUCTS = ("ramen", "kimbap", COUNTED)
STAGES = ("accept-order", "mark-ready", "mark-served")
PACE = Pace(retry_first_s=0.05, retry_most_s=0.5, answer_s=3.0, silence_s=4.0, poll_s=5)
"""Eager, so that a test is short; the server's pings have to come faster than `silence_s`."""

SETTLE_S = 60.0
"""How long one command may take to be answered, over all restarts."""


class Crowd:
    """Clients of one shop. Made by `open_crowd`.

    `acknowledged`: every command that was answered; `tried`: every key that was sent; `refused`: every no.
    """

    def __init__(self, base: str, seed: int, tables: int) -> None:
        self.base = base
        self.tables = [str(number) for number in range(1, tables + 1)]
        self.acknowledged: list[Acknowledged] = []
        self.tried: set[str] = set()
        self.refused: list[Refused] = []
        self.screens: list[Screen] = []
        self.enough = False
        self.chance = random.Random(seed)
        self._answered = trio.Event()

    async def prepare(self, client: Client) -> None:
        """Make the shop and its menu, open the tables."""
        await client.send(f"stores/{STORE}/configure-store", {"name": "온다 분식", "payment_mode": "postpay"})
        for product in PRODUCTS:
            stock = COUNTED_PUT if product == COUNTED else None
            fields = {"product": product, "name": product.title(), "price": 4500, "stock": stock}
            await client.send(f"stores/{STORE}/put-product", fields)
        await client.send(f"stores/{STORE}/open-store")
        for table in self.tables:
            await client.send(f"tables/{STORE}/{table}/open-table", {"guests": 2})

    async def do(
        self, client: Client, path: str, body: dict[str, Any], key: str | None = None
    ) -> Acknowledged | None:
        """Send one command until it is answered; None when it was refused."""
        key = key or self.new_key()
        self.tried.add(key)
        try:
            reply = await client.send(path, body, key=key, within_s=SETTLE_S)
        except Refused as refused:
            self.refused.append(refused)
            return None
        done = Acknowledged(key, path, body, reply.result, reply.cursor, reply.events)
        self.acknowledged.append(done)
        self._answered.set()
        self._answered = trio.Event()
        return done

    def new_key(self) -> str:
        """An idempotency key, the same ones for the same seed."""
        return uuid.UUID(int=self.chance.getrandbits(128)).hex

    async def wait_acknowledged(self, more: int) -> None:
        """Wait until so many more commands have been answered."""
        target = len(self.acknowledged) + more
        while len(self.acknowledged) < target:
            await self._answered.wait()

    async def wait_quiet(self, client: Client, within_s: float = 20.0) -> None:
        """Wait until all reactions have run and every screen shows what the server has.

        Raises:
            AssertionError: with what is still missing.
        """
        missing = ["an answer"]
        with trio.move_on_after(within_s):
            while missing := await self._missing(client):
                await trio.sleep(LOOK_EVERY_S)
            return
        raise AssertionError(f"not quiet within {within_s} s: {missing}")

    async def _missing(self, client: Client) -> list[str]:
        """What has not come to everyone yet."""
        try:
            heads = {feed: await client.sync(feed) for feed in self.feeds()}
        except TryLater as later:
            return [str(later)]
        missing = []
        orders = heads[f"stores/{STORE}"]["state"].get("orders", {})
        for feed in self.feeds()[1:]:
            state = heads[feed]["state"]
            missing += [f"{feed}: cart {order} is unanswered" for order in state.get("sending", {})]
            for name, copy in state.get("orders", {}).items():
                if name in orders and orders[name]["status"] != copy["status"]:
                    missing.append(f"{feed}: {name} is {orders[name]['status']}, shown as {copy['status']}")
        for screen in self.screens:
            follower, head = screen.follower, heads[screen.follower.feed]["cursor"]
            if follower.cursor != head:
                seen = f"{follower.status} at {follower.cursor}, {follower.error}"
                missing.append(f"{follower.feed} is at {head}, its screen {seen}")
        return missing

    async def compare(self, client: Client) -> list[str]:
        """Compare what each screen shows with the server's snapshot at the same cursor."""
        findings = []
        for screen in self.screens:
            follower = screen.follower
            answer = await client.sync(follower.feed)
            if (answer["cursor"], without_empty(answer["state"])) != (
                follower.cursor,
                without_empty(follower.state),
            ):
                findings.append(
                    f"{follower.feed} at {follower.cursor} differs from the snapshot at {answer['cursor']}"
                )
        return findings

    async def replays(self, client: Client, many: int = 20) -> list[str]:
        """Send some acknowledged commands once more: the answer must be the first one."""
        findings = []
        effective = [command for command in self.acknowledged if command.events]
        for command in self.chance.sample(effective, min(many, len(effective))):
            reply = await client.send(command.path, command.body, key=command.key)
            if not reply.replayed or not same_answer(command, reply):
                findings.append(f"{command.path} {command.key}: first {command}, then {reply}")
        return findings

    def feeds(self) -> list[str]:
        """Every stream of the shop."""
        tables = (f"tables/{STORE}/{table}" for table in (*self.tables, PARTY_TABLE))
        return [f"stores/{STORE}", *tables, f"users/{USER}"]

    def screen(self, feed: str) -> Follower:
        """What the first screen of a feed shows."""
        return next(screen.follower for screen in self.screens if screen.feed == feed)

    def faults(self) -> list[str]:
        """What screens saw that should not be, and refusals, of which there is no reason for any."""
        refused = [f"refused: {no.status} {no}" for no in self.refused]
        return [fault for screen in self.screens for fault in screen.faults()] + refused


def same_answer(first: Acknowledged, reply: Reply) -> bool:
    """Whether an answer is the first one again.

    What settles a cart comes along when it is there: too late for the first answer, perhaps, and out of reach
    for the second one when the party has left.
    """
    events, known = reply.events, first.events
    if first.path.endswith("/submit-cart"):
        events, known = events[: len(known)], known[: len(events)]
    return bool(events) and (reply.result, reply.cursor, events) == (first.result, first.cursor, known)


@asynccontextmanager
async def open_crowd(
    base: str, seed: int, *, tables: int = 3, screens: str | None = None
) -> AsyncIterator[tuple[Crowd, Client]]:
    """A crowd with its shop prepared and its screens live.

    Args:
        base: where commands go.
        seed: of what they order.
        tables: how many.
        screens: where the screens connect to; `base` when not given.
    """
    crowd = Crowd(base, seed, tables)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_client(base, token(), pace=PACE))
        viewer = client
        if screens is not None:
            viewer = await stack.enter_async_context(open_client(screens, token(), pace=PACE))
        await crowd.prepare(client)
        for feed in [*crowd.feeds(), f"stores/{STORE}"]:  # two screens of the store
            crowd.screens.append(Screen(viewer, feed, fenced=feed.endswith(f"/{PARTY_TABLE}")))
        with trio.fail_after(10):
            for screen in crowd.screens:
                await screen.follower.wait(lambda follower: follower.status == "live")
        yield crowd, client
