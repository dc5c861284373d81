"""Coupons: given out one to each holder while there are any, used for one order, back when that order dies.

Check, decrement, one-per-holder and sequence are one decision of the shop's single writer, so
remaining + issued = stock, sequences are 1, 2, 3 … without a hole, and no repeat gets a second one.

A holder is a user, or the party at a table as `<table>/<sitting>`. Who has which coupon is not in what
readers see, so a patch costs the same for the first coupon and for the millionth.

A holder costs 127 bytes of memory and 22 of every checkpoint of the shop, one who used it 370 and 79
(`docs/decisions/0008-coupon-holders-in-memory.md`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.coupon import Discount, Offer, discount_of
from engine.domain.fields import CouponStock, Id, Name, Ref, TableId, Time
from engine.domain.order import Order
from engine.domain.store.announce import OffersAnnounced, announce_offers, offer_of
from engine.domain.store.state import Coupon, Issues, State, Use
from engine.domain.tax import Split
from engine.domain.times import read_time, to_ms
from engine.errors import Rejected

COUPONS_MAX = 1_000
STOCKS_MAX = 2_000_000
"""The stocks of all coupons of a shop together: what bounds its memory."""
RETIRE_MS = 24 * 3_600_000
"""A coupon leaves so long after it expired, and what is known of its holders with it."""


class CreateCoupon(contract.Command, frozen=True):
    """Offer a `coupon` under a `name`, `stock` pieces of it, from `starts_at` to `expires_at`. Its `discount`
    is a number of won, or an amount or percent (with a cap), each with the minimum of the order.
    """

    allowed: ClassVar = frozenset({"owner"})
    coupon: Id
    name: Name
    discount: Annotated[int, Meta(ge=1, le=100_000_000)] | Discount
    stock: CouponStock
    starts_at: Time | None = None
    expires_at: Time | None = None


class IssueCoupon(contract.Command, frozen=True):
    """Give one `coupon` to a `user` (who can leave that out for themselves) or to the party at a `table`."""

    allowed: ClassVar = frozenset({"user", "table", "staff", "owner"})
    coupon: Ref
    user: Id | None = None
    table: TableId | None = None


class RetireCoupons(contract.Command, frozen=True):
    """Let coupons go that expired a while ago."""


class CouponCreated(contract.Event, frozen=True):
    """The shop gives out `stock` pieces of a coupon."""

    coupon: str
    name: str
    discount: Discount
    stock: int
    at: str
    starts_at: str | None = None
    expires_at: str | None = None


class CouponIssued(contract.Event, frozen=True):
    """A `holder` (`user`, or the party `sitting` at the `table`) has the coupon number `sequence`."""

    coupon: str
    holder: str
    sequence: int
    remaining: int
    at: str
    name: str
    discount: Discount
    user: str | None = None
    table: str | None = None
    sitting: int = 0
    starts_at: str | None = None
    expires_at: str | None = None


class CouponRedeemed(contract.Event, frozen=True):
    """The holder used the coupon for an order, for `discount` won."""

    coupon: str
    holder: str
    order: str
    discount: int
    at: str
    user: str | None = None
    table: str | None = None
    sitting: int = 0


class CouponReturned(contract.Event, frozen=True):
    """The order died: the holder can use the coupon again."""

    coupon: str
    holder: str
    order: str
    discount: int
    at: str
    user: str | None = None
    table: str | None = None
    sitting: int = 0


class CouponsRetired(contract.Event, frozen=True):
    """These coupons expired a while ago and left the state."""

    coupons: tuple[str, ...]


Command = CreateCoupon | IssueCoupon | RetireCoupons
Event = CouponCreated | CouponIssued | CouponRedeemed | CouponReturned | CouponsRetired | OffersAnnounced

_RETIRE = RetireCoupons()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what happens to the coupons; `[]` for one that was created like this before.

    Raises:
        Rejected: `coupon_exists`, `too_many_coupons`, `discount_invalid`, `time_invalid`,
            `expires_before_start`, `expires_in_past`, `unknown_coupon`, `forbidden`, `holder_missing`,
            `table_closed`, `coupon_not_started`, `coupon_expired`, `coupon_already_issued`,
            `coupon_exhausted`.
    """
    match command:
        case CreateCoupon():
            return _created(state, command, context)
        case IssueCoupon():
            return _issued(state, command, context)
        case RetireCoupons():
            due = tuple(name for name, end_ms in state.coupon_ends.items() if end_ms <= context.now_ms)
            return [CouponsRetired(due), *announce_offers(state, gone=due)] if due else []
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Count, and note who holds what."""
    match event:
        case CouponCreated(coupon=name, stock=stock):
            window = event.starts_at, event.expires_at
            state.coupons[name] = Coupon(name, event.name, event.discount, stock, stock, 0, 0, *window)
            state.issues[name] = Issues()
            if event.expires_at is not None:
                ends = state.coupon_ends | {name: to_ms(event.expires_at) + RETIRE_MS}
                state.coupon_ends = dict(sorted(ends.items(), key=lambda item: item[1]))
        case CouponIssued(coupon=name):
            if (coupon := state.coupons.get(name)) is not None:
                issued = coupon.issued + 1
                state.coupons[name] = replace(coupon, remaining=event.remaining, issued=issued)
                state.issues[name].sequences[event.holder] = event.sequence
        case CouponRedeemed(coupon=name, holder=holder, order=order):
            if (coupon := state.coupons.get(name)) is not None:
                state.coupons[name] = replace(coupon, redeemed=coupon.redeemed + 1)
                issues = state.issues[name]
                last = issues.uses.get(holder)
                if last is not None and issues.holders.get(last.order) == holder:
                    del issues.holders[last.order]
                issues.uses[holder] = Use(order, True)
                issues.holders[order] = holder
        case CouponReturned(coupon=name, holder=holder, order=order):
            if (coupon := state.coupons.get(name)) is not None:
                state.coupons[name] = replace(coupon, redeemed=coupon.redeemed - 1)
                state.issues[name].uses[holder] = Use(order, False)
        case CouponsRetired(coupons=names):
            for name in names:
                state.coupons.pop(name, None)
                state.issues.pop(name, None)
                state.coupon_ends.pop(name, None)
        case OffersAnnounced():
            pass  # it is for the tables
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The coupon with its counts; holders are in nobody's view of the shop."""
    match event:
        case CouponsRetired(coupons=names):
            return [("coupons", name) for name in names]
        case OffersAnnounced():
            return []
        case _:
            return [("coupons", event.coupon)]


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, object]:
    """Return the result: of an issue, which number it has and how many are left."""
    match events:
        case [CouponIssued() as issued, *_]:
            result = {"coupon": issued.coupon, "user": issued.user, "table": issued.table}
            return result | {"sequence": issued.sequence, "remaining": issued.remaining}
        case _:
            return {"coupon": command.coupon} if isinstance(command, CreateCoupon) else {}


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the next coupon leaves."""
    for end_ms in state.coupon_ends.values():
        return end_ms, _RETIRE
    return None


def redeem(state: State, coupon: str, holder: str | None, whole: Split, now_ms: int) -> int:
    """Return what the coupon takes off an order of `whole` by `holder`, in won.

    Raises:
        Rejected: `unknown_coupon`, `coupon_not_issued`, `coupon_used`, `coupon_expired`, `coupon_minimum`.
    """
    offered = _known(state, coupon)
    issues = state.issues[coupon]
    if holder is None or holder not in issues.sequences:
        raise Rejected("coupon_not_issued", f"{offered.name}: get the coupon first")
    use = issues.uses.get(holder)
    if use is not None and use.live:
        raise Rejected("coupon_used", f"{offered.name} was used for order {use.order}")
    _check_not_expired(offered, now_ms)
    minimum = offered.discount.minimum
    if whole.amount < minimum:
        raise Rejected("coupon_minimum", f"{offered.name} is for orders of {minimum} won or more")
    return offered.discount.of(whole.amount)


def redeemed_events(
    state: State, coupon: str, holder: str, order: str, discount: int, context: Context
) -> list[contract.Event]:
    """Return what goes into the commit of the order that uses the coupon; check with `redeem` before."""
    return [CouponRedeemed(coupon, holder, order, discount, context.now, *_people(holder))]


def returned_events(state: State, order: Order, context: Context) -> list[contract.Event]:
    """Return what goes into the commit in which an order dies; `[]` when it holds no coupon (any more)."""
    coupon = order.coupon
    holder = holder_of(state, order)
    if coupon is None or holder is None or state.issues[coupon].uses[holder] != Use(order.order, True):
        return []
    return [CouponReturned(coupon, holder, order.order, order.discount, context.now, *_people(holder))]


def holder_of(state: State, order: Order) -> str | None:
    """Return who used (or, when the order died, would use again) the order's coupon."""
    issues = state.issues.get(order.coupon or "")
    return issues.holders.get(order.order) if issues is not None else None


