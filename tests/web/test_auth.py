"""Who is let in, where tokens are looked for, and what each role may do."""

from __future__ import annotations

import base64
import json
import stat
from contextlib import nullcontext
from pathlib import Path

import httpx
import jwt
import pytest

from engine import codec
from engine.clock import SystemClock
from engine.errors import ConfigError
from tests.web.site import SECRET, Running, running, set_up, token
from web import rights
from web.auth import Gate
from web.messages import Problem, Request
from web.revoked import Revoked, add_revoked
from web.tokens import Identity, load_secret, make_token, read_token

SYNC = "/v1/stores/s1/sync"


async def test_no_token_is_401_and_says_how(shop: Running) -> None:
    """Without a token the answer is a problem that names the scheme."""
    async with shop.client() as client:
        answer = await client.get(SYNC)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_token_is_taken_from_header_query_and_cookie(shop: Running) -> None:
    """All three places work for a GET."""
    good = token("owner:s1")
    async with shop.client() as client:
        by_header = await client.get(SYNC, headers={"authorization": f"Bearer {good}"})
        by_query = await client.get(SYNC, params={"token": good})
        by_cookie = await client.get(SYNC, headers={"cookie": f"a=b; onda_token={good}; c=d"})
    assert [answer.status_code for answer in (by_header, by_query, by_cookie)] == [200, 200, 200]


async def test_a_token_in_the_query_does_not_count_for_posts(shop: Running) -> None:
    """What stands in an address may be read, but nothing may be done with it."""
    async with shop.client() as client:
        answer = await client.post(
            "/v1/stores/s1/pause-orders", params={"token": token("owner:s1")}, json={"reason": "x"}
        )
    assert answer.status_code == 401


BAD = {
    "another secret": token("owner:s1", secret="x" * 40),
    "expired": token("owner:s1", ttl_s=-5),
    "no role": jwt.encode({"sub": "kim", "exp": 4e9}, SECRET),
    "unknown role": jwt.encode({"sub": "kim", "role": "king", "exp": 4e9}, SECRET),
    "no exp": jwt.encode({"sub": "kim", "role": "service"}, SECRET),
    "owner without store": jwt.encode({"sub": "kim", "role": "owner", "exp": 4e9}, SECRET),
    "store is a star": jwt.encode({"sub": "kim", "role": "owner", "store": "*", "exp": 4e9}, SECRET),
    "table without table": jwt.encode({"sub": "kim", "role": "table", "store": "s1", "exp": 4e9}, SECRET),
    "claims of another kind": jwt.encode({"sub": ["kim"], "role": "service", "exp": 4e9}, SECRET),
    "exp is endless": jwt.encode({"sub": "kim", "role": "service", "exp": float("inf")}, SECRET),
    "exp is text": jwt.encode({"sub": "kim", "role": "service", "exp": "later"}, SECRET),
    "another algorithm": jwt.encode({"sub": "kim", "role": "service", "exp": 4e9}, SECRET, algorithm="HS512"),
    "no token at all": "Kimchi",
    "very long": "x" * 5000,
}


def _unsigned() -> str:
    head, body = ({"alg": "none", "typ": "JWT"}, {"sub": "kim", "role": "service", "exp": 4e9})
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, body)
    ]
    return ".".join([*parts, ""])


@pytest.mark.parametrize("bad", [*BAD.values(), _unsigned()], ids=[*BAD, "unsigned"])
async def test_a_bad_token_is_401(bad: str) -> None:
    """Whatever is wrong with it, a bad token opens nothing."""
    gate = Gate(SECRET, Revoked(None), SystemClock())
    with pytest.raises(Problem) as caught:
        gate.identify(Request("GET", SYNC, headers={"authorization": f"Bearer {bad}"}))
    assert caught.value.code == "unauthorized"


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "xyz"])
def test_another_scheme_is_401(header: str) -> None:
    """Only Bearer counts, also when the cookie is good."""
    gate = Gate(SECRET, Revoked(None), SystemClock())
    headers = {"authorization": header, "cookie": f"onda_token={token('owner:s1')}"}
    with pytest.raises(Problem) as caught:
        gate.identify(Request("GET", SYNC, headers=headers))
    assert caught.value.code == "unauthorized"


