"""What can be measured of how the pages look and speak: words, contrast, targets, names, overflow, rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.test_pages import add, open_page
from tests.browser.test_paying import make_cafe

WEB = Path(__file__).parents[2] / "web"
PARTS = [{"method": "cash", "amount": 1000}, {"method": "card", "amount": 2000}]
SIZES = [(1920, 1080), (820, 1180), (390, 844)]

MEASURE = """(least = 10) => {
    for (const animation of document.getAnimations()) {
        if (Number.isFinite(animation.effect.getComputedTiming().endTime)) animation.finish();
        else animation.cancel();
    }
    const bad = [];
    const note = (what, element) => bad.push(`${what}: ${element.outerHTML.slice(0, 100)}`);
    const seen = (element) => element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
    const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color.length < 4 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    let texts = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || element.closest(":disabled, .unseen, noscript")) continue;
        if (!seen(element)) continue;
        texts += 1;
        const style = getComputedStyle(element);
        const [dark, bright] = [light(parse(style.color)), light(behind(element))].sort((x, y) => x - y);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        if ((bright + 0.05) / (dark + 0.05) < (large ? 3 : 4.5)) note("contrast", element);
    }
    if (texts < least) bad.push("hardly any text");
    for (const element of document.querySelectorAll("button, a, input, textarea, dialog, section, nav")) {
        if (!seen(element)) continue;
        const labelled = document.getElementById(element.getAttribute("aria-labelledby"));
        const said = element.getAttribute("aria-label") || element.textContent.trim();
        if (!said && !element.labels?.length && !labelled) note("no name", element);
        const inLabel = element.matches("input") && element.closest("label");
        const box = (inLabel || element).getBoundingClientRect();
        const target = element.matches("button, a.button, a.door, input, textarea");
        if (target && (box.width < 43.5 || box.height < 43.5)) note(`${box.width}x${box.height}`, element);
    }
    const keys = document.body.innerText.match(
        /\\b(t|board|do|menu|shop|status|calls?|order|reason|pay|coupon|ops|bill|refund|method)\\.[a-z_.-]+/g);
    if (keys) bad.push(`no words for ${keys}`);
    if (document.documentElement.scrollWidth > innerWidth) bad.push("scrolls sideways");
    return bad;
}"""


def words(language: str) -> dict[str, str]:
    text = (WEB / "static" / "ui" / f"{language}.js").read_text()
    return dict(re.findall(r'^  "?([\w.-]+)"?:\s+(.+),$', text, re.MULTILINE))


def test_both_languages_have_the_same_words():
    """A text that exists in one language only would show its key in the other."""
    korean, english = words("ko"), words("en")
    assert set(korean) == set(english)
    assert len(korean) > 200

    def holes(text: str) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", text)) - {"s"}

    for key in korean.keys() & english.keys():
        if "=>" not in korean[key] + english[key]:
            assert holes(korean[key]) == holes(english[key]), key


def test_every_text_that_the_pages_use_exists():
    """Keys in the code are in the dictionary; keys made of parts have their prefix there."""
    known = words("en")
    for file in (WEB / "static").rglob("*.js"):
        code = file.read_text()
        for key in re.findall(r'\bt\("([^"]+)"', code):
            assert key in known, f"{file.name}: {key}"
        for prefix in re.findall(r"\bt\(`([a-z.-]+)\$\{", code):
            assert any(key.startswith(prefix) for key in known), f"{file.name}: {prefix}"


def test_no_word_is_left_over():
    """A text that nothing shows is dead weight in two languages."""
    code = "".join(
        file.read_text() for file in (WEB / "static").rglob("*.js") if file.stem not in {"ko", "en"}
    )
    prefixes = set(re.findall(r"[`\"]([a-z]+[.-](?:[a-z]+\.)*)\$\{", code)) - {"t."}
    tabs = {"t.menu", "t.cart", "t.orders", "t.call"}
    made = {key for key in words("en") if key.startswith(tuple(prefixes))} | tabs
    assert {key for key in words("en").keys() - made if f'"{key}"' not in code} == set()


def test_every_refusal_of_the_domain_has_words():
    """Guests read what is wrong in their language, for each code that their commands can get."""
    known = words("ko")
    codes = set()
    for file in (WEB.parent / "engine" / "domain").rglob("*.py"):
        if file.parent.name in {"table", "store"} or file.name == "product.py":
            codes |= set(re.findall(r'Rejected\("(\w+)"', file.read_text()))
    owner_only = {"options_invalid", "menu_full", "unknown_store", "table_id_too_long", "duplicate_line"}
    planning = {
        code for code in codes if re.search("campaign|too_many_coupons|_exists|_opens|_start|_past", code)
    }
    planning |= {"duplicate_product", "time_invalid"} - {"coupon_not_started"}
    machine_only = {"coupon_changed", "holder_missing", "user_missing", "too_many_followers"}
    known |= dict.fromkeys(f"refused.{code}" for code in owner_only | planning | machine_only)
    assert {code for code in codes if f"refused.{code}" not in known} == set()


def test_nothing_comes_from_elsewhere():
    """No font, script, style or picture of another host, and nothing inline for a policy to allow."""
    for file in [*(WEB / "static").rglob("*.*"), *(WEB / "pages").glob("*.html")]:
        text = file.read_text()
        assert set(re.findall(r"https?://[\w.]+", text)) <= {"http://www.w3.org"}, file
        if file.suffix == ".html":
            assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", text), file


@pytest.mark.browser
@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ko", "dark")])
def test_readable_and_tappable_at_every_size(context, shop, language, scheme):
    """Contrast 4.5 (3 for large text), targets of 44 px, a name for each control, no sideways scrolling."""
    shop.do("tables/demo/9/open-table", guests=2)
    order = shop.order("9", "donkatsu", "cola")
    shop.do("tables/demo/9/call-staff", kind="bill")
    shop.do("tables/demo/9/add-to-cart", product="gimbap", quantity=1, note="no carrots", by="Minji")
    shop.do("stores/demo/set-sold-out", product="sikhye", sold_out=True)
    board = open_page(context, shop.board())
    guest = open_page(context, shop.table("9"))
    home = context.new_page()
    home.goto(shop.url)
    reject = f"#ticket-{order} [data-command=reject-order]"
    product = "[data-act=product][data-product=tteokbokki]"
    looks = {
        board: [None, "[data-act=panel-menu]", "[data-act=panel-tables]", reject],
        guest: [None, product, ".tab-cart", ".tab-orders", ".tab-call", ".tab-cart"],
        home: [None],
    }
    for page, steps in looks.items():
        page.emulate_media(color_scheme=scheme)
        if language == "ko":
            page.evaluate("document.querySelector('[data-act=language]').click()")
            expect(page.locator("html")).to_have_attribute("lang", "ko")
            if page is not home:
                page.reload()
                expect(page.locator(".chip")).to_contain_text("실시간")
        for step in steps:
            if step is not None:
                page.evaluate("(step) => document.querySelector(step).click()", step)
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                assert page.evaluate(MEASURE) == [], f"{page.url} {width}x{height} {step}"
            page.evaluate("() => document.querySelectorAll('dialog[open]').forEach((d) => d.close())")


@pytest.mark.browser
@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ko", "dark")])
def test_money_is_readable_and_tappable_too(context, shop, language, scheme):
    """The same for paying, bills, refunds and the operators' page."""
    cafe = make_cafe(shop, f"looks-{language}")
    shop.do(f"tables/{cafe}/1/open-table", guests=2)
    shop.do(f"stores/{cafe}/create-order", table="1", lines=[{"product": "cake", "quantity": 1}])
    shop.do(f"stores/{cafe}/create-order", user="yuna", lines=[{"product": "tea", "quantity": 2}])
    shop.do(f"stores/{cafe}/issue-coupon", coupon="hi", user="yuna")
    shop.do("tables/demo/9/open-table", guests=2)
    shop.order("9", "donkatsu", "cola")
    shop.do("stores/demo/settle-table", table="9", method="mixed", amount=3000, parts=PARTS)
    guest = open_page(context, shop.table("1", cafe))
    add(guest, "cake")
    customer = open_page(context, shop.user("yuna"))
    board = open_page(context, shop.board())
    waiting = open_page(context, shop.board(store=cafe))
    ops = context.new_page()
    ops.goto(shop.ops())
    expect(ops.locator(".tile").first).to_be_visible()
    back = context.new_page()
    back.goto(f"{shop.url}/pay/{cafe}/nothing")
    bill = "[data-act=bill][data-table='9']"
    looks = {
        guest: [None, ".tab-cart", ".tab-orders"],
        customer: [None],
        waiting: [None],
        board: ["[data-act=panel-tables]", bill, "[data-act=panel-payments]", "[data-act=refund]"],
        ops: [None],
        back: [None],
    }
    for page, steps in looks.items():
        page.emulate_media(color_scheme=scheme)
        if language == "ko":
            page.evaluate("document.querySelector('[data-act=language]').click()")
            expect(page.locator("html")).to_have_attribute("lang", "ko")
        for step in steps:
            if step is not None:
                page.evaluate("(step) => document.querySelector(step).click()", step)
            if step == bill:
                page.locator("#bill-panel label:has([value=lines])").click()
            for width, height in SIZES:
                page.set_viewport_size({"width": width, "height": height})
                least = 3 if page is back else 10
                assert page.evaluate(MEASURE, least) == [], f"{page.url} {width}x{height} {step}"


