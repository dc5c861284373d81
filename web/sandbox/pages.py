"""The page where a guest "pays": plain HTML, no script, and its form sends the guest back to the shop only.

The guest comes back with `result=success&ref=…`, `result=fail&code=declined` or `result=cancel`.
"""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit

from web.messages import Headers
from web.sandbox.ledger import DECLINED, LEFT, OPEN, PAID, Checkout, Ledger

_CHOICES = {"pay": PAID, "decline": DECLINED, "cancel": LEFT}

_WORDS = {
    PAID: "결제가 끝났습니다. · This is paid.",
    DECLINED: "결제가 거절되었습니다. · This was declined.",
    LEFT: "결제를 취소했습니다. · This was cancelled.",
}

STYLE = b"""
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 0; display: flex; justify-content: center; }
main { box-sizing: border-box; width: 100%; max-width: 26rem; padding: 1.5rem 1rem; }
h1 { font-size: 1.1rem; margin: 0 0 1rem; }
.note { padding: .6rem .8rem; border-radius: .6rem; background: #ffe9b3; color: #3b2a00; margin: 0 0 1.5rem; }
.amount { font-size: 2.2rem; font-weight: 700; margin: .2rem 0 1.5rem; }
button, a.back { display: block; box-sizing: border-box; width: 100%; min-height: 3.2rem; margin: 0 0 .8rem;
  border: 1px solid #7776; border-radius: .8rem; font: inherit; font-size: 1.05rem; text-align: center;
  background: transparent; color: inherit; text-decoration: none; line-height: 3.2rem; padding: 0; }
button.pay { background: #0b5cd5; border-color: #0b5cd5; color: #fff; font-weight: 700; }
"""

_PAGE = """<!doctype html>
<html lang="ko"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>연습 결제 · Sandbox payment</title><link rel="stylesheet" href="/style.css"></head>
<body><main>
<h1>연습 결제 · Sandbox payment</h1>
<p class="note">실제 돈은 움직이지 않습니다.<br><span lang="en">No real money moves here.</span></p>
<p>{name}</p><p class="amount">₩{amount:,}</p>
{form}
</main></body></html>
"""

_FORM = """<form method="post">
<button class="pay" name="choice" value="pay">결제하기 · Pay</button>
<button name="choice" value="decline">거절당하기 · Be declined</button>
<button name="choice" value="cancel">취소 · Cancel</button>
</form>"""


def respond(ledger: Ledger, method: str, checkout: str, body: bytes) -> tuple[int, Headers, bytes]:
    """Show a page, or take the guest's choice; a choice is made once, the same way back is shown again."""
    page = ledger.checkout(checkout)
    if page is None:
        return 404, _headers(""), "없는 결제입니다. · There is no such payment.".encode()
    if method == "POST":
        fields = dict(parse_qsl(body.decode("ascii", "replace"), max_num_fields=8))
        choice = _CHOICES.get(fields.get("choice", ""))
        if choice is None:
            return 400, _headers(""), "선택이 없습니다. · There is no choice.".encode()
        page = ledger.decide(checkout, choice) or page
        return 303, [*_headers(page.back), ("location", way_back(page))], b""
    form = _FORM
    if page.state != OPEN:
        link = escape(way_back(page), quote=True)
        form = f'<p>{_WORDS[page.state]}</p><a class="back" href="{link}">가게로 · Back to the shop</a>'
    text = _PAGE.format(name=escape(page.name), amount=page.amount, form=form)
    return 200, _headers(page.back), text.encode()


def way_back(page: Checkout) -> str:
    """Return where the guest goes after a choice: never anywhere but to the shop that opened the page."""
    fields = {
        PAID: {"result": "success", "ref": page.ref},
        DECLINED: {"result": "fail", "code": "declined"},
    }.get(page.state, {"result": "cancel"})
    mark = "&" if urlsplit(page.back).query else "?"
    return f"{page.back}{mark}{urlencode(fields)}"


def origin(url: str) -> str:
    """Return scheme, host and port of an address, "" when it is none of the web."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _headers(back: str) -> Headers:
    """Return the page's headers. Browsers ask `form-action` also about where a form leads on to."""
    policy = (
        f"default-src 'none'; style-src 'self'; form-action 'self' {origin(back)}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", policy),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ]
