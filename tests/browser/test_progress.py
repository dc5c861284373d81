"""Progress in a browser: as a page that others wrote shows it, as ours does, and through a killed server."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.shop import Shop
from tests.browser.test_looks import MEASURE, SIZES
from tests.browser.test_pages import open_page
from tests.browser.test_paying import make_cafe, say

pytestmark = pytest.mark.browser

THEIRS = Path(__file__).with_name("progress_page.html")
STEPS = ["주문 검증", "재고 확인", "결제 처리"]
MARKS = ["STARTED: 시작 (0%)", *(f"PROGRESS: {name} ({25 * n}%)" for n, name in enumerate(STEPS, 1))]
ALL = [*MARKS, "COMPLETED: 완료 (100%)"]
RESUMES_MS = 20_000


def advance(shop: Shop, user: str, task: str, step: int) -> None:
    shop.do(f"users/{user}/advance-task", task=task, step=step, step_name=STEPS[step - 1])


def open_progress(context: BrowserContext, shop: Shop, user: str) -> Page:
    page = context.new_page()
    page.goto(f"{shop.url}/progress?token={shop.token('user', user)}")
    expect(page.locator("#who")).to_have_text(user)
    return page


def history(page: Page, button: str = "#load") -> list[str]:
    page.locator(button).click()
    expect(page.locator("#history > *").first).to_be_visible()
    return page.locator("#history > *").all_inner_texts()


def test_a_page_of_somebody_else_works_as_it_is(context, shop):
    """It knows nothing of us but the addresses; its server lets it in by a cookie."""
    context.add_cookies([{"name": "onda_token", "value": shop.token("service"), "url": shop.url}])
    page = context.new_page()

    def serve(route: Route) -> None:
        route.fulfill(body=THEIRS.read_text(), content_type="text/html; charset=utf-8")

    page.route(f"{shop.url}/theirs", serve)
    page.goto(f"{shop.url}/theirs")
    expect(page.locator("#status")).to_have_text("대기 중")
    page.get_by_text("주문하기").click()
    expect(page.locator("#status")).to_have_text("완료: 100%")
    expect(page.locator("#progressBar")).to_have_js_property("value", 100)
    assert history(page, "text=히스토리 조회") == ALL


def test_the_bar_goes_on_where_it_was_after_the_plug_was_pulled(context, own_shop):
    """At 50 % the server is gone; it comes back, goes on, and the page hears where the task is now."""
    shop = own_shop
    task = shop.do("users/kim/start-task", total_steps=4)["task"]
    page = open_progress(context, shop, "kim")
    expect(page.locator("#status")).to_have_text("[복구] 시작: 0%")
    advance(shop, "kim", task, 1)
    advance(shop, "kim", task, 2)
    expect(page.locator("#status")).to_have_text("재고 확인: 50%")
    shop.kill()
    expect(page.locator("#notice")).to_have_text("연결이 끊겼습니다. 다시 잇는 중입니다.")
    expect(page.locator("#progressBar")).to_have_js_property("value", 50)
    shop.start()
    expect(page.locator("#status")).to_have_text("[복구] 재고 확인: 50%", timeout=RESUMES_MS)
    expect(page.locator("#notice")).to_have_text("")
    advance(shop, "kim", task, 3)
    expect(page.locator("#status")).to_have_text("결제 처리: 75%")
    shop.do("users/kim/complete-task", task=task)
    expect(page.locator("#status")).to_have_text("완료: 100%")
    expect(page.locator("#progressBar")).to_have_js_property("value", 100)
    assert history(page) == ALL


def test_what_went_on_while_the_page_was_cut_off_is_recovered(context, own_shop):
    """It comes back to 75 %, and to 100 % when it missed the end, also after a reload."""
    shop = own_shop
    task = shop.do("users/kim/start-task", total_steps=4)["task"]
    advance(shop, "kim", task, 1)
    page = open_progress(context, shop, "kim")
    expect(page.locator("#status")).to_have_text("[복구] 주문 검증: 25%")
    context.set_offline(True)
    shop.kill()
    shop.start()
    advance(shop, "kim", task, 2)
    advance(shop, "kim", task, 3)
    context.set_offline(False)
    expect(page.locator("#status")).to_have_text("[복구] 결제 처리: 75%", timeout=RESUMES_MS)
    context.set_offline(True)
    shop.kill()
    shop.start()
    shop.do("users/kim/complete-task", task=task)
    context.set_offline(False)
    expect(page.locator("#status")).to_have_text("[복구] 완료: 100%", timeout=RESUMES_MS)
    page.reload()
    expect(page.locator("#status")).to_have_text("[복구] 완료: 100%")
    assert history(page) == ALL


def test_orders_of_the_page_until_none_is_left(context, own_shop):
    """Five laptops, and then an end with its reason; without an order the page says what to do."""
    page = open_progress(context, own_shop, "lee")
    page.locator("#load").click()
    expect(page.locator("#notice")).to_have_text("먼저 주문을 생성하세요")
    for left in (4, 3, 2, 1, 0):
        page.locator("#order").click()
        expect(page.locator("#order")).to_be_enabled()
        expect(page.locator("#status")).to_have_text("완료: 100%")
        page.wait_for_function("bar => bar.value === 100", arg=page.locator("#progressBar").element_handle())
        assert own_shop.state()["products"]["laptop"]["stock"] == left
    page.locator("#order").click()
    expect(page.locator("#status")).to_have_text("재고가 부족합니다: 노트북: 25%")
    assert history(page)[-1] == "FAILED: 재고가 부족합니다: 노트북 (25%)"


def test_a_customer_sees_bars_and_what_happened(context, shop):
    """On their own page: the order waits for its payment at 50 %, is paid there, and is done."""
    make_cafe(shop, "bars")
    page = open_page(context, shop.user("bar"))
    answer = shop.post("/api/v2/progress/orders?userId=bar&productName=Cake&quantity=2&storeId=bars")
    task = page.locator(f"[data-task='{answer['taskId']}'].task")
    expect(task.locator(".task-step")).to_have_text("재고 확인 · 50%")
    expect(task.locator("h3")).to_have_text("Cake × 2")
    task.locator("[data-act=task-history]").click()
    expect(task.locator("li")).to_have_text(["시작 (0%)", "주문 검증 (25%)", "재고 확인 (50%)"])
    page.locator("[data-act=pay]").click()
    page.wait_for_url("**/pay/co_**")
    say(page)
    page.goto(shop.user("bar"))
    expect(task.locator(".task-step")).to_have_text("Done · 100%", timeout=RESUMES_MS)
    expect(task.locator("progress")).to_have_js_property("value", 100)
    task.locator("[data-act=task-history]").click()
    expect(task.locator("li")).to_have_text(
        ["시작 (0%)", "주문 검증 (25%)", "재고 확인 (50%)", "결제 처리 (75%)", "완료 (100%)"]
    )


def test_a_history_that_did_not_come_once_is_asked_for_again(context, shop):
    """With the task's next event; until then what was known stands there."""
    task = shop.do("users/again/start-task", total_steps=4, name="포장")["task"]
    page = open_page(context, shop.user("again"))
    card = page.locator(f"[data-task='{task}'].task")
    card.locator("[data-act=task-history]").click()
    expect(card.locator("li")).to_have_text(["시작 (0%)"])
    lost: list[str] = []
    page.route("**/history/**", lambda route: (lost.append(route.request.url), route.abort()))
    advance(shop, "again", task, 1)
    expect(card.locator(".task-step")).to_have_text("주문 검증 · 25%")
    expect(card.locator("li")).to_have_text(["시작 (0%)"])
    page.wait_for_timeout(300)
    assert len(lost) == 1, "one question for each event"
    page.unroute("**/history/**")
    advance(shop, "again", task, 2)
    expect(card.locator("li")).to_have_text(["시작 (0%)", "주문 검증 (25%)", "재고 확인 (50%)"])


def test_how_it_looks(context, shop):
    """On a phone and on a screen, light and dark: contrast, targets, names, nothing beside the page."""
    task = shop.do("users/look/start-task", total_steps=4, name="포장")["task"]
    advance(shop, "look", task, 1)
    shop.do("users/look/fail-task", task=task, reason="상자가 없습니다")
    page = open_progress(context, shop, "look")
    expect(page.locator("#status")).to_have_text("[복구] 상자가 없습니다: 25%")
    history(page)
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate(MEASURE, 6) == [], f"{colours} {width}"
    page.goto(shop.user("look"))
    page.locator("[data-act=task-history]").click()
    expect(page.locator(".task-marks li")).to_have_count(3)
    for colours in ("light", "dark"):
        page.emulate_media(color_scheme=colours)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate(MEASURE, 6) == [], f"{colours} {width}"
