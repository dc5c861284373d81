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
from web.client import Client, Pace, Refused, open_client
from web.exchange import TryLater

STORE = "s1"
COUNTED = "cola"
"""The product with a stock."""
COUNTED_PUT = 900_000
PRODUCTS = ("ramen", "kimbap", COUNTED)
STAGES = ("accept-order", "mark-ready", "mark-served")
PACE = Pace(retry_first_s=0.05, retry_most_s=0.5, answer_s=3.0, silence_s=4.0, poll_s=5)
"""Eager, so that a test is short; the server's pings have to come faster than `silence_s`."""

SETTLE_S = 60.0
"""How long one command may take to be answered, over all restarts."""


class Screen:
    """A followed stream, whose versions are checked one by one as they come."""

    def __init__(self, client: Client, feed: str) -> None:
        self.findings: list[str] = []
        self.states: set[str] = set()
        self._version: int | None = None
        self.follower = client.follow(feed, on_event=self._on_event, on_snapshot=self._on_snapshot)

    def _on_snapshot(self, _state: dict[str, Any], reason: str | None) -> None:
        cursor = self.follower.cursor or ""
        self._version = int(cursor.rpartition("-")[2])
        if reason is not None:
            self.findings.append(f"{self.follower.feed}: reset, {reason}")

    def _on_event(self, envelope: dict[str, Any]) -> None:
        if self._version is not None and envelope["version"] != self._version + 1:
            self.findings.append(
                f"{self.follower.feed}: {envelope['version']} was shown after {self._version}"
            )
        self._version = envelope["version"]

    def faults(self) -> list[str]:
        """What was seen that should not be: gaps, doubles, holes and repeats on the wire, resets."""
        counts = self.follower.statistics()
        wrong = {name: counts[name] for name in ("holes", "repeats", "resets") if counts[name]}
        return self.findings + ([f"{self.follower.feed}: {wrong}"] if wrong else [])


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
        self._chance = random.Random(seed)
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
        key = key or uuid.UUID(int=self._chance.getrandbits(128)).hex
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

    async def wait_acknowledged(self, more: int) -> None:
        """Wait until so many more commands have been answered."""
        target = len(self.acknowledged) + more
        while len(self.acknowledged) < target:
            await self._answered.wait()

    async def staff(self, client: Client) -> None:
        """Take orders at the counter and for tables, and bring them all the way to the guest."""
        while not self.enough:
            key = uuid.UUID(int=self._chance.getrandbits(128)).hex
            lines = [{"product": self._chance.choice(PRODUCTS), "quantity": 1, "note": key}]
            body: dict[str, Any] = {"lines": lines}
            if self._chance.random() < 0.3:
                body["table"] = self._chance.choice(self.tables)
            created = await self.do(client, f"stores/{STORE}/create-order", body, key)
            for stage in STAGES[: self._chance.randrange(4)]:
                if created is not None:
                    await self.do(client, f"stores/{STORE}/{stage}", {"order": created.result["order"]})

    async def guests(self, client: Client, table: str) -> None:
        """Fill the cart of a table and submit it."""
        while not self.enough:
            for _ in range(self._chance.randint(1, 3)):
                key = uuid.UUID(int=self._chance.getrandbits(128)).hex
                body = {
                    "product": self._chance.choice(PRODUCTS),
                    "quantity": self._chance.randint(1, 3),
                    "note": key,
                }
                await self.do(client, f"tables/{STORE}/{table}/add-to-cart", body, key)
            await self.do(client, f"tables/{STORE}/{table}/submit-cart", {})

    async def kitchen(self, client: Client, screen: Screen) -> None:
        """Serve what tables have ordered, as the store's screen shows it."""
        while not self.enough:
            orders = screen.follower.state.get("orders", {}).values()
            waiting = [order["order"] for order in orders if order["status"] == "PLACED" and order["table"]]
            for order in waiting[:5]:
                for stage in STAGES:
                    await self.do(client, f"stores/{STORE}/{stage}", {"order": order})
            cursor = screen.follower.cursor
            with trio.move_on_after(0.2):  # to look whether it is enough
                await screen.follower.wait(lambda follower, seen=cursor: follower.cursor != seen)

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
        for command in self._chance.sample(effective, min(many, len(effective))):
            reply = await client.send(command.path, command.body, key=command.key)
            if not reply.replayed or (reply.result, reply.cursor, reply.events) != command[3:]:
                findings.append(f"{command.path} {command.key}: first {command}, then {reply}")
                findings.append(str(await client.sync(command.path.rpartition("/")[0], command.cursor)))
        return findings

    def feeds(self) -> list[str]:
        """Every stream of the shop."""
        return [f"stores/{STORE}", *(f"tables/{STORE}/{table}" for table in self.tables)]

    def faults(self) -> list[str]:
        """What screens saw that should not be, and refusals, of which there is no reason for any."""
        refused = [f"refused: {no.status} {no}" for no in self.refused]
        return [fault for screen in self.screens for fault in screen.faults()] + refused


def run_all(crowd: Crowd, client: Client, nursery: trio.Nursery, staff: int = 2) -> None:
    """Start everyone."""
    for _ in range(staff):
        nursery.start_soon(crowd.staff, client)
    for table in crowd.tables:
        nursery.start_soon(crowd.guests, client, table)
    nursery.start_soon(crowd.kitchen, client, crowd.screens[0])


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
            crowd.screens.append(Screen(viewer, feed))
        with trio.fail_after(10):
            for screen in crowd.screens:
                await screen.follower.wait(lambda follower: follower.status == "live")
        yield crowd, client
