"""The operators' page: who may see it, that it says when it is stale, and parked records."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.shop import Shop
from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import redis_server

pytestmark = pytest.mark.browser

PARKED = {
    "id": 7,
    "reaction": "history",
    "stream": "store:demo",
    "version": 12,
    "error": "the database is locked",
    "attempts": 4,
    "at_ms": 0,
    "envelope": {"type": "OrderPlaced"},
}


def test_it_needs_a_key_of_an_operator(context, shop):
    """An owner's token shows nothing, and the page asks for another."""
    page = context.new_page()
    page.goto(f"{shop.url}/ops?token={shop.token('owner', store='demo')}")
    expect(page.get_by_role("heading", name="This needs a key")).to_be_visible()
    page.get_by_label("Token").fill(shop.token("service", "ops"))
    page.get_by_role("button", name="Open").click()
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator(".card-streams")).to_contain_text("store:demo")
    expect(page.locator(".card-reactions")).to_contain_text("gateway")


def test_it_says_when_its_figures_are_old_and_comes_back(context, own_shop):
    """A dead server leaves the last figures with a warning, out loud."""
    page = context.new_page()
    page.clock.install()
    page.goto(own_shop.ops())
    expect(page.locator(".tile").first).to_be_visible()
    own_shop.kill()
    for _ in range(20):
        page.clock.run_for(1_000)
    expect(page.get_by_role("alert").filter(has_text="These figures are old")).to_be_visible()
    expect(page.locator(".chip")).to_have_class(re.compile("chip-bad"))
    expect(page.locator(".tile").first).to_be_visible()
    own_shop.start()
    page.clock.run_for(5_000)
    expect(page.locator(".banner-bad")).to_have_count(0)


@needs_redis
def test_each_node_of_a_shared_log_shows_all_of_them(context, tmp_path):
    """Reactions say which partition, and which node is on duty for it; streams, where they are."""
    with redis_server(tmp_path, *ALWAYS) as redis:
        shops = [Shop(tmp_path / name, "--log", redis.url, "--node-id", name) for name in ("n1", "n2")]
        try:
            for shop in shops:
                shop.start()
            pages = [context.new_page() for _ in shops]
            for page, shop in zip(pages, shops, strict=True):
                page.goto(shop.ops())
            for page in pages:
                rows = page.locator(".card-reactions th", has_text=re.compile(r"^\S+ · \d+ · n[12]$"))
                expect(rows.first).to_be_visible(timeout=30_000)
                expect(page.locator(".card-streams")).to_contain_text(re.compile(r"store:demo · n\d"))
                expect(page.locator(".card-parked")).to_contain_text("Nothing is parked")
        finally:
            for shop in shops:
                shop.close()


@pytest.mark.parametrize("verb", ["replay", "skip"])
def test_parked_records_are_replayed_or_skipped_after_a_question(context, shop, verb):
    """Nothing is sent before somebody says yes."""
    page = context.new_page()
    sent: list[str] = []
    page.route("**/v1/ops/parked", lambda route: route.fulfill(json={"parked": [] if sent else [PARKED]}))

    def settle(route):
        sent.append(f"{route.request.method} {route.request.url.rpartition('/v1/')[2]}")
        route.fulfill(body=json.dumps({"settled": True}), content_type="application/json")

    page.route(re.compile(r"/v1/ops/parked/\d+/"), settle)
    page.goto(shop.ops())
    row = page.locator(".card-parked li")
    expect(row).to_contain_text("the database is locked")
    expect(page.locator(".tile-bad")).to_contain_text("Parked records")
    name = verb.capitalize()
    row.get_by_role("button", name=name).click()
    page.get_by_role("dialog").get_by_role("button", name="No", exact=True).click()
    assert sent == []
    row.get_by_role("button", name=name).click()
    page.get_by_role("dialog").get_by_role("button", name=name).click()
    expect(row).to_have_count(0)
    assert sent == [f"POST ops/parked/7/{verb}"]
    expect(page.locator(".toast-good")).to_contain_text(f"{name}: done")