SERVICE, OWNER, STAFF, TABLE, USER = (
    Identity("service", "pos", "", "", "", None),
    Identity("owner", "kim", "s1", "", "", None),
    Identity("staff", "lee", "s1", "", "", None),
    Identity("table", "t", "s1", "3", "", None),
    Identity("user", "u1", "", "", "", None),
)


@pytest.mark.parametrize(
    ("who", "readable"),
    [
        (SERVICE, {"s1", "s2", "s1/3", "s1/4", "u1", "u2"}),
        (OWNER, {"s1", "s1/3", "s1/4"}),
        (STAFF, {"s1", "s1/3", "s1/4"}),
        (TABLE, {"s1/3"}),
        (USER, {"u1"}),
    ],
)
def test_each_role_reads_its_own_streams_only(who: Identity, readable: set[str]) -> None:
    """Owner and staff their store and its tables, a table and a user their own stream, the service all."""
    streams = {
        "s1": ("store", ("s1",)), "s2": ("store", ("s2",)), "s1/3": ("table", ("s1", "3")),
        "s1/4": ("table", ("s1", "4")), "u1": ("user", ("u1",)), "u2": ("user", ("u2",)),
    }  # fmt: skip
    assert {name for name, (kind, ids) in streams.items() if rights.may_read(who, kind, ids)} == readable


@pytest.mark.parametrize(
    ("who", "path", "ok"),
    [
        (OWNER, "store:s1 put-product", True),
        (STAFF, "store:s1 put-product", False),
        (STAFF, "store:s1 accept-order", True),
        (OWNER, "store:s2 accept-order", False),
        (TABLE, "store:s1 create-order", True),
        (TABLE, "store:s2 create-order", False),
        (TABLE, "store:s1 accept-order", False),
        (TABLE, "table:s1/3 add-to-cart", True),
        (TABLE, "table:s1/4 add-to-cart", False),
        (TABLE, "table:s1/3 answer-call", False),
        (STAFF, "table:s1/4 answer-call", True),
        (OWNER, "table:s2/4 answer-call", False),
        (USER, "store:s1 create-order", True),
        (USER, "store:s1 cancel-order", True),
        (USER, "store:s1 accept-order", False),
        (USER, "user:u1 notify", False),
        (OWNER, "user:u1 notify", False),
        (SERVICE, "user:u1 notify", True),
        (SERVICE, "store:s2 put-product", True),
    ],
)
def test_each_role_sends_its_own_commands_only(who: Identity, path: str, ok: bool) -> None:
    """Roles stand on the commands, and the token must be for the stream."""
    stream, name = path.split()
    kind, _, rest = stream.partition(":")
    command = codec.command_type(kind, name)
    assert command is not None
    with nullcontext() if ok else pytest.raises(Problem, match=r"not for"):
        rights.check_send(who, kind, tuple(rest.split("/")), command)


async def test_another_table_user_or_store_is_403(shop: Running) -> None:
    """Over HTTP, with the token of one and the path or the fields of another."""
    line = [{"product": "ramen", "quantity": 1}]
    cases = [
        ("table:s1/3", "GET", "/v1/tables/s1/4/sync", None),
        ("table:s1/3", "GET", "/v1/stores/s1/stream", None),
        ("table:s1/3", "POST", "/v1/stores/s1/create-order", {"lines": line, "table": "4"}),
        ("table:s1/3", "POST", "/v1/stores/s1/create-order", {"lines": line, "user": "u1"}),
        ("user:u1", "GET", "/v1/users/u2/sync", None),
        ("user:u1", "POST", "/v1/stores/s1/create-order", {"lines": line, "user": "u2"}),
        ("user:u1", "POST", "/v1/stores/s1/create-order", {"lines": line, "table": "3"}),
        ("owner:s2", "GET", "/v1/stores/s1/sync", None),
        ("owner:s2", "POST", "/v1/stores/s1/close-store", {}),
        ("staff:s1", "POST", "/v1/stores/s1/put-product", {"product": "x", "name": "x", "price": 1}),
    ]
    async with shop.client() as client:
        before = (await shop.node.read("store:s1")).cursor
        for who, method, path, body in cases:
            headers = {"authorization": f"Bearer {token(who)}"}
            answer = await client.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (who, path, answer.text)
        assert (await shop.node.read("store:s1")).cursor == before


