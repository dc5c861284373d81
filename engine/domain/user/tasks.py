"""Work that is done for the user step by step, and how far it has come.

A task starts at 0 %, moves up with its steps, and ends once: COMPLETED at 100 %, or FAILED where it was. What
comes late or again changes nothing, so whoever reports may report again. Every event has an id of its own,
later ones sort after earlier ones. A finished task is forgotten after a while, with its history.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Id, Label, Name, Reason, Ref
from engine.domain.times import to_ms
from engine.domain.user.state import Mark, State, Task
from engine.errors import Rejected

TASKS_MAX = 100
"""Tasks of one user; one more pushes the oldest out, a finished one if there is any."""

KEEP_S = 30 * 86_400

STARTED, PROGRESS, COMPLETED, FAILED = "STARTED", "PROGRESS", "COMPLETED", "FAILED"
OVER = frozenset({COMPLETED, FAILED})

_SERVICE = frozenset({"service"})
TotalSteps = Annotated[int, Meta(ge=1, le=1_000)]
Seconds = Annotated[int, Meta(ge=0, le=3_650 * 86_400)]


class StartTask(contract.Command, frozen=True):
    """Begin a `task` (an id that no other task of any user has; one is made if it is left out) of
    `total_steps`, called `name`. It is kept for `keep_s` seconds after its end.
    """

    allowed: ClassVar = _SERVICE
    total_steps: TotalSteps
    task: Id | None = None
    name: Label = ""
    keep_s: Seconds = KEEP_S


class AdvanceTask(contract.Command, frozen=True):
    """The `task` has done this `step`, called `step_name`. A step that is not further changes nothing."""

    allowed: ClassVar = _SERVICE
    task: Ref
    step: Annotated[int, Meta(ge=1, le=1_000)]
    step_name: Name


class CompleteTask(contract.Command, frozen=True):
    """The `task` is done."""

    allowed: ClassVar = _SERVICE
    task: Ref


class FailTask(contract.Command, frozen=True):
    """The `task` ends where it is, for a `reason`."""

    allowed: ClassVar = _SERVICE
    task: Ref
    reason: Reason


class CleanupTasks(contract.Command, frozen=True):
    """Forget the tasks that ended more than `older_than_s` seconds ago."""

    allowed: ClassVar = _SERVICE
    older_than_s: Seconds = 0


class ForgetTasks(contract.Command, frozen=True):
    """Forget the tasks whose time is over."""


class TaskStarted(contract.Event, frozen=True):
    """A task began. Those in `dropped` made room for it."""

    event: str
    task: str
    total_steps: int
    at: str
    name: str = ""
    step: int = 0
    percentage: int = 0
    step_name: str = ""
    keep_s: int = KEEP_S
    dropped: tuple[str, ...] = ()


class TaskAdvanced(contract.Event, frozen=True):
    """A task has done a step."""

    event: str
    task: str
    step: int
    total_steps: int
    percentage: int
    step_name: str
    at: str


class TaskCompleted(contract.Event, frozen=True):
    """A task is done."""

    event: str
    task: str
    step: int
    total_steps: int
    at: str
    percentage: int = 100
    step_name: str = ""


class TaskFailed(contract.Event, frozen=True):
    """A task ended early: `step` and `percentage` are what it had reached."""

    event: str
    task: str
    step: int
    total_steps: int
    percentage: int
    at: str
    reason: str
    step_name: str = ""


class TasksForgotten(contract.Event, frozen=True):
    """Finished tasks are gone, with their histories."""

    tasks: tuple[str, ...]
    at: str


Command = StartTask | AdvanceTask | CompleteTask | FailTask | CleanupTasks | ForgetTasks
Report = TaskStarted | TaskAdvanced | TaskCompleted | TaskFailed
Event = TaskStarted | TaskAdvanced | TaskCompleted | TaskFailed | TasksForgotten

STATUS: dict[type, str] = {
    TaskStarted: STARTED,
    TaskAdvanced: PROGRESS,
    TaskCompleted: COMPLETED,
    TaskFailed: FAILED,
}
"""What a task is after each type of its events."""


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what is new.

    Raises:
        Rejected: `unknown_task`, `task_exists`, `task_over`, `unknown_step`.
    """
    match command:
        case StartTask():
            return _start(state, command, context)
        case AdvanceTask(task=name, step=step, step_name=step_name):
            task = _running(state, name)
            total = task.total_steps
            if step > total:
                raise Rejected("unknown_step", f"Task {name} has {total} steps, and no step {step}")
            if step <= task.step:
                return []
            percentage = step * 100 // total
            return [TaskAdvanced(context.new_id, name, step, total, percentage, step_name, context.now)]
        case CompleteTask(task=name):
            if _known(state, name).status == COMPLETED:
                return []
            total = _running(state, name).total_steps
            return [TaskCompleted(context.new_id, name, total, total, context.now)]
        case FailTask(task=name, reason=reason):
            if _known(state, name).status == FAILED:
                return []
            task = _running(state, name)
            reached = (task.step, task.total_steps, task.percentage)
            return [TaskFailed(context.new_id, name, *reached, context.now, reason, task.step_name)]
        case CleanupTasks(older_than_s=seconds):
            return _forget(_ended_by(state, context.now_ms - seconds * 1000), context)
        case ForgetTasks():
            now_ms = context.now_ms
            return _forget([name for name, due_ms in state.leaving.items() if due_ms <= now_ms], context)
        case _:
            assert_never(command)


