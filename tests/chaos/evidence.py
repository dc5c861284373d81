"""What has to hold after any mishap, judged from the log alone and from what clients were told. Pure.

Each check returns findings in words; no findings means that it holds. They are apart from the system: nothing
here imports the domain, so a fault there cannot hide itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Envelope = dict[str, Any]


class Acknowledged(NamedTuple):
    """A command that a client sent until it was answered."""

    key: str
    path: str
    body: dict[str, Any]
    result: dict[str, Any]
    cursor: str
    events: list[Envelope]


def contiguous(records: Iterable[Envelope]) -> list[str]:
    """Versions of each stream count 1, 2, 3 …, and no event id is there twice."""
    findings = []
    heads: dict[str, int] = {}
    ids: set[str] = set()
    for record in records:
        stream, version = record["stream"], record["version"]
        if version != heads.get(stream, 0) + 1:
            findings.append(f"{stream}: version {version} follows {heads.get(stream, 0)}")
        heads[stream] = version
        if record["id"] in ids:
            findings.append(f"{stream}: event id {record['id']} is there twice")
        ids.add(record["id"])
    return findings


def nothing_lost(records: Iterable[Envelope], acknowledged: Iterable[Acknowledged]) -> list[str]:
    """Every event that an answer showed is in the log, at its version and with the same content."""
    at = {(record["stream"], record["version"]): record for record in records}
    findings = []
    for command in acknowledged:
        for event in command.events:
            if at.get((event["stream"], event["version"])) != event:
                findings.append(
                    f"{command.path} {command.key}: {event['type']} {event['cursor']} is not in the log"
                )
    return findings


def nothing_doubled(
    records: Sequence[Envelope], acknowledged: Iterable[Acknowledged], tried: Iterable[str]
) -> list[str]:
    """Each key has exactly one effect when it was acknowledged, and at most one when it was not.

    Commands that create something carry their key in a note; their effects are counted by it.
    """
    effects: Counter[str] = Counter()
    for record in records:
        match record["type"]:
            case "OrderCreated" if not record["by"].startswith(("table:", "store:")):
                effects.update(line["note"] for line in record["data"]["lines"][:1])
            case "ItemAdded":
                effects[record["data"]["note"]] += 1
    findings = [f"{key}: {count} effects" for key, count in effects.items() if count > 1]
    for command in acknowledged:
        if command.path.endswith(("/create-order", "/add-to-cart")) and effects[command.key] != 1:
            findings.append(
                f"{command.path} {command.key} was acknowledged and has {effects[command.key]} effects"
            )
    known = set(tried)
    return findings + [f"{key!r}: an effect without a command" for key in effects if key not in known]


def stages_once(records: Iterable[Envelope], acknowledged: Iterable[Acknowledged]) -> list[str]:
    """Each stage of an order is reached at most once, and was reached if that was acknowledged."""
    stages = ("OrderCreated", "OrderPlaced", "OrderAccepted", "OrderReady", "OrderServed")
    seen: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record["stream"].startswith("store:") and record["type"] in stages:
            seen[record["data"]["order"], record["type"]] += 1
    findings = [f"{order}: {count} × {stage}" for (order, stage), count in seen.items() if count > 1]
    done = {"accept-order": "OrderAccepted", "mark-ready": "OrderReady", "mark-served": "OrderServed"}
    for command in acknowledged:
        stage = done.get(command.path.rpartition("/")[2])
        if stage is not None and not seen[command.body["order"], stage]:
            findings.append(f"{command.path} {command.body} was acknowledged, and there is no {stage}")
    return findings


def carts_settled(records: Iterable[Envelope], acknowledged: Iterable[Acknowledged]) -> list[str]:
    """Each submitted cart became one order with the same lines, or came back; its table was told once."""
    submitted: dict[str, list[str]] = {}
    created: defaultdict[str, list[list[str]]] = defaultdict(list)
    told: Counter[str] = Counter()
    returned: Counter[str] = Counter()
    for record in records:
        data = record["data"]
        match record["type"]:
            case "CartSubmitted":
                submitted[data["order"]] = [line["line"] for line in data["lines"]]
            case "OrderCreated":
                created[data["order"]].append([line["line"] for line in data["lines"]])
            case "OrderReceived":
                told[data["order"]] += 1
            case "CartReturned":
                returned[data["order"]] += 1
    findings = []
    for order, lines in submitted.items():
        if returned[order] + len(created[order]) != 1:
            findings.append(f"cart {order}: {len(created[order])} orders, returned {returned[order]} times")
        elif created[order] and created[order][0] != lines:
            findings.append(f"cart {order} of {lines} became an order of {created[order][0]}")
    findings += [
        f"order {order}: its table was told {count} times" for order, count in told.items() if count != 1
    ]
    findings += [
        f"order {order}: its table was never told"
        for order in submitted
        if created[order] and not told[order]
    ]
    for command in acknowledged:
        if command.path.endswith("/submit-cart") and command.result["order"] not in submitted:
            findings.append(f"cart {command.result['order']} was acknowledged and never submitted")
    return findings


def stock_adds_up(records: Iterable[Envelope], product: str, put: int, left: int) -> list[str]:
    """What is left of a counted product is what was put there less what orders took."""
    taken = 0
    for record in records:
        if record["type"] == "OrderCreated":
            taken += sum(line["quantity"] for line in record["data"]["lines"] if line["product"] == product)
    return [] if put - taken == left else [f"{product}: {put} put, {taken} taken, {left} left"]


def fold(records: Iterable[Envelope], stream: str) -> dict[str, dict[str, Any]]:
    """The state of a stream as its patches alone give it."""
    state: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["stream"] != stream:
            continue
        for collection, entities in (record.get("patch") or {}).items():
            known = state.setdefault(collection, {})
            for key, entity in entities.items():
                if entity is None:
                    known.pop(key, None)
                else:
                    known[key] = entity
    return without_empty(state)


def without_empty(state: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A state without its empty collections: whether those are named is a matter of taste."""
    return {name: entities for name, entities in state.items() if entities}