async def test_what_stands_in_records_is_who_sent_it(shop: Running) -> None:
    """`by` is the role and its name; for a table's device its stream."""
    line = [{"product": "ramen", "quantity": 1}]
    seen = {}
    for who in ("service", "owner:s1", "staff:s1", "table:s1/3", "user:u1"):
        async with shop.client(who) as client:
            answer = await client.post("/v1/stores/s1/create-order", json={"lines": line})
            assert answer.status_code == 200, answer.text
            seen[who] = answer.json()["events"][0]["by"]
    assert seen == {
        "service": "service:kim", "owner:s1": "owner:kim", "staff:s1": "staff:kim",
        "table:s1/3": "table:s1/3", "user:u1": "user:u1",
    }  # fmt: skip


async def test_a_cookie_from_a_foreign_site_is_403(shop: Running) -> None:
    """A browser sends the cookie along whoever asks, so a POST with another origin does not count."""
    headers = {"cookie": f"onda_token={token('owner:s1')}", "origin": "https://evil.example"}
    async with shop.client() as client:
        foreign = await client.post("/v1/stores/s1/close-store", json={}, headers=headers)
        own = await client.post("/v1/stores/s1/close-store", json={}, headers={**headers, "origin": shop.url})
    assert (foreign.status_code, own.status_code) == (403, 200)


async def test_open_mode_needs_no_token_but_a_loopback_host() -> None:
    """Everybody is the owner, but only under a name that is this machine's, and not from another site."""
    async with running(open=True) as site, site.client() as client:
        await set_up(client)
        answer = await client.post("/v1/stores/s1/pause-orders", json={"reason": "full"})
        assert answer.json()["events"][0]["by"] == "owner:open"
        assert (await client.get(SYNC, headers={"host": "onda.evil.example"})).status_code == 403
        foreign = {"origin": "https://evil.example"}
        assert (await client.post("/v1/stores/s1/close-store", json={}, headers=foreign)).status_code == 403


def test_tokens_made_here_read_back_and_need_what_their_role_needs() -> None:
    """`onda token` makes what the server takes."""
    now_ms = SystemClock().now_ms()
    made = make_token(SECRET, role="table", sub="t", store="s1", table="3", ttl_s=60, now_ms=now_ms)
    assert read_token(made, SECRET).by == "table:s1/3"
    with pytest.raises(ConfigError, match="a store and a table"):
        make_token(SECRET, role="table", sub="t", store="s1", ttl_s=60, now_ms=now_ms)


def test_the_secret_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    """The first start makes it with mode 0600; a file that others may read is refused."""
    made = load_secret("", tmp_path / "data")
    file = tmp_path / "data" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_secret("", tmp_path / "data") == made
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_secret("", tmp_path / "data")


def test_revoked_tokens_are_refused_and_ended_ones_leave_the_list(tmp_path: Path) -> None:
    """The list holds what was revoked and has not ended by itself."""
    file = tmp_path / "revoked"
    now_ms = SystemClock().now_ms()
    gate = Gate(SECRET, Revoked(file), SystemClock())
    made = make_token(SECRET, role="service", sub="pos", ttl_s=60, now_ms=now_ms)
    request = Request("GET", SYNC, headers={"authorization": f"Bearer {made}"})
    who = gate.identify(request)
    add_revoked(file, "old", now_ms - 1, now_ms - 2)
    add_revoked(file, who.token_id, now_ms + 60_000, now_ms)
    assert file.read_text() == f"{who.token_id} {now_ms + 60_000}\n"
    gate.revoked.load()
    with pytest.raises(Problem, match="revoked"):
        gate.identify(request)


async def test_head_counts_as_get_for_query_tokens(shop: Running) -> None:
    """HEAD is a GET without a body, for tokens too."""
    async with httpx.AsyncClient(base_url=shop.url) as client:
        answer = await client.head(SYNC, params={"token": token("owner:s1")})
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 0
