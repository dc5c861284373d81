"""What every handler needs, in one value: the node, the settings, and who may come in."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from engine import MEMORY, Config, Node
from engine.plugins import is_plugged, load_plugins, plugin_routes
from engine.records import ID, stream_name
from web.auth import Gate
from web.forwarded import Proxies
from web.messages import Problem
from web.money import Money
from web.plugged import Routes
from web.revoked import Revoked
from web.rights import may_read
from web.throttle import Throttle
from web.tokens import Identity, load_secret

KINDS = {"stores": ("store", 1), "tables": ("table", 2), "users": ("user", 1)}
"""First part of a feed's path -> kind of stream, and how many ids its name has."""


FEEDS_KNOWN = 8192
"""Feeds whose path is remembered as read: the same ones are asked for again and again."""


class Told(Protocol):
    """What watches over one open stream."""

    def tell(self) -> None:
        """Have the client told whether commands are taken."""


class Site:
    """One running server. `streams` counts the open ones by transport, `watchers` those of progress and
    `listeners` those of events by user, `ends` those that ended by reason. `endings` has one for
    each that is open, and `writable` is what they were told: whether commands are taken.
    """

    def __init__(self, node: Node, config: Config, gate: Gate) -> None:
        self.node = node
        self.config = config
        self.gate = gate
        self.money = Money(node)
        self.routes = Routes()
        self.proxies = Proxies(config.trusted_proxies)
        self.streams: Counter[str] = Counter()
        self.watchers: Counter[str] = Counter()
        self.listeners: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.responses: Counter[int] = Counter()
        self.hints = Throttle(node.clock.now_ms)
        self.endings: dict[Told, None] = {}
        self.writable = True
        self.connections = 0
        self.turned_away = 0


class FeedPath(NamedTuple):
    """A feed as it stands in a path: `tables/s1/3`, whose stream is `table:s1/3`."""

    kind: str
    ids: tuple[str, ...]
    stream: str

    @property
    def path(self) -> str:
        return f"{self.kind}s/{'/'.join(self.ids)}"


def make_site(node: Node, config: Config) -> Site:
    """Return the site of a node, with the secret and the revoked tokens of its folder.

    Raises:
        ConfigError: the secret cannot be read or made, or routes of plugins make no sense.
    """
    if config.data == MEMORY:
        secret, revoked = config.secret or secrets.token_urlsafe(48), Revoked(None, node.cluster)
    else:
        folder = Path(config.data)
        secret, revoked = load_secret(config.secret, folder), Revoked(folder / "revoked", node.cluster)
    site = Site(node, config, Gate(secret, revoked, node.clock, open_=config.open))
    site.routes = Routes(plugin_routes(load_plugins(config), site))
    return site


def parse_feed(parts: Sequence[str]) -> FeedPath | None:
    """Return the feed that parts of a path name, `None` when they name none."""
    first = parts[0] if parts else ""
    kind, count = KINDS.get(first, ("", 0))
    if not kind and is_plugged(first.removesuffix("s")):
        kind, count = first.removesuffix("s"), 1
    if not kind or len(parts) != count + 1:
        return None
    return make_feed(kind, tuple(parts[1:]))


@lru_cache(FEEDS_KNOWN)
def make_feed(kind: str, ids: tuple[str, ...]) -> FeedPath | None:
    """Return the feed of a kind, `None` when one of the ids is none."""
    if not all(ID.match(part) for part in ids):
        return None
    return FeedPath(kind, ids, stream_name(kind, *ids))


async def check_feed(site: Site, who: Identity, feed: FeedPath) -> None:
    """Refuse a feed that the identity may not read, or whose store nobody made.

    Raises:
        Problem: `forbidden` or `unknown_store`.
    """
    if not may_read(who, feed.kind, feed.ids):
        raise Problem("forbidden", f"the token is not for {feed.path}")
    if feed.kind in ("store", "table") and not await site.node.exists(f"store:{feed.ids[0]}"):
        raise Problem("unknown_store", f"nobody has made the store {feed.ids[0]}")
