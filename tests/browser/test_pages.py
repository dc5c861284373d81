"""A table and the board, on a real server: an order from the first tap to the last."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.shop import Shop

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
SCREEN = {"width": 1366, "height": 900}


def open_page(context: BrowserContext, url: str, size: dict[str, int] = SCREEN) -> Page:
    page = context.new_page()
    page.set_viewport_size(size)  # type: ignore[arg-type]
    page.goto(url)
    expect(page.locator(".chip")).to_have_attribute("data-status", "live")
    return page


def ticket(board: Page, table: str, column: str = ""):
    scope = f".column-{column} " if column else ""
    return board.locator(f"{scope}.ticket").filter(has=board.locator(f".place:text-is('{table}')"))


def sit_down(context: BrowserContext, shop: Shop, table: str) -> Page:
    page = open_page(context, shop.table(table), PHONE)
    page.locator("[data-act=open][data-guests='2']").click()
    expect(page.locator(".product").first).to_be_visible()
    return page


def add(page: Page, product: str) -> None:
    page.locator(f"[data-act=quick][data-product={product}]").click()


def test_an_order_from_the_first_tap_to_the_last(context, guests, shop):
    """Placed at the table, accepted, cooked, ready and served on the board; both see each step at once."""
    guest = sit_down(guests, shop, "1")
    board = open_page(context, shop.board())
    guest.locator("[data-act=product][data-product=tteokbokki]").click()
    dialog = guest.locator("dialog")
    expect(dialog.locator("button[value=yes]")).to_be_disabled()
    dialog.get_by_label("매운맛").check()
    dialog.get_by_label("치즈").check()
    dialog.get_by_role("button", name="One more").click()
    dialog.locator("textarea").fill("No peanuts, please")
    dialog.get_by_role("button", name="Add for ₩12,000").click()
    add(guest, "gimbap")
    guest.locator(".tab-cart").click()
    expect(guest.locator(".cart-line")).to_have_count(2)
    guest.get_by_role("button", name="Order for ₩15,500").click()
    order = guest.locator("article.order")
    expect(order).to_have_class(re.compile("is-placed"))
    expect(order.locator(".here")).to_have_text("Received")

    card = ticket(board, "1", "new")
    expect(card.locator(".what").first).to_contain_text("떡볶이")
    expect(card.locator(".option")).to_have_text(["매운맛", "치즈"])
    expect(card.locator(".note")).to_have_text("No peanuts, please")
    expect(card.locator(".quantity").first).to_have_text("2×")
    expect(card.locator(".meta")).to_contain_text("Table · 2 guests")
    card.get_by_role("button", name="Accept").click()
    expect(order.locator(".here")).to_have_text("Accepted")
    card = ticket(board, "1", "cooking")
    card.get_by_role("button", name="Start cooking").click()
    expect(order.locator(".here")).to_have_text("Cooking")
    card.locator("button.tap").first.click()
    expect(card.locator(".line-ready")).to_have_count(1)
    expect(order.locator(".line-ready")).to_have_count(1)
    card.locator("button.tap").first.click()
    expect(order.locator(".here")).to_have_text("Ready")
    ticket(board, "1", "ready").get_by_role("button", name="Served").click()
    expect(order.locator(".now")).to_have_text("Enjoy your meal")
    expect(guest.locator(".bill b")).to_have_text("₩15,500")
    expect(ticket(board, "1")).to_have_count(0)

    board.locator(".toast").get_by_role("button", name="Recall").click()
    expect(ticket(board, "1", "ready")).to_have_count(1)
    ticket(board, "1", "ready").get_by_role("button", name="Recall").click()
    expect(ticket(board, "1", "cooking")).to_have_count(1)
    expect(order.locator(".here")).to_have_text("Cooking")


def test_a_rejection_says_why_in_the_guests_language(context, guests, shop):
    """The board sends a code, the table reads it in Korean."""
    shop.do("tables/demo/2/open-table", guests=2)
    guest = open_page(guests, shop.table("2"), PHONE)
    guest.locator("[data-act=language]").click()
    shop.order("2", "cola")
    guest.locator(".tab-orders").click()
    board = open_page(context, shop.board())
    ticket(board, "2", "new").get_by_role("button", name="Reject").click()
    dialog = board.get_by_role("dialog")
    dialog.get_by_label("Too many orders").check()
    dialog.get_by_role("button", name="Reject").click()
    expect(ticket(board, "2")).to_have_count(0)
    expect(guest.locator("article.is-rejected .now")).to_contain_text("주문이 많아 받을 수 없습니다")
    expect(guest.locator("#assertive")).to_contain_text("주문을 받지 못했습니다")
    expect(guest.locator(".bill b")).to_have_text("0원")


def test_sold_out_and_closing_show_at_every_table_at_once(context, guests, shop):
    """The board's switch greys the product; a paused or closed shop takes no order."""
    guest = sit_down(guests, shop, "3")
    board = open_page(context, shop.board())
    add(guest, "sundae")
    board.locator("[data-act=panel-menu]").click()
    panel = board.locator("#menu-panel")
    switch = panel.get_by_role("switch", name="순대")
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "false")
    expect(guest.locator(".product.off", has_text="순대")).to_contain_text("Sold out")
    guest.locator(".tab-cart").click()
    expect(guest.locator(".cart-line.off")).to_have_count(1)
    switch.click()
    expect(guest.locator(".cart-line.off")).to_have_count(0)
    tuna = panel.locator("li", has_text="참치김밥")
    before = int(re.findall(r"(\d+) left", tuna.inner_text())[0])
    tuna.get_by_role("button", name="Less").click()
    expect(tuna).to_contain_text(f"{before - 1} left")
    panel.get_by_role("button", name="Pause orders").click()
    board.locator("dialog:not(.panel)").get_by_role("button", name="Pause orders").click()
    expect(guest.locator(".banner-wary")).to_contain_text("Too many orders just now")
    expect(guest.locator("[data-act=submit]")).to_be_disabled()
    panel.get_by_role("button", name="Resume orders").click()
    expect(guest.locator(".banner-wary")).to_have_count(0)
    panel.get_by_role("button", name="Close the shop").click()
    board.locator("dialog:not(.panel)").get_by_role("button", name="Close the shop").click()
    expect(guest.locator(".banner-wary")).to_contain_text("closed")
    panel.get_by_role("button", name="Open the shop").click()
    expect(guest.locator("[data-act=submit]")).to_be_enabled()


