"""Stock that is held for unpaid orders: when it begins and ends, what it counts, and that it ends once."""

import pytest

from engine.domain.store.holds import EXPIRED_AT_ONCE, ConfirmStock, ExpireHolds, OrderExpired, StockConfirmed
from engine.domain.store.kitchen import AcceptOrder, MarkReady, RecallOrder, StartCooking
from engine.domain.store.menu import AdjustStock, PutProduct
from engine.domain.store.orders import CreateOrder, OrderCreated, OrderPlaced, TakeCart, Wish
from engine.domain.store.payments import ApprovePayment
from engine.domain.store.shop import ConfigureStore
from engine.domain.store.stock import StockChange
from engine.domain.times import to_text
from tests.domain.pay_given import GUEST, MINUTE, TABLE, Cafe
from tests.harness_domain import NOW, NOW_MS

DEADLINE = to_text(NOW_MS + 10 * MINUTE)
INSIDE = "store:s1"


def test_an_order_in_a_prepay_shop_is_not_placed():
    """Its stock is held until its deadline, and it has all of its tax."""
    cafe = Cafe()
    command = CreateOrder((Wish("cake", 2), Wish("milk", 1)))
    created = cafe.ask(command)
    assert [type(event) for event in created] == [OrderCreated]
    assert created[0].stock == (StockChange("cake", 3, 1, 0, 2),)
    order = cafe.state.orders["o1"]
    assert (order.status, order.placed_at, order.hold_expires_at) == ("CREATED", None, DEADLINE)
    assert (order.total, order.tax_free, order.vat) == (20000, 2000, 1636)
    assert cafe.cakes() == (1, 2, 0)


def test_the_answer_says_until_when_it_is_held():
    """So that the guest sees the time run."""
    answer = Cafe().result(CreateOrder((Wish("cake", 1),)))
    assert answer == {"order": "o1", "total": 9000, "status": "CREATED", "hold_expires_at": DEADLINE}


def test_nothing_counted_is_held_too():
    """The deadline is the order's time to pay, whatever is counted."""
    cafe = Cafe()
    order = cafe.order(Wish("coffee", 1))
    assert cafe.state.holds[order].pieces == {}
    assert cafe.wait(10) == ["OrderExpired"]


@pytest.mark.parametrize("seconds", [1, 60, 3600])
def test_the_shop_says_how_long(seconds):
    """`hold_seconds` of the moment of the order."""
    cafe = Cafe(hold_seconds=seconds)
    order = cafe.order()
    cafe.ask(ConfigureStore("온다 카페", "prepay", 600), "owner:kim")
    assert cafe.state.orders[order].hold_expires_at == to_text(NOW_MS + seconds * 1000)


def test_what_costs_nothing_is_placed_at_once():
    """There is nothing to pay and nothing to hold."""
    cafe = Cafe()
    cafe.ask(PutProduct("cake", "케이크", 0, stock=3), "owner:kim")
    events = cafe.ask(CreateOrder((Wish("cake", 1),)))
    assert [type(event) for event in events] == [OrderCreated, OrderPlaced]
    assert (cafe.status("o1"), cafe.cakes(), cafe.state.holds) == ("PLACED", (2, 0, 0), {})
    assert events[0].hold_expires_at is None


def test_held_pieces_cannot_be_ordered():
    """Neither one by one nor together."""
    cafe = Cafe()
    cafe.order(Wish("cake", 2))
    assert cafe.refused(CreateOrder((Wish("cake", 2),))) == "sold_out"
    assert cafe.refused(CreateOrder((Wish("cake", 1), Wish("cake", 1)))) == "sold_out"
    assert cafe.state.holds.keys() == {"o1"}, "a refused order holds nothing"


def test_a_cart_is_held_for_its_party():
    """As any other order; the table pays."""
    cafe = Cafe()
    cafe.ask(TakeCart("3-1", "3", 4, (Wish("cake", 1, line="t3-1"),)), TABLE)
    assert (cafe.status("3-1"), cafe.cakes()) == ("CREATED", (2, 1, 0))


def test_an_unpaid_order_expires_at_its_deadline_and_not_before():
    """Not a millisecond early; the stock is there again, once."""
    cafe = Cafe()
    order = cafe.order(Wish("cake", 2))
    cafe.now_ms = NOW_MS + 10 * MINUTE - 1
    assert cafe.ask(ExpireHolds(), INSIDE) == []
    cafe.now_ms += 1
    at = to_text(cafe.now_ms)
    back = (StockChange("cake", 1, 3, 2, 0),)
    assert cafe.ask(ExpireHolds(), INSIDE) == [OrderExpired(order, at, None, "u1", stock=back)]
    assert (cafe.status(order), cafe.state.orders[order].closed_at, cafe.cakes()) == (
        "EXPIRED",
        at,
        (3, 0, 0),
    )
    assert cafe.ask(ExpireHolds(), INSIDE) == []


def test_expiry_drops_the_payment_that_nobody_approved():
    """Order and payment say so."""
    cafe = Cafe()
    order = cafe.order()
    payment = cafe.prepare(order)
    assert cafe.wait(10) == ["OrderExpired"]
    assert cafe.state.payments[payment].status == "DROPPED"
    assert cafe.state.orders[order].payment.status == "DROPPED"
    assert cafe.state.orders[order].hold_expires_at == DEADLINE


