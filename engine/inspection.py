"""What operators look at: numbers, streams, reactions and parked records of a node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from engine.actor import Actor
from engine.checkpoint import Checkpoint, Parked
from engine.errors import LogCorrupt, LogFailed, Rejected
from engine.feed import Feed
from engine.log import Log
from engine.parking import NotParked
from engine.partition import Partition
from engine.reactions import Consumer, Runner
from engine.timers import Timers
from engine.topics import Topics

if TYPE_CHECKING:  # SQLAlchemy takes its time to load
    from engine.history import History

logger = logging.getLogger("onda.node")


class Host(Protocol):
    """What can be looked at in a node."""

    log: Log
    checkpoint: Checkpoint
    actors: MutableMapping[str, Actor]
    feeds: MutableMapping[str, Feed]
    history: History | None
    timers: Timers
    topics: Topics
    redis_up: Callable[[], bool]
    partitions: list[Partition]

    @property
    def runners(self) -> list[Consumer]: ...


def statistics(node: Host) -> dict[str, Any]:
    """Return a node's numbers, those of `engine.metrics.GAUGES` and the log's own under `log`."""
    log = node.log.statistics()
    feeds = node.feeds.values()
    return {
        "actors": len(node.actors),
        "mailbox_waiting": sum(actor.waiting for actor in node.actors.values()),
        "subscribers": sum(len(feed.subscriptions) for feed in feeds),
        "feeds": len(feeds),
        "feed_bytes": sum(feed.bytes for feed in feeds),
        "log_head": sum(one.log.head for one in node.partitions),
        "log_first": node.log.first,
        "log_bytes": log.get("bytes", 0),
        "log_writable": int(all(one.log.writable for one in node.partitions)),
        "checkpoint_position": node.checkpoint.position,
        "reaction_lag": max((lag for _, lag in _lags(node)), default=0),
        "history_lag": node.history.lag if node.history is not None else 0,
        "history_lost": node.history.lost if node.history is not None else 0,
        "history_up": int(node.history is None or node.history.up),
        "redis_up": int(node.redis_up()),
        "parked": sum(len(runner.parked) for runner in node.runners),
        "deadlines": len(node.timers),
        "topic_lag": node.topics.lag_known(),
        "log": log,
        "partitions": partitions(node),
    }


def partitions(node: Host) -> list[dict[str, float]]:
    """Return the numbers of each partition, as `engine.metrics.PARTITION` names them."""
    rows = []
    for one in node.partitions:
        log = one.log.statistics()
        behind = [one.log.head - runner.position for runner in one.runners if runner is not node.history]
        rows.append(
            {
                "head": one.log.head,
                "first": one.log.first,
                "lag": max(behind, default=0),
                "on_duty": one.on_duty,
                "away": log.get("away", False),
                "silent_seconds": log.get("silent_s", 0.0),
                "epochs": one.counts["epochs"],
                "healed": log.get("healed", 0),
                "conflicts": one.counts["conflicts"],
                "given_up": one.counts["given_up"],
                "in_doubt": log.get("in_doubt", 0),
            }
        )
    return rows


def _lags(node: Host) -> Iterator[tuple[Consumer, int]]:
    """How many records of their partition lie before each reaction; the history counts its own."""
    for partition in node.partitions:
        for runner in partition.runners:
            if isinstance(runner, Runner):
                yield runner, partition.log.head - runner.position


def streams(node: Host) -> list[dict[str, Any]]:
    """Return the actors in memory: stream, version, commands waiting, subscribers, ring."""
    return [
        {
            "stream": actor.stream,
            "version": actor.feed.head,
            "waiting": actor.waiting,
            "subscribers": len(actor.feed.subscriptions),
            "ring_frames": len(actor.feed),
            "ring_bytes": actor.feed.bytes,
            "held_down": actor.held_down,
        }
        for actor in node.actors.values()
    ]


def reactions(node: Host) -> list[dict[str, Any]]:
    """Return each reaction's name, durable position, and how many records lie between it and the head."""
    return [
        {
            "reaction": runner.name,
            "position": runner.position,
            "lag": partition.log.head - runner.position,
            "parked": len(runner.parked),
        }
        for partition in node.partitions
        for runner in partition.runners
    ]


def parked(node: Host) -> list[dict[str, Any]]:
    """Return the records that reactions gave up on, each with its error and envelope."""
    return [show_parked(parked) for runner in node.runners for parked in runner.parked]


def show_parked(parked: Parked) -> dict[str, Any]:
    """Return what operators see of a parked record."""
    return {
        "id": parked.id,
        "reaction": parked.reaction,
        "stream": parked.stream,
        "version": parked.version,
        "error": parked.error,
        "attempts": parked.attempts,
        "at_ms": parked.at_ms,
        "envelope": msgspec.Raw(parked.body),
    }


def find_parked(node: Host, id: int) -> tuple[Consumer, Parked]:
    """Return a parked record that is the first of its lane, and the runner that parked it.

    Raises:
        KeyError: no such record.
        Rejected: `not_first`.
    """
    for runner in node.runners:
        for parked in runner.parked:
            if parked.id == id:
                if runner.first_parked(parked).id != id:
                    raise Rejected(
                        "not_first", "an earlier record that it waits for is parked; begin with that one"
                    )
                return runner, parked
    raise KeyError(id)


async def resume_parked(node: Host, id: int, *, skip: bool) -> None:
    """Handle a parked record again, or skip it, and then handle those parked behind it.

    Raises:
        KeyError: no such record is parked.
        Rejected: `not_first` when an earlier record of its stream is parked; `replay_failed` when it, or with
            `skip` one of those behind it, failed again, which is then the first.
    """
    runner, parked = find_parked(node, id)
    try:
        await runner.resume(parked, skip=skip)
    except (LogFailed, LogCorrupt, Rejected, NotParked):
        raise
    except Exception as error:
        logger.warning("replay of parked record %d failed: %s", id, error)
        raise Rejected("replay_failed", f"it failed again: {error}") from error
