"""Paying in a shop where guests pay first, on a real server with its sandbox: every way that it can go."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.shop import Shop
from tests.browser.test_pages import PHONE, add, open_page, ticket

pytestmark = pytest.mark.browser

COUPON = {"coupon": "hi", "name": "Hello", "discount": {"percent": 10, "minimum": 5000}, "stock": 50}
SETTLES_MS = 15_000


@pytest.fixture(scope="module")
def cafe(shop: Shop) -> str:
    """A shop where guests pay first."""
    return make_cafe(shop, "pay")


def make_cafe(shop: Shop, store: str, hold_seconds: int = 600) -> str:
    settings = {"name": "Café", "payment_mode": "prepay", "hold_seconds": hold_seconds}
    shop.do(f"stores/{store}/configure-store", **settings)
    shop.do(f"stores/{store}/put-product", product="tea", name="Tea", price=3000)
    shop.do(f"stores/{store}/put-product", product="cake", name="Cake", price=7000, stock=40)
    shop.do(f"stores/{store}/create-coupon", **COUPON)
    shop.do(f"stores/{store}/open-store")
    return store


def sit(context: BrowserContext, shop: Shop, store: str, table: str) -> Page:
    shop.do(f"tables/{store}/{table}/open-table", guests=2)
    page = open_page(context, shop.table(table, store), PHONE)
    expect(page.locator(".product").first).to_be_visible()
    return page


def order(page: Page, *products: str) -> None:
    """Put products into the cart and submit it."""
    for product in products or ("cake",):
        add(page, product)
    page.locator(".tab-cart").click()
    expect(page.locator(".cart-line")).to_have_count(len(products or ("cake",)))
    page.locator("[data-act=submit]").click()


def pay(page: Page) -> str:
    """Tap "pay" and wait for the gateway's page; returns its address."""
    page.locator("[data-act=pay]").click()
    page.wait_for_url(re.compile(r"/pay/co_"))
    return page.url


def say(page: Page, choice: str = "pay") -> None:
    """Choose something on the gateway's page, and wait to be back."""
    page.locator(f"button[value={choice}]").click()
    page.wait_for_url(re.compile(r"/pay/[\w-]+/[0-9a-f-]{36}"))


def payments(shop: Shop, store: str, table: str) -> list[str]:
    """Return the statuses of a table's payments, the oldest first."""
    found = shop.state(f"stores/{store}")["payments"].values()
    return [payment["status"] for payment in found if payment["table"] == table]


def test_from_the_coupon_to_the_kitchen(context, guests, shop, cafe):
    """A coupon, an order that waits, the gateway's page, and only then a ticket; all screens say so."""
    board = open_page(context, shop.board(store=cafe))
    guest = sit(guests, shop, cafe, "1")
    add(guest, "cake")
    add(guest, "tea")
    guest.locator(".tab-cart").click()
    guest.get_by_role("button", name="Take").click()
    guest.get_by_role("button", name="Use").click()
    expect(guest.locator(".submit-off")).to_contain_text("−₩1,000")
    guest.get_by_role("button", name="Order, then pay ₩9,000").click()

    card = guest.locator("article.order")
    expect(card.locator(".now")).to_have_text("Waiting for the payment")
    expect(card.locator(".receipt dd")).to_have_text(["₩10,000", "−₩1,000", "₩9,000", "₩818"])
    expect(card.locator(".countdown time")).to_have_text(re.compile(r"^(10:00|09:\d\d)$"))
    strip = board.locator(".unpaid-order")
    expect(strip).to_contain_text("Table 1")
    expect(strip).to_contain_text("₩9,000")
    expect(ticket(board, "1")).to_have_count(0)
    expect(board.locator("#polite")).not_to_contain_text("New order")

    pay(guest)
    expect(guest.locator("body")).to_contain_text("₩9,000")
    say(guest)
    expect(guest.get_by_role("heading", name="Paid. Thank you!")).to_be_visible()
    expect(strip).to_have_count(0)
    made = ticket(board, "1", "new")
    expect(made.locator(".mark")).to_have_text("Paid")
    expect(board.locator("#polite")).to_contain_text("New order: Table 1")
    guest.get_by_role("link", name="Back to the table").click()
    guest.locator(".tab-orders").click()
    expect(card.locator(".here")).to_have_text("Received")
    expect(card.locator(".mark")).to_have_text("Paid")
    expect(guest.locator("[data-act=pay]")).to_have_count(0)
    assert payments(shop, cafe, "1") == ["PAID"]
    guest.locator(".tab-menu").click()
    add(guest, "cake")
    guest.locator(".tab-cart").click()
    expect(guest.locator(".cart-line")).to_have_count(1)
    expect(guest.locator(".coupon")).to_have_count(0)


