"""A shop in a simulated world: a log that holds, refuses and loses what is not durable; clients that try
again until they know; screens that follow by cursor; nodes that end in any way. One seed decides everything.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NamedTuple

import msgspec
import trio

from engine import Answer, Cursor, Node, Snapshot, open_node
from engine.checkpoint import Checkpoint
from engine.checkpoint_sqlite import open_checkpoint
from engine.config import Config
from engine.domain.contract import Command
from engine.domain.store.cancelling import CancelOrder
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.store.menu import PutProduct, SetSoldOut
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.shop import ConfigureStore, OpenStore
from engine.domain.table.calls import CallStaff
from engine.domain.table.cart import AddToCart, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.errors import Lagging, Overloaded, Rejected, Stopping, Unavailable, UnknownOutcome
from engine.log.memory import MemoryLog
from engine.metrics import Metrics
from engine.records import Entry
from tests.engine.kept import KeptLog
from tests.engine.shop import OWNER, ManualClock, config

STORES = ("s1", "s2")
TABLES = ("1", "2")
CLOSING = "2"
"""This table is closed now and then; the others stay open, so each of their orders has to arrive."""
STREAMS = (
    *(f"store:{store}" for store in STORES),
    *(f"table:{store}/{table}" for store in STORES for table in TABLES),
    *("user:u1", "user:u2"),
)


class Acked(NamedTuple):
    """A command that was answered."""

    stream: str
    by: str
    key: str
    answer: Answer


class SimulatedLog(KeptLog):
    """Also refuses at random, remembers all that was ever durable, and can end with its process.

    Attributes:
        history: all entries; `appends` are the lengths that it had after each append.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._dead = False
        self.refusing = 0.0
        self.crashes = 0
        self.appends: list[int] = []
        self.history: list[Entry] = []
        self.heads: dict[str, int] = {}

    async def append(self, entries: Sequence[Entry]) -> int:
        if self._dead:
            await trio.sleep_forever()
        if self._chance.random() < self.refusing:
            await trio.lowlevel.checkpoint()
            raise Overloaded
        return await super().append(entries)

    def crash(self) -> None:
        """The process is gone: some of what waits is durable, the rest never was."""
        held = self._held or []
        for append in held[: self._chance.randint(0, len(held))]:
            self._commit(append.entries)
        self._held = []
        self._dead = True
        self.crashes += 1

    def reopen(self) -> None:
        super().reopen()
        self._dead = False

    def _commit(self, entries: Sequence[Entry]) -> int:
        for entry in entries:
            self.history.append(entry)
            self.heads[entry.stream] = entry.version
        self.appends.append(len(self.history))
        return super()._commit(entries)


