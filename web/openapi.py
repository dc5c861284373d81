"""The description of the API (OpenAPI 3.1), made from the command structs and their docstrings.

A new command appears here by itself: its path from its class name, its body from its fields, its text from
its docstring.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import msgspec

from engine import codec
from engine.domain.contract import Command
from web import routes
from web.schemas import ERRORS, SCHEMAS, Json, errors, in_path, json_answer
from web.topic_routes import topic_paths

KINDS = {
    "store": ("/v1/stores/{store}", ["store"]),
    "table": ("/v1/tables/{store}/{table}", ["store", "table"]),
    "user": ("/v1/users/{user}", ["user"]),
}


_ABOUT = (
    "Realtime order engine for shops. Commands go in by POST; sync, streams and the WebSocket `/v1/ws` give "
    "snapshots and events. Whole numbers are written without a fraction: `2`, not `2.0`."
)


@cache
def describe() -> bytes:
    """Return the description as JSON."""
    types = [type_ for kind in KINDS for type_ in outside(kind).values()]
    bodies, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    body_of = dict(zip(types, bodies, strict=True))
    paths: Json = {}
    for kind, (prefix, names) in KINDS.items():
        for name, type_ in outside(kind).items():
            paths[f"{prefix}/{name}"] = _command_path(kind, name, type_, names, body_of[type_])
        paths[f"{prefix}/sync"] = {"get": routes.sync(kind, names)}
        paths[f"{prefix}/stream"] = {"get": routes.stream(kind, names)}
    paths["/v1/stream"] = {"get": routes.stream_many()}
    paths |= routes.history() | routes.operations() | routes.progress()
    about_topics, topic_schemas = topic_paths()
    paths |= about_topics
    components = {**components, **topic_schemas}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Onda", "version": installed_version(), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {**components, **SCHEMAS},
            "responses": ERRORS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "onda_token"},
                "query": {"type": "apiKey", "in": "query", "name": "token", "description": "GETs only"},
            },
        },
        "security": [{"bearer": []}, {"cookie": []}],
    }
    return msgspec.json.encode(document)


def outside(kind: str) -> dict[str, type[Command]]:
    """Return the commands of a kind of stream that may come from outside."""
    return {name: type_ for name, type_ in codec.commands(kind).items() if type_.allowed}


def installed_version() -> str:
    """Return the version of the installed package; of a bare source tree "0"."""
    try:
        return version("onda")
    except PackageNotFoundError:
        return "0"


def _command_path(kind: str, name: str, type_: type[Command], names: list[str], body: Json) -> Json:
    text = inspect.cleandoc(type_.__doc__ or "")
    roles = ", ".join(sorted({*type_.allowed, "service"}))
    replayed = {"description": "`true`: this answer was given before", "schema": {"const": "true"}}
    headers = {"Idempotent-Replayed": replayed}
    responses = {"200": json_answer("Answer", "Done", headers)}
    if type_.outcome is not None:
        location = {"description": "Where its events will be", "schema": {"type": "string"}}
        text_202 = "Taken; what settles it has not come yet"
        responses["202"] = json_answer("Answer", text_202, {**headers, "Location": location})
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and body give the first answer again, for 24 h at least",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    }
    needed = any(field.required for field in msgspec.structs.fields(type_))
    operation = {
        "operationId": f"{kind}-{name}",
        "tags": [kind],
        "summary": " ".join(text.split()).partition(". ")[0].rstrip("."),
        "description": f"{text}\n\nFor: {roles}.",
        "parameters": [*in_path(names), key],
        "requestBody": {"required": needed, "content": {"application/json": {"schema": body}}},
        "responses": {**responses, **errors(*map(int, ERRORS))},
    }
    return {"post": operation}
