"""Tokens from the command line."""

from __future__ import annotations

import re
from pathlib import Path

from engine import Config
from engine.clock import SystemClock
from engine.errors import ConfigError
from engine.log.backup import LOG
from engine.log.disk import OSDisk
from engine.log.recovery import refuse_moved
from web.messages import Problem
from web.revoked import add_revoked
from web.tokens import load_secret, make_token, read_token

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def make(config: Config, *, role: str, store: str, table: str, sub: str, ttl: str) -> str:
    """Return a token.

    Raises:
        ConfigError: what was given is not enough for the role, or no time.
    """
    if role == "user" and not sub:
        raise ConfigError("role user needs --sub, the user's id")
    return make_token(
        load_secret(config.secret, Path(config.data)),
        role=role,
        sub=sub or role,
        store=store,
        table=table,
        ttl_s=read_time(ttl),
        now_ms=SystemClock().now_ms(),
    )


def read_time(text: str) -> int:
    """Return the seconds of `90s`, `30m`, `12h` or `400d`.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise ConfigError(f"{text} is no time: write 90s, 30m, 12h or 400d")
    return int(match[1]) * _UNITS_S[match[2]]


def revoke(config: Config, token: str) -> None:
    """Put a token on the list of those that count no more; a running server follows it, and with a shared log
    every node does.

    Raises:
        ConfigError: this is no token of ours.
        LogAway, LogFailed: the shared log does not take it: it still counts.
        LogMoved: the shop of this folder is elsewhere, where the token would still count.
    """
    folder = Path(config.data)
    try:
        identity = read_token(token, load_secret(config.secret, folder))
    except Problem as error:
        raise ConfigError(error.detail) from None
    assert identity.expires_ms is not None
    if config.log_url:
        from engine import cluster_redis  # here, as redis-py takes its time to load

        cluster_redis.revoke(config.log_url, identity.token_id, identity.expires_ms)
    else:
        if (folder / LOG).is_dir():  # a node of several has none
            refuse_moved(OSDisk(), str(folder / LOG))
        add_revoked(folder / "revoked", identity.token_id, identity.expires_ms, SystemClock().now_ms())
    print(f"revoked {identity.by} ({identity.token_id})")
