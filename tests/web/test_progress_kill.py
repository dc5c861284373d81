"""Orders that are under way when the process is killed: each that was answered 202 is carried out once."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.web.process import serving

pytestmark = pytest.mark.slow

API = "/api/v2/progress"
GUESTS = 6
ENDS_S = 30.0


def ordering(url: str, guest: int, taken: list[tuple[str, str]], enough: threading.Event) -> None:
    """Order until the server is gone; note what was answered."""
    user = f"guest-{guest}"
    with httpx.Client(base_url=url, timeout=5) as client:
        try:
            while True:
                answer = client.post(f"{API}/orders?userId={user}&productName=김밥&quantity=2")
                assert answer.status_code == 202, answer.text
                taken.append((user, answer.json()["taskId"]))
                if len(taken) % 40 == 0:
                    enough.set()
        except httpx.TransportError:
            return


def settled(client: httpx.Client) -> None:
    """Wait until everything that was wished for has been carried out."""
    until = time.monotonic() + ENDS_S
    while _lag(monitor := client.get(f"{API}/monitor").raise_for_status().json()):
        assert time.monotonic() < until, monitor
        time.sleep(0.02)
    assert monitor["consumer"]["parked"] == 0


def _lag(monitor: dict[str, Any]) -> int:
    consumer = monitor["consumer"]  # none at a node that is on duty for no partition yet
    return 1 if consumer is None else consumer["lag"]


def test_what_was_answered_is_carried_out_once(tmp_path: Path) -> None:
    """Through two kills: every task ends at 100 %, with one order that is paid once."""
    taken: list[tuple[str, str]] = []
    for _ in range(2):
        enough = threading.Event()
        with serving(tmp_path, "--open") as server, ThreadPoolExecutor(GUESTS) as pool:
            server.wait_listening()
            before = len(taken)
            for guest in range(GUESTS):
                pool.submit(ordering, server.url, guest, taken, enough)
            assert enough.wait(20)
            server.stop(signal.SIGKILL)
        assert len(taken) > before
    with serving(tmp_path, "--open") as server:
        server.wait_listening()
        with httpx.Client(base_url=server.url, timeout=10) as client:
            settled(client)
            users = {user for user, _ in taken}
            found = [event for user in users for event in client.get(f"{API}/user/{user}").json()]
            steps: dict[str, list[int]] = {}
            for event in found:
                steps.setdefault(event["taskId"], []).append(event["percentage"])
            assert set(steps) >= {task for _, task in taken}
            assert all(marks == [0, 25, 50, 75, 100] for marks in steps.values())
            state = client.get("/v1/stores/demo/sync").json()["state"]
            orders = state["orders"]
            assert set(orders) == set(steps)
            assert all(order["paid"] == order["total"] == 7000 for order in orders.values())
            payments = [payment["order"] for payment in state["payments"].values()]
            assert len(payments) == len(set(payments)) == len(orders)
