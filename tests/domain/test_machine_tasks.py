"""Invariant: whatever comes in whatever order and however often, a task's percentage never falls and it ends
at most once.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.domain.user.tasks import (
    OVER,
    TASKS_MAX,
    AdvanceTask,
    CleanupTasks,
    CompleteTask,
    FailTask,
    ForgetTasks,
    StartTask,
    TaskStarted,
)
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream, check_replay

CODES = {"unknown_task", "unknown_step", "task_exists", "task_over"}
names = st.sampled_from(["a", "b", "c"])
ENDS = ("TaskCompleted", "TaskFailed")


class Tasks(RuleBasedStateMachine):
    """Reports about a few tasks, and the time that goes by."""

    def __init__(self):
        super().__init__()
        self.stream = Stream("user:u1")
        self.now_ms = NOW_MS
        self.codes = set()
        self.ends = {}
        self.shown = {}

    def send(self, command):
        try:
            events = self.stream.do(command, "service:jobs", self.now_ms)
        except Rejected as refusal:
            self.codes.add(refusal.code)
            return
        for event in events:
            kind = type(event).__name__
            if isinstance(event, TaskStarted):
                assert event.task not in self.stream.state.leaving
                self.ends[event.task] = 0
                self.shown[event.task] = 0
            if kind in ENDS:
                self.ends[event.task] += 1
            if hasattr(event, "percentage"):
                assert self.shown[event.task] <= event.percentage <= 100
                self.shown[event.task] = event.percentage
        if isinstance(command, CompleteTask | FailTask) and events:
            assert len(events) == 1

    @rule(name=names, steps=st.sampled_from([1, 3, 4, 1000]), keep_s=st.sampled_from([0, 60, 86_400]))
    def start(self, name, steps, keep_s):
        self.send(StartTask(steps, name, keep_s=keep_s))

    @rule(name=names, step=st.sampled_from([1, 2, 3, 4, 5, 999, 1000]))
    def advance(self, name, step):
        self.send(AdvanceTask(name, step, f"{step}"))

    @rule(name=names)
    def complete(self, name):
        self.send(CompleteTask(name))

    @rule(name=names)
    def fail(self, name):
        self.send(FailTask(name, "품절"))

    @rule(seconds=st.sampled_from([0, 30, 86_400]))
    def wait(self, seconds):
        self.now_ms += seconds * 1000

    @rule()
    def forget(self):
        due = self.stream.domain.deadline(self.stream.state)
        self.send(due[1] if due is not None else ForgetTasks())
        assert all(due_ms > self.now_ms for due_ms in self.stream.state.leaving.values())

    @rule(seconds=st.sampled_from([0, 30]))
    def clean_up(self, seconds):
        self.send(CleanupTasks(seconds))

    @rule(times=st.integers(1, 40))
    def crowd(self, times):
        for number in range(times):
            self.send(StartTask(2, f"many-{number}"))

    @invariant()
    def a_task_ends_at_most_once(self):
        assert all(count <= 1 for count in self.ends.values())

    @invariant()
    def what_is_kept_agrees(self):
        state = self.stream.state
        assert list(state.marks) == list(state.keeps) == list(state.tasks)
        assert len(state.tasks) <= TASKS_MAX
        assert set(state.leaving) == {name for name, task in state.tasks.items() if task.status in OVER}
        for name, marks in state.marks.items():
            task = state.tasks[name]
            percentages = [mark.percentage for mark in marks]
            assert percentages == sorted(percentages)
            assert [mark.event for mark in marks] == sorted({mark.event for mark in marks}, key=_number)
            assert (marks[-1].event, len(marks)) == (task.event, task.events)
            assert all(mark.status not in OVER for mark in marks[:-1])

    def teardown(self):
        assert self.codes <= CODES
        check_replay(self.stream, len(self.stream.events) // 2)


def _number(name):
    return int(name.partition("-")[2])


TestTasks = Tasks.TestCase
TestTasks.settings = settings(max_examples=60, stateful_step_count=40)
