"""A group of three over a real server: members are killed and added all along, the server once, and still
every record is handled, in order per key, and doubled only where it was delivered again.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.chaos.deadline import wait_until
from tests.chaos.members import Books, Member
from tests.chaos.process import Server, open_server, token
from web.publisher import open_publisher

TOPIC, GROUP = "work", "/v1/topics/work/groups/workers"
BATCH = 100


async def lag_of(server: Server) -> Any:
    async with httpx.AsyncClient(base_url=server.base, timeout=10) as http:
        answer = await http.get(f"{GROUP}/lag", headers={"authorization": f"Bearer {token()}"})
        return answer.json()


async def publish(server: Server, kept: Path, records: list[dict[str, Any]]) -> None:
    """Publish in batches, also while the server is away."""
    async with open_publisher(server.base, token(), kept=kept) as publisher:
        for start in range(0, len(records), BATCH):
            await publisher.publish(TOPIC, records[start : start + BATCH])
            await trio.sleep(0.01)
        while not await publisher.send_kept():
            await trio.sleep(0.05)


async def test_a_group_handles_every_record(
    tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    """However its members die."""
    total = request.config.getoption("--group-records")
    chance = random.Random(seed)
    books, counts = Books(), [0] * max(20, total // 10)
    records = []
    for number in range(total):
        key = chance.randrange(len(counts))
        data = {"number": counts[key]}
        records.append({"event_id": f"e{number}", "key": f"k{key}", "data": data})
        counts[key] += 1
    async with open_server(tmp_path / "data", "--no-demo") as (server, nursery):
        async with httpx.AsyncClient(base_url=server.base) as http:
            headers = {"authorization": f"Bearer {token()}"}
            await http.post(f"{GROUP}/join", json={"member": "first", "lease_s": 0.5}, headers=headers)
        await publish(server, tmp_path / "unsent", records[:BATCH])
        assert (await lag_of(server))["lag"] == BATCH, "nobody has handled anything yet"
        killed = await work(server, nursery, tmp_path, books, chance, records)
        told = await lag_of(server)
    assert books.faults == []
    assert books.doubles, "nobody was killed between handling and saying so"
    assert books.handled == {record["event_id"] for record in records}
    assert all(numbers == list(range(len(numbers))) for numbers in books.by_key.values())
    assert told["lag"] == told["missed"] == 0
    assert told["parked"] == []
    assert sum(one["committed"] for one in told["partitions"]) == total
    assert all(one["committed"] == one["head"] for one in told["partitions"])
    print(f"{total} records, {killed} members killed, {sum(books.doubles.values())} doubles skipped")


async def work(
    server: Server,
    nursery: trio.Nursery,
    folder: Path,
    books: Books,
    chance: random.Random,
    records: list[dict[str, Any]],
) -> int:
    """Publish and handle, with kills, until all is handled; return how many members died."""
    killed = 0
    async with trio.open_nursery() as crowd:
        members = []

        def add() -> None:
            member = Member(server.base, token(), GROUP, f"m{killed}-{len(members)}", books, chance)
            members.append(member)
            crowd.start_soon(member.run)

        for _ in range(3):
            add()
        crowd.start_soon(publish, server, folder / "unsent", records[BATCH:])
        restart_at = len(records) // 2
        with trio.fail_after(60 + len(records) / 20):
            while len(books.handled) < len(records):
                await trio.sleep(chance.uniform(0.3, 1.0))
                victim = max(members, key=lambda member: (member.in_hand, chance.random()))
                members.remove(victim)
                victim.scope.cancel()
                killed += 1
                add()
                if restart_at and len(books.handled) > restart_at:
                    restart_at = 0
                    await server.kill()
                    await server.start(nursery)
        await wait_until(lambda: len(books.handled) == len(records))
        with trio.move_on_after(5):
            while (await lag_of(server))["lag"]:
                await trio.sleep(0.05)
        crowd.cancel_scope.cancel()
    return killed
