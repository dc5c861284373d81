"""Every setting of Onda in one frozen struct; the only reader of the environment and the settings file."""

from __future__ import annotations

import os
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from engine.errors import ConfigError

PREFIX = "ONDA_"
HIDDEN = "[hidden]"
URLS = frozenset({"db", "log_url", "redis_url"})
"""Settings that may have a password inside."""

_AT_LEAST_ONE = (
    "mailbox_max",
    "batch_max",
    "ring_frames_max",
    "ring_bytes_max",
    "restarts_max",
    "reaction_backoff_ms",
    "reaction_backoff_ms_max",
)


_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_WITH_KEYS = ("naverpay_url", "toss_url", "kakaopay_url")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, with their units in their names. Each is documented in `docs/settings.md`."""

    # Where and who
    data: str = "data"
    """Folder of the log and the checkpoint; made when it is missing."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0 picks a free one."""
    node_id: str = "onda-1"
    secret: str = ""
    """Key of the tokens (HS256); empty: read from `DATA/secret`, which is made on the first start."""
    open: bool = False
    """No tokens at all; loopback only."""
    demo: bool = True
    """Make the demo shop on the first start."""
    log_json: bool = False
    access_log: bool = False

    # Actors
    mailbox_max: int = 1024
    """Commands that may wait for one actor; one more is answered 503 `overloaded`."""
    batch_max: int = 256
    """Commands that one actor decides before one append."""
    idle_s: float = 300.0
    """An actor that nobody used for so long is written out and dropped from memory; where another node is on
    duty for it after 30 s at most.
    """
    idempotency_s: float = 86_400.0
    """How long the answer to a command with a key is kept, at least."""
    restarts_max: int = 5
    """Crashes of one actor within `restarts_window_s` before it is held down for that long."""
    restarts_window_s: float = 60.0

    # Feeds
    ring_frames_max: int = 4096
    """Frames that one feed keeps for those who come back."""
    ring_bytes_max: int = 4 * 1024 * 1024
    feeds_bytes_max: int = 64 * 1024 * 1024
    """Memory for the rings of feeds that nobody follows at the moment."""

    # Log and checkpoint
    log_url: str = ""
    """A Redis that several nodes share as their log: `redis://host:6379`, `rediss://user:password@host`,
    `redis+sentinel://…`; empty: the write-ahead log in `data`, and this is the only node.
    """
    redis_partitions: int = 16
    """Into how many partitions the log in Redis is split; fixed by the first node that ever starts on it."""
    segment_bytes: int = 16 * 1024 * 1024
    pad_bytes: int = 0
    """Pad each batch to this, e.g. 4096 where a torn sector may hurt what was written before; 0: no
    padding.
    """
    reserve_bytes: int = 64 * 1024 * 1024
    """Free space under which the node goes read-only; 0: only when the disk is full."""
    checkpoint_s: float = 10.0
    checkpoint_bytes: int = 32 * 1024 * 1024
    """Log bytes after which a checkpoint is taken before its time."""
    refill_bytes: int = 8 * 1024 * 1024
    """Log behind the checkpoint that is kept so that a recent cursor still resumes by events after a
    restart.
    """

    # Reactions
    reaction_retries: int = 3
    """Tries after the first one; then the record is parked."""
    reaction_backoff_ms: int = 100
    reaction_backoff_ms_max: int = 30_000
    timer_tick_s: float = 1.0
    """How late a deadline may be when the wall clock jumps."""
    shutdown_s: float = 4.0
    """Time for mailboxes to empty at the end."""

    # Topics
    topic_partitions: int = 3
    """Partitions of a topic that is made from now on; those of a topic that is there stay as they are."""

    # Plugins and other nodes
    plugins: str = ""
    """Python modules that extend the server, with commas between them."""
    redis_url: str = ""
    """Redis whose channel `user-events` is shared with other nodes and programs: `redis://host:6379`,
    `rediss://user:password@host`; empty: none.
    """
    redis_patience_s: float = 3_600.0
    """How long a user's event waits for a Redis that does not answer; then it is not published any more."""

    # History
    db: str = ""
    """Where the history is: `postgresql://user:password@host/database`, `mysql://…`, `sqlite:///file`; empty:
    `DATA/history.db`, or nowhere with `log_url`; `none`: nowhere.
    """
    history_days: int = 400
    """Events in the history that are older are deleted; 0: never."""
    timezone: str = "Asia/Seoul"
    """Where the shops are, for reports (IANA)."""
    day_starts_at: str = "00:00"
    """When a day of business begins there, `HH:MM`."""

    # Webhooks
    webhook_url: str = ""
    """Where to send webhooks; several with spaces between them; empty: nowhere."""
    webhook_secret: str = ""
    """`whsec_…`, one for each URL in the same order; `NEW,OLD` signs with both while one is changed."""
    webhook_types: str = ""
    """Types of events to send, with commas between them; empty: those in `engine.relays.targets`."""
    webhook_timeout_s: float = 15.0
    """How long a receiver may take to answer."""
    webhook_retries: int = 3
    """Tries after the first one when a receiver refuses a record; then it is parked."""
    webhook_patience_s: float = 259_200.0
    """How long a record waits for a receiver that does not answer; then it counts as refused; 0: for ever."""
    webhook_plain_http: bool = False
    """Also send without TLS to other machines."""

    # Payments
    gateway_timeout_s: float = 60.0
    """How long one call to a payment gateway may take; then its outcome is unknown."""
    public_url: str = ""
    """Where guests and gateways reach this server; empty: the address that it listens on."""
    sandbox: Literal["auto", "on", "off"] = "auto"
    """Payments that move no money; `auto`: on for a demo without a real gateway."""
    sandbox_url: str = ""
    """A sandbox in another process (`onda sandbox-pg`); empty: `onda serve` runs one of its own."""
    sandbox_key: str = ""
    naverpay_client_id: str = ""
    """Empty: no NaverPay."""
    naverpay_client_secret: str = ""
    naverpay_chain_id: str = ""
    naverpay_url: str = ""
    toss_secret_key: str = ""
    """Empty: no Toss Payments."""
    toss_url: str = ""
    kakaopay_secret_key: str = ""
    """Empty: no KakaoPay."""
    kakaopay_cid: str = ""
    kakaopay_url: str = ""

    # Web
    ping_s: float = 15.0
    rotate_s: float = 60.0
    """A stream closes by itself after this, ± 10 %, with a `bye`; 0: never."""
    send_timeout_s: float = 10.0
    """A client that takes nothing for so long is cut."""
    send_buffer_bytes: int = 0
    """The kernel's send buffer for each connection; 0: as the system has it."""
    idle_timeout_s: float = 65.0
    """A kept-alive connection without a request is closed after this."""
    head_timeout_s: float = 10.0
    """The first line and headers of a request, once begun, must be complete after this."""
    body_timeout_s: float = 15.0
    """The body of a request must be there after this."""
    connections_max: int = 10_000
    connections_per_address_max: int = 10_000
    trusted_proxies: str = ""
    """Addresses or networks, with commas between them, whose `X-Forwarded-For` and `-Host` count."""
    tls_cert: str = ""
    """File with the certificate and its chain (PEM); with it the server speaks TLS, and all of it is
    Hypercorn's.
    """
    tls_key: str = ""
    """File with the certificate's private key; empty: it is in `tls_cert`."""
    http2: bool = False
    """Offer HTTP/2 to clients that come with TLS."""
    edge: bool = True
    """Answer the API without Hypercorn and Quart in between; they answer the same, only slower."""
    outcome_wait_s: float = 2.0
    """How long the answer to `submit-cart` waits for the shop's word before it is 202."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
                raise ConfigError(f"{name} must not be negative")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in ("checkpoint_s", "timer_tick_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be more than 0: it is how long to sleep")
        if not 1 <= self.topic_partitions <= 64:
            raise ConfigError("topic_partitions must be 1 to 64")
        if not 1 <= self.redis_partitions <= 1024:
            raise ConfigError("redis_partitions must be 1 to 1024")
        if self.log_url and not (self.secret or self.open):
            raise ConfigError("log_url needs secret: a token of one node has to be good at the others")
        self._check_payments()
        if not self.webhook_timeout_s > 0:
            raise ConfigError("webhook_timeout_s must be more than 0: it is how long to wait for an answer")
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.day_starts_at):
            raise ConfigError("day_starts_at must be a time of day, as 05:00")
        try:
            zoneinfo.ZoneInfo(self.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(f"timezone: there is no {self.timezone!r}; it must be as Asia/Seoul") from None
        if (self.tls_key or self.http2) and not self.tls_cert:
            raise ConfigError("tls_key and http2 need tls_cert")
        if self.port > 65_535:
            raise ConfigError("port must be at most 65535")
        if self.idempotency_s < 86_400:
            raise ConfigError("idempotency_s must be at least 86400: clients rely on 24 h")
        if self.open and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError("open serves without tokens, so host must be a loopback address")
        if self.secret and len(self.secret) < 32:
            raise ConfigError("secret must have at least 32 characters")

    def _check_payments(self) -> None:
        if not self.gateway_timeout_s > 0:
            raise ConfigError("gateway_timeout_s must be more than 0: it is how long a call may take")
        for name in ("public_url", "sandbox_url", "naverpay_url", "toss_url", "kakaopay_url"):
            url = getattr(self, name)
            if url and not url.startswith(("https://", "http://")):
                raise ConfigError(f"{name} must begin with https:// or http://")
            if name in _WITH_KEYS and url.startswith("http://") and urlsplit(url).hostname not in _LOOPBACK:
                raise ConfigError(f"{name} must begin with https://: our keys go there")
        if self.naverpay_client_id and not self.naverpay_client_secret:
            raise ConfigError("naverpay_client_id needs naverpay_client_secret")
        if self.kakaopay_secret_key and not self.kakaopay_cid:
            raise ConfigError("kakaopay_secret_key needs kakaopay_cid")

    def __repr__(self) -> str:
        shown = ((name, getattr(self, name)) for name in self.__struct_fields__ if name not in URLS)
        inside = (f"{name}={HIDDEN if value and is_secret(name) else value!r}" for name, value in shown)
        return f"Config({', '.join(inside)})"


def is_secret(name: str) -> bool:
    """Return whether nobody may see the value of a setting of this name: any `…secret…` or `…key…`."""
    return not {"secret", "key", "password", "token"}.isdisjoint(name.split("_"))


def hide_password(url: str) -> str:
    """Return a URL without the passwords in it."""
    url = re.sub(r"(://[^:@/]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*pass[^=&]*)=[^&]*", r"\1=***", url)


def load(
    options: Mapping[str, Any] | None = None,
    file: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Config, dict[str, str]]:
    """Return the settings and where each came from: option over environment over file over default.

    Args:
        options: settings from the command line; `None` values count as not given.
        file: a TOML file with settings at its top level.
        environ: the environment; the process's own when not given.

    Raises:
        ConfigError: an unknown setting, a value of the wrong type, or values that do not go together.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Config.__struct_fields__, "default")
    if file is not None:
        for name, value in _read_file(file).items():
            values[name] = value
            sources[name] = f"file {file}"
    for name in Config.__struct_fields__:
        text = environ.get(PREFIX + name.upper())
        if text is not None:
            values[name] = text
            sources[name] = f"environment {PREFIX}{name.upper()}"
    for name, value in (options or {}).items():
        if value is not None:
            values[name] = value
            sources[name] = "option"
    try:
        return msgspec.convert(values, Config, strict=False), sources
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from error


def _read_file(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            return tomllib.load(stream)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
