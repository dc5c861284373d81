"""A disk that runs full: orders are refused with their own code, reads go on, space brings it all back."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.crowd import STAGES, STORE, Crowd, open_crowd
from tests.chaos.evidence import contiguous, nothing_doubled, nothing_lost
from tests.chaos.logbook import read_log
from tests.chaos.process import Server, open_server
from web.client import Client, Unanswered

SMALL = {"ONDA_SEGMENT_BYTES": str(1 << 20), "ONDA_RESERVE_BYTES": str(1 << 20), "ONDA_PING_S": "1"}
DISK_BYTES = 24 << 20
LIMIT_BYTES = 2 << 20
NOTE = "x" * 500


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of a few MB; skips, loudly, where one may not be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "onda-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(
            f"MAY NOT MOUNT A SMALL DISK, the one with a file size limit runs instead: {mounted.stderr}"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.one_node("the disk of the write-ahead log")
async def test_a_full_disk_refuses_orders_and_recovers(small_disk: Path):
    """503 `read_only` while there is no space; reading works; with space so do orders, without a restart."""
    filler = small_disk / "filler"

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:  # until it is full
            while True:
                file.write(bytes(64 << 10))

    async def fill_it(_server: Server, _nursery: trio.Nursery) -> None:
        await trio.to_thread.run_sync(fill)

    await full_and_back(small_disk / "data", fill_it, lambda _server: filler.unlink())


@pytest.mark.one_node("the disk of the write-ahead log")
async def test_a_file_size_limit_refuses_orders_and_recovers(tmp_path: Path):
    """The same where nothing can be mounted: segments of a size that a limit forbids cannot be made."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, resource.RLIM_INFINITY))

    async def restart_limited(server: Server, nursery: trio.Nursery) -> None:
        assert await server.stop() == 0
        server.env["ONDA_SEGMENT_BYTES"] = str(2 * LIMIT_BYTES)
        await server.start(nursery, preexec=limit)

    def lift(server: Server) -> None:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    await full_and_back(tmp_path / "data", restart_limited, lift)


async def full_and_back(
    data: Path, fill: Callable[[Server, trio.Nursery], Awaitable[None]], free: Callable[[Server], None]
) -> None:
    """Order, let space run out while orders flow, look at what works, make space, and order on."""
    async with (
        open_server(data, "--no-demo", env=SMALL) as (server, nursery),
        open_crowd(server.base, 1, tables=1) as (crowd, client),
    ):
        assert await place(crowd, client)
        await fill(server, nursery)
        with trio.fail_after(60):
            while await place(crowd, client):
                pass
        problem = await refusal(client)
        assert (problem.status_code, problem.json()["code"]) == (503, "read_only")
        assert int(problem.headers["Retry-After"]) >= 1
        assert (await client.sync(f"stores/{STORE}"))["state"]["orders"]
        assert await status(client, "/healthz") == 200
        assert await status(client, "/readyz") == 503
        free(server)
        with trio.fail_after(30):
            while not await place(crowd, client):
                pass
        assert await status(client, "/readyz") == 200
        await crowd.wait_quiet(client)
        findings = await crowd.compare(client) + crowd.faults()
        assert await server.stop() == 0
    records = await read_log(data)
    findings += contiguous(records) + nothing_lost(records, crowd.acknowledged)
    assert findings + nothing_doubled(records, crowd.acknowledged, crowd.tried) == []


async def place(crowd: Crowd, client: Client) -> bool:
    """One large order; False when it could not be placed within a moment."""
    key = os.urandom(8).hex()
    crowd.tried.add(key)
    lines = [{"product": "ramen", "quantity": 1, "note": key}]
    lines += [{"product": "ramen", "quantity": 1, "note": NOTE}] * 20
    try:
        reply = await client.send(f"stores/{STORE}/create-order", {"lines": lines}, key=key, within_s=0.7)
        for stage in STAGES:
            await client.send(f"stores/{STORE}/{stage}", {"order": reply.result["order"]}, within_s=0.7)
    except Unanswered:
        return False
    return True


async def status(client: Client, path: str) -> int:
    """The status of a page."""
    return (await client._http.get(path)).status_code


async def refusal(client: Client) -> httpx.Response:
    """What the server says to an order right now."""
    body = {"lines": [{"product": "ramen", "quantity": 1}]}
    headers = {"Authorization": f"Bearer {client._token}"}
    return await client._http.post(f"/v1/stores/{STORE}/create-order", json=body, headers=headers)
