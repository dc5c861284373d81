"""Each provider as its documents tell, played from a few lines of state: payments, charges and cancels.

`next` overrides the answer to the next charge or cancel; `then_cut` breaks off after doing it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any
from urllib.parse import unquote

from engine.payments.contract import Gateway, Links
from engine.payments.http import Line
from engine.payments.kakaopay import KakaoPay
from engine.payments.naverpay import NaverPay
from engine.payments.toss import Toss, encoded
from tests.payments.player import Asked, Played

SECRET = "live_sk_9f8e7d6c5b4a"
BACK = "https://shop.example/pay/s1/"


class Provider:
    """What all have: one payment that a guest has authorised, and what happened to it.

    Class attributes say what the contract suite has to know of each.
    """

    name = ""
    ref = "ref-1"
    checkout = ""
    unlisted: Played = Played(400, {"code": "NEVER_HEARD_OF"})
    refusals: tuple[Played, ...] = ()
    in_doubt: tuple[Played, ...] = ()
    repeats_by_key = True

    def __init__(self) -> None:
        self.order = ""
        self.amount = 0
        self.tax_free = 0
        self.charged = 0
        self.charges = 0
        self.cancels: dict[str, int] = {}
        self.answers: dict[str, Played] = {}
        self.next: Played | None = None
        self.then_cut = False
        self.secret_seen = False

    @property
    def rest(self) -> int:
        """What is left of the charge."""
        return self.charged - sum(self.cancels.values())

    def authorise(self, order: str, amount: int, tax_free: int) -> None:
        """A guest says yes on the provider's page."""
        self.order, self.amount, self.tax_free = order, amount, tax_free

    def gateway(self, url: str) -> Gateway:
        """The adapter under test."""
        raise NotImplementedError

    def play(self, asked: Asked) -> Played | Awaitable[Played]:
        """Answer a request."""
        raise NotImplementedError

    def key(self, asked: Asked) -> str:
        """The idempotency key of a request."""
        return asked.headers.get("idempotency-key", "")

    def _moved(self, key: str, played: Played) -> Played:
        """Keep the answer to a key; break off if told to."""
        if key:
            self.answers[key] = played
        if self.then_cut:
            self.then_cut = False
            return Played(cut=True)
        return played

    def _overridden(self) -> Played | None:
        played, self.next = self.next, None
        return played


class FakeToss(Provider):
    """api.tosspayments.com."""

    name = "toss"
    refusals = (
        Played(403, {"code": "REJECT_CARD_PAYMENT", "message": "한도초과 혹은 잔액부족"}),
        Played(400, {"code": "REJECT_CARD_COMPANY", "message": "결제 승인이 거절되었습니다."}),
        Played(404, {"code": "NOT_FOUND_PAYMENT", "message": "존재하지 않는 결제"}),
    )
    in_doubt = (
        Played(500, {"code": "FAILED_INTERNAL_SYSTEM_PROCESSING", "message": ""}),
        Played(409, {"code": "IDEMPOTENT_REQUEST_PROCESSING", "message": ""}),
        Played(400, {"code": "PROVIDER_ERROR", "message": "일시적인 오류"}),
        Played(500, {"code": "REJECT_CARD_PAYMENT", "message": "5xx is never certain"}),
    )

    def gateway(self, url: str) -> Gateway:
        line = Line(url, Toss.headers(SECRET), secrets=(SECRET, encoded(SECRET)), timeout_s=2)
        return Toss(line, Links("https://shop.example"))

    def play(self, asked: Asked) -> Played:
        assert asked.headers["authorization"] == f"Basic {encoded(SECRET)}"
        self.secret_seen = True
        match asked.method, asked.path.split("/")[3:]:
            case "POST", []:
                body = asked.json
                assert body["successUrl"].startswith(BACK)
                return Played(200, {"checkout": {"url": "https://pay.toss.example/x"}})
            case "POST", ["confirm"]:
                return self._confirm(asked)
            case "GET", ["orders", order]:
                if order != self.order:
                    return Played(404, {"code": "NOT_FOUND_PAYMENT", "message": "없는 결제"})
                return Played(200, self._payment())
            case "POST", [key, "cancel"] if unquote(key) == "pk-1":
                return self._cancel(asked)
        return Played(404, {"code": "NOT_FOUND", "message": ""})

    def _confirm(self, asked: Asked) -> Played:
        if (known := self.answers.get(self.key(asked))) is not None:
            return known
        if (played := self._overridden()) is not None:
            return played
        body = asked.json
        if self.charged:
            return Played(400, {"code": "ALREADY_PROCESSED_PAYMENT", "message": "이미 처리된 결제"})
        if (body["orderId"], body["amount"]) != (self.order, self.amount):
            return Played(400, {"code": "INVALID_REQUEST", "message": "주문이 다릅니다"})
        self.charged, self.charges = self.amount, self.charges + 1
        return self._moved(self.key(asked), Played(200, self._payment()))

    def _payment(self) -> dict[str, Any]:
        status = "IN_PROGRESS"
        if self.charged:
            status = "DONE" if self.rest == self.charged else "PARTIAL_CANCELED" if self.rest else "CANCELED"
        return {
            "paymentKey": "pk-1",
            "orderId": self.order,
            "status": status,
            "totalAmount": self.charged or self.amount,
            "balanceAmount": self.rest,
            "taxFreeAmount": self.tax_free,
        }

    def _cancel(self, asked: Asked) -> Played:
        if (known := self.answers.get(self.key(asked))) is not None:
            return known
        if (played := self._overridden()) is not None:
            return played
        amount = asked.json["cancelAmount"]
        if not self.rest:
            return Played(400, {"code": "ALREADY_CANCELED_PAYMENT", "message": "이미 취소된 결제"})
        if amount > self.rest:
            return Played(403, {"code": "NOT_CANCELABLE_AMOUNT", "message": "취소할 수 없는 금액"})
        self.cancels[self.key(asked)] = amount
        return self._moved(self.key(asked), Played(200, self._payment()))