def test_a_refused_card_can_try_again(guests, shop, cafe):
    """Refused by the gateway: it says why, keeps the order's time, and another try is another payment."""
    guest = sit(guests, shop, cafe, "2")
    order(guest)
    shop.fault(pay(guest), "decline")
    say(guest)
    expect(guest.get_by_role("heading", name="The payment was declined")).to_be_visible()
    expect(guest.locator("main")).to_contain_text("The card company declined it.")
    shop.fault(guest_gateway(shop, cafe), "")
    guest.reload()
    expect(guest.get_by_role("heading", name="The payment was declined")).to_be_visible()
    guest.get_by_role("link", name="Back to the table").click()
    guest.locator(".tab-orders").click()
    expect(guest.locator(".pay-note-bad")).to_contain_text("The payment was declined.")
    pay(guest)
    say(guest)
    expect(guest.locator(".stage-paid")).to_be_visible()
    assert payments(shop, cafe, "2") == ["DECLINED", "PAID"]


def guest_gateway(shop: Shop, store: str) -> str:
    """Return an address of the gateway, from any payment that had a page."""
    found = shop.state(f"stores/{store}")["payments"].values()
    return next(payment["checkout"]["url"] for payment in found if payment["checkout"])


@pytest.mark.parametrize(("choice", "why"), [("cancel", "nothing was charged"), ("decline", "declined it")])
def test_who_leaves_the_gateways_page_gets_another(guests, shop, cafe, choice, why):
    """Nothing is charged, and the used page is not shown again."""
    table = f"3-{choice}"
    guest = sit(guests, shop, cafe, table)
    order(guest)
    first = pay(guest)
    say(guest, choice)
    expect(guest.get_by_role("heading", name="Not paid yet")).to_be_visible()
    expect(guest.locator("main")).to_contain_text(why)
    assert pay(guest) != first
    say(guest)
    expect(guest.locator(".stage-paid")).to_be_visible()
    assert payments(shop, cafe, table) == ["DROPPED", "PAID"]


def test_a_slow_gateway_is_waited_for_through_a_reload(context, guests, shop, cafe):
    """While nobody knows, no screen offers to pay again; a reload asks for the same payment."""
    board = open_page(context, shop.board(store=cafe))
    guest = sit(guests, shop, cafe, "4")
    order(guest)
    gateway = pay(guest)
    shop.fault(gateway, "slow")
    say(guest)
    expect(guest.get_by_role("heading", name="Checking the payment")).to_be_visible()
    expect(guest.locator("main")).to_contain_text("Do not pay again")
    expect(guest.locator("[data-act=pay]")).to_have_count(0)
    expect(board.locator(".unpaid-order .mark")).to_have_text("Checking the payment")
    guest.reload()
    expect(guest.get_by_role("heading", name="Checking the payment")).to_be_visible()
    expect(guest.locator(".stage-paid")).to_be_visible(timeout=SETTLES_MS)
    shop.fault(gateway, "")
    assert payments(shop, cafe, "4") == ["PAID"]
    expect(ticket(board, "4", "new")).to_be_visible()


