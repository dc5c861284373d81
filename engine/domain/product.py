"""Products as guests see them, their options and what these cost: shared by shop and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from engine.domain.fields import Id, Name, PaymentMode, Price
from engine.errors import Rejected

OPTIONS_MAX = 10
CHOICES_MAX = 30
CHOSEN_MAX = OPTIONS_MAX * CHOICES_MAX


class Choice(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One thing to choose, and what it adds to the price."""

    choice: Id
    name: Name
    price: Price = 0


class Option(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A question to the guest: between `min` and `max` of its choices have to be chosen."""

    option: Id
    name: Name
    choices: Annotated[tuple[Choice, ...], Meta(min_length=1, max_length=CHOICES_MAX)]
    min: Annotated[int, Meta(ge=0, le=CHOICES_MAX)] = 0
    max: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] = 1


class MenuItem(Struct, frozen=True, omit_defaults=True, gc=False):
    """A product on a table's menu. `sold_out` is true for either reason: switched off by hand, or none
    left. While a campaign makes it cheaper, `was` is what it costs else.
    """

    product: str
    name: str
    price: int
    sold_out: bool
    station: str | None
    tax_free: bool
    options: tuple[Option, ...]
    was: int | None = None


class ShopSign(Struct, frozen=True, gc=False):
    """What a table knows about its shop."""

    name: str
    payment_mode: PaymentMode
    open: bool
    paused: bool
    pause_reason: str | None


def check_options(options: Sequence[Option]) -> None:
    """Refuse options that no guest could answer, or whose ids are not unique in the product.

    Raises:
        Rejected: `options_invalid`.
    """
    seen: set[str] = set()
    for option in options:
        if not option.min <= option.max <= len(option.choices):
            raise Rejected("options_invalid", f"{option.name}: min ≤ max ≤ number of choices has to hold")
        for name in (f"option {option.option}", *(choice.choice for choice in option.choices)):
            if name in seen:
                raise Rejected("options_invalid", f"{name} is there twice in this product")
            seen.add(name)


def extra_price(name: str, options: Sequence[Option], chosen: Sequence[str]) -> int:
    """Return what the chosen options add to the price of one piece of the product `name`.

    Raises:
        Rejected: `unknown_option`, `option_required`, `too_many_options`.
    """
    if not options and not chosen:
        return 0
    wanted = set(chosen)
    if len(wanted) != len(chosen):
        raise Rejected("too_many_options", f"{name}: each option can be chosen once")
    extra = 0
    for option in options:
        count = 0
        for choice in option.choices:
            if choice.choice in wanted:
                wanted.discard(choice.choice)
                count += 1
                extra += choice.price
        if count < option.min:
            raise Rejected("option_required", f"{name}: choose {option.name} ({option.min} at least)")
        if count > option.max:
            raise Rejected("too_many_options", f"{name}: {option.name} allows {option.max} at most")
    if wanted:
        raise Rejected("unknown_option", f"{name} has no option {min(wanted)}")
    return extra
