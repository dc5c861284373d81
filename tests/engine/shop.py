"""A small shop to test the engine with: settings that are quick, and the commands that set it up."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from engine import MEMORY, Answer, Config, Node
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.shop import ConfigureStore, OpenStore

STORE = "store:s1"
OWNER = "owner:kim"


def config(data: str = MEMORY, **changes: Any) -> Config:
    """Settings for tests: quick retries, small segments, no reserve, and no history."""
    values: dict[str, Any] = {
        "db": "none",
        "segment_bytes": 1 << 20,
        "reserve_bytes": 0,
        "reaction_backoff_ms": 1,
        "reaction_backoff_ms_max": 4,
        "timer_tick_s": 0.01,
    }
    return Config(data=data, **(values | changes))


async def make_shop(node: Node, stream: str = STORE, stock: int | None = None) -> None:
    """Configure and open a shop with one product, `ramen` for 5,000 won."""
    await node.ask(stream, ConfigureStore(name="Corner", payment_mode="postpay"), by=OWNER)
    await node.ask(stream, PutProduct(product="ramen", name="라면", price=5000, stock=stock), by=OWNER)
    await node.ask(stream, OpenStore(), by=OWNER)


def order(quantity: int = 1, **fields: Any) -> CreateOrder:
    """A command that orders some ramen."""
    return CreateOrder(lines=(Wish(product="ramen", quantity=quantity),), **fields)


def envelopes(answer: Answer) -> list[dict[str, Any]]:
    """The events of an answer."""
    return [msgspec.json.decode(body) for body in answer.events]


async def state_of(node: Node, stream: str) -> dict[str, Any]:
    """What readers of a stream see."""
    return msgspec.json.decode((await node.read(stream)).state)


async def wait_until(condition: Any, seconds: float = 5.0) -> None:
    """Wait for a condition that other tasks bring about."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.001)


class ManualClock:
    """A clock that stands until it is told to move."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.ms = now_ms
        self._ids = 0

    def now_ms(self) -> int:
        return self.ms

    def new_id(self) -> str:
        self._ids += 1
        return f"00000000-0000-7000-8000-{self._ids:012x}"
