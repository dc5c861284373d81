"""Who may do what: which streams an identity may read and which commands it may send, as plain functions.

Roles per command stand on the command structs. What only the rules can know (is this order for oneself? is it
one's own?) is decided there, from who sent the command.
"""

from __future__ import annotations

from engine.domain.contract import Command
from web.messages import Problem
from web.tokens import Identity


def may_read(who: Identity, kind: str, ids: tuple[str, ...]) -> bool:
    """Tell whether the identity may read the stream: what it may see is exactly what its streams hold."""
    match who.role:
        case "service":
            return True
        case "owner" | "staff":
            return who.store == "*" or (kind in ("store", "table") and ids[0] == who.store)
        case "table":
            return kind == "table" and ids == (who.store, who.table)
        case "user":
            return kind == "user" and ids == (who.sub,)
        case _:
            return False


def check_send(who: Identity, kind: str, ids: tuple[str, ...], command: type[Command]) -> None:
    """Refuse a kind of command that the identity may not send to the stream.

    Raises:
        Problem: `forbidden`, with a detail that names what is missing.
    """
    if who.role == "service" or who.store == "*":
        return
    if who.role not in command.allowed:
        raise Problem("forbidden", f"this is for {', '.join(sorted(command.allowed))}, not for {who.role}")
    ordering = kind == "store" and (who.role == "user" or (who.role == "table" and ids[0] == who.store))
    if not ordering and not may_read(who, kind, ids):
        raise Problem("forbidden", f"the token is not for {kind} {'/'.join(ids)}")
