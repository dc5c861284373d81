"""Progress of a user's tasks, as pages and scripts ask for it: `/api/v2/progress/…`.

GET  subscribe?userId=            SSE: first `recovery`, how far tasks are; then `progress`, as it goes on
GET  subscribe/{taskId}?userId=   the same for one task
GET  status/{taskId}              where a task is
GET  history/{taskId}             every event of a task
GET  user/{userId}                every event of all of a user's tasks
POST orders?userId=&productName=&quantity=   202: an order, carried out as a task
GET  monitor                      numbers for operators
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from uuid import UUID

import msgspec

from engine import inspection
from engine.domain.store.state import SELF
from engine.domain.times import to_text
from engine.domain.user.state import State
from engine.errors import Rejected, Unavailable
from engine.progress import BY, TOPIC, OrderWish, begin
from engine.records import ID, stream_name
from web.demo import STORE
from web.messages import Headers, Problem, Request, Response, allow, json_response
from web.progress_events import Shown, in_order, mark_shown, snapshot, task_marks
from web.progress_source import open_progress
from web.rights import may_read
from web.site import Site
from web.streaming import HEADERS, EventStream
from web.tokens import Identity

_READ = ("GET", "HEAD")
_NO_STORE: Headers = [("cache-control", "no-store")]
_QUANTITY_DIGITS_MAX = 6
_KEY_CHARS_MAX = 255


async def progress(site: Site, request: Request, rest: list[str]) -> Response:
    """Answer one request.

    Raises:
        Problem: `malformed`, `unauthorized`, `forbidden`, `unknown_task`, `not_found`.
    """
    if done := allow(request, *(("POST",) if rest == ["orders"] else _READ)):
        return done
    who = site.gate.identify(request)
    match rest:
        case ["orders"]:
            return await _order(site, who, request)
        case ["subscribe", *tasks] if len(tasks) <= 1:
            return await _subscribe(site, who, request, tasks[0] if tasks else None)
        case ["status", task]:
            user = await _user_of(site, who, task)
            found = await site.node.examine(_stream(user), lambda state, _: snapshot(state, user, task))
            return _json(found if found is not None else _nothing())
        case ["history", task]:
            user = await _user_of(site, who, task)
            events = await site.node.examine(_stream(user), lambda state, _: task_marks(state, user, task))
            return _json(events or _nothing())
        case ["user", user]:
            _check(who, user)
            return _json(await site.node.examine(_stream(user), lambda state, _: _all(state, user)))
        case ["monitor"]:
            return _json(await _monitor(site, who))
        case _:
            raise Problem("not_found", "there is nothing at this path")


def _json(value: object, status: int = 200) -> Response:
    return json_response(msgspec.json.encode(value), status, _NO_STORE)


def _nothing() -> object:
    raise Problem("unknown_task", "there is no such task, or it is forgotten")


def _stream(user: str) -> str:
    return stream_name("user", user)


def _check(who: Identity, user: str) -> None:
    if not ID.match(user):
        raise Problem("malformed", "`userId` must be 1-64 characters of A-Z, a-z, 0-9, `_`, `.`, `-`")
    if not may_read(who, "user", (user,)):
        raise Problem("forbidden", f"the token is not for user {user}")


def _user(who: Identity, request: Request) -> str:
    user = request.field("userId")
    if user is None:
        raise Problem("malformed", "`userId` is missing")
    _check(who, user)
    return user


async def _user_of(site: Site, who: Identity, task: str) -> str:
    user = await site.node.tasks.user_of(task) if ID.match(task) else None
    if user is None:
        raise Problem("unknown_task", "there is no such task, or it is forgotten")
    _check(who, user)
    return user


def _all(state: State, user: str) -> list[Shown]:
    return in_order(
        mark_shown(user, task.task, task.total_steps, mark)
        for task in state.tasks.values()
        for mark in state.marks[task.task]
    )


async def _subscribe(site: Site, who: Identity, request: Request, task: str | None) -> Response:
    user = _user(who, request)
    if task is not None and not ID.match(task):
        raise Problem("malformed", "a task's id is 1-64 characters of A-Z, a-z, 0-9, `_`, `.`, `-`")
    if request.method == "HEAD":
        return Response(200, list(HEADERS))
    source = await open_progress(site, user, task, request.headers.get("last-event-id", ""))
    return Response(200, list(HEADERS), stream=EventStream(site, who, source))


async def _order(site: Site, who: Identity, request: Request) -> Response:
    """Publish the wish; what becomes of it the task tells.

    With a key the task's id is made of it, so a repeat is the same task; another body is then refused by the
    task itself, before anything is published.
    """
    user = _user(who, request)
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        raise Problem("malformed", "Idempotency-Key must be 1-255 visible ASCII characters")
    quantity = request.field("quantity") or "1"
    if not (quantity.isascii() and quantity.isdigit() and len(quantity) <= _QUANTITY_DIGITS_MAX):
        raise Problem("malformed", "`quantity` must be a whole number")
    store = request.field("storeId") or STORE
    if not ID.match(store):
        raise Problem("malformed", "`storeId` must be the id of a store")
    task = site.node.clock.new_id() if key is None else _task_of(who, user, key)
    fields = {
        "user": user,
        "task": task,
        "store": store,
        "product_name": request.field("productName") or "",
        "quantity": int(quantity),
    }
    try:
        wish = msgspec.convert(fields, OrderWish)
    except msgspec.ValidationError as error:
        raise Problem("malformed", str(error)) from error
    await _check_till(site, who, store)
    if key is not None:
        await site.node.ask(_stream(user), begin(wish), by=who.by, id=f"{store} {key}")
    await site.node.publish(TOPIC, [wish.message()])
    if key is None:
        with suppress(Rejected, Unavailable):  # it is published: who carries it out begins the task, too
            await site.node.ask(_stream(user), begin(wish), by=BY)
    body = {
        "taskId": task,
        "userId": user,
        "storeId": wish.store,
        "productName": wish.product_name,
        "quantity": wish.quantity,
        "status": "STARTED",
        "message": "주문이 접수되었습니다",
    }
    return _json(body, 202)


async def _check_till(site: Site, who: Identity, store: str) -> None:
    """Refuse a guest whose order would be paid at the till of a real shop by nobody."""
    if who.role == "service" or who.store == "*" or store == STORE:
        return
    with suppress(Rejected):  # there is no such shop: the task says so
        mode = await site.node.examine(f"store:{store}", lambda state, _: state.shop[SELF].payment_mode)
        if mode == "postpay":
            raise Problem("forbidden", "guests of this shop pay at its till: order at the table")


def _task_of(who: Identity, user: str, key: str) -> str:
    """Return the task that a caller's key stands for, as an id like all others."""
    digest = hashlib.sha256("\n".join((who.by, user, key)).encode()).digest()
    return str(UUID(bytes=digest[:16], version=5))


async def _monitor(site: Site, who: Identity) -> dict[str, object]:
    if who.role != "service" and who.store != "*":
        raise Problem("forbidden", "this is for the role service")
    node = site.node
    reactions = {row["reaction"]: row for row in inspection.reactions(node)}
    return {
        "status": "UP" if node.writable and not node.draining else "DOWN",
        "serverId": node.node_id,
        "timestamp": to_text(node.clock.now_ms()),
        "activeConnections": site.watchers.total(),
        "connectedUsers": sum(count > 0 for count in site.watchers.values()),
        "tasks": await node.tasks.count(),
        "topic": TOPIC,
        "consumer": reactions.get("progress"),  # another node's, when this one is on duty for no partition
    }
