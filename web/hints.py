"""Webhooks of payment gateways: hints that there may be news, after which the gateway is asked.

    POST /v1/payments/{provider}/webhook                     an order id in the body names store and payment
    POST /v1/payments/{provider}/webhook/{store}             for stores whose names no order id can carry
    POST /v1/payments/{provider}/webhook/{store}/{payment}   the address that we hand out ourselves

Nobody proves anything here, so nothing is believed: not the status in the body, and not that the payment
exists. Whatever is not known is answered with 200 like everything else. What a stranger can cause is one
question to the gateway per payment now and then, bounded for each payment and over all.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from engine import codec
from engine.errors import OndaError, Rejected
from engine.payments.contract import read_order_id
from engine.records import ID
from web.messages import Problem, Request, Response, allow, json_response
from web.site import Site

BODY_BYTES_MAX = 64 * 1024
PROVIDERS = ("sandbox", "naverpay", "toss", "kakaopay")
_ORDER_FIELDS = ("orderId", "merchantPayKey", "partner_order_id", "order")


async def hint(site: Site, request: Request, provider: str, rest: list[str]) -> Response:
    """Answer a gateway's webhook, and ask the gateway about the payment that it names.

    Raises:
        Problem: `not_found`, `method_not_allowed`, `too_large`, `malformed`, `too_many_requests`.
        Unavailable: the shop takes no commands now; the gateway should send it again.
    """
    if provider not in PROVIDERS or len(rest) > 2 or not all(ID.match(part) for part in rest):
        raise Problem("not_found", "there is nothing at this path")
    if done := allow(request, "POST"):
        return done
    if len(request.body) > BODY_BYTES_MAX:
        raise Problem("too_large", f"a webhook's body may have {BODY_BYTES_MAX} bytes")
    if not site.hints.admit():
        raise Problem("too_many_requests", "send it again later", [("retry-after", "10")])
    named = (rest[0], rest[1]) if len(rest) == 2 else _named(request, rest[0] if rest else "")
    if named is not None and await site.node.exists(f"store:{named[0]}") and site.hints.is_new(*named):
        await _ask(site, provider, *named)
    return json_response(b"{}", 200, [("cache-control", "no-store")])


async def _ask(site: Site, provider: str, store: str, payment: str) -> None:
    body = msgspec.json.encode({"payment": payment})
    try:
        command = codec.decode_command("store", "query-payment", body)
        await site.node.ask(f"store:{store}", command, by=f"service:{provider}-webhook")
    except Rejected:
        return  # nothing of that name is known here, or there is nothing to ask
    except OndaError as error:
        if error.code != "malformed":
            raise


def _named(request: Request, store: str) -> tuple[str, str] | None:
    """Return store and payment of the order id in a body, `None` when there is none of ours."""
    for fields in _objects(request):
        for name in _ORDER_FIELDS:
            value = fields.get(name)
            named = read_order_id(value) if isinstance(value, str) else None
            if named is not None:
                found = store or named[0]
                return (found, named[1]) if found else None
    return None


def _objects(request: Request) -> list[dict[str, Any]]:
    """Return the body's fields, and those of its `data`.

    Raises:
        Problem: `malformed`.
    """
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        try:
            return [dict(parse_qsl(request.body.decode("ascii"), max_num_fields=64))]
        except ValueError:
            raise Problem("malformed", "this form cannot be read") from None
    try:
        body = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem("malformed", "send a JSON object or a form") from None
    data = body.get("data")
    return [body, data] if isinstance(data, dict) else [body]
