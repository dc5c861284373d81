"""Who is asking: tokens (JWT, HS256), where they stand in a request, and the secret behind them.

A token is looked for in `Authorization: Bearer`, then, for GETs only, in `?token=`, then in the cookie
`onda_token`. A browser sends a cookie whoever asked it to, so what comes with one (or, with `--open`, with
nothing at all) must not come from another site: POSTs and WebSockets with a foreign `Origin` are refused, and
`--open` answers only requests for a loopback host, so that no site can reach it under a name of its own.
"""

from __future__ import annotations

import os
import secrets
import uuid
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import jwt

from engine.clock import Clock
from engine.errors import ConfigError
from engine.records import ID
from web.messages import Problem, Request
from web.revoked import Revoked

ROLES = frozenset({"service", "owner", "staff", "table", "user"})
COOKIE = "onda_token"
TOKEN_CHARS_MAX = 4096
KNOWN_MAX = 4096
"""Verified tokens that are remembered, so that each is verified once and not at every request."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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


OPEN = Identity("owner", "open", "*", "", "", None)
"""Everybody, when the server runs with `--open`: owner of every store."""


class Gate:
    """Turns requests into identities."""

    def __init__(self, secret: str, revoked: Revoked, clock: Clock, *, open_: bool = False) -> None:
        self.revoked = revoked
        self.open = open_
        self.secret = secret
        self._clock = clock
        self._known: dict[str, Identity] = {}

    def identify(self, request: Request) -> Identity:
        """Return who sent the request.

        Raises:
            Problem: `unauthorized`: no token, or a bad, expired or revoked one; `forbidden`: from a foreign
            site.
        """
        token, from_cookie = find_token(request)
        if self.open:
            _check_open(request)
        elif not token:
            raise Problem("unauthorized", "a token is needed", [("www-authenticate", 'Bearer realm="onda"')])
        if from_cookie or self.open:
            _check_origin(request)
        if not token:
            return OPEN
        try:
            return self.verify(token)
        except Problem:
            if self.open:
                return OPEN
            raise

    def verify(self, token: str) -> Identity:
        """Return whose token this is.

        Raises:
            Problem: `unauthorized`, with a detail that says what is wrong with it.
        """
        identity = self._known.get(token)
        if identity is None:
            identity = read_token(token, self.secret)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[token] = identity
        self.check(identity)
        return identity

    def check(self, identity: Identity) -> None:
        """Refuse an identity whose token has ended since it was verified.

        Raises:
            Problem: `unauthorized`.
        """
        if identity.expires_ms is not None and identity.expires_ms <= self._clock.now_ms():
            raise _bad("the token has expired")
        if identity.token_id in self.revoked:
            raise _bad("the token was revoked")


def find_token(request: Request) -> tuple[str, bool]:
    """Return the request's token, or "", and whether it came in the cookie.

    Raises:
        Problem: `unauthorized`: an `Authorization` header of another kind than Bearer.
    """
    header = request.headers.get("authorization")
    if header:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _bad("Authorization must be `Bearer <token>`")
        return token.strip(), False
    if request.method in ("GET", "HEAD"):
        token = request.field("token") or ""
        if token:
            return token, False
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and value:
            return value.strip('"'), True
    return "", False


def read_token(token: str, secret: str) -> Identity:
    """Check a token's signature and claims, but neither its end nor revocation.

    Raises:
        Problem: `unauthorized`.
    """
    if len(token) > TOKEN_CHARS_MAX:
        raise _bad("the token is too long")
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            options={
                "require": ["exp", "role"],
                "verify_exp": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.InvalidTokenError as error:
        raise _bad(f"the token is not valid: {error}") from None
    texts = {name: claims.get(name, "") for name in ("role", "sub", "store", "table")}
    if not all(isinstance(value, str) for value in texts.values()) or not isinstance(
        claims["exp"], int | float
    ):
        raise _bad("the token's claims are not of the right kind")
    role, sub, store, table = texts.values()
    needed = {"table": (store, table), "user": (sub,), "service": (sub,)}.get(role, (sub, store))
    if role not in ROLES or not all(ID.match(value) for value in needed):
        raise _bad("the token's claims name no role, or not what the role needs")
    return Identity(role, sub, store, table, token_id(token, claims.get("jti")), int(claims["exp"] * 1000))


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


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    if not origin or not (request.websocket or request.method not in ("GET", "HEAD")):
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Problem("forbidden", "this came from another site; send the token in `Authorization` instead")


def _check_open(request: Request) -> None:
    host = urlsplit("//" + request.headers.get("host", "")).hostname
    if host not in _LOOPBACK:
        raise Problem("forbidden", "without tokens only requests to a loopback host are answered")


def _bad(detail: str) -> Problem:
    return Problem(
        "unauthorized", detail, [("www-authenticate", 'Bearer realm="onda", error="invalid_token"')]
    )
