"""The judge finds each kind of fault in a history that has just that one, and none in one that has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.checker import judge
from tests.cluster.history import Call, Final, History, Loss, Outcome, Record, Sight

S = "store:s1"


def event(version: int, cause: str, kind: str = "OrderCreated", epoch: str = "e1", **data: Any) -> Any:
    """Return an envelope; what it changes is one order."""
    fields = {"lines": [{"product": "ramen", "quantity": 1}], **data}
    patch = {"orders": {f"o{version}": {"order": f"o{version}"}}}
    cursor = f"{epoch}-{version}"
    place = {"id": f"{cause}.{version}.{epoch}", "cursor": cursor, "stream": S, "version": version}
    return {**place, "type": kind, "cause": cause, "data": fields, "patch": patch}


def call(key: str, version: int, at: int, **changes: Any) -> Call:
    """Return an acknowledged command that took from `at` to `at + 5`."""
    epoch = changes.get("epoch", "e1")
    events = (event(version, key, epoch=epoch),)
    place = (1, "a", S, "create-order", {}, key, at, at + 5)
    answer = Call(*place, Outcome.OK, epoch=epoch, version=version, events=events)
    return answer._replace(**changes)


def seen(version: int, what: str = "event", node: str = "a", **changes: Any) -> Sight:
    """Return what a reader was shown: the event of command `k<version>`, unless changed."""
    envelope = event(version, f"k{version}") if what == "event" else None
    state = fold(version) if what in ("snapshot", "reset") else None
    return Sight("r", node, S, 0, what, "e1", version, envelope, state)._replace(**changes)


def fold(version: int) -> Any:
    return {"orders": {f"o{n}": {"order": f"o{n}"} for n in range(1, version + 1)}}


def history() -> History:
    """Return one in which all is well: four orders, one of them sent twice, and one reader."""
    found = History()
    found.epochs = {0: ["e1"]}
    found.partitions = {S: 0}
    found.records = [Record(0, n, event(n, f"k{n}")) for n in range(1, 5)]
    found.calls = [call(f"k{n}", n, 10 * n) for n in range(1, 4)]
    unknown = call("k4", 0, 40, outcome=Outcome.UNKNOWN, epoch="", events=())
    found.calls += [unknown, call("k4", 4, 50, node="b", replayed=True)]
    found.sights = [seen(1, "snapshot"), seen(2), seen(2, "resumed"), seen(3), seen(4), seen(4, "ping")]
    found.finals = [Final(node, S, "e1", 4, fold(4)) for node in ("a", "b")]
    return found


def after_a_loss() -> History:
    """Return one in which the third and the fourth order were lost and told, and the third was sent again."""
    found = history()
    found.epochs = {0: ["e1", "e2"]}
    found.lost = [Loss(record.envelope, "e1") for record in found.records[2:]]
    found.records = [*found.records[:2], Record(0, 3, event(3, "k3", epoch="e2"))]
    found.calls.append(call("k3", 3, 90, epoch="e2"))
    found.sights.append(seen(3, "reset", epoch="e2", reason="epoch"))
    found.finals = [Final(node, S, "e2", 3, fold(3)) for node in ("a", "b")]
    found.said = {
        "a": ["partition 0: epoch e2 begins after position 2: 2 acknowledged records or more are lost"]
    }
    return found


def test_nothing_is_found_where_all_is_well() -> None:
    """Neither without a loss, nor with one that was told, where losses are possible."""
    assert judge(history()).findings == []
    verdict = judge(after_a_loss(), may_lose=True)
    assert (verdict.findings, verdict.told, verdict.silent, verdict.doubled) == ([], 2, 0, 0)


def test_a_loss_that_was_told_is_one_where_none_may_be() -> None:
    assert any(line.startswith("lost: ") for line in judge(after_a_loss()).findings)


def lose_silently(h: History) -> None:
    del h.records[3]
    h.finals = [one._replace(version=3, state=fold(3)) for one in h.finals]


def lose_in_the_new_epoch(h: History) -> None:
    h.calls.append(call("k9", 4, 99, epoch="e2"))


def change_content(h: History) -> None:
    h.records[1] = h.records[1]._replace(envelope={**h.records[1].envelope, "type": "Other"})


def take_effect_twice(h: History) -> None:
    h.records.append(Record(0, 5, event(5, "k2")))


def take_effect_when_refused(h: History) -> None:
    h.calls[0] = h.calls[0]._replace(outcome=Outcome.UNAVAILABLE, retry_after=True)


def answer_differently(h: History) -> None:
    h.calls[-1] = h.calls[-1]._replace(result={"number": 7})
    h.calls[-2] = call("k4", 4, 40)


def carry_out_twice(h: History) -> None:
    h.calls[-2] = call("k4", 4, 40)
    h.calls[-1] = h.calls[-1]._replace(replayed=False)


def turn_around(h: History) -> None:
    first, second = h.calls[0], h.calls[1]
    h.calls[0] = first._replace(called_ns=second.called_ns, returned_ns=second.returned_ns)
    h.calls[1] = second._replace(called_ns=first.called_ns, returned_ns=first.returned_ns)


def leave_a_hole(h: History) -> None:
    h.records[2] = h.records[2]._replace(position=7)


def repeat_a_version(h: History) -> None:
    h.records.append(Record(0, 5, {**event(4, "k4"), "id": "another"}))


def refuse_without_a_reason(h: History) -> None:
    h.calls.append(call("k8", 0, 70, outcome=Outcome.REFUSED, code="internal", events=()))


def send_away_without_a_time(h: History) -> None:
    h.calls.append(call("k8", 0, 70, outcome=Outcome.UNAVAILABLE, code="log_unavailable", events=()))


def answer_with_somebody_elses(h: History) -> None:
    h.calls[1] = h.calls[1]._replace(events=(event(2, "k7"),))


def skip(h: History) -> None:
    del h.sights[3]


def show_twice(h: History) -> None:
    h.sights.insert(4, seen(3))


def show_what_is_not_there(h: History) -> None:
    h.sights[3] = seen(3, envelope=event(3, "k7"))


def snapshot_without_a_reason(h: History) -> None:
    h.sights.append(seen(4, "snapshot"))


def show_another_state(h: History) -> None:
    h.sights[0] = seen(1, "snapshot", state=fold(2))


def go_on_in_another_epoch(h: History) -> None:
    h.sights[-1] = seen(4, "resumed", epoch="e2")


def show_the_lost_again(h: History) -> None:
    h.sights.append(seen(4, epoch="e2"))


def stay_behind(h: History) -> None:
    h.finals[1] = h.finals[1]._replace(version=3, state=fold(3))


def end_differently(h: History) -> None:
    h.finals[1] = h.finals[1]._replace(state=fold(3))


def say_nothing(h: History) -> None:
    h.said = {}


def begin_no_epoch(h: History) -> None:
    h.epochs = {0: ["e1"]}


def issue(numbers: list[int], stock: int) -> Callable[[History], None]:
    def doctor(h: History) -> None:
        made = event(5, "k5", "CouponCreated", coupon="c", stock=stock)
        given = [
            event(6 + n, f"k{6 + n}", "CouponIssued", coupon="c", sequence=number, holder=f"u{n}")
            for n, number in enumerate(numbers)
        ]
        h.records += [Record(0, one["version"], one) for one in (made, *given)]

    return doctor


def order(quantity: int, said: int) -> Callable[[History], None]:
    def doctor(h: History) -> None:
        put = event(5, "k5", "ProductPut", product="cola", stock=2)
        lines = [{"product": "cola", "quantity": quantity}]
        took = event(6, "k6", lines=lines, stock=[{"product": "cola", "before": 2, "after": said}])
        h.records += [Record(0, one["version"], one) for one in (put, took)]

    return doctor


@pytest.mark.parametrize(
    ("check", "doctor"),
    [
        ("lost", lose_silently),
        ("lost", change_content),
        ("doubled", take_effect_twice),
        ("doubled", take_effect_when_refused),
        ("same answer", answer_differently),
        ("same answer", carry_out_twice),
        ("real time", turn_around),
        ("linear", leave_a_hole),
        ("linear", repeat_a_version),
        ("answers", refuse_without_a_reason),
        ("answers", send_away_without_a_time),
        ("answers", answer_with_somebody_elses),
        ("screens", skip),
        ("screens", show_twice),
        ("screens", show_what_is_not_there),
        ("screens", snapshot_without_a_reason),
        ("screens", show_another_state),
        ("screens", go_on_in_another_epoch),
        ("converged", stay_behind),
        ("converged", end_differently),
        ("rules", issue([1, 3], 9)),
        ("rules", issue([1, 2], 1)),
        ("rules", order(3, -1)),
        ("rules", order(1, 2)),
    ],
)
def test_each_fault_is_found(check: str, doctor: Callable[[History], None]) -> None:
    """By the check whose matter it is."""
    found = history()
    doctor(found)
    assert any(line.startswith(f"{check}: ") for line in judge(found).findings), judge(found).findings


@pytest.mark.parametrize("doctor", [issue([1, 2], 2), order(2, 0)])
def test_rules_that_are_kept(doctor: Callable[[History], None]) -> None:
    found = history()
    doctor(found)
    assert not [line for line in judge(found).findings if line.startswith("rules: ")]


@pytest.mark.parametrize(
    ("check", "doctor"),
    [
        ("lost", lose_in_the_new_epoch),
        ("lost", begin_no_epoch),
        ("told", begin_no_epoch),
        ("told", say_nothing),
        ("screens", show_the_lost_again),
    ],
)
def test_each_fault_after_a_loss_is_found(check: str, doctor: Callable[[History], None]) -> None:
    """A loss is no excuse for anything else."""
    found = after_a_loss()
    doctor(found)
    findings = judge(found, may_lose=True).findings
    assert any(line.startswith(f"{check}: ") for line in findings), findings
