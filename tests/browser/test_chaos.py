"""Screens in Chromium behind restarts and a bad network: no gap, no double, each tap once, an honest chip."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.browser.conftest import in_browser
from tests.chaos.acts import run_all
from tests.chaos.crowd import STORE, open_crowd
from tests.chaos.process import open_server, token
from tests.chaos.proxy import open_proxy
from tests.chaos.test_kill import KEEP_ALL
from tests.chaos.test_network import trouble

FOLLOW = """async ([feed, token]) => {
    const { open } = await import("/static/onda.js");
    window.seen = []; window.faults = []; window.statuses = []; window.sent = []; window.refused = [];
    const settings = {watchdogMs: 3000, sendBackoffCapMs: 500, backoffCapMs: 500};
    window.client = open({feed, token, settings});
    client.on("event", ({envelope}) => {
        const last = seen[seen.length - 1];
        if (last !== undefined && envelope.version !== last + 1) faults.push([last, envelope.version]);
        seen.push(envelope.version);
    });
    client.on("reset", ({reason}) => reason === "snapshot" || faults.push(reason));
    client.on("status", ({status}) => statuses.push(status));
    client.on("sent", ({entry}) => sent.push(entry.key));
    client.on("refused", ({problem}) => refused.push(problem.code));
}"""
"""Follow a feed in the page as its own pages do, and write down every event's version and every fault."""

TAP = """(note) => client.send("create-order", {lines: [{product: "ramen", quantity: 1, note}]})"""


LIVE = ".chip[data-status=live]"
OPEN = {"PLACED", "ACCEPTED", "COOKING", "READY"}


async def page_do(work: Callable[[], Any]) -> Any:
    """Do something in Playwright's thread while this one goes on."""
    return await trio.to_thread.run_sync(in_browser, work)


async def until(page: Any, condition: str, value: Any = None) -> None:
    """Wait until a condition holds in the page, which forbids the eval that Playwright's own wait needs."""
    with trio.fail_after(30):
        while not await page_do(lambda: page.evaluate(condition, value)):
            await trio.sleep(0.05)


@pytest.mark.slow
async def test_screens_in_chromium_miss_nothing(
    chromium: Any, tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    """Two tabs follow and tap through restarts and faults; in the end they show what the server has."""
    restarts: int = request.config.getoption("--restarts")
    async with (
        open_server(tmp_path / "data", "--no-demo", env=KEEP_ALL) as (server, nursery),
        open_proxy(server.port) as proxy,
        open_crowd(server.base, seed, tables=2) as (crowd, client),
    ):
        context = await page_do(chromium.new_context)
        screens = Screens(proxy.base)
        await screens.open(context)
        async with trio.open_nursery() as load:
            run_all(crowd, client, load)
            load.start_soon(screens.tap)
            await trouble(server, nursery, proxy, crowd, random.Random(seed), restarts)
            await proxy.refuse()
            await screens.wait_for("() => client.status !== 'live'")
            screens.over = crowd.enough = True
        await proxy.heal()
        await crowd.wait_quiet(client)
        await screens.wait_for("() => client.unsent === 0")
        await screens.check(await client.sync(f"stores/{STORE}"))
        statuses = sorted(set(await screens.look("statuses")))
        seen = await screens.look("seen.length")
        print(f"{restarts} restarts, {screens.taps} taps, {seen} events seen, statuses {statuses}")
        await page_do(context.close)


class Screens:
    """Two tabs that follow the store with the client, one of which taps, and the board's own page."""

    def __init__(self, base: str) -> None:
        self.taps = 0
        self.over = False
        self._base = base
        self._tabs: list[Any] = []
        self._board: Any = None

    async def open(self, context: Any) -> None:
        for _ in range(2):
            tab = await page_do(context.new_page)
            await page_do(lambda tab=tab: tab.goto(f"{self._base}/"))
            await page_do(lambda tab=tab: tab.evaluate(FOLLOW, [f"stores/{STORE}", token()]))
            self._tabs.append(tab)
        self._board = await page_do(context.new_page)
        await page_do(lambda: self._board.goto(f"{self._base}/board/{STORE}?token={token()}"))
        await page_do(lambda: self._board.wait_for_selector(LIVE))

    async def tap(self) -> None:
        """Order again and again until it is over."""
        while not self.over:
            note = f"tap {self.taps}"
            self.taps += 1
            await page_do(lambda note=note: self._tabs[0].evaluate(TAP, note))
            await trio.sleep(0.15)

    async def look(self, expression: str) -> Any:
        """Evaluate something in the tab that taps."""
        return await page_do(lambda: self._tabs[0].evaluate(expression))

    async def wait_for(self, condition: str) -> None:
        """Wait until a condition holds in the tab that taps."""
        await until(self._tabs[0], condition)

    async def check(self, synced: dict[str, Any]) -> None:
        """Nothing was missed, nothing is there twice, and all show what the server has."""
        orders = synced["state"]["orders"].values()
        for tab in self._tabs:
            here = "(cursor) => client.cursor === cursor && client.status === 'live'"
            await until(tab, here, synced["cursor"])
            assert await page_do(lambda tab=tab: tab.evaluate("faults")) == []
            assert await page_do(lambda tab=tab: tab.evaluate("client.state")) == synced["state"]
        notes = [line["note"] for order in orders for line in order["lines"]]
        tapped = sorted(note for note in notes if note.startswith("tap "))
        assert tapped == sorted(f"tap {number}" for number in range(self.taps))
        assert await self.look("[sent.length, refused]") == [self.taps, []]
        await page_do(lambda: self._board.wait_for_selector(LIVE, timeout=30_000))
        open_orders = [order for order in orders if order["status"] in OPEN]
        tickets = "(count) => document.querySelectorAll('.ticket').length === count"
        await until(self._board, tickets, len(open_orders))