def test_a_refused_cart_comes_back_with_the_reason(guests, shop):
    """What sells out between the tap and the shop is told; the lines are in the cart again."""
    guest = sit_down(guests, shop, "3b")
    add(guest, "eomuk")
    guest.locator(".tab-cart").click()
    expect(guest.locator(".cart-line")).to_have_count(1)
    shop.do("stores/demo/set-sold-out", product="eomuk", sold_out=True)
    expect(guest.locator(".cart-line.off")).to_have_count(1)
    guest.locator("[data-act=submit]").click()
    expect(guest.locator(".banner-bad")).to_contain_text("Something in it is sold out")
    expect(guest.locator("#assertive")).to_contain_text("back in the cart")
    shop.do("stores/demo/set-sold-out", product="eomuk", sold_out=False)
    guest.locator("[data-act=submit]").click()
    expect(guest.locator("article.order")).to_have_count(1)
    expect(guest.locator("article.order")).to_have_class(re.compile("is-placed"))


def test_calling_staff(context, guests, shop):
    """The bell rings on the board until somebody answers, and the table is told."""
    guest = sit_down(guests, shop, "4")
    board = open_page(context, shop.board())
    guest.locator(".tab-call").click()
    guest.get_by_role("button", name="Water").click()
    expect(guest.locator(".bell.ringing")).to_contain_text("Calling")
    call = board.locator(".call").filter(has_text="Table 4")
    expect(call).to_contain_text("Water")
    expect(board.locator("#polite")).to_contain_text("Table 4 calls: Water")
    call.get_by_role("button", name="Answer").click()
    expect(call).to_have_count(0)
    expect(guest.locator(".bell.coming")).to_contain_text("on the way")


def test_one_cart_for_the_whole_table(context, guests, shop):
    """Two phones fill one cart, each line with its name; both see changes at once."""
    one = sit_down(guests, shop, "5")
    two = open_page(context, shop.table("5"), PHONE)
    for page, name in ((one, "Minji"), (two, "Junho")):
        page.locator(".tab-cart").click()
        page.locator("[data-act=name]").click()
        page.locator("#name").fill(name)
        page.get_by_role("dialog").get_by_role("button", name="OK").click()
        page.locator(".tab-menu").click()
        add(page, "cola")
        page.locator(".tab-cart").click()
    for page in (one, two):
        expect(page.locator(".by")).to_have_text(["Minji", "Junho"])
    two.locator(".cart-line").first.get_by_role("button", name="One more").click()
    expect(one.locator(".count-big").first).to_have_text("2")
    one.locator(".cart-line").last.get_by_role("button", name="Remove").click()
    expect(two.locator(".cart-line")).to_have_count(1)
    expect(two.get_by_role("button", name="Order for ₩4,000")).to_be_enabled()