def test_unknown_is_told_and_settled_by_operators(context, guests, shop, cafe):
    """The answer is lost after charging: do not pay again; the operators ask, and the order goes on."""
    guest = sit(guests, shop, cafe, "5")
    order(guest)
    gateway = pay(guest)
    shop.fault(gateway, "drop_after_charging")
    shop.fault(gateway, "error_5xx", "query")
    say(guest)
    expect(guest.get_by_role("heading", name="Checking the payment")).to_be_visible()
    ops = context.new_page()
    ops.goto(shop.ops())
    row = ops.locator(".card-payments li").filter(has_text="Table 5")
    expect(row).to_contain_text("Unknown", timeout=SETTLES_MS)
    for verb in ("charge", "query"):
        shop.fault(gateway, "", verb)
    table = open_page(guests, shop.table("5", cafe), PHONE)
    table.locator(".tab-orders").click()
    expect(table.locator(".pay-note-wary")).to_contain_text("do not pay again")
    expect(table.locator("[data-act=pay]")).to_have_count(0)
    expect(table.locator("[data-act=cancel-order]")).to_have_count(0)
    row.get_by_role("button", name="Ask the gateway").click()
    expect(row).to_have_count(0)
    expect(guest.locator(".stage-paid")).to_be_visible(timeout=SETTLES_MS)
    expect(table.locator("article.is-placed .mark")).to_have_text("Paid")


def test_operators_decide_where_the_gateway_says_nothing(context, guests, shop, cafe):
    """A person says that nothing was charged, with a reason: the guest may pay again."""
    guest = sit(guests, shop, cafe, "6")
    order(guest)
    gateway = pay(guest)
    for verb in ("charge", "query"):
        shop.fault(gateway, "error_5xx", verb)
    say(guest)
    expect(guest.get_by_role("heading", name="Checking the payment")).to_be_visible()
    ops = context.new_page()
    ops.goto(shop.ops())
    row = ops.locator(".card-payments li").filter(has_text="Table 6")
    row.get_by_role("button", name="Decide").click(timeout=SETTLES_MS)
    dialog = ops.get_by_role("dialog")
    dialog.get_by_label("No, nothing was charged").check()
    dialog.get_by_label("How do you know?").fill("Not in their books")
    dialog.get_by_role("button", name="Decide").click()
    expect(row).to_have_count(0)
    for verb in ("charge", "query"):
        shop.fault(gateway, "", verb)
    expect(guest.get_by_role("heading", name="The payment was declined")).to_be_visible()
    pay(guest)
    say(guest)
    expect(guest.locator(".stage-paid")).to_be_visible()
    expect(ops.locator(".tile-bad")).to_have_text([])


def test_a_tap_on_pay_survives_a_reload(guests, shop, cafe):
    """The shop is asked when it can be reached again, and the guest goes on to the gateway by themselves."""
    guest = sit(guests, shop, cafe, "7")
    order(guest)
    blocked = re.compile(r"prepare-payment")
    guests.route(blocked, lambda route: route.abort())
    guest.locator("[data-act=pay]").click()
    expect(guest.locator("[data-act=pay]")).to_be_disabled()
    guest.reload()
    guest.locator(".tab-orders").click()
    expect(guest.locator("[data-act=pay]")).to_have_text("Opening the payment page…")
    guests.unroute(blocked)
    guest.wait_for_url(re.compile(r"/pay/co_"), timeout=20_000)
    guest.go_back()
    guest.locator(".tab-orders").click()
    expect(guest.locator("[data-act=pay]")).to_be_enabled()


def test_time_runs_out(context, guests, shop):
    """The countdown ends, the order is gone from every screen, and its pieces are back."""
    store = make_cafe(shop, "quick", hold_seconds=3)
    board = open_page(context, shop.board(store=store))
    guest = sit(guests, shop, store, "1")
    order(guest)
    card = guest.locator("article.order")
    expect(card.locator(".pay-note")).to_contain_text("too little time left")
    expect(board.locator(".unpaid-order")).to_have_count(1)
    expect(card.locator(".now")).to_contain_text("Not paid in time")
    expect(guest.locator("#assertive")).to_contain_text("Not paid in time")
    expect(card.locator("[data-act=pay]")).to_have_count(0)
    expect(board.locator(".unpaid-order")).to_have_count(0)
    assert shop.state(f"stores/{store}")["products"]["cake"]["stock"] == 40


