"""An order that has expired comes back: its guest was at the gateway's page when its time was over.

Everything it had is taken anew in one commit, or nothing, and then the gateway is not even asked.
"""

from __future__ import annotations

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.order import Order, priced
from engine.domain.store import coupons, stock
from engine.domain.store.holds import OrderRevived
from engine.domain.store.orders import open_shop
from engine.domain.store.state import State
from engine.domain.store.stock import StockChange, further
from engine.errors import Rejected


def revive(
    state: State, order: Order, context: Context
) -> tuple[list[contract.Event], tuple[StockChange, ...]]:
    """Return how an expired order comes back with its newest payment, and the stock that it takes again.

    Raises:
        Rejected: `hold_expired`: its stock, its coupon or its party is gone, or the shop takes no orders.
    """
    try:
        open_shop(state)
        _check_party(state, order)
        taken = stock.take(state, _demand(state, order), hold=True)
        coupon = _coupon(state, order, context)
    except Rejected as refusal:
        raise Rejected("hold_expired", f"The time to pay is over. {refusal.detail}: order again") from refusal
    assert order.payment is not None
    assert order.hold_expires_at is not None
    revived = OrderRevived(
        *(order.order, context.now, order.table, order.user),
        payment=order.payment.payment,
        hold_expires_at=order.hold_expires_at,
        stock=taken,
    )
    return [revived, *coupon], taken


def pinned_at_once(taken: tuple[StockChange, ...]) -> tuple[StockChange, ...]:
    """Return the pinning of stock that is held by `taken`, in the same commit."""
    return tuple(
        further(change, held=change.held_before - change.held_after, pinned=change.before - change.after)
        for change in taken
    )


def _check_party(state: State, order: Order) -> None:
    """Refuse when the party that ordered this at a table has left; nobody may have been seen there."""
    if order.table is None:
        return
    party = state.bills.get(order.table, {}).get(order.order)
    if party is None or party not in (0, state.sittings.get(order.table)):
        raise Rejected("table_closed", f"The party has left table {order.table}")


def _demand(state: State, order: Order) -> dict[str, int]:
    demand: dict[str, int] = {}
    for line in order.lines:
        product = state.products.get(line.product)
        if product is None or product.sold_out:
            raise Rejected("sold_out", f"{line.name} is sold out")
        if product.stock is not None:
            demand[line.product] = demand.get(line.product, 0) + line.quantity
    return demand


def _coupon(state: State, order: Order, context: Context) -> list[contract.Event]:
    if order.coupon is None:
        return []
    holder = coupons.holder_of(state, order)
    whole = priced(order.lines, 0)
    discount = coupons.redeem(state, order.coupon, holder, whole, context.now_ms)
    if holder is None or discount != order.discount:
        raise Rejected("coupon_changed", "The coupon takes off something else now")
    return coupons.redeemed_events(state, order.coupon, holder, order.order, discount, context)
