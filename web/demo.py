"""The demo shops, made by ordinary commands that happen once: 온다 분식, where guests pay afterwards, and
온다 카페, where they pay first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from engine import Node, codec
from engine.clock import Clock
from web.tokens import make_token

STORE = "demo"
CAFE = "cafe"
TABLES = ("1", "2", "3", "4", "5", "6")
CAFE_TABLES = ("1", "2")
CUSTOMER = "guest"
TOKEN_S = 12 * 3600.0
"""How long the printed links work."""

_SPICE = {
    "option": "spice",
    "name": "맵기",
    "min": 1,
    "choices": [
        {"choice": "mild", "name": "순한맛"},
        {"choice": "medium", "name": "보통맛"},
        {"choice": "hot", "name": "매운맛"},
    ],
}
_TOPPING = {
    "option": "topping",
    "name": "추가",
    "max": 3,
    "choices": [
        {"choice": "cheese", "name": "치즈", "price": 1000},
        {"choice": "egg", "name": "계란", "price": 500},
        {"choice": "rice-cake", "name": "떡", "price": 700},
    ],
}
_SIZE = {
    "option": "size",
    "name": "크기",
    "min": 1,
    "choices": [
        {"choice": "regular", "name": "보통"},
        {"choice": "large", "name": "곱빼기", "price": 1500},
    ],
}

MENU: list[dict[str, Any]] = [
    {
        "product": "tteokbokki",
        "name": "떡볶이",
        "price": 5000,
        "station": "hot",
        "options": [_SPICE, _TOPPING],
    },
    {"product": "rabokki", "name": "라볶이", "price": 6000, "station": "hot", "options": [_SPICE, _TOPPING]},
    {"product": "sundae", "name": "순대", "price": 4500, "station": "hot"},
    {"product": "ramyeon", "name": "라면", "price": 4500, "station": "hot", "options": [_TOPPING]},
    {"product": "udon", "name": "우동", "price": 5500, "station": "hot", "options": [_SIZE]},
    {"product": "gimbap", "name": "김밥", "price": 3500, "station": "cold"},
    {"product": "tuna-gimbap", "name": "참치김밥", "price": 4500, "station": "cold", "stock": 30},
    {"product": "twigim", "name": "모둠튀김", "price": 5000, "station": "fryer"},
    {"product": "donkatsu", "name": "돈까스", "price": 9000, "station": "fryer"},
    {"product": "eomuk", "name": "어묵탕", "price": 4000, "station": "hot"},
    {"product": "cola", "name": "콜라", "price": 2000, "station": "drinks"},
    {"product": "sikhye", "name": "식혜", "price": 2500, "station": "drinks"},
    {"product": "laptop", "name": "노트북", "price": 1_290_000, "station": "counter", "stock": 5},
]
"""The laptop is for the progress demo, whose orders name one."""


CAFE_MENU: list[dict[str, Any]] = [
    {"product": "americano", "name": "아메리카노", "price": 4500, "station": "drinks"},
    {"product": "latte", "name": "카페라떼", "price": 5000, "station": "drinks"},
    {"product": "milk", "name": "흰 우유", "price": 2000, "station": "drinks", "tax_free": True},
    {"product": "cake", "name": "당근 케이크", "price": 6500, "station": "cold", "stock": 12},
    {"product": "scone", "name": "스콘", "price": 3800, "station": "cold", "stock": 8},
    {"product": "beans", "name": "오늘의 원두 200g", "price": 16000, "station": "counter", "stock": 5},
]
CAFE_HOLD_S = 600
WELCOME = {
    "coupon": "welcome",
    "name": "첫 방문 10%",
    "discount": {"percent": 10, "cap": 3000, "minimum": 5000},
    "stock": 100,
}


class Link(NamedTuple):
    """A page of the demo shop, with the token that opens it."""

    what: str
    url: str


def _steps() -> list[tuple[str, str, dict[str, Any]]]:
    """Every command of the set-up: stream, command, fields. Its place is its idempotency key."""
    store = f"store:{STORE}"
    steps: list[tuple[str, str, dict[str, Any]]] = [
        (store, "configure-store", {"name": "온다 분식", "payment_mode": "postpay"}),
        *((store, "put-product", product) for product in MENU),
        (store, "open-store", {}),
    ]
    for table in TABLES:  # opened once, so that the shop knows them
        steps += [(f"table:{STORE}/{table}", name, {}) for name in ("open-table", "close-table")]
    return steps


def _cafe_steps() -> list[tuple[str, str, dict[str, Any]]]:
    store = f"store:{CAFE}"
    shop = {"name": "온다 카페", "payment_mode": "prepay", "hold_seconds": CAFE_HOLD_S}
    steps: list[tuple[str, str, dict[str, Any]]] = [
        (store, "configure-store", shop),
        *((store, "put-product", product) for product in CAFE_MENU),
        (store, "create-coupon", WELCOME),
        (store, "open-store", {}),
    ]
    for table in CAFE_TABLES:
        steps += [(f"table:{CAFE}/{table}", name, {}) for name in ("open-table", "close-table")]
    return steps


async def make_demo(node: Node) -> bool:
    """Make the demo shop unless it is there; returns whether there was anything to do.

    A set-up that was broken off goes on: its commands carry fixed keys.
    """
    return await _make(node, STORE, _steps(), len(MENU) + 2, "demo")


async def make_cafe(node: Node) -> bool:
    """Make the shop where guests pay first, as `make_demo`."""
    return await _make(node, CAFE, _cafe_steps(), len(CAFE_MENU) + 3, "cafe")


async def _make(
    node: Node, store: str, steps: list[tuple[str, str, dict[str, Any]]], first_steps: int, key: str
) -> bool:
    if await node.exists(f"store:{store}") and (await node.read(f"store:{store}")).version >= first_steps:
        return False
    for number, (stream, name, fields) in enumerate(steps):
        command = codec.decode_command(stream.partition(":")[0], name, msgspec.json.encode(fields))
        await node.ask(stream, command, by="service:demo", id=f"{key}-{number}")
    return True


def demo_links(url: str, secret: str, clock: Clock) -> list[Link]:
    """Return links for owner, table and customer of the shops, with fresh tokens."""

    def link(what: str, path: str, role: str, sub: str, **more: str) -> Link:
        token = make_token(secret, role=role, sub=sub, ttl_s=TOKEN_S, now_ms=clock.now_ms(), **more)
        return Link(what, f"{url}{path}?token={token}")

    return [
        link("owner", f"/board/{STORE}", "owner", "owner", store=STORE),
        link("table 1", f"/t/{STORE}/{TABLES[0]}", "table", "table-1", store=STORE, table=TABLES[0]),
        link("customer", f"/u/{CUSTOMER}", "user", CUSTOMER),
        link("progress", "/progress", "user", CUSTOMER),
        link("cafe owner", f"/board/{CAFE}", "owner", "owner", store=CAFE),
        link(
            "cafe table", f"/t/{CAFE}/{CAFE_TABLES[0]}", "table", "table-1", store=CAFE, table=CAFE_TABLES[0]
        ),
    ]
