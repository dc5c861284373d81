"""What happens in a shop: pure rules, no I/O, no clock, no `async`.

A domain is a module (or package) with these names; `DOMAINS` lists them by the kind of stream they own:

    Command, Event      unions of structs
    State               a mutable struct; `State()` is the state before the first event
    COLLECTIONS         names of the state's fields that readers see: each a `dict` of id -> entity
    decide              (state, command, context) -> list of events; reads only
    evolve              (state, event) -> None; the only place that changes state; total
    touched             (event) -> [(collection, id)]: the entities that go out in the frame's patch
    answer              (state, command, events) -> dict: the `result` of the command's answer, after evolve
    deadline            (state) -> (due_ms, command) or None: when this state next wants to be woken
    fences              (event) -> bool: readers who come later must not see this stream's earlier records
"""

from engine.domain import group, store, table, topic, user, visits
from engine.domain.contract import Domain

DOMAINS: dict[str, Domain] = {
    "store": store,
    "table": table,
    "user": user,
    "topic": topic,
    "group": group,
    "visits": visits,
}
