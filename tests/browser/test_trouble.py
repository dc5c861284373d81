"""The pages when something is wrong: no token, no server, and a server that comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.shop import Shop
from tests.browser.test_pages import PHONE, SCREEN, add, open_page, ticket
from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.browser

PATIENCE_MS = 20_000


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *ALWAYS) as server:
        yield server


@pytest.fixture
def node_shop(tmp_path, redis) -> Iterator[Shop]:
    """The demo shop on a log in Redis."""
    shop = Shop(tmp_path / "data", log=redis.url)
    shop.start()
    yield shop
    shop.close()


def test_tokens_leave_the_address_and_stay_in_their_tab(context, shop):
    """Owner and table in one browser: each tab has its own token, and no address or cookie holds one."""
    shop.do("tables/demo/1/open-table")
    board = open_page(context, shop.board())
    guest = open_page(context, shop.table("1").replace("?token=", "#token="), PHONE)
    assert board.url == f"{shop.url}/board/demo"
    assert guest.url == f"{shop.url}/t/demo/1"
    assert context.cookies() == []
    for page in (board, guest):
        page.reload()
        expect(page.locator(".chip")).to_have_attribute("data-status", "live")
        assert page.evaluate("JSON.stringify({...localStorage})").count("eyJ") == 0
    bare = context.new_page()
    bare.goto(f"{shop.url}/board/demo")
    expect(bare.get_by_role("heading", name="This needs a key")).to_be_visible()
    bare.get_by_label("Token").fill(shop.token("owner", store="demo"))
    bare.get_by_role("button", name="Open").click()
    expect(bare.locator(".column")).to_have_count(3)


def test_a_token_of_another_shop_is_told_so(context, shop):
    """403 is no reason to ask for ever: the page asks for a token that works."""
    page = context.new_page()
    page.goto(f"{shop.url}/board/other?token={shop.token('owner', store='demo')}")
    expect(page.get_by_role("heading", name="This needs a key")).to_be_visible()


@needs_redis
def test_while_redis_is_away_pages_say_that_no_orders_are_taken(context, guests, node_shop, redis):
    """The screens stay and say so at once; what is tapped waits, and goes when Redis is back."""
    shop = node_shop
    shop.order("1", "cola")
    board = open_page(context, shop.board())
    guest = open_page(guests, shop.table("2"), PHONE)
    redis.stop()
    for page in (board, guest):
        expect(page.locator(".banner")).to_contain_text("Orders are not taken at the moment.")
        expect(page.locator(".chip")).to_have_attribute("data-status", "live")
        expect(page.locator(".chip-state")).to_have_text("No orders")
    ticket(board, "1").get_by_role("button", name="Accept").click()
    expect(board.locator(".chip-unsent")).to_have_text("1 unsent")
    redis.start()
    for page in (board, guest):
        expect(page.locator(".banner")).to_have_count(0)
        expect(page.locator(".chip-state")).to_have_text("Live")
    expect(board.locator(".chip-unsent")).to_have_count(0, timeout=PATIENCE_MS)
    expect(board.locator(".column-new .ticket")).to_have_count(0, timeout=PATIENCE_MS)


def test_taps_survive_a_dead_server_and_a_reload(context, guests, own_shop):
    """The plug is pulled: taps wait with a clock, nothing claims to be done, and each arrives once."""
    shop = own_shop
    order = shop.order("1", "cola", "gimbap")
    shop.do("tables/demo/2/open-table")
    board = open_page(context, shop.board())
    guest = open_page(guests, shop.table("2"), PHONE)
    shop.kill()
    card = ticket(board, "1")
    card.get_by_role("button", name="Accept").click()
    expect(card.locator(".flag-wary")).to_contain_text("Accept")
    expect(board.locator(".chip")).to_have_attribute("data-status", "reconnecting")
    expect(board.locator(".chip-unsent")).to_have_text("1 unsent")
    card.get_by_role("button", name="Start cooking").click()
    expect(card.locator(".flag-wary")).to_contain_text("Accept → Start cooking")
    expect(board.locator(".chip-unsent")).to_have_text("2 unsent")
    expect(board.locator(".column-new .ticket")).to_have_count(1)

    add(guest, "cola")
    guest.locator(".tab-cart").click()
    expect(guest.locator(".cart-line .waiting")).to_have_text("Unsent")
    guest.locator("[data-act=submit]").click()
    expect(guest.locator("article.is-sending")).to_contain_text("Not sent yet")
    expect(guest.locator(".here, .past")).to_have_count(0)

    shop.start()
    board.reload()
    guest.reload()
    expect(ticket(board, "1", "cooking").locator(".stage-cooking")).to_be_visible(timeout=PATIENCE_MS)
    expect(board.locator(".chip-unsent")).to_have_count(0)
    guest.locator(".tab-orders").click()
    expect(guest.locator("article.is-placed")).to_have_count(1, timeout=PATIENCE_MS)
    orders = shop.state()["orders"]
    assert orders[order]["status"] == "COOKING"
    assert [o["table"] for o in orders.values()].count("2") == 1
    assert shop.state("tables/demo/2")["cart"] == {}


def test_a_page_left_alone_recovers_and_says_what_came_meanwhile(context, own_shop):
    """No reload, no tap: the board is live again by itself and lists the orders from the gap."""
    shop = own_shop
    board = open_page(context, shop.board())
    shop.order("1", "cola")
    expect(ticket(board, "1", "new")).to_be_visible()
    shop.kill()
    expect(board.locator(".chip")).to_have_attribute("data-status", "reconnecting")
    expect(board.locator(".chip")).to_have_class(re.compile("chip-wary"))
    expect(ticket(board, "1", "new").get_by_role("button", name="Accept")).to_be_enabled()
    blocked = re.compile(r"/v1/stores/demo/")
    context.route(blocked, lambda route: route.abort())
    shop.start()
    order = shop.order("2", "gimbap")
    number = shop.state()["orders"][order]["number"]
    context.unroute(blocked)
    expect(board.locator(".chip")).to_have_attribute("data-status", "live", timeout=PATIENCE_MS)
    expect(board.locator(".banner-news")).to_contain_text(
        f"1 order arrived while the connection was down #{number}"
    )
    expect(ticket(board, "2", "new").locator(".flag")).to_have_text("Arrived while away")
    board.locator(".banner-news").get_by_role("button", name="OK").click()
    expect(board.locator(".banner-news")).to_have_count(0)


def test_red_when_the_server_is_gone_for_long(context, own_shop):
    """After two missed pings a banner says what is wrong and what to do, out loud."""
    board = context.new_page()
    board.set_viewport_size(SCREEN)
    board.clock.install()
    board.goto(own_shop.board())
    board.clock.run_for(1_000)
    expect(board.locator(".column")).to_have_count(3)
    own_shop.kill()
    for _ in range(40):
        board.clock.run_for(1_000)
    banner = board.get_by_role("alert").filter(has_text="The connection to the server is lost")
    expect(banner).to_be_visible()
    expect(board.locator(".chip")).to_have_class(re.compile("chip-bad"))
    expect(banner.get_by_role("button", name="Reconnect")).to_be_enabled()
