"""What the shop knows of its tables: who sits where, and which calls are ringing.

The tables decide; these commands follow from their records, in order, and repeat without harm.
"""

from __future__ import annotations

from typing import assert_never

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.store import closing
from engine.domain.store.announce import MenuAnnounced, announce_all
from engine.domain.store.state import RingingCall, SeenTable, State


class NoteTable(contract.Command, frozen=True):
    """The `table` is `open` for a party (`sitting`, `guests`, `opened_at`), or closed and its `calls`
    ended.
    """

    table: str
    sitting: int
    open: bool
    guests: int | None = None
    opened_at: str | None = None
    calls: tuple[str, ...] = ()


class NoteCall(contract.Command, frozen=True):
    """A `call` for staff (its `kind`, `called_at`) rings at the `table`, or was `answered`."""

    table: str
    call: str
    kind: str
    called_at: str
    answered: bool = False


class TableNoted(contract.Event, frozen=True):
    """A table is open or closed."""

    table: str
    sitting: int
    open: bool = False
    guests: int | None = None
    opened_at: str | None = None
    calls: tuple[str, ...] = ()


class CallNoted(contract.Event, frozen=True):
    """A call rings, or was answered."""

    table: str
    call: str
    kind: str
    called_at: str
    answered: bool = False


Command = NoteTable | NoteCall
Event = TableNoted | CallNoted | MenuAnnounced


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Note it; a table that opens is told the menu and what is on offer."""
    match command:
        case NoteTable(table=table, sitting=sitting, open=opens):
            if opens == (table in state.sittings) and state.sittings.get(table, sitting) == sitting:
                return []
            noted = TableNoted(table, sitting, opens, command.guests, command.opened_at, command.calls)
            return [noted, *announce_all(state, table, context.now)] if opens else [noted]
        case NoteCall(table=table, call=call, kind=kind, called_at=called_at, answered=answered):
            if (f"{table}/{call}" not in state.calls) == answered:
                return []
            return [CallNoted(table, call, kind, called_at, answered)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Keep the shop's picture of its tables."""
    match event:
        case TableNoted(table=table):
            if event.open:
                state.sittings[table] = event.sitting
            else:
                state.sittings.pop(table, None)
            closing.change_party(state, table, state.sittings.get(table))
            state.tables[table] = SeenTable(table, event.open, event.guests, event.opened_at)
            for call in event.calls:
                state.calls.pop(f"{table}/{call}", None)
        case CallNoted(table=table, call=call):
            key = f"{table}/{call}"
            if event.answered:
                state.calls.pop(key, None)
            else:
                state.calls[key] = RingingCall(table, call, event.kind, event.called_at)
        case MenuAnnounced():
            pass  # it is for the tables
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The table and calls that ended with it, or the call."""
    match event:
        case TableNoted(table=table, calls=calls):
            return [("tables", table), *(("calls", f"{table}/{call}") for call in calls)]
        case CallNoted(table=table, call=call):
            return [("calls", f"{table}/{call}")]
        case MenuAnnounced():
            return []
        case _:
            assert_never(event)
