"""Commands over HTTP: the answer, every refusal with its status, idempotency, and carts settled elsewhere."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
import trio

from engine import Answer, errors
from tests.web.site import Running, order, running, set_up, token
from web import commands

ORDER = "/v1/stores/s1/create-order"
ONE = {"product": "ramen", "quantity": 1}
RAMEN = {"lines": [ONE]}


async def test_the_answer_has_cursor_envelopes_and_result(shop: Running) -> None:
    """The envelopes are the stored bytes, and the cursor is that of the last one."""
    async with shop.client("staff:s1") as client:
        before = (await client.get("/v1/stores/s1/sync")).json()["cursor"]
        answer = await client.post(ORDER, json=RAMEN)
        synced = await client.get("/v1/stores/s1/sync", params={"after": before})
    done = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert [event["type"] for event in done["events"]] == ["OrderCreated", "OrderPlaced"]
    assert done["cursor"] == done["events"][-1]["cursor"]
    assert done["result"] == {"order": "o1", "total": 4500, "status": "PLACED", "hold_expires_at": None}
    raw = [bytes(part) for part in msgspec.json.decode(answer.content, type=dict[str, msgspec.Raw]).values()]
    assert raw[1] in synced.content


async def test_an_empty_body_is_an_empty_object(shop: Running) -> None:
    """A command without fields needs no body and no content type."""
    async with shop.client("owner:s1") as client:
        bare = await client.post("/v1/stores/s1/close-store")
        spelled = await client.post("/v1/stores/s1/open-store", json={})
    assert (bare.status_code, spelled.status_code) == (200, 200)


async def test_nothing_to_do_is_200_without_events(shop: Running) -> None:
    """A command that is true already changes nothing and is no error."""
    async with shop.client("owner:s1") as client:
        answer = await client.post("/v1/stores/s1/open-store", json={})
    assert answer.status_code == 200
    assert answer.json()["events"] == []


JSON = {"content-type": "application/json"}
KEY = "idempotency-key"
BAD_REQUESTS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no JSON": ({"content": b"{", "headers": JSON}, 400, "malformed", ""),
    "no object": ({"json": []}, 400, "malformed", "object"),
    "missing field": ({"json": {}}, 400, "malformed", "lines"),
    "unknown field": ({"json": {**RAMEN, "tip": 1}}, 400, "malformed", "tip"),
    "wrong type": ({"json": {"lines": [{**ONE, "quantity": "1"}]}}, 400, "malformed", "quantity"),
    "out of bounds": ({"json": {"lines": [{**ONE, "quantity": 0}]}}, 400, "malformed", "quantity"),
    "not UTF-8": ({"content": b'{"lines":"\xff"}', "headers": JSON}, 400, "malformed", ""),
    "nested deeply": ({"content": b'{"lines":' + b"[" * 9000, "headers": JSON}, 400, "malformed", ""),
    "a text body": (
        {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type", ""
    ),
    "no content type": ({"content": json.dumps(RAMEN)}, 415, "unsupported_media_type", ""),
    "another charset": (
        {"content": b"{}", "headers": {"content-type": "application/json; charset=euc-kr"}},
        415, "unsupported_media_type", "",
    ),
    "compressed": (
        {"content": b"{}", "headers": {**JSON, "content-encoding": "gzip"}}, 415, "unsupported_media_type", ""
    ),
    "an empty key": ({"json": RAMEN, "headers": {KEY: ""}}, 400, "malformed", "Idempotency-Key"),
    "a long key": ({"json": RAMEN, "headers": {KEY: "k" * 256}}, 400, "malformed", "Idempotency-Key"),
    "a key with a blank": ({"json": RAMEN, "headers": {KEY: "a b"}}, 400, "malformed", "Idempotency-Key"),
    "too large": ({"content": b" " * ((1 << 20) + 1), "headers": JSON}, 413, "too_large", ""),
    "unknown product": ({"json": {"lines": [{"product": "x", "quantity": 1}]}}, 422, "unknown_product", ""),
    "sold out": ({"json": {"lines": [{"product": "cola", "quantity": 9}]}}, 422, "sold_out", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_has_its_status_and_leaves_no_event(shop: Running, name: str) -> None:
    """Each wrong input gets the stated status and code, names what is wrong, and changes nothing."""
    options, status, code, named = BAD_REQUESTS[name]
    before = (await shop.node.read("store:s1")).cursor
    async with shop.client("service") as client:
        answer = await client.post(ORDER, **options)
    check_problem(answer, status, code)
    assert named in answer.json()["detail"]
    assert (await shop.node.read("store:s1")).cursor == before


async def test_a_body_that_grows_too_large_is_413(shop: Running) -> None:
    """A body without a length is cut off where it passes the bound."""

    async def endless() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    async with shop.client("service") as client:
        answer = await client.post(ORDER, content=endless(), headers=JSON)
    check_problem(answer, 413, "too_large")


async def test_a_body_of_just_1_mb_is_taken(shop: Running) -> None:
    """The bound itself is still good."""
    body = json.dumps(RAMEN).encode()
    async with shop.client("service") as client:
        answer = await client.post(ORDER, content=body + b" " * ((1 << 20) - len(body)), headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/stores/s1/fly", 404, "unknown_command"),
        ("POST", "/v1/stores/s1/take-cart", 404, "unknown_command"),  # inside only
        ("POST", "/v1/stores/nowhere/open-store", 404, "unknown_store"),
        ("POST", "/v1/tables/nowhere/3/open-table", 404, "unknown_store"),
        ("GET", "/v1/stores/nowhere/sync", 404, "unknown_store"),
        ("GET", "/v1/tables/nowhere/3/stream", 404, "unknown_store"),
        ("POST", "/v1/stores/s%201/open-store", 404, "not_found"),
        ("POST", "/v1/stores/s1%2Fx/open-store", 404, "not_found"),
        ("POST", "/v1/stores//open-store", 404, "not_found"),
        ("POST", "/v1/stores/s1", 404, "not_found"),
        ("POST", "/v1/stores/" + "s" * 65 + "/open-store", 404, "not_found"),
        ("GET", "/v1/kitchens/s1/sync", 404, "not_found"),
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "//v1//stores", 404, "not_found"),
        ("GET", ORDER, 405, "method_not_allowed"),
        ("DELETE", ORDER, 405, "method_not_allowed"),
        ("POST", "/v1/stores/s1/sync", 405, "method_not_allowed"),
        ("PUT", "/v1/stores/s1/stream", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/stores/s1/sync?after=" + "x" * 9000, 414, "uri_too_long"),
    ],
)  # fmt: skip
async def test_a_path_or_method_that_is_not_there(
    shop: Running, method: str, path: str, status: int, code: str
) -> None:
    """Unknown paths, commands and stores are 404, other methods 405 with `Allow`."""
    async with shop.client("service") as client:
        answer = await client.request(method, path)
    check_problem(answer, status, code)
    assert ("allow" in answer.headers) == (status == 405)


async def test_options_says_what_is_allowed(shop: Running) -> None:
    """OPTIONS needs no token and lists the methods."""
    async with shop.client() as client:
        answers = [await client.options(path) for path in (ORDER, "/v1/stores/s1/sync")]
    assert [answer.status_code for answer in answers] == [204, 204]
    assert [answer.headers["allow"] for answer in answers] == ["POST, OPTIONS", "GET, HEAD, OPTIONS"]


async def test_an_odd_method_is_405(shop: Running) -> None:
    """A method that HTTP does not know is refused like any other, with our kind of body."""
    async with shop.client("service") as client:
        answer = await client.request("BREW", ORDER)
    check_problem(answer, 405, "method_not_allowed")


async def test_the_same_key_gives_the_first_answer_again(shop: Running) -> None:
    """Once only, and marked; another body under the key is refused; another caller's key is another key."""
    key = {"idempotency-key": "k-1"}
    async with shop.client("service") as client:
        first = await client.post(ORDER, json=RAMEN, headers=key)
        again = await client.post(ORDER, json=RAMEN, headers=key)
        other = await client.post(ORDER, json={"lines": [{"product": "cola", "quantity": 1}]}, headers=key)
    async with shop.client("owner:s1") as client:
        stranger = await client.post(ORDER, json=RAMEN, headers=key)
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    check_problem(other, 422, "idempotency_mismatch")
    assert stranger.json()["result"]["order"] == "o2"


