"""Calls for staff from one table, from the bell to the answer."""

from __future__ import annotations

from typing import ClassVar, assert_never

from engine.domain import contract
from engine.domain.contract import STAFF, Context
from engine.domain.fields import CallKind, Ref
from engine.domain.table.state import Call, State, check_open, table_of
from engine.errors import Rejected


class CallStaff(contract.Command, frozen=True):
    """Ring for staff, for a `kind` of help: water, cutlery, bill or other."""

    allowed: ClassVar = frozenset({"table", "staff", "owner"})
    kind: CallKind


class AnswerCall(contract.Command, frozen=True):
    """Somebody is on the way: the `call` stops ringing."""

    allowed: ClassVar = STAFF
    call: Ref


class StaffCalled(contract.Event, frozen=True):
    """The bell rings."""

    store: str
    table: str
    call: str
    kind: str
    at: str


class CallAnswered(contract.Event, frozen=True):
    """The bell is silent: somebody is on the way."""

    store: str
    table: str
    call: str
    kind: str
    called_at: str


Command = CallStaff | AnswerCall
Event = StaffCalled | CallAnswered


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Ring or answer; `[]` when this bell is ringing already.

    Raises:
        Rejected: `table_closed`, `unknown_call`.
    """
    check_open(state)
    store, table = table_of(context.stream)
    match command:
        case CallStaff(kind=kind):
            if ringing(state, kind) is not None:
                return []
            return [StaffCalled(store, table, f"c{state.calls_made + 1}", kind, context.now)]
        case AnswerCall(call=name):
            call = state.calls.get(name)
            if call is None:
                raise Rejected("unknown_call", f"The call {name} is not ringing (any more)")
            return [CallAnswered(store, table, name, call.kind, call.called_at)]
        case _:
            assert_never(command)


def ringing(state: State, kind: str) -> str | None:
    """Return the id of the call of this kind that is ringing."""
    return next((call.call for call in state.calls.values() if call.kind == kind), None)


def evolve(state: State, event: Event) -> None:
    """Ring or stop."""
    match event:
        case StaffCalled(call=call, kind=kind, at=at):
            state.calls_made += 1
            state.calls[call] = Call(call, kind, at)
        case CallAnswered(call=call):
            state.calls.pop(call, None)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """One call."""
    return [("calls", event.call)]
