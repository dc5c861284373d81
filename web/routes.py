"""The paths of the API's description that are not commands: reading, streams, and what operators ask."""

from __future__ import annotations

from web.history import LIMIT as HISTORY
from web.history import LIMIT_MAX as HISTORY_MAX
from web.history import VERSION_MAX
from web.reading import LIMIT, LIMIT_MAX, WAIT_S_MAX
from web.schemas import Json, errors, in_path, in_query, json_answer
from web.streaming import FEEDS_MAX

_READ_ERRORS = (400, 401, 403, 404, 405, 414, 429, 500, 503)
_ID = "[A-Za-z0-9_.-]{1,64}"
_NAME = "[A-Za-z0-9]{1,64}"
_PROGRESS = "/api/v2/progress"

_EVENTS: Json = {
    "description": "Events; those without a name are envelopes, the others are told in their data",
    "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/StreamEvent"}}},
}
_TYPES = in_query(
    "types", "Keep only these event types", {"type": "string", "pattern": f"^{_NAME}(,{_NAME}){{0,63}}$"}
)
_LAST: Json = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "As `after`, and before it; empty counts as none",
    "schema": {"anyOf": [{"const": ""}, {"$ref": "#/components/schemas/Cursor"}]},
}
_FOR = in_query(
    "for", "What the node has to be ready for", {"enum": ["commands", "reads"], "default": "commands"}
)
_AFTER = in_query("after", "Cursor of the last event seen", {"$ref": "#/components/schemas/Cursor"})


def _read(kind: str, name: str, summary: str, parameters: list[Json], responses: Json) -> Json:
    return {
        "operationId": f"{kind}-{name}",
        "tags": [kind],
        "summary": summary,
        "parameters": parameters,
        "responses": {**responses, **errors(*_READ_ERRORS)},
        "security": [{"bearer": []}, {"cookie": []}, {"query": []}],
    }


def sync(kind: str, names: list[str]) -> Json:
    """Describe the sync of one kind of feed."""
    wait = {"type": "number", "minimum": 0, "maximum": WAIT_S_MAX, "multipleOf": 0.001, "default": 0}
    limit = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}
    parameters = [
        *in_path(names),
        _AFTER,
        in_query("wait", "Long poll: seconds to wait for the next event; a plain decimal", wait),
        in_query("limit", "Events at most", limit),
        {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}},
    ]
    etag = {"ETag": {"description": "The cursor, in quotes", "schema": {"type": "string"}}}
    responses = {
        "200": json_answer("Sync", "A snapshot, or what came after the cursor", etag),
        "304": {"description": "`If-None-Match` names this cursor"},
    }
    return _read(kind, "sync", "Snapshot, or every event after a cursor", parameters, responses)


def stream(kind: str, names: list[str]) -> Json:
    """Describe the event stream of one kind of feed."""
    parameters = [*in_path(names), _AFTER, _TYPES, _LAST]
    return _read(kind, "stream", "Events as they come (SSE)", parameters, {"200": _EVENTS})


def stream_many() -> Json:
    """Describe the event stream of several feeds."""
    feed = {"type": "string", "pattern": f"^((stores|users)/{_ID}|tables/{_ID}/{_ID})$"}
    feeds = {"type": "array", "items": feed, "minItems": 1, "maxItems": FEEDS_MAX, "uniqueItems": True}
    after = {"type": "array", "items": {"type": "string"}, "maxItems": FEEDS_MAX}
    parameters = [
        {**in_query("feed", "Feeds on one connection", feeds), "required": True},
        in_query("after", "The composite cursor of these feeds, or one cursor for each, in order", after),
        _TYPES,
        {**_LAST, "schema": {"type": "string"}},
    ]
    return _read("feeds", "stream", "Events of several feeds (SSE)", parameters, {"200": _EVENTS})


def history() -> Json:
    """Describe looking back: a stream's events, and a shop's day."""
    time = {"type": "string", "format": "date-time"}
    version = {"type": "integer", "minimum": 0, "maximum": VERSION_MAX, "default": 0}
    limit = {"type": "integer", "minimum": 1, "maximum": HISTORY_MAX, "default": HISTORY}
    stream = {"type": "string", "pattern": f"^((store|user):{_ID}|table:{_ID}/{_ID})$"}
    parameters: list[Json] = [
        {"name": "stream", "in": "path", "required": True, "schema": stream},
        in_query("from", "Events of this time and later", time),
        in_query("to", "Events before this time", time),
        in_query("type", "Only this type of event", {"type": "string", "pattern": f"^{_NAME}$"}),
        in_query("after", "Events after this version: `next` of the page before", version),
        in_query("limit", "Events at most", limit),
    ]
    text = "Events out of the history, oldest first; `lag`: records that are not in it yet"
    looking = _read("history", "events", text, parameters, {"200": json_answer("Page", "Some events")})
    day = in_query(
        "day", "A day of business; today when it is left out", {"type": "string", "format": "date"}
    )
    text = "Takings, tax, refunds and what is open at the end of a day"
    told = {"200": json_answer("Object", "The report")}
    reported = _read("store", "report", text, [*in_path(["store"]), day], told)
    return {"/v1/history/{stream}": {"get": looking}, "/v1/stores/{store}/report": {"get": reported}}


