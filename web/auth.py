"""Who is asking: where tokens stand in a request, and which requests count without one.

A token is looked for in `Authorization: Bearer`, then, for GETs only, in `?token=`, then in the cookie
`onda_token`. A browser sends a cookie whoever asked it to, so what comes with one (or, with `--open`, with
nothing at all) must not come from another site: POSTs and WebSockets with a foreign `Origin` are refused, and
`--open` answers only requests for a loopback host, so that no site can reach it under a name of its own.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from engine.clock import Clock
from web.messages import Problem, Request
from web.revoked import Revoked
from web.tokens import Identity, bad_token, read_token

COOKIE = "onda_token"
KNOWN_MAX = 4096
"""Verified tokens that are remembered, so that each is verified once and not at every request."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

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
            raise bad_token("the token has expired")
        if identity.token_id in self.revoked:
            raise bad_token("the token was revoked")


def find_token(request: Request) -> tuple[str, bool]:
    """Return the request's token, or "", and whether it came in the cookie.

    Raises:
        Problem: `unauthorized`: an `Authorization` header of another kind than Bearer.
    """
    header = request.headers.get("authorization")
    if header:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise bad_token("Authorization must be `Bearer <token>`")
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
