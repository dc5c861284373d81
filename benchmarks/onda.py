"""Onda as a target of the load generator: its real server, real tokens, real commands, everything on disk."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt

from benchmarks.harness import SECRET, Row, served
from benchmarks.loadgen import NUMBER, STAMP, Target, get, post

STORE = "bench"
PRODUCTS = 10
TABLES = 20
NAME = "Onda"
ENVIRONMENT = {
    "ONDA_ROTATE_S": "0",
    "ONDA_CONNECTIONS_MAX": "20000",
    "ONDA_CONNECTIONS_PER_ADDRESS_MAX": "20000",
}
"""All connections come from one address here, and none is to be rotated while it is measured."""

KINDS = ("small", "order")
"""`small`: `adjust-stock`, one event of some 480 bytes; `order`: `create-order`, one event of some 2,000."""


@contextmanager
def onda(
    folder: Path, stores: Sequence[str] = (STORE,), payment_mode: str = "prepay"
) -> Iterator[tuple[int, int]]:
    """A fresh server with open stores that have a menu; gives its port and its process id."""
    with served(folder / "data", "--no-demo", env=ENVIRONMENT) as (port, pid):
        for store in stores:
            make_store(port, store, payment_mode)
        yield port, pid


def make_store(port: int, store: str, payment_mode: str) -> None:
    """Where guests pay first (`prepay`) each order holds its stock; else it takes it."""
    with calling(port, store) as call:
        call("configure-store", {"name": "Bench", "payment_mode": payment_mode})
        for number in range(PRODUCTS):
            product = {
                "product": f"p{number}",
                "name": f"Product {number}",
                "price": 4500,
                "stock": 1_000_000,
            }
            call("put-product", product)
        call("open-store", {})


@contextmanager
def calling(port: int, store: str) -> Iterator[Any]:
    """A function that gives the store a command and returns its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {token(store)}", "Content-Type": "application/json"}

    def call(command: str, body: Row) -> Row:
        connection.request("POST", f"/v1/stores/{store}/{command}", json.dumps(body), headers)
        answer = connection.getresponse()
        told: Row = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{command}: {told}")
        return told

    try:
        yield call
    finally:
        connection.close()


def token(store: str = STORE, role: str = "owner") -> str:
    """A token of a store's owner."""
    claims = {"sub": "bench", "role": role, "store": store, "exp": int(time.time()) + 86_400}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def stream_target(port: int, pid: int, kind: str = "small") -> Target:
    """Subscribe to one store from where it is; publish by commands of a kind to it."""
    auth = f"Authorization: Bearer {token()}"
    path = f"/v1/stores/{STORE}"

    def start_here(target: Target) -> None:
        with calling(port, STORE) as call:
            answer = call("adjust-stock", {"product": "p0", "delta": 1, "reason": "x"})
        target.subscribe = get(f"{path}/stream?after={answer['cursor']}", auth)
        target.first_number = int(answer["events"][0]["version"])

    return Target(
        port,
        [pid],
        requests=order_requests([STORE]) if kind == "order" else _stock_requests(auth),
        before=start_here,
        options={
            "answers_have_events": True,
            "stamp": '"reason":"' if kind == "small" else '"note":"',
            "sync_request": get(f"{path}/sync?after=%s", auth),
            "again_request": get(f"{path}/stream", auth, "Last-Event-ID: %s"),
        },
    )


def _stock_requests(auth: str) -> list[bytes]:
    """One piece more and one less in turn, with the stamp as the reason: one event each."""
    bodies = [
        {"product": f"p{number % PRODUCTS}", "delta": 1 if number // PRODUCTS % 2 else -1, "reason": STAMP}
        for number in range(2 * PRODUCTS)
    ]
    path = f"/v1/stores/{STORE}/adjust-stock"
    return [post(path, _compact(body), auth, f"Idempotency-Key: s{STAMP}-{NUMBER}") for body in bodies]


def order_requests(stores: Sequence[str]) -> list[bytes]:
    """Orders of two lines for tables of stores in turn, each with a key of its own."""
    made = []
    for number in range(max(len(stores), 1) * TABLES):
        store = stores[number % len(stores)]
        lines = [
            {"product": f"p{number % PRODUCTS}", "quantity": 1, "note": STAMP},
            {"product": f"p{(number + 3) % PRODUCTS}", "quantity": 2},
        ]
        body = {"lines": lines, "table": str(number // len(stores) % TABLES + 1)}
        auth = f"Authorization: Bearer {token(store)}"
        made.append(
            post(
                f"/v1/stores/{store}/create-order",
                _compact(body),
                auth,
                f"Idempotency-Key: o{STAMP}-{NUMBER}",
            )
        )
    return made


def _compact(body: Row) -> str:
    return json.dumps(body, separators=(",", ":"))


def gauge(port: int, name: str) -> float:
    """Return a metric of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))