CART = "/v1/tables/s1/3"


async def test_a_submitted_cart_is_answered_with_the_order(shop: Running) -> None:
    """The answer waits for the shop's word; its envelope comes with it; the repeat says the same."""
    key = {"idempotency-key": "k-1"}
    async with shop.client("table:s1/3") as client:
        await client.post(f"{CART}/add-to-cart", json={"product": "ramen", "quantity": 2})
        first = await client.post(f"{CART}/submit-cart", headers=key)
        again = await client.post(f"{CART}/submit-cart", headers=key)
    assert first.status_code == 200, first.text
    types = [event["type"] for event in first.json()["events"]]
    assert types == ["CartSubmitted", "OrderReceived"]
    assert first.json()["result"]["order"] == first.json()["events"][1]["data"]["order"]
    assert again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_refused_cart_is_422_with_the_shops_reason(shop: Running) -> None:
    """What the shop refuses is told with its code, also when asked again."""
    key = {"idempotency-key": "k-1"}
    async with shop.client("table:s1/3") as client, shop.client("owner:s1") as owner:
        await client.post(f"{CART}/add-to-cart", json={"product": "cola", "quantity": 3})
        adjusted = {"product": "cola", "delta": -1, "reason": "broken"}
        assert (await owner.post("/v1/stores/s1/adjust-stock", json=adjusted)).status_code == 200
        first = await client.post(f"{CART}/submit-cart", headers=key)
        again = await client.post(f"{CART}/submit-cart", headers=key)
        cart = (await client.get(f"{CART}/sync")).json()["state"]["cart"]
    check_problem(first, 422, "sold_out")
    check_problem(again, 422, "sold_out")
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert [line["refused"]["code"] for line in cart.values()] == ["sold_out"]


