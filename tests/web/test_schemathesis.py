"""Schemathesis against the real server: whatever its description allows or forbids, it answers as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from tests.web.process import serving
from tests.web.site import SHOP, token
from web.openapi import describe
from web.topics import WAIT_S_MAX

pytestmark = pytest.mark.slow

QUICK = {"ONDA_ROTATE_S": "0.05", "ONDA_OUTCOME_WAIT_S": "0.2"}
"""Streams end by themselves soon, so that each can be read to its end."""

TAKEN = ["2xx", "304", "401", "403", "404", "409", "422"]
"""How good data may be answered: what fits its schema may still be against the rules."""

CONFIG = {
    "checks": {"positive_data_acceptance": {"expected-statuses": TAKEN}},
    # That its cursors are those of its feeds is nothing that a schema can say.
    "operations": [
        {"include-path": "/v1/stream", "checks": {"positive_data_acceptance": {"enabled": False}}},
    ],
}
schema = schemathesis.openapi.from_dict(
    msgspec.json.decode(describe()), config=SchemathesisConfig.from_dict(CONFIG)
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server with the shop `s1`; it must not have had a fault in the end."""
    with serving(tmp_path_factory.mktemp("data"), "--no-demo", env=QUICK) as server:
        headers = {"authorization": f"Bearer {token('service')}"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            for path, body in [*SHOP, ("tables/s1/3/open-table", {})]:
                assert client.post(f"/v1/{path}", json=body).status_code == 200
        yield server.url
        assert server.popen.poll() is None, server.said
        assert not any("Traceback" in line or "request failed" in line for line in server.said), server.said


@schema.auth()
class ServiceToken:
    """A good token, so that requests get past the gate."""

    def get(self, _case: schemathesis.Case, _context: schemathesis.AuthContext) -> str:
        return token("service")

    def set(self, case: schemathesis.Case, data: str, _context: schemathesis.AuthContext) -> None:
        case.headers["authorization"] = f"Bearer {data}"
        case.cookies.pop("onda_token", None)


@schema.hook
def map_body(_context: schemathesis.HookContext, body: Any) -> Any:
    """JSON Schema calls 2.0 an integer; we want it without the fraction, and say so."""
    if isinstance(body, float) and body.is_integer():
        return int(body)
    if isinstance(body, dict):
        return {name: map_body(_context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(_context, value) for value in body]
    return body


@schema.parametrize()
@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_every_operation_answers_as_described(case: schemathesis.Case, url: str) -> None:
    """Statuses, types, headers and schemas are the declared ones, and bad data is refused."""
    body = case.body
    wait_s = body.get("wait_s") if isinstance(body, dict) else None
    if isinstance(wait_s, int | float) and 1 < wait_s <= WAIT_S_MAX:
        body["wait_s"] = wait_s / WAIT_S_MAX  # what it waits for never comes
    case.call_and_validate(base_url=url)