def test_a_closed_table_says_goodbye(context, guests, shop):
    """Staff close the table: its page thanks, and the next party sees nothing of it."""
    guest = sit_down(guests, shop, "6")
    order = shop.order("6", "cola")
    guest.locator(".tab-orders").click()
    expect(guest.locator("article.order")).to_have_count(1)
    board = open_page(context, shop.board())
    board.locator("[data-act=panel-tables]").click()
    row = board.locator("#tables-panel li").filter(has=board.locator(".place:text-is('6')"))
    row.get_by_role("button", name="Close table").click()
    board.locator("dialog:not(.panel)").get_by_role("button", name="Close table").click()
    expect(board.locator("#assertive")).to_contain_text("not served yet")
    for step in ("accept-order", "mark-ready", "mark-served"):
        shop.do(f"stores/demo/{step}", order=order)
    expect(guest.locator("article.is-served")).to_have_count(1)
    row.get_by_role("button", name="Close table").click()
    board.locator("dialog:not(.panel)").get_by_role("button", name="Close table").click()
    expect(guest.get_by_role("heading", name="Thank you")).to_be_visible()
    expect(row).to_have_count(0)
    guest.get_by_role("button", name="Start again").click()
    guest.locator("[data-act=open][data-guests='3']").click()
    guest.locator(".tab-orders").click()
    expect(guest.locator("article.order")).to_have_count(0)


def test_the_board_by_keyboard(context, shop):
    """A digit chooses a ticket, Enter moves it on, R turns it back."""
    board = open_page(context, shop.board())
    order = shop.order("7", "cola")
    card = board.locator(f"#ticket-{order}")
    expect(card).to_be_visible()
    board.keyboard.press(card.locator("kbd").inner_text())
    expect(card).to_have_class(re.compile("chosen"))
    expect(card).to_be_focused()
    board.keyboard.press("Enter")
    expect(board.locator(f".column-cooking #ticket-{order}")).to_be_visible()
    board.keyboard.press(" ")
    expect(card.locator(".stage-cooking")).to_be_visible()
    board.keyboard.press("Enter")
    expect(board.locator(f".column-ready #ticket-{order}")).to_be_visible()
    board.keyboard.press("r")
    expect(board.locator(f".column-cooking #ticket-{order}")).to_be_visible()
    board.keyboard.press("?")
    expect(board.get_by_role("dialog", name="By keyboard")).to_be_visible()
    board.keyboard.press("Escape")
    expect(board.get_by_role("dialog")).to_have_count(0)
    board.keyboard.press("d")
    expect(board.get_by_role("dialog", name="Recently done")).to_be_visible()


def test_sound_waits_for_a_tap_and_the_alarm_for_an_accept(context, shop):
    """The column keeps its visual alarm, with sound or without, until nobody is left waiting."""
    board = open_page(context, shop.board())
    played = "() => { window.played = []; const start = OscillatorNode.prototype.start;"
    played += " OscillatorNode.prototype.start = function (at) { played.push(this.frequency.value);"
    played += " return start.call(this, at); }; }"
    board.evaluate(played)
    order = shop.order("8", "cola")
    expect(board.locator(".column-new")).to_have_class(re.compile("alarm"))
    expect(board).to_have_title(re.compile(r"^\(\d+\) "))
    assert board.evaluate("played.length") == 0
    board.get_by_role("button", name="sound on").click()
    board.wait_for_function("played.length >= 3")
    expect(board.locator(".gate")).to_have_count(0)
    for waiting in [order, *(o["order"] for o in shop.state()["orders"].values() if o["status"] == "PLACED")]:
        shop.do("stores/demo/accept-order", order=waiting)
    expect(board.locator(".column-new")).not_to_have_class(re.compile("alarm"))


def test_a_customer_follows_notices_and_orders(context, shop):
    """The customer's page shows what its stream holds, as it comes."""
    url = f"{shop.url}/u/mina?token={shop.token('user', 'mina')}"
    page = open_page(context, url, PHONE)
    shop.do("users/mina/notify", title="Your table is ready", body="Come in")
    expect(page.locator(".rows")).to_contain_text("Your table is ready")
    lines = [{"product": "gimbap", "quantity": 2}]
    order = shop.do("stores/demo/create-order", user="mina", lines=lines)["order"]
    expect(page.locator("article.order")).to_contain_text("김밥 × 2")
    shop.do("stores/demo/reject-order", order=order, reason="closing")
    expect(page.locator("article.order")).to_contain_text("We are closing")