class FakeNaverPay(Provider):
    """pay.paygate.naver.com: everything is 200 with a code."""

    name = "naverpay"
    unlisted = Played(200, {"code": "NeverHeardOf", "message": ""})
    refusals = tuple(
        Played(200, {"code": code, "message": "안 됩니다"})
        for code in ("TimeExpired", "OwnerAuthFail", "NotEnoughAccountBalance", "MaintenanceOngoing")
    )
    in_doubt = (
        Played(200, {"code": "Fail", "message": ""}),
        Played(200, {"code": "AlreadyOnGoing", "message": ""}),
        Played(502, {"code": "TimeExpired", "message": "5xx is never certain"}),
    )

    def gateway(self, url: str) -> Gateway:
        line = Line(url, NaverPay.headers("id-1", SECRET, "chain-1"), secrets=(SECRET,), timeout_s=2)
        return NaverPay(line, Links("https://shop.example"))

    def key(self, asked: Asked) -> str:
        return asked.headers.get("x-naverpay-idempotency-key", "")

    def play(self, asked: Asked) -> Played:
        headers = asked.headers
        assert headers["x-naver-client-id"] == "id-1"
        assert headers["x-naver-client-secret"] == SECRET
        assert headers["x-naverpay-chain-id"] == "chain-1"
        self.secret_seen = True
        match asked.path.split("/")[1:]:
            case ["v2", "reserve"]:
                body = asked.json
                assert body["returnUrl"].startswith(BACK)
                assert body["taxScopeAmount"] + body["taxExScopeAmount"] == body["totalPayAmount"]
                return Played(200, {"code": "Success", "body": {"reserveId": "rsv1"}})
            case ["v2.2", "apply", "payment"]:
                return self._apply(asked)
            case ["v2.3", "list", "history", payment_id] if payment_id == self.ref:
                if not self.charged:
                    return Played(200, {"code": "InvalidPaymentId", "message": ""})
                return Played(200, {"code": "Success", "body": {"list": self._rows()}})
            case ["v1", "cancel"]:
                return self._cancel(asked)
        return Played(404, {"code": "NotFound"})

    def _apply(self, asked: Asked) -> Played:
        assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
        if (known := self.answers.get(self.key(asked))) is not None:
            return known
        if (played := self._overridden()) is not None:
            return played
        if self.charged:
            return Played(200, {"code": "AlreadyComplete", "message": ""})
        assert asked.form == {"paymentId": self.ref}
        self.charged, self.charges = self.amount, self.charges + 1
        body = {"paymentId": self.ref, "detail": self._row("01", self.amount)}
        return self._moved(self.key(asked), Played(200, {"code": "Success", "body": body}))

    def _row(self, kind: str, amount: int) -> dict[str, Any]:
        return {
            "merchantPayKey": self.order,
            "admissionTypeCode": kind,
            "admissionState": "SUCCESS",
            "totalPayAmount": amount,
            "taxScopeAmount": amount - self.tax_free,
            "taxExScopeAmount": self.tax_free,
        }

    def _rows(self) -> list[dict[str, Any]]:
        kind = "04" if self.rest else "03"
        back = [self._row(kind, amount) for amount in self.cancels.values()]
        return [{**self._row("01", 5), "admissionState": "FAIL"}, self._row("01", self.charged), *back]

    def _cancel(self, asked: Asked) -> Played:
        form = asked.form
        if (known := self.answers.get(self.key(asked))) is not None:
            return known
        if (played := self._overridden()) is not None:
            return played
        assert int(form["taxScopeAmount"]) + int(form["taxExScopeAmount"]) == int(form["cancelAmount"])
        amount = int(form["cancelAmount"])
        if not self.rest:
            return Played(200, {"code": "AlreadyCanceled", "message": ""})
        if amount > self.rest:
            return Played(200, {"code": "OverRemainAmount", "message": ""})
        if form["doCompareRest"] == "1" and int(form["expectedRestAmount"]) != self.rest - amount:
            return Played(200, {"code": "RestAmountDiff", "message": ""})
        self.cancels[self.key(asked)] = amount
        return self._moved(self.key(asked), Played(200, {"code": "Success", "body": {}}))