def _start(state: State, command: StartTask, context: Context) -> list[contract.Event]:
    name = command.task
    known = state.tasks.get(name) if name is not None else None
    if known is not None:
        if (known.total_steps, known.name) == (command.total_steps, command.name):
            return []
        raise Rejected("task_exists", f"There is another task {name}: use an id of its own for each")
    event = context.new_id
    return [
        TaskStarted(
            event,
            name if name is not None else context.new_id,
            command.total_steps,
            context.now,
            command.name,
            keep_s=command.keep_s,
            dropped=_room(state),
        )
    ]


def _room(state: State) -> tuple[str, ...]:
    """Return the task that has to go so that one more has room."""
    if len(state.tasks) < TASKS_MAX:
        return ()
    ended = (name for name in state.tasks if name in state.leaving)
    return (next(ended, None) or next(iter(state.tasks)),)


def _known(state: State, name: str) -> Task:
    task = state.tasks.get(name)
    if task is None:
        raise Rejected("unknown_task", f"There is no task {name}, or it is forgotten")
    return task


def _running(state: State, name: str) -> Task:
    task = _known(state, name)
    if task.status in OVER:
        raise Rejected("task_over", f"Task {name} has ended: {task.status}")
    return task


def _ended_by(state: State, ms: int) -> list[str]:
    return [name for name in state.leaving if to_ms(state.tasks[name].updated_at) <= ms]


def _forget(names: list[str], context: Context) -> list[contract.Event]:
    return [TasksForgotten(tuple(names), context.now)] if names else []


def evolve(state: State, event: Event) -> None:
    """Take the report over, or forget."""
    match event:
        case TaskStarted():
            _drop(state, event.dropped)
            _drop(state, (event.task,))
            state.tasks[event.task] = Task(
                event.task,
                event.name,
                event.event,
                STARTED,
                event.step,
                event.total_steps,
                event.percentage,
                event.step_name,
                event.at,
                event.at,
                1,
            )
            state.marks[event.task] = [mark_of(event)]
            state.keeps[event.task] = event.keep_s
        case TaskAdvanced() | TaskCompleted() | TaskFailed():
            _report(state, event)
        case TasksForgotten():
            _drop(state, event.tasks)
        case _:
            assert_never(event)


def _report(state: State, event: TaskAdvanced | TaskCompleted | TaskFailed) -> None:
    task = state.tasks.get(event.task)
    if task is None:
        return
    state.tasks[event.task] = replace(
        task,
        event=event.event,
        status=STATUS[type(event)],
        step=event.step,
        percentage=event.percentage,
        step_name=event.step_name,
        updated_at=event.at,
        events=task.events + 1,
        reason=event.reason if isinstance(event, TaskFailed) else None,
    )
    state.marks[event.task].append(mark_of(event))
    if not isinstance(event, TaskAdvanced):
        state.leaving[event.task] = to_ms(event.at) + state.keeps[event.task] * 1000


def mark_of(event: Report) -> Mark:
    """Return an event as a task's history keeps it."""
    reason = event.reason if isinstance(event, TaskFailed) else None
    status = STATUS[type(event)]
    return Mark(event.event, status, event.step, event.percentage, event.step_name, event.at, reason)


def _drop(state: State, names: tuple[str, ...]) -> None:
    for name in names:
        state.tasks.pop(name, None)
        state.marks.pop(name, None)
        state.keeps.pop(name, None)
        state.leaving.pop(name, None)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name the tasks that changed or went."""
    match event:
        case TaskStarted():
            return [("tasks", event.task), *(("tasks", old) for old in event.dropped)]
        case TasksForgotten(tasks=names):
            return [("tasks", name) for name in names]
        case _:
            return [("tasks", event.task)]


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return the task as it is now, or which were forgotten."""
    match command, events:
        case (CleanupTasks() | ForgetTasks(), _):
            return {
                "forgotten": sum(len(event.tasks) for event in events if isinstance(event, TasksForgotten))
            }
        case (StartTask(), [TaskStarted(task=name)]):
            task = state.tasks[name]
        case _:
            task = state.tasks[getattr(command, "task", "")]
    return {"task": task.task, "status": task.status, "step": task.step, "percentage": task.percentage}


def deadline(state: State) -> tuple[int, Any] | None:
    """Return when the next finished task is to be forgotten."""
    return (min(state.leaving.values()), ForgetTasks()) if state.leaving else None
