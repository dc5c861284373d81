"""The paths of the plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine import codec
from web.messages import Request, Response, json_response
from web.plugged import Route, read_object
from web.site import Site
from web.user_events import user_of

LEDGER = "ledger:main"


def routes(site: Site) -> Sequence[Route]:
    """Return the plugin's routes."""
    return [
        Route("POST", "/accounts", create_account),
        Route("GET", "/accounts", list_accounts),
        Route("GET", "/snapshots", list_snapshots),
    ]


async def create_account(site: Site, request: Request) -> Response:
    """Open an account; what follows from it is done later."""
    user = user_of(site, site.gate.identify(request), request)
    body = msgspec.json.encode(read_object(request) | {"user": user})
    command = codec.decode_command("ledger", "create-account", body)
    key = request.headers.get("idempotency-key")
    answer = await site.node.ask(LEDGER, command, by=f"user:{user}", id=key)
    return json_response(bytes(answer.result), 201)


async def list_accounts(site: Site, request: Request) -> Response:
    """Show all accounts."""
    return await _show(site, request, lambda state: list(state.accounts.values()))


async def list_snapshots(site: Site, request: Request) -> Response:
    """Show the snapshots that are kept, oldest first."""
    return await _show(site, request, lambda state: state.snapshots)


async def _show(site: Site, request: Request, pick: Any) -> Response:
    user_of(site, site.gate.identify(request), request)
    body = await site.node.examine(LEDGER, lambda state, _: msgspec.json.encode(pick(state)))
    return json_response(body, headers=[("cache-control", "no-store")])
