"""Who follows the shop: users who want to hear when a campaign opens."""

from __future__ import annotations

from typing import ClassVar, assert_never

from engine.domain import contract
from engine.domain.contract import Context
from engine.domain.fields import Id
from engine.domain.store.state import State
from engine.errors import Rejected

FOLLOWERS_MAX = 100_000


class FollowStore(contract.Command, frozen=True):
    """Tell the `user` (who can leave that out for themselves) when a campaign opens."""

    allowed: ClassVar = frozenset({"user", "staff", "owner"})
    user: Id | None = None


class UnfollowStore(contract.Command, frozen=True):
    """Tell the `user` (who can leave that out for themselves) nothing more."""

    allowed: ClassVar = frozenset({"user", "staff", "owner"})
    user: Id | None = None


class StoreFollowed(contract.Event, frozen=True):
    """A user follows the shop; `number` counts those who ever did."""

    user: str
    number: int
    at: str


class StoreUnfollowed(contract.Event, frozen=True):
    """A user follows the shop no longer."""

    user: str
    at: str


Command = FollowStore | UnfollowStore
Event = StoreFollowed | StoreUnfollowed


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Follow or not; `[]` when it is so already.

    Raises:
        Rejected: `forbidden`, `user_missing`, `too_many_followers`.
    """
    user = _whose(command, context)
    match command:
        case FollowStore():
            if user in state.followers:
                return []
            if len(state.followers) >= FOLLOWERS_MAX:
                raise Rejected("too_many_followers", f"A shop has {FOLLOWERS_MAX} followers at most")
            return [StoreFollowed(user, state.follows + 1, context.now)]
        case UnfollowStore():
            return [StoreUnfollowed(user, context.now)] if user in state.followers else []
        case _:
            assert_never(command)


def evolve(state: State, event: Event) -> None:
    """Note who follows, in the order in which they came."""
    match event:
        case StoreFollowed(user=user, number=number):
            state.followers[user] = number
            state.follows = number
        case StoreUnfollowed(user=user):
            state.followers.pop(user, None)
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """Followers are in nobody's view."""
    return []


def answer(state: State, command: Command, events: list[contract.Event]) -> dict[str, object]:
    """Return whether they follow now."""
    return {"following": isinstance(command, FollowStore)}


def _whose(command: Command, context: Context) -> str:
    """Return who follows; users decide for themselves only."""
    role, _, name = context.by.partition(":")
    user = command.user
    if role == "user":
        if user not in (None, name):
            raise Rejected("forbidden", "A user follows for themselves only")
        return name
    if user is None:
        raise Rejected("user_missing", "Say which user it is about")
    return user