def party(table: str, sitting: int) -> str:
    """Return the holder that the party at a table is."""
    return f"{table}/{sitting}"


def _created(state: State, command: CreateCoupon, context: Context) -> list[contract.Event]:
    name, stock = command.coupon, command.stock
    discount = discount_of(command.discount)
    starts_at, expires_at = read_time(command.starts_at), read_time(command.expires_at)
    known = state.coupons.get(name)
    if known is not None:
        same = known.name, known.discount, known.stock, known.starts_at, known.expires_at
        if same == (command.name, discount, stock, starts_at, expires_at):
            return []
        raise Rejected("coupon_exists", f"There is another coupon {name} already")
    if expires_at is not None and expires_at <= (starts_at or ""):
        raise Rejected("expires_before_start", "A coupon has to expire after it starts")
    if expires_at is not None and to_ms(expires_at) <= context.now_ms:
        raise Rejected("expires_in_past", "The time at which it expires is over already")
    stocks = sum(coupon.stock for coupon in state.coupons.values())
    if len(state.coupons) >= COUPONS_MAX or stocks + stock > STOCKS_MAX:
        limits = f"{COUPONS_MAX} coupons with {STOCKS_MAX} pieces together"
        raise Rejected("too_many_coupons", f"A shop has at most {limits}: wait until some have expired")
    created = CouponCreated(name, command.name, discount, stock, context.now, starts_at, expires_at)
    offer = Offer(name, command.name, discount, stock, starts_at, expires_at)
    return [created, *announce_offers(state, [offer])]


