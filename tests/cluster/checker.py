"""The judge of a history: each check returns findings in words, and no findings mean that it holds.

It knows what clients sent and were told, what the log has, and what nodes said, and nothing of how the engine
works: nothing here imports the product, so a fault there cannot hide itself.

A loss is *told* when the answer's epoch is not the stream's last one (so every cursor from then is reset), a
node wrote that the new one began, and nothing of what was lost is shown in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.chaos.evidence import fold, without_empty
from tests.cluster.history import Call, Envelope, History, Outcome, Sight, by_key

RULES = frozenset({"sold_out", "coupon_exhausted", "coupon_already_issued", "cart_full"})
"""What the shop's rules may refuse."""


class Verdict(NamedTuple):
    """What a history comes to. `told`: acknowledged events whose loss was told; `findings`: what is wrong,
    each with the name of its check.
    """

    told: int
    silent: int
    doubled: int
    findings: list[str]


def judge(history: History, *, may_lose: bool = False) -> Verdict:
    """Run every check. Unless it `may_lose`, a loss is a finding although it was told."""
    told, silent = losses(history)
    if not may_lose:
        silent += [f"lost, though told: {line}" for line in told]
    doubled = effects_once(history)
    findings = {
        "lost": silent,
        "doubled": doubled,
        "linear": linear(history),
        "answers": [*answers_fit(history), *refusals_fit(history)],
        "real time": in_real_time(history.calls),
        "same answer": same_answers(history),
        "rules": [*coupons_count(history), *stock_counts(history)],
        "told": losses_told(history),
        "screens": screens(history),
        "converged": converged(history),
    }
    words = [f"{name}: {line}" for name, lines in findings.items() for line in lines]
    return Verdict(len(told), len(silent), len(doubled), words)


# The log


def linear(history: History) -> list[str]:
    """Versions of each stream count 1, 2, 3 …, positions of each partition, too, and no event is twice."""
    findings = []
    heads: dict[str, int] = {}
    positions: dict[int, int] = {}
    ids: set[str] = set()
    for partition, position, envelope in history.records:
        stream, version = envelope["stream"], envelope["version"]
        if version != heads.get(stream, 0) + 1:
            findings.append(f"{stream}: version {version} follows {heads.get(stream, 0)}")
        heads[stream] = version
        if position != positions.get(partition, 0) + 1:
            findings.append(f"partition {partition}: {position} follows {positions.get(partition, 0)}")
        positions[partition] = position
        if envelope["id"] in ids:
            findings.append(f"{stream}: event {envelope['id']} is there twice")
        ids.add(envelope["id"])
    return findings


# Answers


def losses(history: History) -> tuple[list[str], list[str]]:
    """Return the acknowledged events that are not in the log: those whose epoch is over, and the others."""
    at = _by_version(history)
    told, silent = [], []
    seen: set[str] = set()
    for call in _acknowledged(history.calls):
        for event in call.events:
            if event["id"] in seen or at.get((event["stream"], event["version"])) == event:
                continue
            seen.add(event["id"])
            words = f"{call.command} {call.key} at {call.node}: {event['type']} {event['cursor']}"
            is_over = call.epoch in history.epochs.get(history.partitions[call.stream], [])[:-1]
            (told if is_over else silent).append(words)
    return told, silent


def answers_fit(history: History) -> list[str]:
    """An answer is one piece: its events stand next to each other, and end at its cursor."""
    findings = []
    for call in _acknowledged(history.calls):
        versions = [event["version"] for event in call.events]
        if versions and versions != list(range(call.version - len(versions) + 1, call.version + 1)):
            findings.append(f"{call.key}: versions {versions} with the cursor at {call.version}")
        if any(event["cause"] != call.key or event["stream"] != call.stream for event in call.events):
            findings.append(f"{call.key}: its answer has events of something else")
    return findings


def refusals_fit(history: History) -> list[str]:
    """Whoever is sent away is told when to come back, and nobody is refused but by the shop's rules."""
    findings = []
    for call in history.calls:
        words = f"{call.command} {call.key} at {call.node}: {call.outcome}, {call.code}"
        if call.outcome == Outcome.UNAVAILABLE and not call.retry_after:
            findings.append(f"{words}, without Retry-After")
        if call.outcome == Outcome.REFUSED and call.code not in RULES:
            findings.append(words)
    return findings


