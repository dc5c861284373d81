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
    taps = 0
    over = False

    async def tap(page: Any) -> None:
        nonlocal taps
        while not over:
            number, taps = taps, taps + 1
            await page_do(lambda note=f"tap {number}": page.evaluate(TAP, note))
            await trio.sleep(0.15)

    async with (
        open_server(tmp_path / "data", "--no-demo", env=KEEP_ALL) as (server, nursery),
        open_proxy(server.port) as proxy,
        open_crowd(server.base, seed, tables=2) as (crowd, client),
    ):
        context = await page_do(chromium.new_context)
        pages = []
        for _ in range(2):
            page = await page_do(context.new_page)
            await page_do(lambda page=page: page.goto(f"{proxy.base}/"))
            await page_do(lambda page=page: page.evaluate(FOLLOW, [f"stores/{STORE}", token()]))
            pages.append(page)
        board = await page_do(context.new_page)
        await page_do(lambda: board.goto(f"{proxy.base}/board/{STORE}?token={token()}"))
        await page_do(lambda: board.wait_for_selector(".chip[data-status=live]"))
        async with trio.open_nursery() as load:
            run_all(crowd, client, load)
            load.start_soon(tap, pages[0])
            await trouble(server, nursery, proxy, crowd, random.Random(seed), restarts)
            over = crowd.enough = True
        await proxy.heal()
        await crowd.wait_quiet(client)
        await until(pages[0], "() => client.unsent === 0")
        server_state = await client.sync(f"stores/{STORE}")
        for page in pages:
            await until(
                page,
                "(cursor) => client.cursor === cursor && client.status === 'live'",
                server_state["cursor"],
            )
            assert await page_do(lambda page=page: page.evaluate("faults")) == []
            assert await page_do(lambda page=page: page.evaluate("client.state")) == server_state["state"]
        notes = [
            line["note"] for order in server_state["state"]["orders"].values() for line in order["lines"]
        ]
        tapped = sorted(note for note in notes if note.startswith("tap "))
        assert tapped == sorted(f"tap {number}" for number in range(taps))
        assert await page_do(lambda: pages[0].evaluate("[sent.length, refused]")) == [taps, []]
        statuses = set(await page_do(lambda: pages[0].evaluate("statuses")))
        assert statuses - {"live"}, "the chip never said that something was wrong"
        await page_do(lambda: board.wait_for_selector(".chip[data-status=live]", timeout=30_000))
        tickets = "() => document.querySelectorAll('.ticket').length"
        open_orders = [
            order
            for order in server_state["state"]["orders"].values()
            if order["status"] in ("PLACED", "ACCEPTED", "COOKING", "READY")
        ]
        assert await page_do(lambda: board.evaluate(tickets)) == len(open_orders)
        seen = await page_do(lambda: pages[0].evaluate("seen.length"))
        print(f"{restarts} restarts, {taps} taps, {seen} events seen, statuses {sorted(statuses)}")
        await page_do(context.close)
