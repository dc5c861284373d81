"""What goes from the shop to payment gateways, and what comes back: the two halves of one conversation.

Each event here is the durable attempt that a call to a gateway needs before it is made, and carries all that
the call needs; each command brings an answer, and repeats without harm. The rules are in `payments` and
`refunds`.
"""

from __future__ import annotations

from engine.domain import contract
from engine.domain.order import OrderChange, OrderEvent
from engine.domain.payment import PENDING, REQUESTED, OrderPayment, Verdict
from engine.domain.store.stock import StockChange


class PaymentPrepared(OrderEvent, frozen=True, kw_only=True):
    """A guest is about to pay. `name` is what the gateway's page calls the order; `replaces` is an earlier
    payment of the order that nobody has approved and nobody can approve any more.
    """

    payment: str
    method: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    payer: str
    by: str
    name: str
    replaces: str | None = None

    def change(self) -> OrderChange:
        payment = OrderPayment(self.payment, self.method, PENDING, self.amount)
        return OrderChange(self.order, self.at, "PENDING_PAYMENT", payment=payment)


class ApprovalRequested(OrderEvent, frozen=True, kw_only=True):
    """The attempt: the gateway is asked to charge. `attempt` is its idempotency key there, `ref` what the
    guest brought from the gateway's page, `checkout` the gateway's reference of that page. `stock` is
    pinned.
    """

    payment: str
    attempt: str
    method: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    payer: str
    name: str
    ref: str
    checkout: str = ""
    stock: tuple[StockChange, ...] = ()

    def change(self) -> OrderChange:
        payment = OrderPayment(self.payment, self.method, REQUESTED, self.amount)
        return OrderChange(self.order, self.at, payment=payment)


class QueryRequested(contract.Event, frozen=True, kw_only=True):
    """The gateway is asked what became of an attempt; `number` counts such questions, but hints. `charge` is
    the gateway's name of the charge, where it is known; `tax_free` how much of the amount should be free of
    tax.
    """

    order: str
    at: str
    payment: str
    attempt: str
    method: str
    amount: int
    payer: str
    ref: str
    checkout: str = ""
    charge: str = ""
    number: int = 1
    again_at: str | None = None
    tax_free: int | None = None


class RefundSent(contract.Event, frozen=True, kw_only=True):
    """The gateway is asked to give `amount` back; `refund` is its idempotency key there. `remaining` is what
    the gateway should still have of the charge before this; `number` counts the calls for this refund from
    1.
    """

    at: str
    payment: str
    refund: str
    attempt: str
    method: str
    amount: int
    taxable: int
    tax_free: int
    vat: int
    reason: str
    payer: str
    charge: str
    remaining: int
    captured: int
    by_shop: bool = True
    checkout: str = ""
    number: int = 1


class NoteCheckout(contract.Command, frozen=True):
    """The guest of the `payment` pays at `url`; the gateway calls that `ref`."""

    payment: str
    url: str
    ref: str = ""


class SettleApproval(contract.Command, frozen=True):
    """The gateway's `verdict` on an `attempt` of a `payment`: an approval says which `amount` it charged
    under which name (`charge`); a `code` and `message` are the gateway's.

    `DECLINED` is only what the gateway says for certain; whatever leaves a doubt is `UNKNOWN`.
    """

    payment: str
    attempt: str
    verdict: Verdict
    amount: int = 0
    charge: str = ""
    code: str = ""
    message: str = ""


class SettleRefund(contract.Command, frozen=True):
    """The gateway's `verdict` on a `refund` of a `payment`, with its `code` and `message`: given back,
    refused for certain, or unknown.
    """

    payment: str
    refund: str
    verdict: Verdict
    code: str = ""
    message: str = ""
