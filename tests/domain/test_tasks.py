"""Tasks: what each command does, when it is refused, and what is kept for how long."""

import pytest

from engine.domain import user
from engine.domain.user.tasks import (
    AdvanceTask,
    CleanupTasks,
    CompleteTask,
    FailTask,
    ForgetTasks,
    StartTask,
    TaskAdvanced,
    TaskCompleted,
    TaskFailed,
    TasksForgotten,
    TaskStarted,
)
from tests.harness_domain import NOW, NOW_MS, Stream, check

BY = "service:jobs"
BEGUN = TaskStarted("e1", "a", 4, NOW, "주문")
FIRST = TaskAdvanced("e2", "a", 1, 4, 25, "주문 검증", NOW)
THIRD = TaskAdvanced("e3", "a", 3, 4, 75, "결제 처리", NOW)
DONE = TaskCompleted("e4", "a", 4, 4, NOW)
BROKEN = TaskFailed("e4", "a", 1, 4, 25, NOW, "품절", "주문 검증")


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        ([], StartTask(4, "a", "주문"), [TaskStarted("id-1", "a", 4, NOW, "주문")]),
        ([], StartTask(4, keep_s=60), [TaskStarted("id-1", "id-2", 4, NOW, keep_s=60)]),
        ([BEGUN], StartTask(4, "a", "주문"), []),
        ([BEGUN, DONE], StartTask(4, "a", "주문"), []),
        ([BEGUN], AdvanceTask("a", 1, "주문 검증"), [TaskAdvanced("id-1", "a", 1, 4, 25, "주문 검증", NOW)]),
        ([BEGUN], AdvanceTask("a", 4, "끝"), [TaskAdvanced("id-1", "a", 4, 4, 100, "끝", NOW)]),
        ([BEGUN, FIRST], AdvanceTask("a", 1, "다른 이름"), []),
        ([BEGUN, FIRST, THIRD], AdvanceTask("a", 2, "재고 확인"), []),
        ([BEGUN, FIRST], CompleteTask("a"), [TaskCompleted("id-1", "a", 4, 4, NOW)]),
        ([BEGUN, FIRST, DONE], CompleteTask("a"), []),
        (
            [BEGUN, FIRST],
            FailTask("a", "품절"),
            [TaskFailed("id-1", "a", 1, 4, 25, NOW, "품절", "주문 검증")],
        ),
        ([BEGUN, FIRST, BROKEN], FailTask("a", "또 품절"), []),
        ([], CleanupTasks(), []),
        ([BEGUN, FIRST], CleanupTasks(), []),
        ([BEGUN, DONE], CleanupTasks(), [TasksForgotten(("a",), NOW)]),
        ([BEGUN, DONE], CleanupTasks(1), []),
        ([BEGUN, DONE], ForgetTasks(), []),
    ],
)
def test_what_each_command_does(given, when, then):
    check(user, given, when, then, by=BY)


@pytest.mark.parametrize(
    ("given", "when", "code"),
    [
        ([BEGUN], StartTask(5, "a", "주문"), "task_exists"),
        ([BEGUN], StartTask(4, "a", "청소"), "task_exists"),
        ([], AdvanceTask("a", 1, "주문 검증"), "unknown_task"),
        ([], CompleteTask("a"), "unknown_task"),
        ([], FailTask("a", "품절"), "unknown_task"),
        ([BEGUN], AdvanceTask("a", 5, "너무 멀리"), "unknown_step"),
        ([BEGUN, DONE], AdvanceTask("a", 4, "늦게"), "task_over"),
        ([BEGUN, DONE], FailTask("a", "늦게"), "task_over"),
        ([BEGUN, FIRST, BROKEN], CompleteTask("a"), "task_over"),
        ([BEGUN, FIRST, BROKEN], AdvanceTask("a", 2, "늦게"), "task_over"),
    ],
)
def test_what_is_refused(given, when, code):
    check(user, given, when, rejected=code, by=BY)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [100]), (3, [33, 66, 100]), (7, [14, 28, 42, 57, 71, 85, 100])]
)
def test_percentages_are_whole_and_end_at_100(steps, expected):
    stream = check(user, [], StartTask(steps, "a"), by=BY)
    answers = [stream.answer(AdvanceTask("a", step + 1, "다음"), BY) for step in range(steps)]
    assert [answer["percentage"] for answer in answers] == expected


def test_answers_say_where_the_task_is():
    """Also those of reports that changed nothing."""
    stream = check(user, [BEGUN, FIRST, THIRD], AdvanceTask("a", 2, "재고 확인"), [], by=BY)
    known = {"task": "a", "status": "PROGRESS", "step": 3, "percentage": 75}
    assert stream.answer(AdvanceTask("a", 1, "주문 검증"), BY) == known
    assert stream.answer(CompleteTask("a"), BY) == known | {
        "status": "COMPLETED",
        "step": 4,
        "percentage": 100,
    }
    assert stream.answer(StartTask(4, "a", "주문"), BY)["status"] == "COMPLETED"
    assert stream.answer(CleanupTasks(), BY) == {"forgotten": 1}
    assert stream.answer(CleanupTasks(), BY) == {"forgotten": 0}
    assert stream.answer(StartTask(2), BY)["percentage"] == 0


def test_a_task_shows_its_newest_event_and_keeps_all():
    stream = check(user, [BEGUN, FIRST], FailTask("a", "품절"), by=BY)
    task = stream.state.tasks["a"]
    assert (task.event, task.events, task.reason, task.started_at) == ("id-1", 3, "품절", NOW)
    assert [(mark.event, mark.status, mark.percentage) for mark in stream.state.marks["a"]] == [
        ("e1", "STARTED", 0),
        ("e2", "PROGRESS", 25),
        ("id-1", "FAILED", 25),
    ]


def test_a_finished_task_leaves_when_its_time_is_over():
    """Not a moment earlier, and with everything that was kept of it."""
    stream = check(user, [], StartTask(4, "a", keep_s=60), by=BY)
    assert stream.domain.deadline(stream.state) is None
    stream.do(StartTask(4, "b", keep_s=0), BY)
    stream.do(CompleteTask("a"), BY, NOW_MS + 5)
    due_ms, command = stream.domain.deadline(stream.state)
    assert due_ms == NOW_MS + 60_005
    assert stream.do(command, "user:u1", due_ms - 1) == []
    stream.do(command, "user:u1", due_ms)
    state = stream.state
    assert [list(part) for part in (state.tasks, state.marks, state.keeps, state.leaving)] == [
        ["b"],
        ["b"],
        ["b"],
        [],
    ]
    assert stream.domain.deadline(state) is None


def test_room_is_made_by_finished_tasks_first(monkeypatch):
    monkeypatch.setattr(user.tasks, "TASKS_MAX", 3)
    stream = Stream("user:u1")
    for name in "abc":
        stream.do(StartTask(1, name), BY)
    stream.do(CompleteTask("b"), BY)
    for name in "defg":
        stream.do(StartTask(1, name), BY)
    assert list(stream.state.tasks) == ["e", "f", "g"]
    assert [event.dropped for event in stream.events if isinstance(event, TaskStarted)][3:] == [
        ("b",),
        ("a",),
        ("c",),
        ("d",),
    ]
