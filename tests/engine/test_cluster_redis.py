"""What nodes tell each other beside the log: tokens that are revoked, and questions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine import Node, cluster_redis
from engine.cluster_redis import Cluster
from engine.errors import (
    ConfigError,
    LogAway,
    LogFailed,
    NotTaken,
    ReadOnly,
    Rejected,
    Unavailable,
    UnknownOutcome,
)
from engine.log.redis_lines import Cut, Line
from tests.engine.cluster import RedisCluster, redis_cluster
from tests.engine.shop import OWNER, STORE, make_shop, order, state_of, wait_until
from tests.log.redis_site import client, needs_redis, patiently
from tests.relays.redis_server import redis_server

__all__ = ["redis_cluster"]

pytestmark = needs_redis


def far() -> int:
    return int(time.time() * 1000) + 60_000


def side_of(node: Node) -> Cluster:
    assert node.cluster is not None
    return node.cluster


@asynccontextmanager
async def two(cluster: RedisCluster) -> AsyncIterator[tuple[Cluster, Cluster]]:
    async with cluster.open("a", "b") as (a, b):
        yield side_of(a), side_of(b)


async def other_of(side: Cluster) -> str:
    """Return the other node, once it has said that it is there."""
    with trio.fail_after(10):
        while not (found := await side.others()):
            await trio.sleep(0.02)
    return found[0]


async def revoke(cluster: RedisCluster, token: str, end_ms: int) -> None:
    await trio.to_thread.run_sync(cluster_redis.revoke, cluster.server.url, token, end_ms)


async def test_a_revoked_token_is_known_at_every_node_within_a_second(redis_cluster: RedisCluster) -> None:
    """Also at one that starts later, before anybody can come in; and one that has ended leaves the list."""
    async with two(redis_cluster) as sides:
        told: list[list[str]] = [[], []]
        for side, heard in zip(sides, told, strict=True):
            side.heard = heard.extend
        began = trio.current_time()
        end_ms = far()
        await revoke(redis_cluster, "t1", end_ms)
        await wait_until(lambda: told == [["t1"], ["t1"]], 1.0)
        assert trio.current_time() - began < 1.0
        await revoke(redis_cluster, "short", int(time.time() * 1000) - 5_000)
        await revoke(redis_cluster, "t2", end_ms)
        await wait_until(lambda: all("t2" in side.revoked for side in sides))
    assert client(redis_cluster.server).zrange("{onda:0}:revoked", 0, -1) == ["t1", "t2"]
    async with redis_cluster.open("c") as (c,):
        assert side_of(c).revoked == {"t1": end_ms, "t2": end_ms}


async def test_what_is_known_holds_while_redis_is_away_and_is_written_back(
    redis_cluster: RedisCluster,
) -> None:
    """Redis may have lost the last of it; a node adds what stands in its own file, too."""
    async with two(redis_cluster) as (a, b):
        await revoke(redis_cluster, "t1", far())
        await wait_until(lambda: "t1" in a.revoked and "t1" in b.revoked)
        redis_cluster.server.stop()
        a.keep({"own": far()})
        await trio.lowlevel.checkpoint()
        assert {"t1", "own"} <= a.revoked.keys()
        redis_cluster.server.start()
        await wait_until(lambda: "own" in b.revoked, 10)
        client(redis_cluster.server).delete("{onda:0}:revoked", "{onda:0}:revocations")
        await wait_until(lambda: client(redis_cluster.server).zcard("{onda:0}:revoked") == 2, 10)


@pytest.mark.parametrize("key", ["revoked", "revocations", "name"])
async def test_what_somebody_deletes_is_written_back(redis_cluster: RedisCluster, key: str) -> None:
    """A node that starts later knows the tokens, and is called as the others, so that it is one of them."""
    end_ms = far()
    async with two(redis_cluster) as (a, b):
        name = a.name
        await revoke(redis_cluster, "t1", end_ms)
        await wait_until(lambda: "t1" in a.revoked and "t1" in b.revoked)
        with client(redis_cluster.server) as plain:
            assert plain.delete(f"{{onda:0}}:{key}") == 1
            if key != "revocations":  # nothing is lost with that
                await wait_until(lambda: plain.exists(f"{{onda:0}}:{key}"))
        async with redis_cluster.open("c") as (c,):
            assert side_of(c).name == a.name == b.name == name
            assert side_of(c).revoked == {"t1": end_ms}


async def test_nodes_have_one_name_in_the_end(redis_cluster: RedisCluster) -> None:
    """Whoever made it: also where one started before the others wrote it back."""
    async with two(redis_cluster) as (a, b):
        client(redis_cluster.server).set("{onda:0}:name", "onda.another")
        await wait_until(lambda: a.name == b.name == "onda.another")


async def test_revoking_where_it_cannot_be_is_told(
    redis_cluster: RedisCluster, tmp_path_factory: Any
) -> None:
    """A Redis without a log, or none at all: nobody may believe that it is done."""
    with redis_server(tmp_path_factory.mktemp("other")) as other:
        with pytest.raises(LogFailed, match="no log"):
            cluster_redis.revoke(other.url, "t", far())
    with pytest.raises(LogAway):
        cluster_redis.revoke(other.url, "t", far())
    with pytest.raises(ConfigError):
        cluster_redis.revoke("http://x", "t", far())


async def test_questions_have_their_answers_and_refusals(redis_cluster: RedisCluster) -> None:
    """As if they had been asked at that node itself."""

    async def answer(words: Mapping[str, Any]) -> Any:
        match words["how"]:
            case "good":
                return {"n": words["n"] + 1}
            case "missing":
                raise KeyError(7)
            case "refused":
                raise Rejected("not_first", "begin with that one")
            case "later":
                raise LogAway("not now")
            case _:
                raise UnknownOutcome

    async with two(redis_cluster) as (a, b):
        b.handlers["try"] = answer
        holder = await other_of(a)
        assert holder.startswith("b.")
        assert await a.ask(holder, "try", how="good", n=1) == {"n": 2}
        assert client(redis_cluster.server).keys("{onda:0}:told:*") == []
        with pytest.raises(KeyError):
            await a.ask(holder, "try", how="missing")
        with pytest.raises(Rejected, match="begin with that one") as refused:
            await a.ask(holder, "try", how="refused")
        assert refused.value.code == "not_first"
        for how, error in (("later", Unavailable), ("else", UnknownOutcome)):
            with pytest.raises(error):
                await a.ask(holder, "try", how=how)
        with pytest.raises(Unavailable, match="does not know"):
            await a.ask(holder, "what")


async def test_a_question_that_nobody_takes_is_taken_back(redis_cluster: RedisCluster) -> None:
    """Then nothing happened; while one that was taken and has no answer may have."""
    async with two(redis_cluster) as (a, b):
        with pytest.raises(Unavailable, match="node gone does not answer"):
            await a.ask("gone.1", "try", within_s=0.3)
        assert client(redis_cluster.server).llen("{onda:0}:inbox:gone.1") == 0

        async def never(_: Mapping[str, Any]) -> None:
            await trio.sleep_forever()

        b.handlers["try"] = never
        holder = await other_of(a)
        with pytest.raises(UnknownOutcome, match="look again"):
            await a.ask(holder, "try", within_s=1.5)


async def test_a_question_that_came_twice_is_taken_once(redis_cluster: RedisCluster) -> None:
    """Its line was lost, and it was asked again."""
    asked = 0

    async def count(_: Mapping[str, Any]) -> int:
        nonlocal asked
        asked += 1
        return asked

    async with two(redis_cluster) as (a, b):
        b.handlers["count"] = count
        holder = await other_of(a)
        inbox = f"{{onda:0}}:inbox:{holder}"
        question = cluster_redis._encode(cluster_redis.Question("q1", "count", {}))
        client(redis_cluster.server).rpush(inbox, question, question)
        await wait_until(lambda: asked > 0)
        assert await a.ask(holder, "count") == 2


async def test_a_node_starts_while_memory_is_full(redis_cluster: RedisCluster) -> None:
    """It has the name of the others, and answers reads, as they do; orders come back with the memory."""
    with client(redis_cluster.server) as plain:
        async with redis_cluster.open("a") as (a,):
            await make_shop(a)
            plain.config_set("maxmemory", 1)
            with pytest.raises(ReadOnly):
                await a.ask(STORE, order(), by=OWNER)
            async with redis_cluster.open("b") as (b,):
                assert side_of(b).name == side_of(a).name
                for node in (a, b):
                    assert (await state_of(node, STORE))["orders"] == {}
                plain.config_set("maxmemory", 0)
                await patiently(lambda: b.ask(STORE, order(), by=OWNER), Unavailable)


async def test_a_question_whose_line_broke_may_have_been_taken(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has it, as good as the answer that it does: so it is waited for, or taken back."""
    run = Line.run

    def cut(line: Line, script: Any, calls: Any) -> list[Any]:
        answers = run(line, script, calls)
        if script is cluster_redis.ASK:
            raise Cut("the line is cut")
        return answers

    async def answer(_: Mapping[str, Any]) -> str:
        return "done"

    async with two(redis_cluster) as (a, b):
        b.handlers["try"] = answer
        holder = await other_of(a)
        monkeypatch.setattr(Line, "run", cut)
        assert await a.ask(holder, "try") == "done"
        with pytest.raises(NotTaken):
            await a.ask("gone.1", "try", within_s=0.3)
        assert client(redis_cluster.server).llen("{onda:0}:inbox:gone.1") == 0