def test_a_customer_pays_on_their_own_page(guests, shop, cafe):
    """Their coupon and their order, and nobody else can pay for it."""
    shop.do(f"stores/{cafe}/issue-coupon", coupon="hi", user="sora")
    lines = [{"product": "cake", "quantity": 1}]
    shop.do(f"stores/{cafe}/create-order", user="sora", lines=lines, coupon="hi")
    page = open_page(guests, shop.user("sora"), PHONE)
    expect(page.locator(".coupon-row")).to_contain_text("10 % off")
    expect(page.locator(".coupon-row .pill")).to_have_text("Used")
    card = page.locator("article.order")
    expect(card.locator(".receipt-total").last).to_have_text("₩6,300")
    pay(page)
    say(page)
    expect(page.locator(".stage-paid")).to_be_visible()
    page.get_by_role("link", name="Back to my orders").click()
    expect(card.locator(".mark")).to_have_text("Paid")


def test_a_return_that_nobody_here_began(context, shop, cafe):
    """Another browser knows nothing of the payment, charges nothing, and says where to look."""
    page = context.new_page()
    page.goto(f"{shop.url}/pay/{cafe}/018f0000-0000-7000-8000-000000000000?ref=stolen")
    expect(page.get_by_role("heading", name="Whose payment is this?")).to_be_visible()


def test_the_guest_chooses_where_there_is_more_than_one_way(guests, shop, cafe):
    """What the server offers is asked for, and a way that is not there is refused in words."""
    guest = sit(guests, shop, cafe, "8")
    guest.route(
        "**/v1/payments/methods", lambda route: route.fulfill(json={"methods": ["naverpay", "sandbox"]})
    )
    order(guest)
    guest.locator("[data-act=pay]").click()
    dialog = guest.get_by_role("dialog", name="How do you want to pay?")
    expect(dialog.get_by_label("NaverPay")).to_be_checked()
    dialog.get_by_role("button", name="Cancel").click()
    expect(guest.locator("[data-act=pay]")).to_be_enabled()
    guest.locator("[data-act=pay]").click()
    dialog.get_by_label("Sandbox").check()
    dialog.get_by_role("button", name="Next").click()
    guest.wait_for_url(re.compile(r"/pay/co_"))
    say(guest)
    expect(guest.locator(".stage-paid")).to_be_visible()


def test_a_campaign_is_counted_down_and_opens_on_the_page(guests, shop):
    """Until then the menu's price; from then on the lower one, with the other struck through."""
    store = make_cafe(shop, "happy")
    guest = sit(guests, shop, store, "1")
    opens = datetime.now(UTC) + timedelta(seconds=6)
    shop.do(
        f"stores/{store}/schedule-campaign",
        campaign="hour",
        name="Happy hour",
        opens_at=f"{opens:%Y-%m-%dT%H:%M:%S}Z",
        prices=[{"product": "cake", "price": 5000}],
    )
    campaign = guest.locator(".campaign")
    expect(campaign).to_contain_text("Opens in")
    expect(campaign.locator("time")).to_have_text(re.compile(r"^00:0\d$"))
    cake = guest.locator(".product", has_text="Cake")
    expect(cake.locator(".price")).to_have_text("₩7,000")
    expect(campaign).to_contain_text("On now")
    expect(cake.locator(".was")).to_have_text("₩7,000")
    order(guest)
    expect(guest.locator("article.order .receipt-total").last).to_have_text("₩5,000")


def test_the_table_hears_why_a_coupon_does_not_work(guests, shop, cafe):
    """Somebody else at the table used it first: the cart comes back with the reason."""
    guest = sit(guests, shop, cafe, "9")
    add(guest, "cake")
    guest.locator(".tab-cart").click()
    guest.get_by_role("button", name="Take").click()
    guest.get_by_role("button", name="Use").click()
    expect(guest.get_by_role("button", name="Order, then pay ₩6,300")).to_be_enabled()
    add_again = {"product": "cake", "quantity": 1}
    blocked = re.compile("submit-cart")
    guests.route(blocked, lambda route: route.abort())
    guest.locator("[data-act=submit]").click()
    shop.do(f"tables/{cafe}/9/submit-cart", coupon="hi")
    shop.do(f"tables/{cafe}/9/add-to-cart", **add_again)
    guests.unroute(blocked)
    expect(guest.locator("#assertive")).to_contain_text("The coupon was used already", timeout=20_000)
    guest.locator(".tab-cart").click()
    expect(guest.locator(".coupon")).to_have_count(0)
    expect(guest.get_by_role("button", name="Order, then pay ₩7,000")).to_be_enabled()