def effects_once(history: History) -> list[str]:
    """Each key has one effect when it was acknowledged, at most one when it was not, and none when every
    attempt was refused or did not happen.
    """
    effects: defaultdict[tuple[str, str], list[Envelope]] = defaultdict(list)
    for record in history.records:
        effects[record.envelope["stream"], record.envelope["cause"]].append(record.envelope)
    findings = []
    for (stream, key), attempts in by_key(history.calls).items():
        there = effects.pop((stream, key), [])
        outcomes = {call.outcome for call in attempts}
        if there and not outcomes & {Outcome.OK, Outcome.UNKNOWN}:
            findings.append(f"{stream} {key}: an effect, though it was only {', '.join(outcomes)}")
        versions = [event["version"] for event in there]
        kinds = Counter(event["type"] for event in there)
        if versions and versions != list(range(versions[0], versions[0] + len(versions))):
            findings.append(f"{stream} {key}: effects at {versions}")
        elif any(count > 1 for count in kinds.values()):
            findings.append(f"{stream} {key}: {dict(kinds)} at {versions}")
        answers = [call for call in _acknowledged(attempts) if call.events]
        if there and answers and [event["id"] for event in answers[-1].events] != _ids(there):
            findings.append(f"{stream} {key}: its last answer is not the effect that is there")
    return findings


def same_answers(history: History) -> list[str]:
    """A key's answers are one answer, unless what the first one showed was lost in between."""
    there = {record.envelope["id"] for record in history.records}
    findings = []
    for (stream, key), attempts in by_key(history.calls).items():
        answers = [call for call in _acknowledged(attempts) if there.issuperset(_ids(call.events))]
        if any(_meaning(answer) != _meaning(answers[0]) for answer in answers[1:]):
            findings.append(f"{stream} {key}: {[_meaning(answer) for answer in answers]}")
        if sum(not answer.replayed for answer in answers) > 1:
            findings.append(f"{stream} {key}: carried out at {[answer.node for answer in answers]}")
    return findings


def in_real_time(calls: Iterable[Call]) -> list[str]:
    """A command that was answered before another one was sent stands before it in their stream.

    A command spans from its first attempt to its first answer. Epochs are looked at one by one: after a loss
    versions begin again.
    """
    spans: defaultdict[tuple[str, str], list[tuple[int, int, int, int, str]]] = defaultdict(list)
    for (stream, key), attempts in by_key(calls).items():
        answer = min(_acknowledged(attempts), key=lambda call: call.returned_ns, default=None)
        if answer is not None and answer.events:
            low, high = answer.events[0]["version"], answer.version
            spans[stream, answer.epoch].append((attempts[0].called_ns, answer.returned_ns, low, high, key))
    findings = []
    for (stream, epoch), found in spans.items():
        ends = sorted(found, key=lambda span: span[1])
        passed, highest, who = 0, 0, ""
        for called, _, low, _, key in sorted(found):
            while passed < len(ends) and ends[passed][1] < called:
                if ends[passed][3] > highest:
                    highest, who = ends[passed][3], ends[passed][4]
                passed += 1
            if low <= highest:
                findings.append(f"{stream} in {epoch}: {key} at {low} was sent after {who} at {highest}")
    return findings


# The shop's rules


def coupons_count(history: History) -> list[str]:
    """Coupons are numbered 1, 2, 3 … in the order of the log, each holder has one, and none is over."""
    findings = []
    issued: defaultdict[tuple[str, str], list[Envelope]] = defaultdict(list)
    stock: dict[tuple[str, str], int] = {}
    for record in history.records:
        stream, data = record.envelope["stream"], record.envelope["data"]
        if not stream.startswith("store:"):
            continue
        if record.envelope["type"] == "CouponCreated":
            stock[stream, data["coupon"]] = data["stock"]
        elif record.envelope["type"] == "CouponIssued":
            issued[stream, data["coupon"]].append(data)
    for coupon, given in issued.items():
        numbers = [data["sequence"] for data in given]
        if numbers != list(range(1, len(numbers) + 1)):
            findings.append(f"{coupon}: numbers {numbers}")
        if len(numbers) > stock.get(coupon, 0):
            findings.append(f"{coupon}: {len(numbers)} of {stock.get(coupon, 0)} are given out")
        if twice := [who for who, count in Counter(data["holder"] for data in given).items() if count > 1]:
            findings.append(f"{coupon}: {twice} have it twice")
    return findings


def stock_counts(history: History) -> list[str]:
    """What is left of a counted product is what was put there less what was ordered, and never less than
    nothing; the log says the same before and after each order.
    """
    findings = []
    left: dict[tuple[str, str], int] = {}
    for record in history.records:
        envelope = record.envelope
        stream, data = envelope["stream"], envelope["data"]
        if envelope["type"] == "ProductPut" and data.get("stock") is not None:
            left[stream, data["product"]] = data["stock"]
        elif envelope["type"] == "OrderCreated" and stream.startswith("store:"):
            for line in data["lines"]:
                if (stream, line["product"]) not in left:
                    continue
                left[stream, line["product"]] -= line["quantity"]
                after = left[stream, line["product"]]
                said = [one["after"] for one in data.get("stock", []) if one["product"] == line["product"]]
                if after < 0 or said != [after]:
                    findings.append(f"{stream} at {envelope['version']}: {after} left, it says {said}")
    return findings


