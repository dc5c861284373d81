"""Value added tax: prices contain it, so every amount is a taxable and a tax-free part, and the tax within.

Whole won. The tax in a taxable amount is an eleventh of it, rounded half up (15,000 -> 1,364 and 30,000 ->
2,727: the samples of Kakao's and Toss' documentation).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Split(NamedTuple):
    """An amount by tax: `taxable` contains its tax, `tax_free` has none."""

    taxable: int
    tax_free: int

    @property
    def amount(self) -> int:
        return self.taxable + self.tax_free


class Taxed(NamedTuple):
    """An amount by tax, and the `vat` that is counted within its `taxable` part."""

    taxable: int
    tax_free: int
    vat: int

    @property
    def amount(self) -> int:
        return self.taxable + self.tax_free

    def __sub__(self, part: Taxed) -> Taxed:
        return Taxed(self.taxable - part.taxable, self.tax_free - part.tax_free, self.vat - part.vat)


def vat_in(taxable: int) -> int:
    """Return the tax that a taxable amount contains."""
    return (2 * taxable + 11) // 22


def discounted(whole: Split, discount: int) -> Split:
    """Return what is left of an amount after a discount that both parts bear in proportion."""
    left = max(0, whole.amount - discount)
    tax_free = share(whole, left)
    return Split(left - tax_free, tax_free)


def share(whole: Split, part: int) -> int:
    """Return how much of `part`, taken out of `whole`, is tax-free; neither part can go below zero by it."""
    return part * whole.tax_free // whole.amount if whole.amount else 0


def taken(whole: Split, part: int) -> Split:
    """Return `part`, taken out of `whole` in proportion, by tax."""
    tax_free = share(whole, part)
    return Split(part - tax_free, tax_free)


def portion(rest: Taxed, part: int, tax_free: int | None = None) -> Taxed:
    """Return `part`, taken out of the `rest` of something that is paid or given back bit by bit.

    So much of it is `tax_free` if the rest allows it, by default in proportion. The tax of a part is what
    the rest has less afterwards, so that whoever takes all in any parts has taken all of each.
    """
    if tax_free is None:
        tax_free = share(Split(rest.taxable, rest.tax_free), part)
    free = min(max(tax_free, part - rest.taxable, 0), part, rest.tax_free)
    taxable = part - free
    vat = rest.vat - vat_in(rest.taxable - taxable)
    return Taxed(taxable, free, min(max(vat, 0), taxable))


def total(parts: Iterable[Taxed]) -> Taxed:
    """Return the sum."""
    listed = tuple(parts)
    return Taxed(
        sum(part.taxable for part in listed),
        sum(part.tax_free for part in listed),
        sum(part.vat for part in listed),
    )
