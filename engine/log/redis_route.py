"""Where partitions are, and the lines to their servers.

A route knows which server has which partition: the one of the URL, the primary that a Sentinel names, or the
owner of the partition's slot in a cluster. It asks again after `forget`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.crc import key_slot
from redis.retry import Retry

from engine.errors import ConfigError
from engine.log.redis_lines import Address, Away, Line, connect
from engine.log.redis_scripts import Keys

ANSWER_S = 5.0
"""How long one answer may take before the connection counts as lost."""
CONNECT_S = 2.0


class Route:
    """Which server has which partition. May be used from several threads.

    Args:
        url: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/service[/db]` and
            `redis+cluster://host:port,host:port`; both also as `rediss+…`.
        partitions: how many there are.

    Raises:
        ConfigError: the URL makes no sense.
    """

    def __init__(self, url: str, partitions: int, client_name: str = "onda") -> None:
        self.partitions = partitions
        self.cluster = False
        self.options: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._found: list[Address] | None = None
        try:
            self._read_url(url)
        except (ValueError, IndexError, TypeError) as error:
            raise ConfigError(f"redis_url: {error}") from None
        fixed = {"retry": Retry(NoBackoff(), 0), "health_check_interval": 0, "protocol": 2}
        times = {"socket_timeout": ANSWER_S, "socket_connect_timeout": CONNECT_S, "socket_keepalive": True}
        self.options = {**times, **self.options, **fixed, "client_name": client_name}

    def _read_url(self, url: str) -> None:
        parts = urlsplit(url)
        scheme, plus, kind = parts.scheme.partition("+")
        if scheme not in ("redis", "rediss") or (plus and kind not in ("sentinel", "cluster")):
            raise ValueError("must begin with redis://, rediss://, redis+sentinel:// or redis+cluster://")
        user, at, hosts = parts.netloc.rpartition("@")
        path = [part for part in parts.path.split("/") if part]
        service = path.pop(0) if kind == "sentinel" else ""
        self._seeds = [_address(host, 26379 if kind == "sentinel" else 6379) for host in hosts.split(",")]
        if not plus and len(self._seeds) != 1:
            raise ValueError("one host only")
        query = parse_qs(parts.query)
        rest = "&".join(f"{k}={v[0]}" for k, v in query.items() if not k.startswith("sentinel_"))
        options: dict[str, Any] = parse_url(
            f"{scheme}://{user}{at}{hosts.split(',')[0]}/{'/'.join(path)}?{rest}"
        )  # type: ignore[no-untyped-call]
        options.pop("host", None)
        options.pop("port", None)
        self.options = options
        self._find: Callable[[], list[Address]] = lambda: self._seeds * self.partitions
        if kind == "cluster":
            self.cluster = True
            self._find = self._find_owners
        elif kind == "sentinel":
            names = {"sentinel_username": "username", "sentinel_password": "password"}
            own = {names[name]: query[name][0] for name in names if name in query}
            secure = {k: v for k, v in options.items() if k.startswith(("ssl_", "connection_class"))}
            self._sentinel = (service, {**secure, **own})
            self._find = self._find_primary

    @property
    def publish(self) -> str:
        """The command that publishes: in a cluster only within the shard."""
        return "SPUBLISH" if self.cluster else "PUBLISH"

    def addresses(self) -> list[Address]:
        """Return the server of each partition.

        Raises:
            Away: nobody says.
        """
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found

    def forget(self) -> None:
        """Ask anew next time: something was not where it should be."""
        with self._lock:
            self._found = None

    def line(self, address: Address) -> Line:
        """Open a line; see there."""
        try:
            return Line(address, self.options)
        except Away:
            self.forget()
            raise

    def _ask(self, options: dict[str, Any], command: Sequence[Any]) -> Any:
        """Return the first good answer of a seed."""
        trouble = "no host"
        for seed in self._seeds:
            line = None
            try:
                line = connect(seed, options)
                line.send_packed_command(line.pack_command(*command), check_health=False)
                if answer := line.read_response():
                    return answer
                trouble = f"{seed[0]}:{seed[1]} does not know"
            except (Away, redis.RedisError, OSError) as error:
                trouble = str(error)
            finally:
                if line is not None:
                    line.disconnect()
        raise Away(trouble)

    def _find_primary(self) -> list[Address]:
        service, own = self._sentinel
        times = {name: self.options[name] for name in ("socket_timeout", "socket_connect_timeout")}
        options = {**times, **own, "retry": Retry(NoBackoff(), 0), "protocol": 2}
        host, port = self._ask(options, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service))
        return [(host.decode(), int(port))] * self.partitions

    def _find_owners(self) -> list[Address]:
        answer = self._ask(self.options, ("CLUSTER", "SLOTS"))
        owners: list[Address | None] = [None] * self.partitions
        for partition in range(self.partitions):
            slot = key_slot(Keys.of(partition).meta.encode())
            for low, high, primary, *_ in answer:
                if low <= slot <= high:
                    owners[partition] = (primary[0].decode() or self._seeds[0][0], int(primary[1]))
        found = [owner for owner in owners if owner is not None]
        if len(found) < self.partitions:
            raise Away("the cluster does not serve all slots")
        return found


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or port


class Lines:
    """The lines of one thread at a time, one to each server; each meets its server with `greet` first."""

    def __init__(self, route: Route, greet: Callable[[Line, list[int]], None] | None = None) -> None:
        self.route = route
        self._greet = greet
        self._open: dict[Address, Line] = {}

    def to(self, address: Address) -> Line:
        """Return the line to a server, opening it if need be.

        Raises:
            Away, Cut: there is none; nothing but greetings was sent.
        """
        line = self._open.get(address)
        if line is None:
            line = self.route.line(address)
            if self._greet is not None:
                mine = [p for p, owner in enumerate(self.route.addresses()) if owner == address]
                try:
                    self._greet(line, mine)
                except Exception:
                    line.close()
                    raise
            self._open[address] = line
        return line

    def drop(self, address: Address) -> None:
        """Close the line to a server."""
        line = self._open.pop(address, None)
        if line is not None:
            line.close()

    def close(self) -> None:
        """Close all."""
        for address in list(self._open):
            self.drop(address)