# What was told


def losses_told(history: History) -> list[str]:
    """Where records went, a new epoch began, and a node said so, and how much is gone."""
    findings = []
    there = {record.envelope["id"] for record in history.records}
    shown = [event for call in _acknowledged(history.calls) for event in call.events]
    gone = [event for event in shown if event["id"] not in there] + [loss.envelope for loss in history.lost]
    for partition in sorted({history.partitions[event["stream"]] for event in gone}):
        epochs = history.epochs[partition]
        lines = [
            line for said in history.said.values() for line in said if "records or more are lost" in line
        ]
        if len(epochs) < 2:
            findings.append(f"partition {partition}: records are lost, and there is no new epoch")
        elif not any(f"partition {partition}:" in line for line in lines):
            findings.append(f"partition {partition}: no node said how much is lost")
    return findings


def screens(history: History) -> list[str]:
    """Every reader saw each version once, in order, as the log has it, and within one epoch; another epoch
    begins with a reset. Nothing that was lost is shown after that.
    """
    found: defaultdict[str, list[Sight]] = defaultdict(list)
    for sight in history.sights:
        found[sight.reader].append(sight)
    at = _by_version(history)
    findings = []
    for reader, sights in found.items():
        epoch, version = "", 0
        for sight in sights:
            wrong = _step(sight, epoch, version)
            if sight.what == "event" and sight.envelope is not None:
                wrong = wrong or _unlike(sight, at, history.last_epoch(sight.stream))
            if wrong:
                findings.append(f"{reader} at {sight.node}, {sight.stream}: {wrong}")
            epoch, version = sight.epoch, sight.version
    return findings + list(_false_snapshots(history))


def _step(sight: Sight, epoch: str, version: int) -> str:
    """What is wrong with what a reader is shown next, after `version` in `epoch`."""
    where = f"{sight.what} {sight.epoch}-{sight.version} after {epoch}-{version}"
    if not epoch:
        return "" if sight.what == "snapshot" else where
    if sight.what == "snapshot":
        return f"{where}: it had come back with a cursor"
    if sight.what == "reset":
        if (sight.reason == "epoch") != (sight.epoch != epoch) or sight.reason == "ahead":
            return f"{where}: because of {sight.reason}"
        return where if sight.epoch == epoch and sight.version < version else ""
    if sight.epoch != epoch or sight.version != version + (sight.what == "event"):
        return where
    return ""


def _unlike(sight: Sight, at: dict[tuple[str, int], Envelope], last: str) -> str:
    """What is wrong with the content of an event: only in an epoch that is over it may have been lost."""
    envelope = sight.envelope
    assert envelope is not None
    if at.get((sight.stream, sight.version)) == envelope or sight.epoch != last:
        return ""
    return f"{envelope['type']} {envelope['id']} at {sight.epoch}-{sight.version} is not what the log has"


def _false_snapshots(history: History) -> Iterator[str]:
    """Snapshots of the last epoch that are not what the records up to there come to."""
    for stream in {sight.stream for sight in history.sights}:
        last = history.last_epoch(stream)
        shown = [s for s in history.sights if s.stream == stream and s.state is not None and s.epoch == last]
        records = history.of(stream)
        for sight in shown:
            if sight.version > len(records):
                yield f"{sight.reader}: a snapshot at {sight.version}, the log ends at {len(records)}"
            elif without_empty(sight.state or {}) != fold(records[: sight.version], stream):
                yield f"{sight.reader}: the snapshot at {sight.version} of {stream} is another one"


def converged(history: History) -> list[str]:
    """At the end all nodes show the same, and that is what the log's records come to."""
    findings = []
    folded = {stream: fold(history.of(stream), stream) for stream in {one.stream for one in history.finals}}
    for final in history.finals:
        head = len(history.of(final.stream))
        if (final.epoch, final.version) != (history.last_epoch(final.stream), head):
            findings.append(
                f"{final.node}: {final.stream} is at {final.epoch}-{final.version}, "
                f"the log at {history.last_epoch(final.stream)}-{head}"
            )
        elif without_empty(final.state) != folded[final.stream]:
            findings.append(f"{final.node}: {final.stream} at {head} is not what its records come to")
    return findings


def _acknowledged(calls: Iterable[Call]) -> list[Call]:
    return [call for call in calls if call.outcome == Outcome.OK]


def _meaning(call: Call) -> tuple[int, tuple[str, ...], str]:
    return call.version, tuple(_ids(call.events)), repr(sorted(call.result.items()))


def _ids(events: Iterable[Envelope]) -> list[str]:
    return [event["id"] for event in events]


def _by_version(history: History) -> dict[tuple[str, int], Envelope]:
    return {(one.envelope["stream"], one.envelope["version"]): one.envelope for one in history.records}
