"""The rules of a ledger: accounts, and snapshots of them. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, assert_never

from msgspec import Meta, Struct

from engine.domain import contract
from engine.domain.contract import Context
from engine.errors import Rejected

ACCOUNTS_MAX = 10_000
SNAPSHOTS_MAX = 10_000
"""Snapshots that are kept; older ones are forgotten."""

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Balance = Annotated[int, Meta(ge=-(10**15), le=10**15)]
User = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}(?!\n)$")]


class Account(Struct, frozen=True, rename="camel"):
    """An account, as it is shown."""

    id: int
    name: str
    balance: int
    created_at: str


class Snapshot(Struct, frozen=True, rename="camel"):
    """What an account was at a time."""

    account: Account
    date: str
    user_id: str


class State(Struct):
    """Everything in the ledger. Keys of `accounts` are ids as text."""

    accounts: dict[str, Account] = {}
    snapshots: list[Snapshot] = []


COLLECTIONS = ("accounts",)


class CreateAccount(contract.Command, frozen=True):
    """Open an account called `name` with a `balance` (won). The `user` is told once snapshots are
    made.
    """

    allowed: ClassVar = frozenset({"service"})
    name: Name
    balance: Balance
    user: User


class GenerateSnapshots(contract.Command, frozen=True):
    """Take a snapshot of each account, for a `user`."""

    user: User


class AccountCreated(contract.Event, frozen=True):
    """There is a new account."""

    account: int
    name: str
    balance: int
    at: str


class SnapshotsWanted(contract.Event, frozen=True):
    """Snapshots are to be made for a user."""

    user: str


class SnapshotsGenerated(contract.Event, frozen=True):
    """Each account that there was has one more snapshot."""

    user: str
    count: int
    at: str


Command = CreateAccount | GenerateSnapshots
Event = AccountCreated | SnapshotsWanted | SnapshotsGenerated


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what happens.

    Raises:
        Rejected: `too_many_accounts`.
    """
    match command:
        case CreateAccount(name=name, balance=balance, user=user):
            if len(state.accounts) >= ACCOUNTS_MAX:
                raise Rejected("too_many_accounts", f"The ledger is full: {ACCOUNTS_MAX} accounts")
            number = len(state.accounts) + 1
            return [AccountCreated(number, name, balance, context.now), SnapshotsWanted(user)]
        case GenerateSnapshots(user=user):
            return [SnapshotsGenerated(user, len(state.accounts), context.now)]
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Change the state by one fact."""
    match event:
        case AccountCreated(account=number, name=name, balance=balance, at=at):
            state.accounts[str(number)] = Account(number, name, balance, at)
        case SnapshotsGenerated(user=user, at=at):
            state.snapshots += [Snapshot(account, at, user) for account in state.accounts.values()]
            del state.snapshots[:-SNAPSHOTS_MAX]
        case SnapshotsWanted():
            return
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Name what readers of the ledger's stream have to be shown anew."""
    return [("accounts", str(event.account))] if isinstance(event, AccountCreated) else []


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, Any]:
    """Return the new account."""
    match events:
        case [AccountCreated() as made, *_]:
            return {"id": made.account, "name": made.name, "balance": made.balance, "createdAt": made.at}
        case _:
            return {}


def deadline(state: State) -> None:
    """A ledger waits for nothing."""


def fences(event: Event) -> bool:
    """Nothing is hidden from who comes later."""
    return False