def test_many_expire_together():
    """Each change of the count follows the one before; the rest is due at once."""
    cafe = Cafe(cakes=EXPIRED_AT_ONCE + 20)
    orders = []
    for _ in range(EXPIRED_AT_ONCE + 10):
        orders.append(cafe.order())
        cafe.now_ms += 1
    cafe.now_ms += 10 * MINUTE
    events = cafe.ask(ExpireHolds(), INSIDE)
    expired = [event for event in events if isinstance(event, OrderExpired)]
    assert [event.order for event in expired] == orders[:EXPIRED_AT_ONCE]
    assert [event.stock[0].after for event in expired] == list(range(11, 11 + EXPIRED_AT_ONCE))
    assert cafe.wait(0) == ["OrderExpired"] * 10
    assert cafe.cakes() == (EXPIRED_AT_ONCE + 20, 0, 0)
    cafe.replay()


def test_shorter_holds_expire_first():
    """Whatever the order in which they came."""
    cafe = Cafe()
    late = cafe.order()
    cafe.ask(ConfigureStore("온다 카페", "prepay", 60), "owner:kim")
    early = cafe.order()
    assert cafe.wait(1) == ["OrderExpired"]
    assert (cafe.status(early), cafe.status(late)) == ("EXPIRED", "CREATED")


def test_the_last_piece_comes_back_on_the_menu():
    """Tables hear when the last one is held, and when it is free again."""
    cafe = Cafe(cakes=1)
    events = cafe.ask(CreateOrder((Wish("cake", 1),)))
    assert events[-1].products[0].sold_out is True
    cafe.now_ms += 10 * MINUTE
    events = cafe.ask(ExpireHolds(), INSIDE)
    assert [type(event).__name__ for event in events] == ["OrderExpired", "MenuAnnounced"]
    assert events[-1].products[0].sold_out is False


def test_no_clock_ends_what_is_pinned():
    """While an attempt to pay is open, its stock is kept, for hours."""
    cafe = Cafe()
    order, _ = cafe.requested()
    assert "OrderExpired" not in cafe.wait(600)
    assert (cafe.status(order), cafe.cakes()) == ("PENDING_PAYMENT", (2, 0, 1))


def test_paid_stock_is_confirmed_once():
    """Pinned becomes sold; a second confirmation finds nothing."""
    cafe = Cafe()
    order, _ = cafe.paid(confirmed=False)
    assert cafe.cakes() == (2, 0, 1)
    sold = StockConfirmed(order, NOW, (StockChange("cake", 2, 2, pinned_before=1),))
    assert cafe.ask(ConfirmStock(order), INSIDE) == [sold]
    assert (cafe.cakes(), cafe.state.holds, cafe.state.taken) == ((2, 0, 0), {}, {order: {"cake": 1}})
    assert cafe.ask(ConfirmStock(order), INSIDE) == []


def test_confirming_after_the_kitchen_began():
    """Nothing can come back of what cooks already."""
    cafe = Cafe()
    order, _ = cafe.paid(confirmed=False)
    cafe.ask(StartCooking(order), "staff:lee")
    assert cafe.types(ConfirmStock(order), INSIDE) == ["StockConfirmed"]
    assert (cafe.cakes(), cafe.state.taken) == ((2, 0, 0), {})


@pytest.mark.parametrize("step", ["ordered", "requested", "unknown"])
def test_nothing_is_confirmed_that_is_not_paid(step):
    """A command that comes too early, or for another order, does nothing."""
    cafe = Cafe()
    order = cafe.order() if step == "ordered" else cafe.requested()[0]
    assert cafe.ask(ConfirmStock("o9" if step == "unknown" else order), INSIDE) == []


@pytest.mark.parametrize("command", [AcceptOrder, StartCooking, MarkReady, RecallOrder])
@pytest.mark.parametrize("step", ["CREATED", "PENDING_PAYMENT"])
def test_the_kitchen_does_not_begin_before_it_is_paid(command, step):
    """Not by accepting, nor by any later stage."""
    cafe = Cafe()
    order = cafe.order()
    if step == "PENDING_PAYMENT":
        cafe.prepare(order)
    assert cafe.refused(command(order), "staff:lee") == "not_paid"


def test_the_kitchen_has_nothing_to_do_with_an_expired_order():
    """It goes no further."""
    cafe = Cafe()
    order = cafe.order()
    cafe.wait(10)
    assert cafe.refused(AcceptOrder(order), "staff:lee") == "wrong_status"


def test_corrections_by_hand_leave_holds_alone():
    """Only what can be ordered is corrected."""
    cafe = Cafe()
    cafe.order()
    cafe.ask(AdjustStock("cake", -1, "dropped"), "staff:lee")
    assert cafe.cakes() == (1, 1, 0)
    cafe.ask(PutProduct("cake", "케이크", 9000, stock=7), "owner:kim")
    assert cafe.cakes() == (7, 1, 0)
    cafe.wait(10)
    assert cafe.cakes() == (8, 0, 0)


def test_what_is_counted_no_more_never_comes_back():
    """Also when it is counted again before the hold ends."""
    cafe = Cafe()
    held = cafe.order()
    pinned, payment = cafe.requested()
    sold, _ = cafe.paid()
    cafe.ask(PutProduct("cake", "케이크", 9000, stock=None), "owner:kim")
    assert [cafe.state.holds[name].pieces for name in (held, pinned)] == [{}, {}]
    assert cafe.state.taken[sold] == {}
    cafe.ask(PutProduct("cake", "케이크", 9000, stock=5), "owner:kim")
    cafe.settle(payment, "DECLINED")
    cafe.wait(10)
    assert cafe.cakes() == (5, 0, 0)


def test_an_expired_order_leaves_like_any_closed_one():
    """After the time for recall."""
    cafe = Cafe()
    order = cafe.order()
    cafe.wait(10)
    assert cafe.wait(30) == ["OrdersArchived"]
    assert order not in cafe.state.orders
    assert cafe.refused(ApprovePayment(order, "id-1", "token"), GUEST) == "unknown_order"
