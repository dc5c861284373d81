"""Every metric, declared once. Each node has its own, so that two nodes in one process do not mix theirs.

Counters are fed once per batch, never once per delivery; gauges are read from `Node.statistics()` when asked
for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_CALL_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OUTCOMES = ("ok", "replayed", "rejected", "mismatch", "unavailable", "unknown", "crashed")

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

GAUGES = {
    "actors": "Actors in memory",
    "mailbox_waiting": "Commands waiting in mailboxes",
    "subscribers": "Open subscriptions",
    "feeds": "Feeds in memory",
    "feed_bytes": "Bytes of frames in the feeds' rings",
    "log_head": "Position of the last durable record",
    "log_first": "Position of the oldest record kept",
    "log_bytes": "Bytes of the log on disk",
    "log_writable": "1 when appends are taken, 0 when the disk is full or Redis is away",
    "checkpoint_position": "Log position of the last checkpoint",
    "reaction_lag": "Records that the slowest reaction has still to look at",
    "history_lag": "Records that are not in the history yet",
    "history_lost": "Records that a shared log lost after they were in the history",
    "history_up": "1 while the history's database answers, or there is none",
    "redis_up": "1 while events come in from Redis",
    "parked": "Records that a reaction gave up on and an operator has to look at",
    "deadlines": "Streams that want to be woken later",
    "topic_lag": "Records that the slowest group of a topic has still to handle",
}
"""Name (without the prefix `onda_`) -> help, for values that `Node.statistics()` returns under the same
names.
"""


PARTITION = {
    "head": ("gauge", "Position of the last durable record that is known here"),
    "first": ("gauge", "Position of the oldest record kept"),
    "lag": (
        "gauge",
        "Records that the slowest reaction has still to look at, 0 where another node is on duty",
    ),
    "on_duty": ("gauge", "1 at the node that runs its reactions and takes its checkpoints"),
    "away": ("gauge", "1 while its log in Redis takes nothing, so commands are refused"),
    "silent_seconds": ("gauge", "Since Redis last said something of it"),
    "epochs": ("counter", "New epochs: acknowledged records were lost, or may have been"),
    "healed": ("counter", "Records that were read, as no message of them had come"),
    "conflicts": ("counter", "Appends decided again, as another node was faster"),
    "given_up": ("counter", "Turns whose commands were told to try later, after too many conflicts in a row"),
    "in_doubt": ("counter", "Appends whose answer was lost, and that were asked again"),
}
"""Name (without the prefix `onda_partition_`) -> kind and help, of what `inspection.partitions` returns. The
only label is the number of the partition; with the write-ahead log there is just the one.
"""


class Tally(Collector):
    """A histogram for what is measured with every command, at a quarter of the cost of `Histogram`: no locks,
    so only trio's thread may feed it, and sums are made when somebody asks.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        """Return what Prometheus reads: each bucket with what is in the smaller ones."""
        buckets, count = [], 0
        for bound, here in zip(self._bounds, self._counts, strict=False):
            count += here
            buckets.append((repr(float(bound)), count))
        buckets.append(("+Inf", count + self._counts[-1]))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)