def progress() -> Json:
    """Describe the progress of tasks."""
    user = {**in_query("userId", "Whose tasks", {"type": "string", "pattern": f"^{_ID}$"}), "required": True}
    seen = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}
    told: Json = {
        "description": "`recovery`: how far a task is; `progress`: each event from then on",
        "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ProgressBlock"}}},
    }
    text = "Follow the progress of all of a user's tasks (SSE)"
    paths: Json = {
        f"{_PROGRESS}/subscribe": _progress("subscribe", text, [user, seen], {"200": told}),
        f"{_PROGRESS}/monitor": _progress("monitor", "Numbers for operators", [], _told("Numbers")),
    }
    text = "Follow the progress of one task (SSE)"
    one = [*in_path(["task"]), user, seen]
    paths[f"{_PROGRESS}/subscribe/{{task}}"] = _progress("subscribe-task", text, one, {"200": told})
    for name, text, path in (
        ("status", "Where a task is", "task"),
        ("history", "Every event of a task, oldest first", "task"),
        ("user", "Every event of all of a user's tasks, oldest first", "user"),
    ):
        shown = _told(text) if name == "status" else _told(text, "Objects")
        paths[f"{_PROGRESS}/{name}/{{{path}}}"] = _progress(name, text, in_path([path]), shown)
    named = {"type": "string", "minLength": 1, "maxLength": 200}
    store = {"type": "string", "pattern": f"^{_ID}$"}
    fields: list[Json] = [
        {**in_query("productName", "A product's name or id", named), "required": True},
        in_query("quantity", "How many", {"type": "integer", "minimum": 1, "maximum": 999, "default": 1}),
        in_query("storeId", "Which shop; the demo shop when it is left out", store),
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        },
    ]
    text = "Order a product; a task tells what becomes of it"
    asked = _progress("order", text, [user, *fields], {"202": json_answer("Object", "Begun; see `taskId`")})
    asked["get"]["responses"] |= errors(409, 413, 415, 422, 504)
    asked["get"]["security"] = [{"bearer": []}, {"cookie": []}]
    paths[f"{_PROGRESS}/orders"] = {"post": asked["get"]}
    return paths


def _told(text: str, schema: str = "Object") -> Json:
    return {"200": json_answer(schema, text)}


def _progress(name: str, text: str, parameters: list[Json], responses: Json) -> Json:
    return {"get": _read("progress", name, text, parameters, responses)}


def operations() -> Json:
    """Describe what operators and their machines ask."""
    paths: Json = {}
    for name, text in (("healthz", "The process is alive"), ("readyz", "Commands are taken")):
        responses = {"200": json_answer("Health", text), **errors(405)}
        if name == "readyz":
            responses["503"] = json_answer("Health", "Not ready; see `reasons`")
            responses["400"] = errors(400)["400"]
        health: Json = {"operationId": name, "tags": ["ops"], "summary": text, "responses": responses}
        if name == "readyz":
            health["parameters"] = [_FOR]
        paths[f"/{name}"] = {"get": {**health, "security": []}}
    for name, text in (
        ("streams", "Open streams"),
        ("reactions", "How far reactions are"),
        ("parked", "Records that a reaction gave up on"),
        ("payments", "Payments and refunds that somebody may have to look after, and checks that are 0"),
    ):
        paths[f"/v1/ops/{name}"] = {"get": _read("ops", name, text, [], {"200": json_answer("Object", text)})}
    for verb, text in (("replay", "Try a parked record again"), ("skip", "Pass over a parked record")):
        responses = {"200": json_answer("Object", "Done"), **errors(422, 504)}
        operation = _read("ops", verb, text, in_path(["id"]), responses)
        operation["security"] = [{"bearer": []}, {"cookie": []}]
        paths[f"/v1/ops/parked/{{id}}/{verb}"] = {"post": operation}
    text = "Payment methods that a guest can choose, in `methods`"
    listed = _read("payments", "methods", text, [], {"200": json_answer("Object", text)})
    paths["/v1/payments/methods"] = {"get": listed}
    return paths
