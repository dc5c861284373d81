"""Coupons as tables and users see them: the way from the shop, and what a party takes with it."""

import pytest

from engine.domain import table, user
from engine.domain.coupon import ISSUED, USED, Discount, HeldCoupon, Offer
from engine.domain.store.cancelling import CancelLine, CancelOrder, RejectOrder
from engine.domain.store.coupons import CouponReturned, CreateCoupon, IssueCoupon
from engine.domain.store.shop import ConfigureStore
from engine.domain.table.cart import AddToCart, SubmitCart
from engine.domain.table.coupons import OffersShown, RecordCoupon, RecordCouponUse, ShowOffers
from engine.domain.table.sitting import CloseTable, OpenTable
from tests.domain.shop_given import MENU, SAT, create
from tests.harness_domain import NOW, World, check

OFF = Discount(1000)
CREATE = CreateCoupon("welcome", "첫 주문 할인", 1000, 10)
OFFER = Offer("welcome", "첫 주문 할인", OFF, 9, None, None)


def test_a_table_shows_what_is_on_offer():
    """Only news change it, and what its party holds stays with the party."""
    stream = check(table, SAT, ShowOffers((OFFER,)), [OffersShown((OFFER,))])
    assert stream.do(ShowOffers((OFFER,), ("else",))) == []
    assert stream.do(RecordCoupon(OFFER, 9)) == []
    stream.do(RecordCoupon(OFFER, 1))
    assert stream.do(RecordCoupon(OFFER, 1)) == []
    assert stream.do(RecordCouponUse("welcome", 1, False)) == []
    stream.do(RecordCouponUse("welcome", 1, True))
    shown = {"coupon": "welcome", "name": "첫 주문 할인", "discount": {"amount": 1000}, "remaining": 9}
    shown |= {"starts_at": None, "expires_at": None, "held": True, "used": True}
    assert stream.visible()["coupons"] == {"welcome": shown}
    stream.do(CloseTable())
    assert stream.visible()["coupons"] == {"welcome": shown | {"held": False, "used": False}}
    assert stream.do(RecordCoupon(OFFER, 1)) == [], "that party has left"
    stream.do(ShowOffers(gone=("welcome",)))
    assert stream.visible()["coupons"] == {}


HELD_BY_USER = HeldCoupon("welcome", "첫 주문 할인", OFF, 7, ISSUED, NOW, None)


def test_a_user_holds_coupons_of_many_shops():
    """Each is there once, used or not; of very many the oldest go."""
    stream = check(user, [], user.coupons.RecordCoupon("s1", HELD_BY_USER))
    assert stream.do(user.coupons.RecordCoupon("s1", HELD_BY_USER)) == []
    stream.do(user.coupons.RecordCoupon("s2", HELD_BY_USER))
    stream.do(user.coupons.RecordCouponUse("s1", "welcome", "o1"))
    assert stream.do(user.coupons.RecordCouponUse("s1", "welcome", "o1")) == []
    assert stream.do(user.coupons.RecordCouponUse("s3", "welcome", "o1")) == []
    seen = stream.visible()["coupons"]
    assert (seen["s1/welcome"]["status"], seen["s1/welcome"]["order"]) == (USED, "o1")
    assert seen["s2/welcome"]["status"] == ISSUED
    stream.do(user.coupons.RecordCouponUse("s1", "welcome"))
    assert stream.visible()["coupons"]["s1/welcome"]["status"] == ISSUED
    for number in range(user.coupons.COUPONS_MAX):
        stream.do(user.coupons.RecordCoupon(f"t{number}", HELD_BY_USER))
    assert len(stream.state.coupons) == user.coupons.COUPONS_MAX
    assert "s1/welcome" not in stream.state.coupons


SHOP, TABLE, USER = "store:s1", "table:s1/3", "user:u1"


@pytest.mark.parametrize("twice", [False, True])
def test_from_the_shop_to_table_and_user(twice):
    """A party and a user get one each and use it; a second time their cart comes back."""
    world = World(lambda: twice)
    for event in MENU:
        world[SHOP].evolve(event)
    world.ask(TABLE, OpenTable(2))
    world.settle()
    world.ask(SHOP, CREATE)
    world.settle()
    assert world[TABLE].visible()["coupons"]["welcome"]["held"] is False
    result = world.result(SHOP, IssueCoupon("welcome"), TABLE)
    assert result == {"coupon": "welcome", "user": None, "table": "3", "sequence": 1, "remaining": 9}
    result = world.result(SHOP, IssueCoupon("welcome"), USER)
    assert result == {"coupon": "welcome", "user": "u1", "table": None, "sequence": 2, "remaining": 8}
    world.ask(TABLE, AddToCart("ramen", 1), TABLE)
    order = world.result(TABLE, SubmitCart("welcome"), TABLE)["order"]
    world.ask(SHOP, create(order="mine", coupon="welcome"), USER)
    world.settle()
    at_table = world[TABLE].visible()
    assert (at_table["coupons"]["welcome"]["held"], at_table["coupons"]["welcome"]["used"]) == (True, True)
    assert (at_table["orders"][order]["total"], at_table["orders"][order]["discount"]) == (4000, 1000)
    assert world[USER].visible()["coupons"]["s1/welcome"]["order"] == "mine"
    world.ask(TABLE, AddToCart("ramen", 1), TABLE)
    world.ask(TABLE, SubmitCart("welcome"), TABLE)
    world.settle()
    (line,) = world[TABLE].visible()["cart"].values()
    assert line["refused"]["code"] == "coupon_used"


@pytest.mark.parametrize(
    "death",
    [
        RejectOrder("o1", "재료가 떨어졌어요"),
        CancelOrder("o1", "마음이 바뀌었어요"),
        CancelLine("o1", "o1-1", "바닥에 떨어졌어요"),
        None,
    ],
    ids=["rejected", "cancelled", "its last line", "expired"],
)
@pytest.mark.parametrize("who", [USER, TABLE])
def test_it_comes_back_when_the_order_dies(death, who):
    """However it dies: once, and the holder sees it and can use it again."""
    world = World(lambda: True)
    for event in MENU:
        world[SHOP].evolve(event)
    world.ask(TABLE, OpenTable(2))
    world.settle()
    world.ask(SHOP, CREATE)
    world.ask(SHOP, IssueCoupon("welcome"), who)
    if death is None:
        world.ask(SHOP, ConfigureStore("온다 분식", "prepay", 600))
    world.ask(SHOP, create(coupon="welcome"), who)
    world.settle()
    assert held(world, who) == "used"
    if death is None:
        world.now_ms += 600_000
        death = world[SHOP].domain.deadline(world[SHOP].state)[1]
    world.ask(SHOP, death)
    world.settle()
    assert held(world, who) == "ready"
    returned = [event for event in world[SHOP].events if isinstance(event, CouponReturned)]
    assert len(returned) == 1
    assert world[SHOP].state.coupons["welcome"].redeemed == 0
    world.ask(SHOP, create(coupon="welcome"), who)
    assert world[SHOP].state.coupons["welcome"].redeemed == 1


def held(world, who):
    """How the holder sees the coupon."""
    seen = world[who].visible()["coupons"]
    if who == TABLE:
        assert seen["welcome"]["held"]
        return "used" if seen["welcome"]["used"] else "ready"
    coupon = seen["s1/welcome"]
    assert (coupon["status"] == USED) == (coupon["order"] is not None)
    return "used" if coupon["status"] == USED else "ready"
