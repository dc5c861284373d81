"""A shop where guests pay first, with the sandbox behind it: everything real, on sockets of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from tests.web.site import Running, running
from web.sandbox.handlers import Sandbox
from web.sandbox.ledger import Ledger
from web.sandbox.server import open_sandbox

KEY = "sandbox-key-for-tests"


class Shop:
    """The shop `s1`: ramen for 4,500 won, five cakes for 6,000 won, and milk that is free of tax."""

    def __init__(self, site: Running, sandbox: Sandbox) -> None:
        self.site = site
        self.sandbox = sandbox
        self.ledger = sandbox.ledger
        self.http = site.client("service")

    async def send(self, name: str, /, **body: Any) -> httpx.Response:
        return await self.http.post(f"/v1/stores/s1/{name}", json=body)

    async def do(self, name: str, /, **body: Any) -> dict[str, Any]:
        """Send a command that has to work; return its result."""
        answer = await self.send(name, **body)
        assert answer.status_code in (200, 202), answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    async def prepare(self, product: str = "ramen", **more: Any) -> dict[str, Any]:
        """Order one, and prepare its payment."""
        wanted = {"lines": [{"product": product, "quantity": 1}], "user": "kim"}
        made = await self.do("create-order", **wanted)
        fields = {"order": made["order"], "amount": made["total"], "payer": "kim", "method": "sandbox"}
        return {**made, **await self.do("prepare-payment", **(fields | more))}

    async def approve(self, made: dict[str, Any], ref: str) -> dict[str, Any]:
        """Approve with what the guest brought."""
        fields = {"order": made["order"], "payment": made["payment"], "provider_ref": ref}
        return await self.do("approve-payment", **fields)

    async def state(self) -> dict[str, Any]:
        """What the shop's readers see."""
        found: dict[str, Any] = (await self.http.get("/v1/stores/s1/sync")).json()["state"]
        return found

    async def payment(self, made: dict[str, Any]) -> dict[str, Any]:
        """A payment as readers see it."""
        found: dict[str, Any] = (await self.state())["payments"][made["payment"]]
        return found

    async def wait_status(self, made: dict[str, Any], *statuses: str) -> dict[str, Any]:
        """Wait until a payment has one of these statuses."""
        with trio.fail_after(10):
            while (payment := await self.payment(made))["status"] not in statuses:
                await trio.sleep(0.01)
        return payment


class Clock:
    """The sandbox's clock; `ahead_ms` puts it forward."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@asynccontextmanager
async def sandboxing(*, slow_s: float = 0.05) -> AsyncIterator[Sandbox]:
    """Run a sandbox until the block ends."""
    clock = Clock()
    ledger = Ledger(None, clock.now_ms)
    sandbox = Sandbox(ledger, KEY, slow_s=slow_s, late_s=0.05)
    sandbox.clock = clock  # type: ignore[attr-defined]
    async with open_sandbox(sandbox):
        yield sandbox


@asynccontextmanager
async def selling(sandbox: Sandbox, /, **settings: Any) -> AsyncIterator[Shop]:
    """Run the shop before a sandbox until the block ends."""
    ours = {"sandbox": "on", "sandbox_url": sandbox.url, "sandbox_key": KEY, "gateway_timeout_s": 5.0}
    async with running(**(ours | settings)) as site:
        shop = Shop(site, sandbox)
        async with shop.http:
            if not await site.node.exists("store:s1"):
                await _set_up(shop)
            yield shop


@asynccontextmanager
async def paying(**settings: Any) -> AsyncIterator[Shop]:
    """Run sandbox and shop until the block ends."""
    async with sandboxing() as sandbox, selling(sandbox, **settings) as shop:
        yield shop


async def _set_up(shop: Shop) -> None:
    await shop.do("configure-store", name="온다 카페", payment_mode="prepay", hold_seconds=600)
    await shop.do("put-product", product="ramen", name="라면", price=4500)
    await shop.do("put-product", product="cake", name="케이크", price=6000, stock=5)
    await shop.do("put-product", product="milk", name="우유", price=2000, tax_free=True)
    await shop.do("open-store")
