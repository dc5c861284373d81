"""Tokens (JWT, HS256): what is in one, making and checking them, and the secret behind them."""

from __future__ import annotations

import math
import os
import secrets
import uuid
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import jwt

from engine.errors import ConfigError
from engine.records import ID
from web.messages import Problem

ROLES = frozenset({"service", "owner", "staff", "table", "user"})
TOKEN_CHARS_MAX = 4096

_UNCHECKED: jwt.types.Options = {
    "verify_exp": False,  # checked at every use instead
    "verify_iat": False,  # clocks differ
    "verify_sub": False,
    "verify_jti": False,
}


class Identity(NamedTuple):
    """Who sent a request. `expires_ms` is the end of the token, `None` for never."""

    role: str
    sub: str
    store: str
    table: str
    token_id: str
    expires_ms: int | None

    @property
    def by(self) -> str:
        """What stands in records."""
        return f"table:{self.store}/{self.table}" if self.role == "table" else f"{self.role}:{self.sub}"


def read_token(token: str, secret: str) -> Identity:
    """Check a token's signature and claims, but neither its end nor revocation.

    Raises:
        Problem: `unauthorized`.
    """
    if len(token) > TOKEN_CHARS_MAX:
        raise bad_token("the token is too long")
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={"require": ["exp", "role"], **_UNCHECKED},
        )
    except jwt.InvalidTokenError as error:
        raise bad_token(f"the token is not valid: {error}") from None
    texts = {name: claims.get(name, "") for name in ("role", "sub", "store", "table")}
    if not all(isinstance(value, str) for value in texts.values()) or not _is_time(claims["exp"]):
        raise bad_token("the token's claims are not of the right kind")
    role, sub, store, table = texts.values()
    needed = {"table": (store, table), "user": (sub,), "service": (sub,)}.get(role, (sub, store))
    if role not in ROLES or not all(ID.match(value) for value in needed):
        raise bad_token("the token's claims name no role, or not what the role needs")
    return Identity(role, sub, store, table, token_id(token, claims.get("jti")), int(claims["exp"] * 1000))


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def token_id(token: str, jti: object = None) -> str:
    """Return what a token is revoked by: its `jti`, or a digest of a token that has none."""
    return jti if isinstance(jti, str) and jti else sha256(token.encode()).hexdigest()[:32]


def make_token(
    secret: str, *, role: str, sub: str, store: str = "", table: str = "", ttl_s: float, now_ms: int
) -> str:
    """Return a signed token.

    Raises:
        ConfigError: a role that does not exist, or one that needs more than is given.
    """
    claims: dict[str, object] = {"sub": sub, "role": role, "jti": uuid.uuid4().hex, "iat": now_ms // 1000}
    claims |= {name: value for name, value in (("store", store), ("table", table)) if value}
    claims["exp"] = int(now_ms / 1000 + ttl_s)
    token = jwt.encode(claims, secret, algorithm="HS256")
    try:
        read_token(token, secret)
    except Problem:
        raise ConfigError(
            f"role {role} needs {'a store and a table' if role == 'table' else 'a store'}; "
            "ids are 1-64 characters of A-Z a-z 0-9 _ . -"
        ) from None
    return token


def load_secret(configured: str, data: Path) -> str:
    """Return the key of the tokens: the configured one, else the folder's, made when there is none.

    Raises:
        ConfigError: the file cannot be read or made, or others may read it.
    """
    if configured:
        return configured
    path = data / "secret"
    try:
        data.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            secret = path.read_text().strip()
        else:
            secret = secrets.token_urlsafe(48)
            with os.fdopen(descriptor, "w") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(descriptor)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} may be read by others: chmod 600 it")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if len(secret) < 32:
        raise ConfigError(f"{path} must hold at least 32 characters")
    return secret


def bad_token(detail: str) -> Problem:
    """Return the refusal of a token."""
    return Problem(
        "unauthorized", detail, [("www-authenticate", 'Bearer realm="onda", error="invalid_token"')]
    )