def _issued(state: State, command: IssueCoupon, context: Context) -> list[contract.Event]:
    user, table = _for_whom(command, context)
    coupon = _known(state, command.coupon)
    sitting = 0
    if user is not None:
        holder = user
    else:
        assert table is not None
        if table not in state.sittings:
            raise Rejected("table_closed", f"Table {table} is closed: open it first")
        sitting = state.sittings[table]
        holder = party(table, sitting)
    if coupon.starts_at is not None and context.now_ms < to_ms(coupon.starts_at):
        raise Rejected("coupon_not_started", f"{coupon.name} starts at {coupon.starts_at}")
    _check_not_expired(coupon, context.now_ms)
    if holder in state.issues[coupon.coupon].sequences:
        raise Rejected(
            "coupon_already_issued", f"{coupon.name}: there is one for each, and this one is given"
        )
    if not coupon.remaining:
        raise Rejected("coupon_exhausted", f"{coupon.name}: all {coupon.stock} are given out")
    remaining = coupon.remaining - 1
    issued = CouponIssued(
        coupon.coupon,
        holder,
        coupon.issued + 1,
        remaining,
        context.now,
        coupon.name,
        coupon.discount,
        user,
        table,
        sitting,
        coupon.starts_at,
        coupon.expires_at,
    )
    if _tenths(coupon.remaining, coupon.stock) == _tenths(remaining, coupon.stock):
        return [issued]
    return [issued, *announce_offers(state, [offer_of(replace(coupon, remaining=remaining))])]


def _for_whom(command: IssueCoupon, context: Context) -> tuple[str | None, str | None]:
    """Return the user or the table that gets it; guests get coupons for themselves only."""
    role, _, name = context.by.partition(":")
    user, table = command.user, command.table
    if role == "user":
        if user not in (None, name) or table is not None:
            raise Rejected("forbidden", "A user gets coupons for themselves only")
        return name, None
    if role == "table":
        store, _, own = name.partition("/")
        if store != context.stream[6:] or table not in (None, own) or user is not None:
            raise Rejected("forbidden", "A table gets coupons for its own party only")
        return None, own
    if (user is None) == (table is None):
        raise Rejected("holder_missing", "Say for whom it is: either a user or a table")
    return user, table


def _known(state: State, name: str) -> Coupon:
    coupon = state.coupons.get(name)
    if coupon is None:
        raise Rejected("unknown_coupon", f"There is no coupon {name}")
    return coupon


def _expired(coupon: Coupon, now_ms: int) -> bool:
    return coupon.expires_at is not None and now_ms >= to_ms(coupon.expires_at)


def _check_not_expired(coupon: Coupon, now_ms: int) -> None:
    if _expired(coupon, now_ms):
        raise Rejected("coupon_expired", f"{coupon.name} was valid until {coupon.expires_at}")


def _tenths(remaining: int, stock: int) -> int:
    """Return how many tenths are left, begun ones too; 0 only for none."""
    return -(-10 * remaining // stock)


def _people(holder: str) -> tuple[str | None, str | None, int]:
    """Return user, table and sitting of a holder."""
    table, slash, sitting = holder.partition("/")
    return (None, table, int(sitting)) if slash else (holder, None, 0)
