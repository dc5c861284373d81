"""Whose a task is: known after its start, through restarts, and no longer once it is forgotten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import trio

from engine import Node, open_node
from engine.domain.user.tasks import CleanupTasks, CompleteTask, StartTask
from tests.engine.shop import config

BY = "service:jobs"


async def start(node: Node, user: str, task: str) -> None:
    await node.ask(f"user:{user}", StartTask(2, task), by=BY)


async def test_a_task_is_found_as_soon_as_it_was_started() -> None:
    async with open_node(config()) as node:
        assert await node.tasks.user_of("a") is None
        for number in range(50):
            await start(node, f"u{number}", f"t{number}")
            assert await node.tasks.user_of(f"t{number}") == f"u{number}"
        assert await node.tasks.count() == 50


async def test_a_task_is_found_after_restarts(tmp_path: Path) -> None:
    """Also in a folder whose log was trimmed behind the checkpoint, and in one that has no table yet."""
    for number in range(3):
        async with open_node(config(str(tmp_path))) as node:
            await start(node, "u1", f"t{number}")
            await start(node, f"only-{number}", f"o{number}")
            for known in range(number + 1):
                assert await node.tasks.user_of(f"t{known}") == "u1"
                assert await node.tasks.user_of(f"o{known}") == f"only-{known}"
    with closing(sqlite3.connect(tmp_path / "checkpoint.db")) as db:
        db.execute("DROP TABLE tasks")
        db.execute("DELETE FROM positions WHERE reaction = 'tasks'")
        db.commit()
    async with open_node(config(str(tmp_path))) as node:
        await start(node, "u1", "new")
        assert await node.tasks.user_of("new") == "u1"


async def test_a_forgotten_task_is_nobodys() -> None:
    async with open_node(config()) as node:
        await start(node, "u1", "a")
        await start(node, "u1", "b")
        await node.ask("user:u1", CompleteTask("a"), by=BY)
        await node.ask("user:u1", CleanupTasks(0), by=BY)
        await node.tasks.user_of("wait for all that was committed")
        assert await node.tasks.user_of("a") is None
        assert await node.tasks.user_of("b") == "u1"


async def test_an_id_stays_with_who_had_it_first() -> None:
    """A second user's task of the same id does not take the first one's place, nor its forgetting."""
    async with open_node(config()) as node:
        await start(node, "u1", "a")
        assert await node.tasks.user_of("a") == "u1"
        await start(node, "u2", "a")
        await node.ask("user:u2", CompleteTask("a"), by=BY)
        await node.ask("user:u2", CleanupTasks(0), by=BY)
        await node.tasks.user_of("nothing")
        assert await node.tasks.user_of("a") == "u1"


async def test_many_ask_at_once() -> None:
    found: list[str | None] = []
    async with open_node(config()) as node:

        async def ask(number: int) -> None:
            await start(node, f"u{number}", f"t{number}")
            found.append(await node.tasks.user_of(f"t{number}"))

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
    assert sorted(filter(None, found)) == sorted(f"u{number}" for number in range(40))
