"""A token that was revoked counts no more on the other side of a move either."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import cluster_redis
from engine.errors import LogAway, LogFailed
from engine.migrating import bring_revoked, from_redis, to_redis, undo_from_redis
from engine.revocations import FOR_EVER
from tests.engine.moved import SIZES, make
from tests.log.redis_site import ALWAYS, client, needs_redis
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = needs_redis
REVOKED = "{onda:0}:revoked"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis", *ALWAYS) as server:
        yield server


async def test_revoked_tokens_go_along(tmp_path: Path, redis: RedisServer) -> None:
    """From the file to Redis, with what was revoked there into the new folder's, and after an undone move."""
    await make(tmp_path / "old", 31, commands=50)
    end_ms = int(time.time() * 1000) + 3_600_000
    (tmp_path / "old" / "revoked").write_text(f"t1 {end_ms}\nended 5\nbare\n")
    to_redis(str(tmp_path / "old"), redis.url, 2)
    with client(redis) as direct:
        assert direct.zrange(REVOKED, 0, -1, withscores=True) == [("t1", end_ms), ("bare", FOR_EVER)]
        assert direct.get("{onda:0}:revocations")
        cluster_redis.revoke(redis.url, "t2", end_ms + 1)
        assert bring_revoked(str(tmp_path / "old"), redis.url) == 1
        assert bring_revoked(str(tmp_path / "old"), redis.url) == 0
        wanted = {f"t1 {end_ms}", f"t2 {end_ms + 1}", f"bare {FOR_EVER}"}
        assert set((tmp_path / "old" / "revoked").read_text().splitlines()) == wanted
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "revoked").write_text(f"t3 {end_ms}\n")
        direct.zadd(REVOKED, {"over": 7})
        from_redis(str(tmp_path / "new"), redis.url, SIZES)
        file = tmp_path / "new" / "revoked"
        assert set(file.read_text().splitlines()) == {*wanted, f"t3 {end_ms}"}
        assert file.stat().st_mode & 0o777 == 0o600
        direct.flushall()
    assert bring_revoked(str(tmp_path / "old"), redis.url) is None
    redis.stop()
    with pytest.raises(LogAway):
        bring_revoked(str(tmp_path / "old"), redis.url)


async def test_nothing_is_revoked_where_nobody_looks(tmp_path: Path, redis: RedisServer) -> None:
    """While a move into a Redis is under way, and after one out of it."""
    await make(tmp_path / "old", 32, commands=50)
    tried: list[str] = []

    def revoke() -> None:
        with pytest.raises(LogFailed, match="not revoked"):
            cluster_redis.revoke(redis.url, "t", FOR_EVER)

    def told(what: str, count: int) -> None:
        if what in ("checkpoint", "open"):
            tried.append(what)
            revoke()

    to_redis(str(tmp_path / "old"), redis.url, 2, told=told)
    assert tried == ["checkpoint", "open"]
    cluster_redis.revoke(redis.url, "t", FOR_EVER)
    from_redis(str(tmp_path / "new"), redis.url, SIZES)
    revoke()
    assert undo_from_redis(redis.url)
    cluster_redis.revoke(redis.url, "u", FOR_EVER)