@pytest.mark.browser
def test_the_measure_finds_what_is_bad(context, shop):
    """The test above can fail."""
    page = context.new_page()
    page.goto(shop.url)
    page.evaluate(
        """() => {
            document.querySelector("h1").style.color = "#ddd";
            document.querySelector("button").style.minHeight = "10px";
            document.querySelector("main").append(Object.assign(document.createElement("a"), {href: "/"}));
            document.querySelector(".lead p").textContent = "board.nothing";
            document.querySelector("footer").style.width = "3000px";
        }"""
    )
    found = " ".join(page.evaluate(MEASURE))
    for what in ("contrast", "min-height: 10px", "no name", "no words for board.nothing", "sideways"):
        assert what in found, (what, found)


@pytest.mark.browser
def test_motion_is_reduced_on_request(context, shop):
    """Nothing moves for people who asked for that."""
    board = open_page(context, shop.board())
    board.emulate_media(reduced_motion="reduce")
    shop.order("9", "cola")
    expect(board.locator(".column-new.alarm")).to_be_visible()
    assert board.evaluate("document.getAnimations().length") == 0


@pytest.mark.browser
def test_the_language_is_kept(context, shop):
    """The browser's language first, the chosen one from then on."""
    home = context.new_page()
    home.goto(shop.url)
    expect(home.get_by_role("heading", level=1)).to_contain_text("Orders")
    home.get_by_role("button", name="한국어").click()
    expect(home.get_by_role("heading", level=1)).to_contain_text("주문이 온다")
    home.reload()
    expect(home.get_by_role("heading", level=1)).to_contain_text("주문이 온다")
    expect(home.locator("html")).to_have_attribute("lang", "ko")
