"""The till on the board: a table's bill at once or bit by bit, and money that goes back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.shop import Shop
from tests.browser.test_pages import PHONE, open_page, ticket
from tests.browser.test_paying import make_cafe, order, pay, say, sit

pytestmark = pytest.mark.browser

VOID = 523
"""A tone (Hz) of the sound for what is taken back, and of no other."""
HEAR = """() => {
    window.played = [];
    const start = OscillatorNode.prototype.start;
    OscillatorNode.prototype.start = function (at) {
        played.push(Math.round(this.frequency.value));
        return start.call(this, at);
    };
}"""


@pytest.fixture(scope="module")
def bistro(shop: Shop) -> str:
    """A shop where guests pay afterwards."""
    store = make_cafe(shop, "bistro")
    shop.do(f"stores/{store}/configure-store", name="Bistro", payment_mode="postpay")
    shop.do(f"stores/{store}/put-product", product="steak", name="Steak", price=9000)
    shop.do(f"stores/{store}/put-product", product="cola", name="Cola", price=2000)
    shop.do(f"stores/{store}/put-product", product="soup", name="Soup", price=3500)
    return store


def eat(shop: Shop, store: str, table: str, *products: str) -> None:
    """Order one piece of each product for a table."""
    lines = [{"product": product, "quantity": 1} for product in products]
    shop.do(f"stores/{store}/create-order", table=table, lines=lines)


def open_bill(board: Page, table: str) -> Page:
    board.locator("[data-act=panel-tables]").click()
    board.locator(f"[data-act=bill][data-table='{table}']").click()
    expect(board.locator("#bill-panel")).to_be_visible()
    return board


def choose(board: Page, value: str) -> None:
    board.locator(f"#bill-panel label:has(input[value={value}])").click()


def test_a_bill_is_paid_by_items_and_then_the_rest_mixed(context, guests, shop: Shop, bistro: str):
    """Some items in cash, the rest in cash and by card: each screen follows to the won."""
    shop.do(f"tables/{bistro}/t1/open-table", guests=2)
    eat(shop, bistro, "t1", "steak", "cola")
    eat(shop, bistro, "t1", "soup")
    guest = open_page(guests, shop.table("t1", bistro), PHONE)
    guest.locator(".tab-orders").click()
    board = open_bill(open_page(context, shop.board(store=bistro)), "t1")
    panel = board.locator("#bill-panel")
    expect(panel.locator(".receipt-total").last).to_have_text("₩14,500")
    choose(board, "lines")
    panel.get_by_label("Cola × 1").check()
    panel.get_by_label("Soup × 1").check()
    panel.get_by_role("button", name="Take ₩5,500 (Cash)").click()
    expect(panel.locator(".receipt-total").last).to_have_text("₩9,000")
    expect(panel.locator(".bill-line .good")).to_have_count(2)
    expect(guest.locator(".bill")).to_contain_text("Still to pay₩9,000")
    expect(guest.locator("article.order .mark")).to_have_text(["Paid", "Partly paid"])

    choose(board, "mixed")
    expect(panel.locator("[data-act=settle]")).to_be_disabled()
    panel.locator("input[name=cash]").fill("4000")
    expect(panel).to_contain_text("By card₩5,000")
    panel.get_by_role("button", name="Take ₩9,000 (Mixed)").click()
    expect(panel).to_contain_text("Everything is paid.")
    expect(guest.locator(".bill")).to_contain_text("Still to pay₩0")
    paid = [p for p in shop.state(f"stores/{bistro}")["payments"].values() if p["table"] == "t1"]
    assert sorted((p["method"], p["amount"]) for p in paid) == [
        ("card", 5000),
        ("cash", 4000),
        ("cash", 5500),
    ]


def test_an_amount_is_paid_and_a_new_order_is_not_paid_along(context, shop: Shop, bistro: str):
    """What is taken is what the screen said."""
    shop.do(f"tables/{bistro}/t2/open-table", guests=2)
    eat(shop, bistro, "t2", "steak")
    board = open_bill(open_page(context, shop.board(store=bistro)), "t2")
    panel = board.locator("#bill-panel")
    choose(board, "amount")
    panel.locator("input[name=amount]").fill("3000")
    panel.get_by_role("button", name="Take ₩3,000 (Cash)").click()
    expect(panel.locator(".receipt-total").last).to_have_text("₩6,000")
    context.set_offline(True)
    panel.get_by_role("button", name="Take ₩6,000 (Cash)").click()
    eat(shop, bistro, "t2", "cola")
    context.set_offline(False)
    expect(panel.locator(".receipt-total").last).to_have_text("₩2,000", timeout=20_000)
    panel.locator("[data-act=close]").click()
    row = board.locator("#tables-panel li").filter(has=board.locator(".place:text-is('t2')"))
    expect(row).to_contain_text("₩2,000 to pay")
    expect(row.locator(".mark")).to_have_text("Partly paid")
    row.get_by_role("button", name="Close table").click()
    dialog = board.locator("dialog:not(.panel)")
    expect(dialog).to_contain_text("₩2,000 is not paid yet!")
    dialog.get_by_role("button", name="No").click()


def test_money_goes_back_with_a_reason(context, guests, shop: Shop):
    """The owner refunds a part and then the rest; table and board say so, and no more than was paid goes."""
    cafe = make_cafe(shop, "back")
    board = open_page(context, shop.board(store=cafe))
    guest = sit(guests, shop, cafe, "1")
    order(guest, "cake", "tea")
    pay(guest)
    say(guest)
    guest.get_by_role("link", name="Back to the table").click()
    guest.locator(".tab-orders").click()
    board.locator("[data-act=panel-payments]").click()
    panel = board.locator("#payments-panel")
    expect(panel).to_contain_text("1 payment, ₩10,000")
    refund(board, 3000, "Something was wrong with it")
    expect(panel.locator(".mark")).to_have_text("Partly refunded")
    expect(panel.locator(".refund-line")).to_contain_text("−₩3,000 · refunded · Something was wrong")
    expect(board.locator("#polite")).to_contain_text(re.compile(r"₩3,000 refunded"))
    expect(guest.locator("article.order .mark")).to_have_text("Partly refunded")
    expect(guest.locator(".receipt")).to_contain_text("Refunded−₩3,000")
    expect(guest.locator(".bill")).to_contain_text("Still to pay₩0")
    refund(board, 7000, "It was a mistake")
    expect(panel.locator(".mark")).to_have_text("Refunded")
    expect(panel.locator("[data-act=refund]")).to_have_count(0)
    expect(ticket(board, "1", "new").locator(".mark")).to_have_text("Refunded")


def refund(board: Page, amount: int, reason: str) -> None:
    board.locator("[data-act=refund]").click()
    dialog = board.get_by_role("dialog", name="Refund")
    dialog.locator("[name=amount]").fill("999999")
    dialog.get_by_role("button", name="Next").click()
    expect(dialog).to_be_visible()
    dialog.locator("[name=amount]").fill(str(amount))
    dialog.get_by_label(reason).check()
    dialog.get_by_role("button", name="Next").click()
    sure = board.get_by_role("dialog", name=f"Give ₩{amount:,} back?")
    sure.get_by_role("button", name="Refund").click()


def test_staff_take_money_but_give_none_back(context, shop: Shop, bistro: str):
    """Refunds are for owners."""
    shop.do(f"tables/{bistro}/t3/open-table", guests=1)
    eat(shop, bistro, "t3", "cola")
    board = open_page(context, shop.board("lee", bistro, "staff"))
    open_bill(board, "t3").get_by_role("button", name="Take ₩2,000 (Cash)").click()
    panel = board.locator("#bill-panel")
    expect(panel).to_contain_text("Everything is paid.")
    panel.locator("[data-act=close]").click()
    board.locator("#tables-panel [data-act=close]").click()
    board.keyboard.press("p")
    row = board.locator(".payment-row").filter(has_text="Table t3")
    expect(row).to_contain_text("₩2,000")
    expect(row.locator("[data-act=refund]")).to_have_count(0)


def test_a_cancelled_paid_order_is_told_to_the_kitchen(context, guests, shop: Shop):
    """The guest cancels before anybody accepts: the money goes back, and the board hears of it."""
    cafe = make_cafe(shop, "gone")
    board = open_page(context, shop.board(store=cafe))
    board.evaluate(HEAR)
    board.get_by_role("button", name="sound on").click()
    guest = sit(guests, shop, cafe, "1")
    order(guest)
    pay(guest)
    say(guest)
    guest.get_by_role("link", name="Back to the table").click()
    guest.locator(".tab-orders").click()
    expect(ticket(board, "1", "new")).to_be_visible()
    assert VOID not in board.evaluate("played")
    guest.get_by_role("button", name="Cancel order").click()
    guest.get_by_role("dialog").get_by_role("button", name="Cancel order").click()
    expect(ticket(board, "1")).to_have_count(0)
    expect(board.locator("#polite")).to_contain_text("was cancelled")
    board.wait_for_function(f"played.includes({VOID})")
    expect(guest.locator("article.is-cancelled .mark")).to_have_text("Refunded")


def test_a_refund_that_the_gateway_refuses_is_given_back_by_hand(context, guests, shop: Shop):
    """The failure is seen on the board and by the operators until somebody says how the money went back."""
    cafe = make_cafe(shop, "hand")
    guest = sit(guests, shop, cafe, "1")
    order(guest)
    gateway = pay(guest)
    say(guest)
    expect(guest.locator(".stage-paid")).to_be_visible()
    (payment,) = shop.state(f"stores/{cafe}")["payments"].values()
    shop.cancel_behind_its_back(gateway, payment["attempt"]["charge"], 1000)
    board = open_page(context, shop.board(store=cafe))
    board.keyboard.press("p")
    refund(board, 7000, "It was a mistake")
    line = board.locator(".refund-line")
    expect(line).to_contain_text("refund failed")
    ops = context.new_page()
    ops.goto(shop.ops())
    row = ops.locator(".card-refunds li")
    expect(row).to_contain_text("₩7,000")
    row.get_by_role("button", name="Given back by hand").click()
    dialog = ops.get_by_role("dialog", name="Was ₩7,000 given back by hand?")
    dialog.get_by_label("How do you know?").fill("In cash, by Kim")
    dialog.get_by_role("button", name="Decide").click()
    expect(row).to_have_count(0)
    expect(line).to_contain_text("refunded")
    guest.get_by_role("link", name="Back to the table").click()
    guest.locator(".tab-orders").click()
    expect(guest.locator("article.order .mark")).to_have_text("Refunded")
