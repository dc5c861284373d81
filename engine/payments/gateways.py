"""The gateways that the settings name. A gateway without its keys is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import trio

from engine.config import Config
from engine.payments import kakaopay, naverpay, toss
from engine.payments.contract import Gateway, Links
from engine.payments.http import Line
from engine.payments.kakaopay import KakaoPay
from engine.payments.naverpay import NaverPay
from engine.payments.sandbox import SandboxGateway
from engine.payments.toss import Toss


class Gateways:
    """Gateways by payment method, and where they find us."""

    def __init__(self, adapters: Mapping[str, Gateway] | None = None, links: Links | None = None) -> None:
        self.links = links or Links()
        self._adapters = dict(adapters or {})

    @property
    def names(self) -> list[str]:
        """The methods that a guest can choose."""
        return list(self._adapters)

    def find(self, method: str) -> Gateway | None:
        """Return the gateway of a payment method, `None` when it is not configured."""
        return self._adapters.get(method)

    async def aclose(self) -> None:
        """Close all connections."""
        with trio.CancelScope(shield=True):
            for adapter in self._adapters.values():
                await adapter.aclose()


def has_real_gateway(config: Config) -> bool:
    """Return whether a gateway that moves money is configured."""
    return bool(config.naverpay_client_id or config.toss_secret_key or config.kakaopay_secret_key)


def wants_sandbox(config: Config) -> bool:
    """Return whether payments may go through the sandbox: `auto` is on for a demo without a real gateway."""
    if config.sandbox == "auto":
        return config.demo and not has_real_gateway(config)
    return config.sandbox == "on"


@asynccontextmanager
async def open_gateways(
    config: Config, *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Gateways]:
    """Open the gateways of the settings until the block ends.

    Args:
        transport: instead of the network, for all of them; tests hand in their own.
    """
    links = Links(config.public_url or _own_url(config))
    adapters: dict[str, Gateway] = {}
    for name, make in _MAKERS.items():
        adapter = make(config, links, transport)
        if adapter is not None:
            adapters[name] = adapter
    gateways = Gateways(adapters, links)
    try:
        yield gateways
    finally:
        await gateways.aclose()


def _own_url(config: Config) -> str:
    """Return where this server is found from this machine; "" while it has yet to pick a port."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{config.port}" if config.port else ""


_Transport = httpx.AsyncBaseTransport | None


def _sandbox(config: Config, links: Links, transport: _Transport) -> Gateway | None:
    if not (wants_sandbox(config) and config.sandbox_url):
        return None
    key = config.sandbox_key
    line = Line(
        config.sandbox_url,
        SandboxGateway.headers(key),
        secrets=(key,),
        timeout_s=config.gateway_timeout_s,
        transport=transport,
    )
    return SandboxGateway(line, links)


def _naverpay(config: Config, links: Links, transport: _Transport) -> Gateway | None:
    if not config.naverpay_client_id:
        return None
    secret = config.naverpay_client_secret
    line = Line(
        config.naverpay_url or naverpay.URL,
        NaverPay.headers(config.naverpay_client_id, secret, config.naverpay_chain_id),
        secrets=(secret,),
        timeout_s=config.gateway_timeout_s,
        transport=transport,
    )
    return NaverPay(line, links)


def _toss(config: Config, links: Links, transport: _Transport) -> Gateway | None:
    key = config.toss_secret_key
    if not key:
        return None
    line = Line(
        config.toss_url or toss.URL,
        Toss.headers(key),
        secrets=(key, toss.encoded(key)),
        timeout_s=config.gateway_timeout_s,
        transport=transport,
    )
    return Toss(line, links)


def _kakaopay(config: Config, links: Links, transport: _Transport) -> Gateway | None:
    key = config.kakaopay_secret_key
    if not key:
        return None
    line = Line(
        config.kakaopay_url or kakaopay.URL,
        KakaoPay.headers(key),
        secrets=(key,),
        timeout_s=config.gateway_timeout_s,
        transport=transport,
    )
    return KakaoPay(line, links, config.kakaopay_cid)


_MAKERS: dict[str, Callable[[Config, Links, _Transport], Gateway | None]] = {
    "sandbox": _sandbox,
    "naverpay": _naverpay,
    "toss": _toss,
    "kakaopay": _kakaopay,
}
