"""Topics, groups and customers in the API's description."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from engine import Message
from web.customers import IdentifyBody
from web.schemas import ERRORS, Json, errors, in_path, in_query, json_answer
from web.topics import VERBS, PublishBody

_READ_ERRORS = (400, 401, 403, 404, 405, 414, 422, 429, 500, 503)
_HOUR: Json = {"type": "string", "examples": ["2026-11-20T09"]}


def topic_paths() -> tuple[Json, Json]:
    """Return the paths, and the schemas that they refer to."""
    types: list[Any] = [PublishBody, Message, IdentifyBody, *(body for body, _ in VERBS.values())]
    bodies, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    body_of = dict(zip(types, bodies, strict=True))
    for option in components["SeekBody"]["properties"]["after"]["anyOf"]:
        if option.get("type") == "object":
            option["propertyNames"] = {"pattern": "^(0|[1-9][0-9]?)$"}
    publish = {"oneOf": [body_of[Message], body_of[PublishBody]]}
    prefix = "/v1/topics/{topic}"
    text = "Publish a record, or up to 500 as `records`; each `event_id` once within 24 h"
    posted = _post("topic-publish", "topic", text, ["topic"], publish)
    told = _get("topic-read", "topic", "A topic's partitions, and how many records each has had", ["topic"])
    paths: Json = {prefix: {"post": posted, "get": told}}
    names = ["topic", "group"]
    for verb, (body, _) in VERBS.items():
        text = inspect.cleandoc(body.__doc__ or "")
        operation = _post(f"group-{verb}", "group", text, names, body_of[body])
        needed = any(field.required for field in msgspec.structs.fields(body))
        operation["requestBody"]["required"] = needed
        paths[f"{prefix}/groups/{{group}}/{verb}"] = {"post": operation}
    paths[f"{prefix}/groups/{{group}}/lag"] = {"get": _get("group-lag", "group", "How far behind", names)}
    text = inspect.cleandoc(IdentifyBody.__doc__ or "")
    identify = _post("customers-identify", "customers", text, [], body_of[IdentifyBody])
    paths["/v1/customers/identify"] = {"post": identify}
    visits = _get("customers-visits", "customers", "Visits by hour (UTC) and place", [])
    visits["parameters"] = [
        in_query("from", "From this hour on", _HOUR),
        in_query("to", "Before this hour", _HOUR),
    ]
    paths["/v1/customers/visits"] = {"get": visits}
    return paths, components


def _post(name: str, tag: str, text: str, names: list[str], body: Json) -> Json:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": " ".join(text.split()).partition(". ")[0].rstrip("."),
        "description": text,
        "parameters": in_path(names),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": json_answer("Object", "Done"), **errors(*map(int, ERRORS))},
    }


def _get(name: str, tag: str, text: str, names: list[str]) -> Json:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": text,
        "parameters": in_path(names),
        "responses": {"200": json_answer("Object", text), **errors(*_READ_ERRORS)},
        "security": [{"bearer": []}, {"cookie": []}, {"query": []}],
    }
