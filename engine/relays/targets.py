"""Where webhooks go, read from the settings and checked before anything is sent.

    webhook_url    = "https://pos.example/hooks https://crm.example/onda"
    webhook_secret = "whsec_… whsec_…"        # one for each URL; NEW,OLD signs with both while one is changed

A target's reaction is named by its place in the list (`webhook`, `webhook-2` …), so that a corrected URL goes
on where the wrong one got stuck.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from engine import codec
from engine.config import Config
from engine.errors import ConfigError
from engine.relays.names import outside_name

DEFAULT_TYPES = frozenset(
    {
        "OrderPlaced",
        "OrderReady",
        "OrderServed",
        "OrderRejected",
        "OrderCancelled",
        "OrderExpired",
        "OrderRefunded",
        "PaymentApproved",
        "PaymentSentToReview",
        "RefundCompleted",
        "RefundSentToReview",
        "BillSettled",
        "SoldOutSet",
        "CouponIssued",
        "CampaignOpened",
        "CampaignClosed",
    }
)
"""What is sent when nothing is said: what the world outside may have to act on."""

SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
"""How long a key may be, in bytes (Standard Webhooks)."""


class Target(NamedTuple):
    """One receiver. `host` is all of its address that may be shown: a path or query can be a secret too."""

    name: str
    url: str
    host: str
    keys: tuple[bytes, ...]


def read_targets(config: Config) -> list[Target]:
    """Return the receivers of the settings, none when there is no URL.

    Raises:
        ConfigError: a URL or secret that cannot be used, or not as many secrets as URLs.
    """
    urls, secrets = config.webhook_url.split(), config.webhook_secret.split()
    if len(urls) != len(secrets):
        raise ConfigError(f"webhook_secret needs one secret for each URL: {len(urls)}, not {len(secrets)}")
    if len(set(urls)) != len(urls):
        raise ConfigError("webhook_url names a receiver twice")
    targets = []
    for place, (url, secret) in enumerate(zip(urls, secrets, strict=True), 1):
        name = "webhook" if place == 1 else f"webhook-{place}"
        host = _check_url(url, plain=config.webhook_plain_http)
        targets.append(Target(name, url, host, tuple(_read_key(text) for text in secret.split(","))))
    return targets


def read_types(config: Config) -> frozenset[str]:
    """Return the types of events to send; the setting may use their names inside or outside.

    Raises:
        ConfigError: no event has such a name.
    """
    wanted = [name.strip() for name in config.webhook_types.split(",") if name.strip()]
    if not wanted:
        return DEFAULT_TYPES
    known = {name for kind in ("store", "table", "user") for name in codec.events(kind)}
    by_name = {outside_name(name): name for name in known} | {name: name for name in known}
    for name in wanted:
        if name not in by_name:
            raise ConfigError(f"webhook_types: there is no event {name}")
    return frozenset(by_name[name] for name in wanted)


def _check_url(url: str, *, plain: bool) -> str:
    """Return the host (and port) of a URL that may be used."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"webhook_url: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ConfigError("webhook_url must be like https://receiver.example/path")
    if parts.username is not None or parts.fragment:
        raise ConfigError(f"webhook_url for {host}: no user, password or fragment; the signature proves us")
    if parts.scheme == "http" and not plain and not _is_loopback(parts):
        raise ConfigError(f"webhook_url for {host}: without TLS only with webhook_plain_http")
    return host if port is None else f"{host}:{port}"


def _is_loopback(parts: SplitResult) -> bool:
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _read_key(text: str) -> bytes:
    try:
        if not text.startswith(SECRET_PREFIX):
            raise ValueError
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        if len(key) not in SECRET_BYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        raise ConfigError(
            f"webhook_secret must be {SECRET_PREFIX} and 24 to 64 random bytes in base64: "
            f"echo {SECRET_PREFIX}$(openssl rand -base64 32)"
        ) from None
    return key
