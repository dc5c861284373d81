"""Pieces of the API's description: the shapes of its answers and errors."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_ID: Json = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}
_ERROR_TEXTS = {
    400: "Malformed; the detail names the field",
    401: "No token, or a bad one",
    403: "The token does not allow this",
    404: "No such command, store or path",
    405: "Another method is meant; see `Allow`",
    408: "The body did not arrive in time",
    409: "The stream moved on at the same time; try again",
    413: "The body is too large",
    414: "The path and query are too long",
    415: "The body is not `application/json`",
    422: "Refused by the rules, or the key was used with another body; see `code`",
    429: "Too many requests or connections; see `Retry-After`",
    500: "A fault in the server",
    503: "Not now; see `Retry-After`",
    504: "The outcome is unknown; repeat with the same `Idempotency-Key`",
}
_TEXT: Json = {"type": "string"}
_OBJECT: Json = {"type": "object"}
_CURSOR: Json = {"$ref": "#/components/schemas/Cursor"}
_ENVELOPES: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Envelope"}}


def _object(properties: Json, *optional: str) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


SCHEMAS: Json = {
    "Cursor": {
        "type": "string",
        "description": "A place in a feed; opaque.",
        "pattern": "^[A-Za-z0-9_.]{1,24}-(0|[1-9][0-9]{0,17})$",
    },
    "Envelope": {
        **_object(
            {
                "id": {"type": "string", "format": "uuid"},
                "cursor": _CURSOR,
                "stream": {**_TEXT, "examples": ["store:s1", "table:s1/3", "user:u1"]},
                "version": {"type": "integer", "minimum": 1},
                "type": {**_TEXT, "examples": ["OrderPlaced"]},
                "time": {"type": "string", "format": "date-time"},
                "by": {**_TEXT, "description": "Who sent the command"},
                "cause": {**_TEXT, "description": "Id of the command, or of the event, that led to this"},
                "data": {**_OBJECT, "description": "The fact"},
                "patch": {
                    "type": "object",
                    "description": "The entities that changed, as they now look; `null` for gone",
                    "additionalProperties": {"type": "object"},
                },
            }
        ),
        "description": "One event, everywhere the same bytes.",
    },
    "Answer": {
        **_object({"cursor": _CURSOR, "events": _ENVELOPES, "result": _OBJECT}),
        "description": "`events` may be empty when there was nothing to do.",
    },
    "Snapshot": _object(
        {
            "feed": _TEXT,
            "mode": {"const": "snapshot"},
            "cursor": _CURSOR,
            "state": {"type": "object", "additionalProperties": {"type": "object"}},
            "reset": _object({"reason": {"enum": ["expired", "epoch", "ahead"]}}),
        },
        "reset",
    ),
    "Delta": _object(
        {
            "feed": _TEXT,
            "mode": {"const": "delta"},
            "cursor": _CURSOR,
            "events": _ENVELOPES,
            "more": {"type": "boolean", "description": "There is more after `cursor` already"},
        }
    ),
    "Sync": {"oneOf": [{"$ref": "#/components/schemas/Snapshot"}, {"$ref": "#/components/schemas/Delta"}]},
    "Page": _object(
        {
            "stream": _TEXT,
            "events": _ENVELOPES,
            "next": {"type": ["integer", "null"], "description": "Goes into `after`; `null` at the end"},
            "lag": {"type": "integer", "description": "Records that are not in the history yet"},
        }
    ),
    "StreamEvent": {
        **_object(
            {
                "data": {**_TEXT, "description": "JSON in one line: an envelope, when `event` is missing"},
                "event": {"enum": ["snapshot", "reset", "ping", "bye"]},
                "id": {**_TEXT, "description": "Cursor; goes into `Last-Event-ID`"},
                "retry": {"type": "integer", "description": "Come back after so many ms"},
            },
            "data",
            "event",
            "id",
            "retry",
        ),
        "description": "One block of an event stream; one with an id and no data only moves the cursor.",
    },
    "Problem": {
        **_object(
            {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT, "code": _TEXT}
        ),
        "description": "An error (RFC 9457); `code` is stable.",
    },
    "Health": _object(
        {
            "status": _TEXT,
            "reasons": {"type": "array", "items": _TEXT},
            "node": _TEXT,
            "writable": {"type": "boolean"},
        },
        "reasons",
        "node",
        "writable",
    ),
    "Object": _OBJECT,
    "Objects": {"type": "array", "items": _OBJECT},
    "ProgressBlock": _object(
        {
            "data": {**_TEXT, "description": "JSON in one line"},
            "event": {"enum": ["recovery", "progress", "ping", "bye"]},
            "id": {**_TEXT, "description": "That of the event; goes into `Last-Event-ID`"},
            "retry": {"type": "integer", "description": "Come back after so many ms"},
        },
        *("data", "event", "id", "retry"),
    ),
}


def _problem(text: str) -> Json:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": text, "content": content}


ERRORS: Json = {str(status): _problem(text) for status, text in _ERROR_TEXTS.items()}
"""Status -> the answer that an error has."""


def errors(*statuses: int) -> Json:
    """Return an operation's answers for the given errors."""
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def json_answer(schema: str, text: str, headers: Json | None = None) -> Json:
    """Return an operation's answer whose body has one of our schemas."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content, **({"headers": headers} if headers else {})}


def in_path(names: list[str]) -> list[Json]:
    """Return parameters for the ids in a path."""
    return [{"name": name, "in": "path", "required": True, "schema": _ID} for name in names]


def in_query(name: str, text: str, schema: Json) -> Json:
    """Return a parameter in the query."""
    return {"name": name, "in": "query", "description": text, "schema": schema}