class Count(Collector):
    """A counter for what is counted with every command; as `Tally`."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._name, self._text, self._value = name, text, 0
        registry.register(self)

    def inc(self, amount: int = 1) -> None:
        """Count `amount` more."""
        self._value += amount

    def collect(self) -> Iterable[Metric]:
        """Return what Prometheus reads."""
        yield CounterMetricFamily(self._name, self._text, self._value)


class Metrics:
    """The metrics of one node."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        commands = Counter("onda_commands", "Commands answered", ["outcome"], registry=registry)
        self._commands = {outcome: commands.labels(outcome) for outcome in OUTCOMES}
        self.records = Count("onda_records", "Records made durable", registry)
        self.batch = Tally("onda_append_records", "Records in one append of an actor", _SIZES, registry)
        self.append_s = Tally(
            "onda_append_seconds", "From handing over an append to durable", _SECONDS, registry
        )
        self.sync_s = Tally("onda_sync_seconds", "One write and fdatasync of the log", _SECONDS, registry)
        self.sync_batch = Tally("onda_sync_records", "Records in one write of the log", _SIZES, registry)
        self.deliveries = Count("onda_deliveries", "Frames taken by subscribers", registry)
        self.delivery_lag_s = Tally(
            "onda_delivery_lag_seconds",
            "From durable to taken by a subscriber (oldest frame of each take)",
            _SECONDS,
            registry,
        )
        self.resumes = Counter(
            "onda_resumes", "Subscriptions and syncs by how they started", ["kind"], registry=registry
        )  # snapshot, delta, expired, epoch, ahead
        self.lagging = Counter("onda_lagging", "Subscribers cut for falling behind", registry=registry)
        self.reactions = Counter(
            "onda_reactions", "Records handled by reactions", ["reaction", "outcome"], registry=registry
        )  # done, retried, parked
        self._add_followers(registry)
        self._add_topics(registry)
        self.conflicts = Counter(
            "onda_append_conflicts", "Appends decided again, as another node was faster", registry=registry
        )
        self.restarts = Counter("onda_actor_restarts", "Actors rebuilt after a crash", registry=registry)
        self.deadlines_lost = Counter(
            "onda_deadlines_lost",
            "Deadlines that the sweep found over though no timer had",
            registry=registry,
        )
        self.checkpoints = Counter("onda_checkpoints", "Checkpoints taken", registry=registry)
        self._gauges = {name: Gauge(f"onda_{name}", text, registry=registry) for name, text in GAUGES.items()}

    def _add_followers(self, registry: CollectorRegistry) -> None:
        """Those who take the log elsewhere."""
        self.relay_requests = Counter(
            "onda_relay_requests", "Requests to targets outside", ["relay", "outcome"], registry=registry
        )  # sent, retried, failed
        self.relay_s = Histogram(
            "onda_relay_seconds",
            "From sending to a target outside to its consent",
            ["relay"],
            buckets=(*_SECONDS, 15.0, 60.0),
            registry=registry,
        )
        self.redis_received = Counter(
            "onda_redis_received", "Messages from Redis", ["outcome"], registry=registry
        )  # taken, own, malformed, oversize, refused
        self.gateway_calls = Counter(
            "onda_gateway_calls",
            "Calls to payment gateways",
            ["gateway", "verb", "verdict"],
            registry=registry,
        )
        self.gateway_call_s = Histogram(
            "onda_gateway_call_seconds",
            "From asking a payment gateway to its verdict",
            ["gateway", "verb"],
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self.history_batch = Histogram(
            "onda_history_batch_records",
            "Records in one transaction of the history",
            buckets=_SIZES,
            registry=registry,
        )
        self.history_errors = Counter(
            "onda_history_errors", "What the database of the history refused", ["blame"], registry=registry
        )  # database, record

    def _add_topics(self, registry: CollectorRegistry) -> None:
        """Records that are published, and groups that handle them."""
        self.published = Counter(
            "onda_topic_published", "Records published to topics", ["outcome"], registry=registry
        )  # accepted, duplicate, failed
        self.publish_s = Histogram(
            "onda_topic_publish_seconds",
            "From a call to publish to all its records durable",
            buckets=_SECONDS,
            registry=registry,
        )
        self.consumed = Counter(
            "onda_topic_consumed", "Records given to members of groups", registry=registry
        )
        self.redelivered = Counter(
            "onda_topic_redelivered", "Of these, given out again after a failure", registry=registry
        )

    def answered(self, counts: Mapping[str, int]) -> None:
        """Count answers to commands by `OUTCOMES`."""
        for outcome, count in counts.items():
            self._commands[outcome].inc(count)

    def appended(self, records: int, seconds: float) -> None:
        """Count one append of an actor."""
        self.append_s.observe(seconds)
        self.batch.observe(records)
        self.records.inc(records)

    def render(self, statistics: dict[str, Any]) -> bytes:
        """Return the text that Prometheus reads, with the gauges as in `statistics`."""
        for name, gauge in self._gauges.items():
            gauge.set(statistics[name])
        return generate_latest(self.registry) + _render_partitions(statistics["partitions"])


def _render_partitions(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Return the text for `PARTITION`: written out, as there may be a thousand of each."""
    lines = []
    for name, (kind, text) in PARTITION.items():
        full = f"onda_partition_{name}{'_total' if kind == 'counter' else ''}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        lines += [f'{full}{{partition="{number}"}} {float(row[name])}' for number, row in enumerate(rows)]
    return ("\n".join(lines) + "\n").encode()
