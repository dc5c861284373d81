"""Opens a node: the checkpoint, the log, and then everything in one nursery."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from engine.checkpoint import Checkpoint
from engine.checkpoint_sqlite import open_checkpoint
from engine.clock import Clock, SystemClock
from engine.codec import decode_envelope
from engine.config import Config
from engine.customers import Customers
from engine.errors import CursorUnusable, LogCorrupt, LogFailed, UnknownOutcome
from engine.follow import Follow
from engine.log import Log
from engine.log.memory import MemoryLog
from engine.log.wal import open_wal
from engine.metrics import Metrics
from engine.node import Node
from engine.partition import Ground
from engine.payments import Gateways, open_gateways
from engine.payments.calls import Calls
from engine.plugins import load_plugins, plugin_reactions
from engine.progress import Progress
from engine.reactions import Reaction

if TYPE_CHECKING:
    from engine.history import History
    from engine.relays.user_events import UserEvents

MEMORY = ":memory:"
"""`Config.data` for a node that keeps nothing on disk."""

LOG = "log"
CHECKPOINT = "checkpoint.db"
"""Names in the data folder."""

NEWEST = 64
"""Records at the end of a log among which its newest id is: ids are made before records get their places."""


def tune_collector() -> None:
    """Let Python look for garbage cycles less often; for programs whose main work is Onda, before
    `open_node`.

    Records, frames and answers are many, live for a while and form no cycles; looking through them again and
    again cost 15 % of the CPU of a busy node (`benchmarks/ask.py`, CPython 3.11).
    """
    gc.set_threshold(50_000, 20, 100)


@asynccontextmanager
async def open_node(
    config: Config | None = None,
    *,
    reactions: Sequence[Reaction] = (),
    clock: Clock | None = None,
    gateways: Gateways | None = None,
) -> AsyncIterator[Node]:
    """Open a node on `config.data` (`":memory:"` keeps nothing on disk); it runs until the `async with` ends.

    Args:
        config: settings; the defaults when not given.
        reactions: what follows from records beside Onda's own flow and the relays of the settings.
        clock: time and ids; tests hand in their own.
        gateways: what payments go through; when not given, those that the settings name.

    Raises:
        LogLocked: another process has the folder open.
        LogCorrupt: what was acknowledged is damaged; nothing was changed.
        LogTooNew: a newer version wrote the folder.
        LogFailed: a disk call failed; at the start or while running.
        ConfigError: the settings of a relay, a plugin or the history make no sense.
    """
    config = config or Config()
    plugins = load_plugins(config)
    metrics = Metrics()
    try:
        async with AsyncExitStack() as stack:
            grounds = await _open_grounds(config, stack, metrics)
            log = grounds[0].log
            clock = clock or await _own_clock([ground.log for ground in grounds])
            relays = await _open_relays(config, stack, metrics, clock)
            if gateways is None:
                gateways = await stack.enter_async_context(open_gateways(config))
            node = Node(config, clock, metrics, grounds)
            node.methods = gateways.names
            shared = await _open_redis(config, stack, node)
            calls = Calls(node, gateways, log.head if len(grounds) == 1 else sys.maxsize)
            customers = Customers(node)
            async with trio.open_nursery() as nursery:
                history = _open_history(config, stack, node)
                flow = [Follow(node).reaction, calls.reaction, Progress(node).reaction]
                flow += [node.tasks.reaction, customers.reaction, *relays, *reactions]
                flow += [shared.reaction] if shared is not None else []
                flow += plugin_reactions(plugins, node, {one.name for one in flow})
                await node.start(nursery, flow, history)
                if history is not None:
                    node.start_soon(history.watch)
                if shared is not None:
                    node.start_soon(shared.run)
                node.start_soon(customers.run)
                try:
                    yield node
                finally:
                    await node.close()
    except BaseExceptionGroup as group:
        error = _single(group)
        raise error from error.__cause__


async def _own_clock(logs: Sequence[Log]) -> Clock:
    """Return the machine's clock, whose ids sort after those at the ends of the logs: clients know by ids
    what they have seen.
    """
    clock = SystemClock()
    for log in logs:
        after = max(log.first - 1, log.head - NEWEST)
        while True:
            try:
                entries = await log.read(after)
            except CursorUnusable:  # another node dropped them meanwhile
                after = log.first - 1
                continue
            if not entries:
                break
            after = entries[-1][0]
            with suppress(msgspec.DecodeError):  # the replay says so, and where
                clock.go_on_after([decode_envelope(entry.body).id for _, entry in entries])
    return clock


async def _open_grounds(config: Config, stack: AsyncExitStack, metrics: Metrics) -> list[Ground]:
    if config.log_url:
        from engine.shared_opening import open_shared  # here, as redis-py takes its time to load

        return await open_shared(config, stack)
    checkpoint, log = await _open_disk(config, stack, metrics)
    return [Ground(log, checkpoint)]


async def _open_disk(config: Config, stack: AsyncExitStack, metrics: Metrics) -> tuple[Checkpoint, Log]:
    if config.data == MEMORY:
        checkpoint = await open_checkpoint(MEMORY)
        stack.push_async_callback(checkpoint.close)
        return checkpoint, MemoryLog()
    try:
        os.makedirs(config.data, exist_ok=True)
    except OSError as error:
        raise LogFailed(f"cannot make the data folder {config.data}: {error}") from error

    def note_sync(seconds: float, entries: int) -> None:
        metrics.sync_s.observe(seconds)
        metrics.sync_batch.observe(entries)

    checkpoint = await open_checkpoint(os.path.join(config.data, CHECKPOINT))
    stack.push_async_callback(checkpoint.close)
    log = await stack.enter_async_context(
        open_wal(
            os.path.join(config.data, LOG),
            segment_bytes=config.segment_bytes,
            pad=config.pad_bytes,
            reserve_bytes=config.reserve_bytes,
            acked_floor=checkpoint.floor,
            verified=min(checkpoint.position, checkpoint.refill),
            on_sync=note_sync,
        )
    )
    return checkpoint, log


async def _open_relays(
    config: Config, stack: AsyncExitStack, metrics: Metrics, clock: Clock
) -> list[Reaction]:
    if not config.webhook_url:
        return []
    from engine.relays.webhook import open_webhooks  # here, as httpx takes its time to load

    return await stack.enter_async_context(open_webhooks(config, metrics, clock))


async def _open_redis(config: Config, stack: AsyncExitStack, node: Node) -> UserEvents | None:
    if not config.redis_url:
        return None
    from engine.relays.user_events import open_redis  # here, as redis-py takes its time to load

    shared = await stack.enter_async_context(open_redis(config, node.metrics, node.clock))
    shared.join(node)
    return shared


def _open_history(config: Config, stack: AsyncExitStack, node: Node) -> History | None:
    nowhere = config.log_url or config.data == MEMORY  # unless it is said where
    if config.db == "none" or (nowhere and not config.db):
        return None
    from engine.history import open_history  # here, as SQLAlchemy takes its time to load

    history = open_history(node)
    stack.push_async_callback(history.close)
    return history


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that says what happened: a fault of the log before others, an only error as
    itself.
    """
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    faults = [error for error in leaves if isinstance(error, LogFailed | LogCorrupt)]
    if faults:  # best the log's own word, not that of an actor that waited for it
        return min(faults, key=lambda error: isinstance(error.__cause__, UnknownOutcome))
    return leaves[0] if len(leaves) == 1 else group
