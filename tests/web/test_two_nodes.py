"""Two servers on one Redis: the order at one, the screen at the other; and one of them, or Redis, dies."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.log.redis_site import ALWAYS, needs_redis
from tests.relays.redis_server import RedisServer, redis_server
from tests.web.process import Process, serving

pytestmark = [pytest.mark.slow, needs_redis]

SHOP = "/v1/stores/s1"
WITHIN_S = 20.0
ENDS_S = 60.0
"""Another node has to take over first, and Python to end."""
ACCOUNTS = ("--plugin", "examples.accounts")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, *ALWAYS) as server:
        yield server


def node(folder: Path, redis: RedisServer, name: str, *options: str) -> Any:
    """Serve as one of several nodes."""
    return serving(folder / name, "--open", "--no-demo", "--node-id", name, "--log", redis.url, *options)


def post(server: Process, path: str, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=15)


def until(what: Callable[[], Any]) -> Any:
    """Return what `what` does, once that is something."""
    end = time.monotonic() + WITHIN_S
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def make_shop(server: Process) -> None:
    for command, body in (
        ("configure-store", {"name": "Corner", "payment_mode": "postpay"}),
        ("put-product", {"product": "ramen", "name": "라면", "price": 5000}),
        ("open-store", {}),
    ):
        post(server, f"{SHOP}/{command}", **body).raise_for_status()


def order(server: Process, **more: Any) -> httpx.Response:
    return post(server, f"{SHOP}/create-order", lines=[{"product": "ramen", "quantity": 1}], **more)


def orders_of(server: Process, feed: str) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/v1/{feed}/sync").raise_for_status().json()
    found: dict[str, Any] = answer["state"]["orders"]
    return found


def test_the_order_at_one_node_is_on_the_screen_of_the_other(tmp_path: Path, redis: RedisServer) -> None:
    """By server-sent events, with the same bytes; and when the node that took it is killed, the other goes
    on with everything, also with what follows from orders.
    """
    with node(tmp_path, redis, "a") as a, node(tmp_path, redis, "b") as b:
        make_shop(a)
        until(lambda: httpx.get(f"{b.url}{SHOP}/sync").status_code == 200)
        with httpx.stream("GET", f"{b.url}{SHOP}/stream", timeout=10) as screen:
            lines = screen.iter_lines()
            assert next(lines) == "event: snapshot" or any("snapshot" in next(lines) for _ in range(3))
            answer = order(a, user="u1").raise_for_status().json()
            shown = next(line for line in lines if line.startswith("data: ") and '"OrderPlaced"' in line)
        assert json.loads(shown[6:]) in answer["events"]
        a.stop(signal.SIGKILL, 10)
        order(b, user="u2").raise_for_status()
        for user in ("u1", "u2"):
            until(lambda user=user: orders_of(b, f"users/{user}"))
        assert len(orders_of(b, "stores/s1")) == 2


def test_a_node_that_lacks_a_plugin_ends_and_says_so(tmp_path: Path, redis: RedisServer) -> None:
    """When it is on duty, as others write such streams, and when it comes to be; who has it goes on."""
    why = "onda: there are streams of the kind ledger: the plugin that brings it has to be loaded"
    account = {"name": "a", "balance": 1}
    with node(tmp_path, redis, "a") as first, node(tmp_path, redis, "b", *ACCOUNTS) as able:
        post(able, "/accounts", **account).raise_for_status()
        assert (first.wait(ENDS_S), first.said[-1]) == (3, why)
        until(lambda: httpx.get(f"{able.url}/snapshots").json())
        with node(tmp_path, redis, "a") as second:
            assert httpx.get(f"{second.url}/accounts").status_code == 404
            post(able, "/accounts", **account).raise_for_status()
            able.stop(signal.SIGKILL)
            assert (second.wait(ENDS_S), second.said[-1]) == (3, why)
    with node(tmp_path, redis, "b", *ACCOUNTS) as able:
        assert [one["id"] for one in httpx.get(f"{able.url}/accounts").json()] == [1, 2]


def test_while_redis_is_away_the_answer_is_503(tmp_path: Path, redis: RedisServer) -> None:
    """With a time to try again after, while reads are answered from memory; then it goes on."""
    with node(tmp_path, redis, "a") as a:
        make_shop(a)
        order(a).raise_for_status()
        redis.stop()
        refused = until(lambda: (answer := order(a)).status_code == 503 and answer)
        assert refused.json()["code"] == "log_unavailable"
        assert int(refused.headers["Retry-After"]) > 0
        assert len(orders_of(a, "stores/s1")) == 1
        redis.start()
        until(lambda: order(a).status_code == 200)
        assert a.stop() == 0


def test_guests_whose_node_is_killed_order_once(tmp_path: Path, redis: RedisServer) -> None:
    """They repeat what has no answer at the other node, with the same key: each order is there once, and
    repeats have the first answer.
    """
    answers: dict[str, Any] = {}

    def guest(number: int, servers: list[Process]) -> None:
        for count in range(25):
            key = f"g{number}.{count}"
            while key not in answers:
                try:
                    answer = httpx.post(
                        f"{servers[0].url}{SHOP}/create-order",
                        json={"lines": [{"product": "ramen", "quantity": 1}]},
                        headers={"Idempotency-Key": key},
                        timeout=15,
                    )
                except httpx.TransportError:
                    servers.reverse()
                    continue
                if answer.status_code == 200:
                    answers[key] = answer.json()
                else:
                    assert answer.status_code in (404, 500, 503, 504), answer.text
                    time.sleep(0.05)

    with node(tmp_path, redis, "a") as a, node(tmp_path, redis, "b") as b:
        make_shop(a)
        until(lambda: httpx.get(f"{b.url}{SHOP}/sync").status_code == 200)
        with ThreadPoolExecutor(4) as pool:
            guests = [pool.submit(guest, number, [a, b] if number % 2 else [b, a]) for number in range(4)]
            until(lambda: len(answers) > 40)
            a.stop(signal.SIGKILL, 10)
            for one in guests:
                one.result(60)
        assert len(orders_of(b, "stores/s1")) == len(answers) == 100
        for key in list(answers)[::10]:
            again = httpx.post(
                f"{b.url}{SHOP}/create-order",
                json={"lines": [{"product": "ramen", "quantity": 1}]},
                headers={"Idempotency-Key": key},
                timeout=15,
            )
            assert again.headers["Idempotent-Replayed"] == "true"
            assert again.json() == answers[key]


def test_one_coupon_at_two_nodes(tmp_path: Path, redis: RedisServer) -> None:
    """Five hundred pieces, six hundred guests, both nodes at once: 1 to 500 are given, each once."""
    given: list[int] = []
    refused: list[str] = []

    def take(server: Process, guests: range) -> None:
        with httpx.Client(base_url=server.url, timeout=15) as client:
            for number in guests:
                while True:
                    answer = client.post(f"{SHOP}/issue-coupon", json={"coupon": "c", "user": f"u{number}"})
                    if answer.status_code != 503:
                        break
                if answer.status_code == 200:
                    given.append(answer.json()["result"]["sequence"])
                else:
                    refused.append(answer.json()["code"])

    with node(tmp_path, redis, "a") as a, node(tmp_path, redis, "b") as b:
        make_shop(a)
        post(a, f"{SHOP}/create-coupon", coupon="c", name="C", discount=100, stock=500).raise_for_status()
        until(lambda: "c" in httpx.get(f"{b.url}{SHOP}/sync").json().get("state", {}).get("coupons", {}))
        with ThreadPoolExecutor(6) as pool:
            for number in range(6):
                pool.submit(take, (a, b)[number % 2], range(100 * number, 100 * number + 100))
        assert sorted(given) == list(range(1, 501))
        assert refused == ["coupon_exhausted"] * 100
        lines = [
            line
            for server in (a, b)
            for line in httpx.get(f"{server.url}/metrics").text.splitlines()
            if line.startswith("onda_append_conflicts_total")
        ]
        assert sum(float(line.split()[-1]) for line in lines) > 0
