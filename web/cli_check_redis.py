"""`onda check --redis URL`: what does an acknowledgement survive under the settings of this Redis?

It only asks, and changes nothing. What may lose acknowledged records is refused unless the caller accepts it;
each finding says what would happen.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.log.redis_lines import Away, Cut, Line, read_info, read_pairs
from engine.log.redis_route import Route
from engine.log.redis_scripts import Keys
from web.cli_check import Finding

PINGS = 100
SLOW_MS = 5.0
"""A round trip that takes longer makes every order wait noticeably."""
FULL_SHARE = 0.8

_NO_SCRIPT = "#!lua flags=no-writes\nreturn 1"


class Facts(NamedTuple):
    """What a server says. `settings`: of CONFIG GET, `None` when it does not tell."""

    name: str
    info: Mapping[str, str]
    settings: Mapping[str, str] | None


def check_redis(url: str, *, accept_loss: bool) -> int:
    """Print what was found; returns the exit code: 0, or 1 when something has to be mended first.

    Args:
        url: of the Redis, as for the log.
        accept_loss: let pass what may lose acknowledged records.

    Raises:
        ConfigError: the URL makes no sense.
    """
    worst = 0
    for level, text in _look(url):
        if level == "loss":
            level = "warn" if accept_loss else "bad"
        print(f"{level:4} {text}")
        worst = max(worst, level == "bad")
    return worst


def _look(url: str) -> Iterator[Finding]:
    route = Route(url, 16, "onda-check")
    host = urlsplit(f"//{urlsplit(url).netloc.rpartition('@')[2].split(',')[0]}").hostname
    if not url.startswith("rediss") and host not in ("127.0.0.1", "::1", "localhost"):
        yield "warn", f"{host} is reached without TLS: orders and the password travel in the clear"
    try:
        addresses = sorted(set(route.addresses()))
    except Away as error:
        yield "bad", f"Redis cannot be reached: {error}"
        return
    for address in addresses:
        try:
            with closing(route.line(address)) as line:
                yield from _ask(line, route)
        except (Away, Cut) as error:
            yield "bad", f"Redis cannot be reached, or is no primary: {error}"


def _ask(line: Line, route: Route) -> Iterator[Finding]:
    info, settings, script, meta = line.call(
        [("INFO",), ("CONFIG", "GET", "*"), ("EVAL", _NO_SCRIPT, 0), ("HGETALL", Keys.of(0).meta)]
    )
    name = f"{line.address[0]}:{line.address[1]}"
    if isinstance(info, Exception):
        yield "bad", f"{name}: INFO is refused: {info}"
        return
    told = None if isinstance(settings, Exception) or not settings else read_pairs(settings)
    yield from judge(Facts(name, read_info(info), told))
    if isinstance(script, Exception):
        yield "bad", f"scripts are refused, and every append is one: {script}"
    yield _judge_trips(line)
    if isinstance(meta, Exception) and not route.cluster:
        yield "bad", f"keys of the log cannot be read: {meta}"
    elif meta and not isinstance(meta, Exception):
        known = read_pairs(meta)
        if known["partitions"].isdigit():
            yield "ok", f"a log of {known['partitions']} partitions is there, epoch {known['epoch']}"
        else:
            yield "warn", f"nodes refuse the log that is there: {known['partitions']} (see `onda migrate`)"


def _judge_trips(line: Line) -> Finding:
    times_ms = []
    for _ in range(PINGS):
        began = time.perf_counter()
        line.call([("PING",)])
        times_ms.append((time.perf_counter() - began) * 1000)
    median, most = statistics.median(times_ms), max(times_ms)
    text = f"{PINGS} round trips: median {median:.2f} ms, most {most:.2f}"
    return ("warn", f"{text}: far away, every order waits for it") if median > SLOW_MS else ("ok", text)


def judge(facts: Facts) -> Iterator[Finding]:
    """Say what follows from a server's settings; `loss` is what may lose acknowledged records."""
    info = facts.info
    replicas = int(info.get("connected_slaves", 0))
    yield "ok", f"Redis {info.get('redis_version')} at {facts.name}, a primary with {replicas} replicas"
    if facts.settings is None:
        yield "loss", "CONFIG GET is refused: nobody can say what an acknowledgement survives"
    else:
        yield from _judge_disk(facts.settings)
        yield from _judge_memory(facts.settings, info)
        yield from _judge_replicas(facts.settings, replicas)
    for field, what in (
        ("aof_last_write_status", "the last write of the AOF"),
        ("aof_last_bgrewrite_status", "the last rewrite of the AOF"),
        ("rdb_last_bgsave_status", "the last snapshot"),
    ):
        if info.get(field, "ok") != "ok":
            yield "bad", f"{what} failed: Redis may refuse everything; see its log"


def _judge_disk(settings: Mapping[str, str]) -> Iterator[Finding]:
    save = settings.get("save", "")
    if settings.get("appendonly") != "yes":
        if save:
            lost = f"snapshots only (save {save}): the end of Redis' process loses all since the last one"
        else:
            lost = "persistence is off: the end of Redis' process loses everything"
        yield "loss", f"{lost}; set appendonly yes"
        return
    match settings.get("appendfsync"):
        case "always":
            yield "ok", "appendfsync always: an acknowledgement survives the end of Redis and a power cut"
        case "everysec":
            yield (
                "warn",
                "appendfsync everysec: it survives the end of Redis' process; a power cut loses about the "
                "last second (found and told, but lost)",
            )
        case other:
            yield "loss", f"appendfsync {other}: a power cut loses what the system had not yet written"
    if settings.get("no-appendfsync-on-rewrite") == "yes":
        yield "loss", "no-appendfsync-on-rewrite yes: while the AOF is rewritten nothing is synced"


def _judge_memory(settings: Mapping[str, str], info: Mapping[str, str]) -> Iterator[Finding]:
    policy = settings.get("maxmemory-policy", "noeviction")
    most = int(settings.get("maxmemory", 0))
    used = int(info.get("used_memory", 0))
    if policy.startswith("allkeys"):
        yield "loss", f"maxmemory-policy {policy} evicts records of the log, which ends it; set noeviction"
    elif policy.startswith("volatile"):
        yield (
            "warn",
            f"maxmemory-policy {policy}: keys of the log have no expiry and stay; noeviction says so",
        )
    else:
        yield "ok", "maxmemory-policy noeviction: without memory orders are refused, nothing is evicted"
    if not most:
        yield (
            "warn",
            "maxmemory 0: Redis grows until the system ends it; set a bound that leaves room to fork",
        )
    elif used > FULL_SHARE * most:
        yield "warn", f"{used / 1e6:.0f} of {most / 1e6:.0f} MB are used: orders are refused when it is full"
    else:
        yield "ok", f"{used / 1e6:.0f} of {most / 1e6:.0f} MB are used"


def _judge_replicas(settings: Mapping[str, str], replicas: int) -> Iterator[Finding]:
    wanted = int(settings.get("min-replicas-to-write", 0))
    if not replicas:
        yield "warn", "no replica: the loss of this machine is the loss of everything since the last backup"
    elif not wanted:
        yield (
            "warn",
            f"{replicas} replicas, min-replicas-to-write 0: a failover loses what they had not yet got, "
            "without a bound (found and told, but lost)",
        )
    else:
        lag_s = settings.get("min-replicas-max-lag", "10")
        yield (
            "ok",
            f"at least {wanted} of {replicas} replicas, at most {lag_s} s behind, or orders are refused: a "
            "failover loses little, never provably nothing",
        )
