"""Plugins: a kind of stream, a reaction and routes from another module; and how a bad one is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigError
from engine.plugins import load_plugins
from tests.plugged import only_here
from tests.web.site import config, listening, running, wait_until
from web.messages import Request, Response, json_response
from web.plugged import Route, Routes
from web.site import Site

ACCOUNTS = "examples.accounts"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    with only_here():
        yield


async def test_an_account_is_there_at_once_and_its_snapshots_are_told() -> None:
    """201 with the account; then `snapshots.generated` reaches the user."""
    async with running(open=True, plugins=ACCOUNTS, node_id="backend-2") as site, site.client() as http:
        async with listening(http, "/events/sse") as events:
            answer = await http.post("/accounts", json={"name": "다중서버테스트", "balance": 999999})
            assert answer.status_code == 201
            account = answer.json()
            assert list(account) == ["id", "name", "balance", "createdAt"]
            assert account == {**account, "id": 1, "name": "다중서버테스트", "balance": 999999}
            told = await events.message()
            assert list(told) == ["eventType", "snapshotCount", "timestamp", "serverId"]
            assert (told["eventType"], told["snapshotCount"]) == ("snapshots.generated", 1)
            assert told["serverId"] == "backend-2"
            await http.post("/accounts", json={"name": "둘째", "balance": 1})
            assert (await events.message())["snapshotCount"] == 2
        assert [one["id"] for one in (await http.get("/accounts")).json()] == [1, 2]
        snapshots = (await http.get("/snapshots")).json()
        assert [one["account"]["id"] for one in snapshots] == [1, 1, 2]
        assert {one["userId"] for one in snapshots} == {"123"}


async def test_accounts_are_the_token_s_user_s() -> None:
    """Who may not speak for a user opens no account."""
    async with running(plugins=ACCOUNTS) as site:
        body = {"name": "a", "balance": 1}
        async with site.client() as http:
            assert (await http.post("/accounts", json=body)).status_code == 401
        async with site.client("user:u1") as http:
            assert (await http.post("/accounts?userId=u2", json=body)).status_code == 403
            async with listening(http, "/events/sse") as events:
                assert (await http.post("/accounts", json=body)).status_code == 201
                assert (await events.message())["snapshotCount"] == 1


async def test_a_repeated_request_opens_one_account() -> None:
    """Keys work as with Onda's own commands."""
    async with running(open=True, plugins=ACCOUNTS) as site, site.client() as http:
        for _ in range(2):
            answer = await http.post(
                "/accounts", json={"name": "a", "balance": 1}, headers={"idempotency-key": "k"}
            )
            assert answer.json()["id"] == 1
        assert len((await http.get("/accounts")).json()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"name":' + b"[" * 5000,
        b'{"name":"a"}',
        b'{"name":"","balance":1}',
        b'{"name":"a","balance":"1"}',
    ],
)
async def test_a_body_that_does_not_fit(body: bytes) -> None:
    """400, and no account."""
    async with running(open=True, plugins=ACCOUNTS) as site, site.client() as http:
        answer = await http.post("/accounts", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert (await http.get("/accounts")).json() == []


async def test_paths_and_methods_of_plugins() -> None:
    """HEAD and OPTIONS come with GET; other methods are refused; without the plugin there is nothing."""
    async with running(open=True, plugins=ACCOUNTS) as site, site.client() as http:
        assert (await http.head("/accounts")).status_code == 200
        refused = await http.delete("/accounts")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST, GET, HEAD, OPTIONS")
        assert (await http.get("/accounts/1")).status_code == 404
    async with running(open=True) as site, site.client() as http:
        assert (await http.get("/accounts")).status_code == 404


async def _say(site: Site, request: Request, **parts: str) -> Response:
    return json_response(msgspec.json.encode({"method": request.method, **parts}))


async def test_routes_of_one_shape_stand_beside_each_other() -> None:
    """Whatever their parts are called; a literal part goes before a name; a part is an id."""
    routes = [
        Route("GET", "/things/{thing}", _say),
        Route("PATCH", "/things/{name}", _say),
        Route("GET", "/things/all", _say),
        Route("GET", "/{any}/first", _say),
    ]
    async with running(open=True) as site, site.first.client() as http:
        site.site.routes = Routes(routes)
        assert (await http.get("/things/a")).json() == {"method": "GET", "thing": "a"}
        assert (await http.patch("/things/a")).json() == {"method": "PATCH", "name": "a"}
        assert (await http.get("/things/all")).json() == {"method": "GET"}
        assert (await http.patch("/things/all")).json() == {"method": "PATCH", "name": "all"}
        assert (await http.get("/things/first")).json() == {"method": "GET", "thing": "first"}
        assert (await http.get("/x/first")).json() == {"method": "GET", "any": "x"}
        refused = await http.delete("/things/a")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, PATCH, HEAD, OPTIONS")
        for odd in ("", "a%20b", "a%2Fb", "x" * 65, "%ED%95%9C"):
            assert (await http.get(f"/things/{odd}")).status_code == 404, odd


@pytest.mark.parametrize(
    "routes",
    [
        [Route("GET", "things", _say)],
        [Route("get", "/things", _say)],
        [Route("GET", "/things/{a}", _say), Route("GET", "/things/{b}", _say)],
        [("GET", "/things", _say)],
    ],
)
def test_routes_that_make_no_sense(routes: list[Route]) -> None:
    """They are refused at the start."""
    with pytest.raises(ConfigError, match="plugins: "):
        Routes(routes)


async def test_a_plugin_s_stream_has_the_usual_paths() -> None:
    """Sync, stream and commands of the new kind, for operators."""
    async with running(plugins=ACCOUNTS) as site:
        async with site.client("service") as http:
            async with listening(http, "/v1/ledgers/main/stream") as events:
                answer = await http.post(
                    "/v1/ledgers/main/create-account", json={"name": "a", "balance": 5, "user": "u1"}
                )
                assert answer.status_code == 200, answer.text
                assert (await events.message())["type"] == "AccountCreated"
            state = (await http.get("/v1/ledgers/main/sync")).json()["state"]
            assert state["accounts"]["1"]["balance"] == 5
        async with site.client("owner:s1") as http:
            assert (await http.get("/v1/ledgers/main/sync")).status_code == 403


async def test_what_a_plugin_wrote_is_there_after_a_restart(tmp_path: Path) -> None:
    """The state that it is read into, and what followed from it."""
    settings = {"open": True, "data": str(tmp_path), "plugins": ACCOUNTS}
    async with running(**settings) as site, site.client() as http:
        await http.post("/accounts", json={"name": "a", "balance": 1})
        await wait_until(lambda: sum(one.log.head for one in site.node.partitions) >= 4)
    async with running(**settings) as site, site.client() as http:
        assert [one["name"] for one in (await http.get("/accounts")).json()] == ["a"]
        assert len((await http.get("/snapshots")).json()) == 1


@pytest.mark.one_node("all of a folder is read at the start; of a shared log: test_two_nodes.py")
async def test_a_server_that_lacks_the_plugin_says_so(tmp_path: Path) -> None:
    """It does not call the data damaged."""
    async with running(open=True, data=str(tmp_path), plugins=ACCOUNTS) as site, site.client() as http:
        assert (await http.post("/accounts", json={"name": "a", "balance": 1})).status_code == 201
    with only_here(forget=("ledger",)):
        with pytest.raises(ConfigError, match="the plugin that brings it has to be loaded"):
            async with running(open=True, data=str(tmp_path)):
                pass


RULES = """
from engine.domain.contract import Command, Event
from msgspec import Struct
class Do(Command, frozen=True): "Do it."
class Done(Event, frozen=True): "Done."
Command, Event, COLLECTIONS = Do, Done, ()
class State(Struct): pass
def decide(state, command, context): return [Done()]
def evolve(state, event): pass
def touched(event): return []
def answer(state, command, events): return {}
def deadline(state): return None
def fences(event): return False
import sys
from engine import Plugin
plugin = Plugin(domains={"thing": sys.modules[__name__]})
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("plugin = 1", "the module has no `plugin = Plugin"),
        (RULES.replace('"thing"', '"Thing"'), "the kind 'Thing' must be"),
        (RULES.replace('"thing"', '"store"'), "there is a kind of stream store already"),
        (RULES.replace("def fences", "def fence"), "the rules of thing lack fences"),
        (RULES.replace("def decide", "async def decide"), "decide of thing must not be async"),
        (RULES.replace("class Done(Event, frozen=True)", "class Done(Struct)"), "must be a Event"),
        (RULES.replace("COLLECTIONS = Do, Done, ()", 'COLLECTIONS = Do, Done, ("x",)'), "has no x"),
    ],
)
def test_a_bad_plugin_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    """The text says which plugin and what to mend; nothing of it stays."""
    (tmp_path / "bad_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_plugin", raising=False)
    with pytest.raises(ConfigError) as refused:
        load_plugins(config(plugins="bad_plugin"))
    monkeypatch.delitem(sys.modules, "bad_plugin", raising=False)
    assert "plugin bad_plugin: " in refused.value.detail
    assert why in refused.value.detail


DO = 'class Do(Command, frozen=True): "Do it."'
SAYS = f'{DO}\n    allowed = frozenset({{"service"}})'.replace(': "Do it."', ":")
NOT_ITS_OWN = "class Other(Event, frozen=True): 'Not in the union.'\ndef decide"
DONE = 'class Done(Event, frozen=True): "Done."'
COUNTED = 'class Done(Event, frozen=True):\n    "Done."\n    n: int = 0'
STATE = "class State(Struct):\n    n: int = 0"


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("return [Done()]", "return [1]", 500),
        ("return [Done()]", "return None", 500),
        ("def decide(state, command, context): return [Done()]", f"{NOT_ITS_OWN}(*_): return [Other()]", 500),
        ("return [Done()]", "return [Done('one')]", 500),
        ("def evolve(state, event): pass", "def evolve(state, event): 1 / 0", 500),
        ("def touched(event): return []", "def touched(event): return [('x', 'y')]", 500),
        ("def answer(state, command, events): return {}", "def answer(*_): return {'a': object()}", 500),
        ("def fences(event): return False", "def fences(event): 1 / 0", 500),
        ("class State(Struct): pass", f"{STATE}\n    m: object = object()", 200),
        ("class State(Struct): pass", f"{STATE}\n    m: int = 'one'", 200),
        ("def deadline(state): return None", "def deadline(state): 1 / 0", 503),
    ],
)
async def test_a_fault_in_the_rules_costs_only_its_own_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, status: int
) -> None:
    """The server goes on, also through checkpoints, and starts again."""
    assert old in RULES
    (tmp_path / "odd_rules.py").write_text(RULES.replace(old, new).replace(DO, SAYS).replace(DONE, COUNTED))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_rules", raising=False)
    settings = {"open": True, "plugins": "odd_rules", "data": str(tmp_path / "data")}
    for _ in range(2):
        async with running(**settings) as site, site.client() as http:
            assert (await http.post("/v1/things/a/do", json={})).status_code == status
            await site.node.upkeep.take()
            assert (await http.post("/v1/users/u/notify", json={"title": "hello"})).status_code == 200
            await site.node.upkeep.take()
            assert (await http.get("/readyz")).status_code == 200
    monkeypatch.delitem(sys.modules, "odd_rules")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("reactions=lambda node: [Reaction('progress', frozenset(), None)]", "is called progress"),
        ("reactions=lambda node: [Reaction('a', frozenset(), None)] * 2", "two reactions are called a"),
        ("reactions=lambda node: [1]", "must be engine.Reaction, not int"),
        ("reactions=lambda node: 1 / 0", "its reactions: ZeroDivisionError"),
        ("routes=lambda site: 1 / 0", "its routes: ZeroDivisionError"),
    ],
)
async def test_what_a_plugin_brings_is_looked_at_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, why: str
) -> None:
    """A name that is taken would share its place in the log; a fault is said in a word, not a trace."""
    text = RULES.replace("from engine import Plugin", "from engine import Plugin, Reaction")
    text = text.replace("modules[__name__]}", f"modules[__name__]}}, {more}")
    (tmp_path / "odd_plugin.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)
    with pytest.raises(ConfigError) as refused:
        async with running(plugins="odd_plugin"):
            pass
    monkeypatch.delitem(sys.modules, "odd_plugin", raising=False)
    assert why in refused.value.detail


def test_a_good_plugin_may_be_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one plugin."""
    (tmp_path / "good_plugin.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load_plugins(config(plugins="good_plugin, good_plugin"))) == 1
    assert len(load_plugins(config(plugins="good_plugin"))) == 1
    monkeypatch.delitem(sys.modules, "good_plugin")
