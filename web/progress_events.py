"""What progress looks like on the wire: one event, and where a task is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.domain.user.state import Mark, State
from engine.domain.user.tasks import COMPLETED, FAILED, STARTED, Report, mark_of

Shown = dict[str, Any]
"""One event or snapshot as it stands in JSON."""

_WORDS = {STARTED: "시작", COMPLETED: "완료"}


def mark_shown(user: str, task: str, total_steps: int, mark: Mark) -> Shown:
    """Return a task's event. `stepName` of one that failed is the reason, for pages that show only that."""
    shown: Shown = {
        "eventId": mark.event,
        "taskId": task,
        "userId": user,
        "currentStep": mark.step,
        "totalSteps": total_steps,
        "percentage": mark.percentage,
        "stepName": _step_name(mark.status, mark.step_name, mark.reason),
        "eventType": mark.status,
        "timestamp": mark.at,
    }
    if mark.reason is not None:
        shown["reason"] = mark.reason
    return shown


def report_shown(user: str, report: Report) -> Shown:
    """Return the same for an event of the stream."""
    return mark_shown(user, report.task, report.total_steps, mark_of(report))


def _step_name(status: str, step_name: str, reason: str | None) -> str:
    if status == FAILED:
        return reason or step_name
    return _WORDS.get(status, step_name) if status == COMPLETED or not step_name else step_name


def snapshot(state: State, user: str, name: str) -> Shown | None:
    """Return where a task is, `None` when there is none."""
    task = state.tasks.get(name)
    if task is None:
        return None
    shown: Shown = {
        "taskId": name,
        "userId": user,
        "currentStep": task.step,
        "totalSteps": task.total_steps,
        "percentage": task.percentage,
        "stepName": _step_name(task.status, task.step_name, task.reason),
        "status": task.status,
        "startedAt": task.started_at,
        "updatedAt": task.updated_at,
        "eventCount": task.events,
    }
    if task.reason is not None:
        shown["reason"] = task.reason
    return shown


def task_marks(state: State, user: str, name: str) -> list[Shown]:
    """Return every event of a task, oldest first."""
    task = state.tasks.get(name)
    if task is None:
        return []
    return [mark_shown(user, name, task.total_steps, mark) for mark in state.marks[name]]


def in_order(events: Iterable[Shown]) -> list[Shown]:
    """Return events of several tasks, oldest first: their ids sort by time."""
    return sorted(events, key=lambda event: str(event["eventId"]))
