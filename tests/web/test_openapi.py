"""The description of the API is valid, complete, and follows from the command structs."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
import schemathesis

from engine import codec
from web.openapi import describe, outside

API: dict[str, Any] = msgspec.json.decode(describe())
OPERATIONS = [
    (path, method, operation)
    for path, methods in API["paths"].items()
    for method, operation in methods.items()
]


def test_it_is_valid_openapi_3_1() -> None:
    """By the standard's own schema."""
    assert API["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(API).validate()


def test_every_command_from_outside_is_there_and_none_from_inside() -> None:
    """A new command appears by itself; what only the engine sends stays hidden."""
    posts = {path.rpartition("/")[2] for path, method, _ in OPERATIONS if method == "post"}
    for kind in ("store", "table", "user"):
        for name, command in codec.commands(kind).items():
            assert (name in posts) == bool(command.allowed), name
    assert "/v1/stores/{store}/create-order" in API["paths"]
    assert "/v1/tables/{store}/{table}/submit-cart" in API["paths"]


@pytest.mark.parametrize("kind", ["store", "table", "user"])
def test_a_command_has_its_docstring_and_names_its_fields(kind: str) -> None:
    """The text is the struct's own, so each has one, and it says what its fields are."""
    for name, command in outside(kind).items():
        text = command.__doc__ or ""
        assert text, name
        for field in command.__struct_fields__:
            assert re.search(rf"\b{field}\b", text), f"{name}: `{field}` is not explained"


def test_bodies_are_closed_and_bounded() -> None:
    """Unknown fields are refused, and every text and list has a bound."""
    schemas = API["components"]["schemas"]
    for kind in ("store", "table", "user"):
        for command in outside(kind).values():
            schema = schemas[command.__name__]
            assert schema["additionalProperties"] is False
            for name, field in schema["properties"].items():
                for option in field.get("anyOf", [field]):
                    if option.get("type") == "string":
                        assert {"maxLength", "pattern"} & option.keys(), (command, name)
                    if option.get("type") == "array":
                        assert "maxItems" in option, (command, name)


def test_every_operation_declares_its_errors() -> None:
    """What can go wrong is written down, each as a problem."""
    for path, method, operation in OPERATIONS:
        statuses = set(operation["responses"])
        assert operation["operationId"]
        assert operation["summary"]
        if path in ("/healthz", "/readyz"):
            continue
        assert {"401", "403", "404", "405", "503"} <= statuses, path
        if method == "post" and "/ops/" not in path:
            assert {"400", "409", "413", "415", "422", "500", "504"} <= statuses, path


def test_operations_have_names_of_their_own() -> None:
    """Generators of clients name their functions after them."""
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere() -> None:
    """No dangling `$ref`."""
    for reference in set(re.findall(r'"\$ref":"#/([^"]+)"', describe().decode())):
        node: Any = API
        for part in reference.split("/"):
            node = node[part]
