"""What a user has: what their pages show, and what only the rules need."""

from __future__ import annotations

from itertools import islice
from typing import Any

from msgspec import Struct

from engine.domain.coupon import HeldCoupon
from engine.domain.order import Order

COLLECTIONS = ("notices", "orders", "coupons", "tasks")


class Notice(Struct, frozen=True, gc=False):
    """A message to the user."""

    notice: str
    title: str
    body: str
    link: str
    at: str


class UserOrder(Order, frozen=True, gc=False, kw_only=True):
    """An order, and in which store."""

    store: str


class UserCoupon(HeldCoupon, frozen=True, gc=False, kw_only=True):
    """A coupon, and of which store."""

    store: str


class Task(Struct, frozen=True, gc=False):
    """Some work for the user as far as it has come. `event` is the id of its newest event, `events` how many
    there are; `status` is STARTED, PROGRESS, COMPLETED or FAILED (then with a `reason`).
    """

    task: str
    name: str
    event: str
    status: str
    step: int
    total_steps: int
    percentage: int
    step_name: str
    started_at: str
    updated_at: str
    events: int
    reason: str | None = None


class Mark(Struct, frozen=True, array_like=True, gc=False):
    """One event of a task, as its history shows it."""

    event: str
    status: str
    step: int
    percentage: int
    step_name: str
    at: str
    reason: str | None = None


class State(Struct):
    """A user. The first four are the collections that readers see; orders go by `<store>/<order>`, coupons
    by `<store>/<coupon>`. `marks` are the events of each task, `keeps` how long (s) each stays after its end,
    `leaving` when (ms) a finished one is forgotten.
    """

    notices: dict[str, Notice] = {}
    orders: dict[str, UserOrder] = {}
    coupons: dict[str, UserCoupon] = {}
    tasks: dict[str, Task] = {}
    notices_made: int = 0
    marks: dict[str, list[Mark]] = {}
    keeps: dict[str, int] = {}
    leaving: dict[str, int] = {}


def oldest(entities: dict[str, Any], limit: int) -> tuple[str, ...]:
    """Return who has to go so that one more has room."""
    return tuple(islice(entities, max(0, len(entities) + 1 - limit)))