class FakeKakaoPay(Provider):
    """open-api.kakaopay.com: no idempotency keys."""

    name = "kakaopay"
    checkout = "T1"
    unlisted = Played(400, {"error_code": -9999, "error_message": "?"})
    refusals = tuple(
        Played(400, {"error_code": code, "error_message": "안 됩니다"})
        for code in (-701, -704, -706, -707, -708, -721, -723)
    )
    in_doubt = (
        Played(500, {"error_code": -701, "error_message": "5xx is never certain"}),
        Played(400, {"error_code": -1, "error_message": "internal"}),
    )
    repeats_by_key = False

    def gateway(self, url: str) -> Gateway:
        line = Line(url, KakaoPay.headers(SECRET), secrets=(SECRET,), timeout_s=2)
        return KakaoPay(line, Links("https://shop.example"), "TC0ONETIME")

    def play(self, asked: Asked) -> Played:
        assert asked.headers["authorization"] == f"SECRET_KEY {SECRET}"
        self.secret_seen = True
        body = asked.json
        assert body["cid"] == "TC0ONETIME"
        match asked.path.rpartition("/")[2]:
            case "ready":
                assert body["approval_url"].startswith(BACK)
                url = "https://mobile.kakao.example/x"
                return Played(200, {"tid": self.checkout, "next_redirect_mobile_url": url})
            case "approve":
                return self._approve(body)
            case "order" if body["tid"] == self.checkout:
                return Played(200, self._order())
            case "cancel":
                return self._cancel(body)
        return Played(400, {"error_code": -721, "error_message": "no such tid"})

    def _approve(self, body: dict[str, Any]) -> Played:
        if (played := self._overridden()) is not None:
            return played
        if self.charged:
            return Played(400, {"error_code": -702, "error_message": "already approved"})
        if body["partner_order_id"] != self.order:
            return Played(400, {"error_code": -706, "error_message": "another order"})
        assert body["pg_token"] == self.ref
        self.charged, self.charges = self.amount, self.charges + 1
        return self._moved("", Played(200, self._order()))

    def _order(self) -> dict[str, Any]:
        status = "AUTH_PASSWORD"
        if self.charged:
            done = self.rest == self.charged
            status = "SUCCESS_PAYMENT" if done else "PART_CANCEL_PAYMENT" if self.rest else "CANCEL_PAYMENT"
        return {
            "tid": self.checkout,
            "status": status,
            "partner_order_id": self.order,
            "amount": {"total": self.charged or self.amount, "tax_free": self.tax_free},
            "cancel_available_amount": {"total": self.rest},
        }

    def _cancel(self, body: dict[str, Any]) -> Played:
        if (played := self._overridden()) is not None:
            return played
        amount = body["cancel_amount"]
        if amount > self.rest or body["cancel_available_amount"] != self.rest:
            return Played(400, {"error_code": -710, "error_message": "too much"})
        self.cancels[str(len(self.cancels))] = amount
        return self._moved("", Played(200, self._order()))