async def test_a_cart_that_settles_late_is_202() -> None:
    """When the shop's word does not come in time the answer says where it will be."""
    async with running(outcome_wait_s=0.0) as site:
        async with site.client("service") as service:
            await set_up(service, tables=("3",))
        async with site.client("table:s1/3") as client:
            await client.post(f"{CART}/add-to-cart", json={"product": "ramen", "quantity": 1})
            answer = await client.post(f"{CART}/submit-cart")
            assert answer.status_code == 202
            assert answer.json()["result"] == {"order": "3-1"}
            later = await client.get(answer.headers["location"] + "&wait=5")
    assert later.json()["mode"] == "delta"


ENGINE_ERRORS = [
    (errors.Overloaded(), 503, "overloaded"),
    (errors.ReadOnly(), 503, "read_only"),
    (errors.Stopping(), 503, "log_unavailable"),
    (errors.Unavailable(), 503, "unavailable"),
    (errors.Conflict(), 409, "conflict"),
    (errors.UnknownOutcome(), 504, "unknown_outcome"),
    (errors.Crashed(), 500, "internal"),
    (errors.LogFailed("/var/secret/log: no"), 500, "log_failed"),
    (errors.Rejected("sold_out", "Cola is sold out"), 422, "sold_out"),
    (errors.Rejected("some_new_code"), 422, "some_new_code"),
    (errors.Rejected("forbidden"), 403, "forbidden"),
    (RuntimeError("the password is swordfish"), 500, "internal"),
]


@pytest.mark.parametrize(("error", "status", "code"), ENGINE_ERRORS, ids=lambda value: type(value).__name__)
async def test_each_error_of_the_engine_has_its_status(
    shop: Running, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    """What the engine says goes out as a problem; what may be tried again says when; no trace is shown."""

    async def ask(*_args: object, **_options: object) -> Answer:
        raise error

    monkeypatch.setattr(shop.node, "ask", ask)
    async with shop.first.client("service") as client:
        answer = await client.post(ORDER, json=RAMEN)
    check_problem(answer, status, code)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "swordfish" not in answer.text
    assert "Traceback" not in answer.text


async def test_a_command_that_hangs_is_504(shop: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever: the outcome is unknown, and the same key can be asked again."""

    async def ask(*_args: object, **_options: object) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(shop.node, "ask", ask)
    monkeypatch.setattr(commands, "ASK_S_MAX", 0.05)
    async with shop.first.client("service") as client:
        check_problem(await client.post(ORDER, json=RAMEN), 504, "unknown_outcome")


async def test_a_client_that_hangs_up_cannot_stop_its_command(shop: Running) -> None:
    """The connection is closed right behind the request; the order is there all the same."""
    after = (await shop.node.read("store:s1")).cursor
    body = json.dumps(RAMEN).encode()
    head = f"POST {ORDER} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token('service')}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    async with await shop.connect() as stream:
        await stream.send_all(head.encode() + body)
    async with shop.client("service") as client:
        with trio.fail_after(5):
            synced = await client.get("/v1/stores/s1/sync", params={"after": after, "wait": 4})
    assert synced.json()["events"][0]["type"] == "OrderCreated"


async def test_orders_one_after_another_on_one_connection(shop: Running) -> None:
    """A connection is kept and serves many commands."""
    async with shop.client("service") as client:
        numbers = [(await order(client))["events"][0]["data"]["number"] for _ in range(5)]
    assert numbers == [1, 2, 3, 4, 5]
    assert shop.site.connections <= 2


def check_problem(answer: httpx.Response, status: int, code: str) -> None:
    """It is a problem as RFC 9457 has it, with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:onda:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
