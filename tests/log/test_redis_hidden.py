"""A loss that the next appends could hide."""

from __future__ import annotations

from pathlib import Path

import redis
import trio

from engine.log.frames import unpack_entry
from engine.log.redis_scripts import Keys
from tests.log.redis_site import Writing, needs_redis, opened, until
from tests.relays.redis_server import RedisServer, redis_server

pytestmark = needs_redis


async def test_what_is_appended_next_does_not_hide_a_loss(tmp_path: Path) -> None:
    """The last record is gone, and nobody has looked yet; two appends take its place: the loss is found all
    the same.
    """
    with redis_server(tmp_path) as server:
        async with opened(server) as shared:
            log = shared.partitions[0]
            one, other = Writing(log), Writing(log, "store:other", "o")
            await one.append()
            await other.append()
            await one.append()
            epoch, look, looking = log.epoch, shared.look, trio.Event()

            async def late() -> None:
                await looking.wait()
                await look()

            shared.look = late
            forget_the_last(server, log.keys)
            assert [await other.append(), await other.append()] == [3, 4]
            looking.set()
            await until(lambda: log.epoch != epoch)


def forget_the_last(server: RedisServer, keys: Keys) -> None:
    """Take the last record out of a partition, as if it had never been there."""
    with redis.Redis(port=server.port, protocol=2, decode_responses=False) as plain:
        (_, gone), (place, last) = plain.xrevrange(keys.log, count=2)
        stream = unpack_entry(gone[b"r"])[0].stream
        plain.xdel(keys.log, f"{int(place[:-2]) + 1}-0")
        plain.execute_command("XSETID", keys.log, place)
        plain.rpop(keys.at + stream)
        version, low, _ = plain.hget(keys.heads, stream).split(b" ")
        (at,) = plain.lrange(keys.at + stream, -1, -1)
        ((_, before),) = plain.xrange(keys.log, f"{int(at)}-0", f"{int(at)}-0")
        plain.hset(keys.heads, stream, b"%d %b %b" % (int(version) - 1, low, before[b"i"]))
        plain.hset(keys.meta, mapping={"head": int(place[:-2]), "last": last[b"i"]})
