"""The checkers find what they look for: each is shown a history that is good and one that is not."""

from typing import Any

import pytest

from tests.chaos.evidence import (
    Acknowledged,
    carts_settled,
    contiguous,
    fold,
    nothing_doubled,
    nothing_lost,
    stages_once,
    stock_adds_up,
)

SEEN = 0


def record(stream: str, version: int, type_: str = "X", by: str = "service:t", **data: Any) -> dict[str, Any]:
    """An envelope."""
    return {"id": f"{stream}@{version}", "stream": stream, "version": version, "type": type_, "by": by,
            "cursor": f"e-{version}", "data": data, "patch": {}}  # fmt: skip


def created(version: int, order: str, key: str, by: str = "service:t", line: str = "l1") -> dict[str, Any]:
    """An order of one line that carries a key."""
    lines = [{"note": key, "product": "cola", "quantity": 2, "line": line}]
    return record("store:s1", version, "OrderCreated", by, order=order, lines=lines)


def acked(path: str, key: str = "k", events: list[Any] | None = None, **body: Any) -> Acknowledged:
    """An acknowledged command."""
    return Acknowledged(key, path, body, {"order": body.get("order", "")}, "e-1", events or [])


@pytest.mark.parametrize(
    ("versions", "good"),
    [([1, 2, 3], True), ([1, 3], False), ([1, 1], False), ([2], False), ([1, 2, 1], False)],
)
def test_contiguous(versions: list[int], good: bool):
    """Holes, doubles and steps back are found, per stream."""
    history = [record("store:s1", version) for version in versions]
    other = [record("table:s1/1", 1), record("table:s1/1", 2)]
    assert (contiguous([*other, *history]) == []) == good


def test_contiguous_finds_an_id_that_is_there_twice():
    """The same event under two versions is found."""
    history = [record("a:1", 1), record("a:1", 2)]
    history[1]["id"] = history[0]["id"]
    assert contiguous(history)


def test_nothing_lost():
    """An acknowledged event that is not there, or is there with other content, is found."""
    event = record("store:s1", 2, "OrderCreated", order="o1")
    command = acked("stores/s1/create-order", events=[event])
    assert nothing_lost([record("store:s1", 1), event], [command]) == []
    assert nothing_lost([record("store:s1", 1)], [command])
    assert nothing_lost([record("store:s1", 2, "OrderCreated", order="o2")], [command])


def test_nothing_doubled():
    """Two effects of one key, none of an acknowledged one, and effects of nobody's are found."""
    command = acked("stores/s1/create-order", key="k")
    once = [created(1, "o1", "k")]
    assert nothing_doubled(once, [command], ["k"]) == []
    assert nothing_doubled([], [], ["k"]) == []
    assert nothing_doubled([*once, created(2, "o2", "k")], [command], ["k"])
    assert nothing_doubled([], [command], ["k"])
    assert nothing_doubled(once, [], [])
    from_cart = created(2, "1-1", "k", by="table:s1/1")
    assert nothing_doubled([*once, from_cart], [command], ["k"]) == []


def test_stages_once():
    """A stage reached twice, or acknowledged and not reached, is found."""
    accepted = record("store:s1", 2, "OrderAccepted", order="o1")
    command = acked("stores/s1/accept-order", order="o1")
    assert stages_once([accepted], [command]) == []
    assert stages_once([accepted, record("store:s1", 3, "OrderAccepted", order="o1")], [])
    assert stages_once([], [command])


def test_carts_settled():
    """A cart without its order, with two, with other lines, or never told to the table is found."""
    sent = record("table:s1/1", 1, "CartSubmitted", order="1-1", lines=[{"line": "l1"}])
    order = created(1, "1-1", "k", by="table:s1/1")
    told = record("table:s1/1", 2, "OrderReceived", order="1-1")
    command = acked("tables/s1/1/submit-cart", order="1-1")
    assert carts_settled([sent, order, told], [command]) == []
    assert carts_settled([sent, record("table:s1/1", 2, "CartReturned", order="1-1")], [command]) == []
    assert carts_settled([sent], [command])
    assert carts_settled([sent, order], [command])
    assert carts_settled([sent, order, told, told], [command])
    assert carts_settled([sent, order, created(2, "1-1", "k"), told], [command])
    assert carts_settled([sent, created(1, "1-1", "k", line="l9"), told], [command])
    assert carts_settled([], [command])


def test_stock_adds_up():
    """Stock that went without an order, or did not go with one, is found."""
    assert stock_adds_up([created(1, "o1", "k")], "cola", 10, 8) == []
    assert stock_adds_up([created(1, "o1", "k")], "cola", 10, 10)


def test_fold():
    """Patches set and remove entities of their own stream."""
    history = [record("a:1", 1), record("a:1", 2), record("b:1", 1), record("a:1", 3)]
    patches: list[dict[str, Any]] = [
        {"x": {"1": 1, "2": 2}},
        {"x": {"1": None}},
        {"x": {"9": 9}},
        {"y": {"1": 1}},
    ]
    for envelope, patch in zip(history, patches, strict=True):
        envelope["patch"] = patch
    assert fold(history, "a:1") == {"x": {"2": 2}, "y": {"1": 1}}
