"""Write an example for each event type that has none yet:  python -m tests.golden.record

Examples are only ever added. One that exists is what some shop has on its disk, so it is never written again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from engine.domain.campaign import CampaignPrice
from engine.domain.coupon import Discount
from engine.domain.store.campaigns import CancelCampaign, ScheduleCampaign, TurnCampaigns
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.closing import RECALL_MS, ArchiveOrders
from engine.domain.store.coupons import RETIRE_MS, CreateCoupon, IssueCoupon, RetireCoupons
from engine.domain.store.following import FollowStore, UnfollowStore
from engine.domain.store.kitchen import (
    AcceptOrder,
    MarkItemReady,
    MarkReady,
    MarkServed,
    RecallOrder,
    StartCooking,
)
from engine.domain.store.menu import AdjustStock, PutProduct, SetSoldOut
from engine.domain.store.orders import CreateOrder, Destination, Wish
from engine.domain.store.shop import CloseStore, ConfigureStore, OpenStore, PauseOrders, ResumeOrders
from engine.domain.table.calls import AnswerCall, CallStaff
from engine.domain.table.cart import AddToCart, ChangeQuantity, RemoveFromCart, SubmitCart
from engine.domain.table.sitting import CloseTable, OpenTable
from engine.domain.times import to_ms, to_text
from engine.domain.user.messages import SendEvent
from engine.domain.user.notices import Notify
from engine.domain.user.tasks import AdvanceTask, CleanupTasks, CompleteTask, FailTask, StartTask
from tests.domain.shop_given import EXTRA, SIZE
from tests.golden.giving_back import give_back, settle_bills
from tests.golden.paying import pay_first
from tests.golden.telling import tell
from tests.harness_domain import NOW_MS, World

EVENTS = Path(__file__).parent / "events"
SHOP, TABLE, USER = "store:s1", "table:s1/3", "user:u1"

YEAR = "2027-01-01T00:00:00Z"
SOON = to_text(NOW_MS)
PRICES = (CampaignPrice("tteok", 2900),)

EVENING: list[tuple[str, Any]] = [
    (SHOP, ConfigureStore("온다 분식", "postpay")),
    (SHOP, PutProduct("tteok", "떡볶이", 4000, stock=20, station="hot", options=(SIZE, EXTRA))),
    (SHOP, PutProduct("kimbap", "김밥", 3000, stock=5, tax_free=True)),
    (SHOP, OpenStore()),
    (SHOP, CreateCoupon("welcome", "첫 주문 천 원", 1000, 10, YEAR, "2027-06-01T00:00:00Z")),
    (SHOP, FollowStore("u1")),
    (TABLE, OpenTable(2)),
    (SHOP, CreateCoupon("tenth", "열 명에게", Discount(percent=10, cap=2000, minimum=5000), 10)),
    (SHOP, IssueCoupon("welcome", "u1")),
    (SHOP, IssueCoupon("tenth", table="3")),
    (TABLE, AddToCart("tteok", 1, ("large", "egg"), "맵게", "민지")),
    (TABLE, AddToCart("kimbap", 9)),
    (TABLE, AddToCart("kimbap", 1)),
    (TABLE, RemoveFromCart("t3-3")),
    (TABLE, SubmitCart()),
    (TABLE, ChangeQuantity("t3-2", 2)),
    (TABLE, SubmitCart("tenth")),
    (TABLE, CallStaff("water")),
    (TABLE, AnswerCall("c1")),
    (TABLE, CallStaff("bill")),
    (SHOP, AcceptOrder("3-2")),
    (SHOP, StartCooking("3-2")),
    (SHOP, MarkItemReady("3-2", "t3-1")),
    (SHOP, CancelLine("3-2", "t3-2", "바닥에 떨어졌어요")),
    (SHOP, MarkServed("3-2")),
    (SHOP, RecallOrder("3-2")),
    (SHOP, MarkServed("3-2")),
    (SHOP, CreateOrder((Wish("kimbap", 3),), user="u1", shipping=Destination("김", "010-0000-0000", "서울"))),
    (SHOP, RejectOrder("o2", "재료가 떨어졌어요")),
    (SHOP, CreateOrder((Wish("kimbap", 1),), "mine", "3", "u1")),
    (SHOP, CancelOrder("mine", "마음이 바뀌었어요")),
    (SHOP, CreateOrder((Wish("kimbap", 3), Wish("tteok", 1, ("small",))))),
    (SHOP, MarkReady("o4")),
    (SHOP, AdjustStock("kimbap", 4, "더 말았어요")),
    (SHOP, SetSoldOut("tteok", True)),
    (SHOP, PauseOrders("주방이 꽉 찼어요")),
    (SHOP, ResumeOrders()),
    (TABLE, AddToCart("kimbap", 1)),
    (TABLE, CloseTable()),
    (USER, Notify("주문이 준비됐어요", "카운터로 와 주세요", "/u/u1")),
    (USER, SendEvent("snapshots.generated", {"snapshotCount": 2, "serverId": "onda-1"})),
    (USER, StartTask(4, "t1", "떡볶이 2", 3600)),
    (USER, AdvanceTask("t1", 1, "주문 검증")),
    (USER, CompleteTask("t1")),
    (USER, StartTask(3, "t2")),
    (USER, AdvanceTask("t2", 2, "재고 확인")),
    (USER, FailTask("t2", "떡볶이: 재고가 부족합니다")),
    (USER, CleanupTasks(0)),
    (SHOP, CloseStore()),
    (SHOP, ScheduleCampaign("night", "야식 할인", SOON, "2027-02-01T00:00:00Z", PRICES)),
    (SHOP, TurnCampaigns()),
    (SHOP, TurnCampaigns()),
    (SHOP, CancelCampaign("night")),
    (SHOP, ScheduleCampaign("later", "다음에", "2027-02-01T00:00:00Z")),
    (SHOP, CancelCampaign("later")),
    (SHOP, UnfollowStore("u1")),
    (SHOP, ArchiveOrders()),
    (SHOP, RetireCoupons()),
]


def evening() -> dict[str, Any]:
    """Run a rich evening; return the fullest event of each type, by `<kind>.<Type>`."""
    world = World()
    for stream, command in EVENING:
        if isinstance(command, ArchiveOrders):
            world.now_ms += RECALL_MS
        if isinstance(command, RetireCoupons):
            world.now_ms = to_ms("2027-06-01T00:00:00Z") + RETIRE_MS
        world.ask(stream, command)
        world.settle()
    pay_first(world)
    give_back(world)
    settle_bills(world)
    tell(world)
    found: dict[str, Any] = {}
    for name, stream in world.streams.items():
        for event in stream.events:
            key = f"{name.partition(':')[0]}.{type(event).__name__}"
            if key not in found or len(msgspec.json.encode(event)) > len(msgspec.json.encode(found[key])):
                found[key] = event
    return found


if __name__ == "__main__":
    EVENTS.mkdir(exist_ok=True)
    for key, event in sorted(evening().items()):
        path = EVENTS / f"{key}.json"
        if not path.exists():
            path.write_bytes(msgspec.json.format(msgspec.json.encode(event)) + b"\n")
            print(f"new: {path.name}")
