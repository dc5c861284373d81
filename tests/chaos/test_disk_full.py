"""A disk that runs full: orders are refused with their own code, reads go on, space brings it all back."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.chaos.crowd import STAGES, STORE, open_crowd
from tests.chaos.evidence import contiguous, nothing_doubled, nothing_lost
from tests.chaos.logbook import read_log
from tests.chaos.process import open_server
from web.client import Client, Unanswered

SMALL = {"ONDA_SEGMENT_BYTES": str(1 << 20), "ONDA_RESERVE_BYTES": str(1 << 20), "ONDA_PING_S": "1"}
DISK_BYTES = 24 << 20
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


async def test_a_full_disk_refuses_orders_and_recovers(small_disk: Path):
    """503 `read_only` while there is no space; reading works; with space so do orders, without a restart."""
    filler = small_disk / "filler"

    def fill() -> None:
        with filler.open("wb") as file, suppress(OSError):  # until it is full
            while True:
                file.write(bytes(64 << 10))
                file.flush()

    await full_and_back(small_disk / "data", fill, filler.unlink)


async def test_a_file_size_limit_refuses_orders_and_recovers(tmp_path: Path):
    """The same where nothing can be mounted: a limit on the size of files makes every new segment fail."""
    server_pid: list[int] = []

    def limit(size: int) -> None:
        resource.prlimit(server_pid[0], resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    await full_and_back(
        tmp_path / "data", lambda: limit(512 << 10), lambda: limit(resource.RLIM_INFINITY), server_pid
    )


async def full_and_back(data: Path, fill, free, server_pid: list[int] | None = None) -> None:
    """Order, fill the disk while orders flow, look at what works, free it, and order on."""
    async with (
        open_server(data, "--no-demo", env=SMALL) as (server, _),
        open_crowd(server.base, 1, tables=1) as (crowd, client),
    ):
        if server_pid is not None:
            server_pid.append(server.pid)
        assert await place(crowd, client)
        await trio.to_thread.run_sync(fill)
        with trio.fail_after(60):
            while await place(crowd, client):
                pass
        problem = await refusal(client)
        assert (problem.status_code, problem.json()["code"]) == (503, "read_only")
        assert int(problem.headers["Retry-After"]) >= 1
        orders = (await client.sync(f"stores/{STORE}"))["state"]["orders"]
        assert orders
        assert (await client._http.get("/healthz")).status_code == 200
        assert (await client._http.get("/readyz")).status_code == 503
        await trio.to_thread.run_sync(free)
        with trio.fail_after(30):
            while not await place(crowd, client):
                pass
        assert (await client._http.get("/readyz")).status_code == 200
        await crowd.wait_quiet(client)
        findings = await crowd.compare(client) + crowd.faults()
        assert await server.stop() == 0
    records = await read_log(data)
    findings += contiguous(records) + nothing_lost(records, crowd.acknowledged)
    assert findings + nothing_doubled(records, crowd.acknowledged, crowd.tried) == []


async def place(crowd, client: Client) -> bool:
    """One large order; False when it could not be placed within a moment."""
    key = os.urandom(8).hex()
    crowd.tried.add(key)
    lines = [{"product": "ramen", "quantity": 1, "note": key}]
    lines += [{"product": "ramen", "quantity": 1, "note": NOTE}] * 20
    try:
        reply = await client.send(f"stores/{STORE}/create-order", {"lines": lines}, key=key, within_s=2)
        for stage in STAGES:
            await client.send(f"stores/{STORE}/{stage}", {"order": reply.result["order"]}, within_s=2)
    except Unanswered:
        return False
    return True


async def refusal(client: Client):
    """What the server says to an order right now."""
    body = {"lines": [{"product": "ramen", "quantity": 1}]}
    headers = {"Authorization": f"Bearer {client._token}"}
    return await client._http.post(f"/v1/stores/{STORE}/create-order", json=body, headers=headers)