class Screen:
    """A client that follows one stream by cursor and keeps its state from snapshots and patches."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.cursor: Cursor | None = None
        self.state: dict[str, dict[str, Any]] = {}

    async def run(self, world: World) -> None:
        while True:
            node = await world.wait_node()
            try:
                await self._follow(node, world.chance)
            except (Stopping, Lagging, Unavailable, Rejected):
                await trio.sleep(0.001 + world.chance.random() / 50)

    async def _follow(self, node: Node, chance: random.Random) -> None:
        with await node.subscribe(self.stream, self.cursor) as subscription:
            snapshot = subscription.snapshot
            if snapshot is not None:
                self.state = msgspec.json.decode(snapshot.state)
                self.cursor = Cursor.parse(snapshot.cursor)
            for _ in range(chance.randint(1, 50)):
                await subscription.wait()
                if chance.random() < 0.2:
                    await trio.sleep(chance.random() / 10)
                for frame in subscription.take(chance.randint(1, 20)):
                    assert self.cursor is not None
                    assert frame.version == self.cursor.version + 1, f"{self.stream}: a hole"
                    self.cursor = self.cursor._replace(version=frame.version)
                    self._merge(msgspec.json.decode(frame.body)["patch"])

    def _merge(self, patch: dict[str, dict[str, Any]]) -> None:
        for collection, entities in patch.items():
            for name, entity in entities.items():
                if entity is None:
                    self.state[collection].pop(name, None)
                else:
                    self.state[collection][name] = entity


class World:
    """Everything around the node; `engine.opening._open_disk` has to be `open_disk`."""

    streams: tuple[str, ...] = STREAMS
    patience_s = 0.02
    """Clients try again after so long at most."""

    def __init__(self, seed: int, folder: str) -> None:
        self.chance = chance = random.Random(seed)
        self.log = SimulatedLog(chance)
        self.clock = ManualClock()
        self.acked: list[Acked] = []
        self.read: list[tuple[str, Snapshot]] = []
        self.screens = [Screen(stream) for stream in self.streams]
        self.settings = config(
            mailbox_max=chance.choice((4, 64)),
            batch_max=chance.choice((1, 3, 64)),
            ring_frames_max=chance.choice((4, 64)),
            refill_bytes=chance.choice((0, 4000, 1 << 20)),
            checkpoint_s=chance.choice((0.05, 3600.0)),
            idle_s=0.0,
            reaction_retries=20,
            timer_tick_s=1.0,
            shutdown_s=chance.choice((0.01, 10.0)),
        )
        self._file = f"{folder}/checkpoint.db"
        self._node: Node | None = None
        self._up = trio.Event()
        self._keys = 0

    async def open_disk(
        self, settings: Config, stack: AsyncExitStack, metrics: Metrics
    ) -> tuple[Checkpoint, MemoryLog]:
        self.log.reopen()
        checkpoint = await open_checkpoint(self._file)
        stack.push_async_callback(checkpoint.close)
        return checkpoint, self.log

    def open_node(self) -> AbstractAsyncContextManager[Node]:
        """Begin a life."""
        return open_node(self.settings, clock=self.clock)

    async def wait_node(self) -> Node:
        while self._node is None:
            await self._up.wait()
        return self._node

    async def run(self, lives: int, steps: int) -> Node:
        """Live several lives; return the last node, closed, after everything came to rest in it."""
        async with trio.open_nursery() as screens:
            for screen in self.screens:
                screens.start_soon(screen.run, self)
            async with trio.open_nursery() as clients:
                clients.start_soon(self._set_up)
                for _ in range(lives):
                    await self._live(clients, steps)
                    await trio.sleep(self.chance.random() / 100)
                node = await self._rest(clients)
            screens.cancel_scope.cancel()
        return node

    async def _live(self, clients: trio.Nursery, steps: int) -> None:
        chance, log = self.chance, self.log
        async with self.open_node() as node:
            self._begin(node)
            async with trio.open_nursery() as operators:
                for _ in range(chance.randint(1, 2 * steps)):
                    await self._step(clients, operators, node)
                operators.cancel_scope.cancel()
            if chance.random() < 0.6:
                log.crash()
                node._stopped = True
            elif chance.random() < 0.7:
                log.release()
            self._node = None

    async def _rest(self, clients: trio.Nursery) -> Node:
        """Let everything be answered and followed up, and everybody see it."""
        async with self.open_node() as node:
            self._begin(node)
            await self._settle(clients, node)
            for screen in self.screens:
                while screen.cursor is None or screen.cursor.version < self.log.heads.get(screen.stream, 0):
                    await trio.sleep(0.01)
            assert not node.parked()
            for stream in self.streams:
                self.read.append((stream, await node.read(stream)))
            self._node = None
        return node

    async def _settle(self, clients: trio.Nursery, node: Node) -> None:
        """Wait until nobody waits for an answer, and all that follows has followed."""
        while clients.child_tasks or self._lag(node):
            await trio.sleep(0.01)

    def _lag(self, node: Node) -> int:
        lag: int = node.statistics()["reaction_lag"]
        return lag

    def _begin(self, node: Node) -> None:
        self.log.refusing = 0.0
        self._node = node
        self._up.set()
        self._up = trio.Event()

    async def _step(self, clients: trio.Nursery, operators: trio.Nursery, node: Node) -> None:
        chance, log = self.chance, self.log
        self.clock.ms += chance.randint(0, 500)
        match chance.randint(0, 24):
            case 0:
                log.hold()
            case 1 | 2:
                log.release()
            case 3:
                log.refusing = chance.choice((0.0, 0.0, 0.5))
            case 4:
                log.set_writable(chance.random() < 0.7)
            case 5:
                operators.start_soon(self._upkeep, node)
            case 6 | 7:
                clients.start_soon(self._look, node, chance.choice(self.streams))
            case 8 | 9:
                await trio.sleep(chance.random() / 20)
            case _:
                for _ in range(chance.choice((1, 1, 5, 30))):
                    clients.start_soon(self._ask, *self._command())
        if chance.random() < 0.5:
            await trio.sleep(chance.random() / 200)

    async def _upkeep(self, node: Node) -> None:
        with trio.move_on_after(self.chance.random()):
            await node.upkeep.take()
            await node.upkeep._drop_idle()

    async def _look(self, node: Node, stream: str) -> None:
        try:
            snapshot = await node.read(stream)
        except (Unavailable, Rejected):
            return
        assert snapshot.version <= self.log.heads.get(stream, 0), f"{stream}: an undurable read"
        self.read.append((stream, snapshot))

    async def _set_up(self) -> None:
        for store in STORES:
            stream = f"store:{store}"
            await self._ask(stream, ConfigureStore(name="Corner", payment_mode="postpay"), OWNER)
            await self._ask(stream, PutProduct(product="ramen", name="라면", price=5000), OWNER)
            await self._ask(stream, PutProduct(product="cake", name="떡", price=900, stock=9), OWNER)
            await self._ask(stream, OpenStore(), OWNER)

    def _command(self) -> tuple[str, Command, str]:
        """Return what somebody wants next: stream, command, who."""
        chance = self.chance
        store, table = chance.choice(STORES), chance.choice(TABLES)
        shop, seat = f"store:{store}", f"table:{store}/{table}"
        product = chance.choice(("ramen", "ramen", "cake"))
        some = f"o{chance.randint(1, 30)}"
        match chance.randint(0, 13):
            case 0 | 1 | 2:
                wish = (Wish(product=product, quantity=1),)
                user = chance.choice((None, "u1", "u2"))
                return shop, CreateOrder(lines=wish, table=chance.choice((None, table)), user=user), OWNER
            case 3:
                return shop, MarkReady(order=some), OWNER
            case 4:
                return shop, MarkServed(order=some), OWNER
            case 5:
                return shop, CancelOrder(order=some, reason="late"), OWNER
            case 6:
                return shop, SetSoldOut(product="cake", sold_out=chance.random() < 0.5), OWNER
            case 7:
                return seat, OpenTable(guests=2), seat
            case 8 | 9:
                return seat, AddToCart(product=product, quantity=1), seat
            case 10 | 11:
                return seat, SubmitCart(), seat
            case 12:
                return seat, CallStaff(kind="water"), seat
            case _:
                return f"table:{store}/{CLOSING}", CloseTable(), OWNER

    async def _ask(self, stream: str, command: Command, by: str) -> Answer | None:
        """Ask until there is an answer, and then perhaps again, for the same one; `None` is a refusal."""
        self._keys += 1
        key = f"k{self._keys}"
        first: Answer | None = None
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            answer = await self._insist(stream, command, by, key)
            if answer is None:
                return None
            if first is not None and first.events:
                same = answer._replace(replayed=False) == first
                assert same, f"{stream}: {key} has another answer now"
                assert answer.replayed
            elif first is None:
                first = answer._replace(replayed=False)
                self.acked.append(Acked(stream, by, key, first))
            await trio.sleep(self.chance.random() / 4)
        return first

    async def _insist(self, stream: str, command: Command, by: str, key: str) -> Answer | None:
        while True:
            node = await self.wait_node()
            try:
                answer = await node.ask(stream, command, by=by, id=key)
            except Rejected:
                return None
            except (Unavailable, UnknownOutcome):
                pass
            else:
                assert answer.version <= self.log.heads.get(stream, 0), f"{stream}: acked before durable"
                return answer
            await trio.sleep(0.001 + self.chance.random() * self.patience_s)
