"""Opens what a node of several stands on: a log in Redis, and for each partition a checkpoint and a lease."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

from engine.checkpoint_redis import RedisCheckpoint
from engine.cluster_redis import Cluster
from engine.config import Config
from engine.lease_redis import Leases, RedisLease
from engine.log.redis_shared import open_redis_log
from engine.partition import Ground
from engine.witnesses import Witnesses


async def open_shared(config: Config, stack: AsyncExitStack) -> list[Ground]:
    """Connect to `config.log_url`, or make the log there.

    Raises:
        ConfigError, LogAway, LogFailed: as `open_redis_log`.
    """
    witnesses = Witnesses(None if config.data == ":memory:" else config.data)
    log = await stack.enter_async_context(
        open_redis_log(
            config.log_url,
            partitions=config.redis_partitions,
            witnesses=await witnesses.load(),
            node=config.node_id,
        )
    )
    stack.push_async_callback(witnesses.save, log.partitions)
    holder = f"{config.node_id}.{os.urandom(4).hex()}"  # a node that starts again is another one
    leases = Leases(log, holder)
    cluster = Cluster(leases)
    await cluster.join()  # nobody comes in with a token that was revoked
    grounds = []
    for number, partition in enumerate(log.partitions):
        checkpoint = RedisCheckpoint(log, number, holder, witnesses)
        await checkpoint.refresh()
        grounds.append(Ground(partition, checkpoint, RedisLease(leases, number), cluster))
    return grounds
