"""What do many stores cost: memory, the latency of one of them, and the start with all of them?

In one process: one store is set up and asked, then all the others are made, each with its menu and open
orders by real commands, and the first store is asked again. After a checkpoint the process kills itself, and
a fresh one opens the folder: states come from the checkpoint and no store is in memory until somebody asks
for it, so it then asks each of them once.

`ask ms`: a closed loop of orders to the one store, each made, made ready and served, acknowledged after
fdatasync, while the others are idle. RSS without the process's own (`engine` imported, one store) is `KB per
store`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import trio

from benchmarks.harness import (
    ROOT,
    Row,
    folder,
    median_row,
    parser,
    report,
    resident_bytes,
    run_apart,
    spread,
)
from engine import Config, Node, open_node, tune_collector
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.shop import ConfigureStore, OpenStore

BUILDERS = 64
PRODUCTS = 10
BY = "staff:bench"
THE_ONE = "store:one"


def main() -> None:
    """Measure and report."""
    options = parser("stores", __doc__.partition("\n")[0])
    options.add_argument("--stores", type=int, default=10_000)
    options.add_argument("--orders", type=int, default=10, help="open orders of each store (default 10)")
    options.add_argument(
        "--tables",
        type=int,
        default=0,
        help="tables that a store's orders are for, each a stream (default 0)",
    )
    options.add_argument("--seconds", type=float, default=5.0, help="how long the one store is asked")
    given = options.parse_args()
    stores, runs = (200, 1) if given.quick else (given.stores, given.runs)
    rounds: list[list[Row]] = []
    for run in range(runs):
        with folder(given.folder) as data:
            built = _build(data, stores, given.orders, given.tables, 0.5 if given.quick else given.seconds)
            rounds.append([*built, run_apart("benchmarks.stores:reopen", str(data), str(stores))])
        print(f"run {run + 1} of {runs}: {rounds[-1]}", file=sys.stderr)
    rows = [median_row(alike) for alike in zip(*rounds, strict=True)]
    notes = {"runs": runs, "stores": stores, "orders": given.orders, "tables": given.tables}
    report(__doc__.partition("\n")[0], rows, given.json, notes)


def _build(data: Path, stores: int, orders: int, tables: int, seconds: float) -> list[Row]:
    """Run `fill` in a process of its own, which ends by SIGKILL; return its rows."""
    code = f"from benchmarks.stores import fill; fill({str(data)!r}, {stores}, {orders}, {tables}, {seconds})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL, done.returncode
    return [json.loads(line) for line in done.stdout.splitlines()]


def fill(data: str, stores: int, orders: int, tables: int, seconds: float) -> None:
    """Make the stores, telling on stdout what they cost; then die."""
    tune_collector()
    trio.run(_fill, data, stores, orders, tables, seconds)


def reopen(data: str, stores: str) -> Row:
    """Open the folder, and ask every store for its state."""
    import engine.history  # noqa: F401 (what opening a node would import, outside of what is timed)

    tune_collector()
    return trio.run(_reopen, data, int(stores))


async def _fill(data: str, stores: int, orders: int, tables: int, seconds: float) -> None:
    async with open_node(Config(data=data, demo=False)) as node:
        await _make_store(node, THE_ONE, orders, tables)
        await _ask(node, seconds / 5)
        before = resident_bytes(os.getpid())
        row = {"stores": 1, "RSS MB": _mb(before), **await _ask(node, seconds)}
        print(json.dumps({"state": "in memory", **row}), flush=True)

        began, cpu = time.perf_counter(), time.process_time()
        left = list(range(stores - 1))

        async def build() -> None:
            while left:
                await _make_store(node, f"store:s{left.pop()}", orders, tables)

        async with trio.open_nursery() as nursery:
            for _ in range(BUILDERS):
                nursery.start_soon(build)
        await _settled(node)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        await node.upkeep.take()
        after = resident_bytes(os.getpid())
        row = {
            "stores": stores,
            "streams": node.statistics()["actors"],
            "RSS MB": _mb(after),
            "KB per store": round((after - before) / 1024 / max(1, stores - 1), 1),
            "build s": round(took, 1),
            "build CPU s": round(cpu, 1),
            **await _ask(node, seconds),
        }
        print(json.dumps({"state": "in memory", **row}), flush=True)
        await node.upkeep.take()
        os.kill(os.getpid(), signal.SIGKILL)


async def _reopen(data: str, stores: int) -> Row:
    began, cpu = time.perf_counter(), time.process_time()
    async with open_node(Config(data=data, demo=False, checkpoint_s=1e9, checkpoint_bytes=1 << 40)) as node:
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        opened = resident_bytes(os.getpid())
        assert len(node.stores) == stores
        began_reading = time.perf_counter()
        reads_ms = []
        for stream in node.stores:
            began = time.perf_counter()
            await node.read(stream)
            reads_ms.append((time.perf_counter() - began) * 1000)
        row = {
            "state": "started again",
            "stores": stores,
            "streams": node.statistics()["actors"],
            "RSS MB": _mb(resident_bytes(os.getpid())),
            "open s": round(took, 3),
            "open CPU s": round(cpu, 3),
            "RSS MB at open": _mb(opened),
            "read all s": round(time.perf_counter() - began_reading, 2),
            **spread("first read ms", reads_ms),
        }
        print(json.dumps(row), flush=True)
        os._exit(0)


async def _make_store(node: Node, stream: str, orders: int, tables: int) -> None:
    """A store with a menu, open, and orders that are."""
    await node.ask(stream, ConfigureStore("Bench", "postpay"))
    for product in range(PRODUCTS):
        await node.ask(stream, PutProduct(f"p{product}", f"Product {product}", 4500))
    await node.ask(stream, OpenStore())
    for number in range(orders):
        table = str(number % tables + 1) if tables else None
        await node.ask(stream, _order(number, table), by=BY, id=f"made-{number}")


def _order(number: int, table: str | None = None) -> CreateOrder:
    wishes = (Wish(f"p{number % PRODUCTS}", 1), Wish(f"p{(number + 3) % PRODUCTS}", 2))
    return CreateOrder(wishes, f"n{number}" if table is None else None, table=table)


async def _ask(node: Node, seconds: float) -> Row:
    waits_ms: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        name = uuid.uuid4().hex
        order = CreateOrder((Wish("p1", 1), Wish("p4", 2)), name)
        began = time.perf_counter()
        await node.ask(THE_ONE, order, by=BY, id=name)
        waits_ms.append((time.perf_counter() - began) * 1000)
        await node.ask(THE_ONE, MarkReady(name), by=BY)
        await node.ask(THE_ONE, MarkServed(name), by=BY)
    return {"asks": len(waits_ms), **spread("ask ms", waits_ms, 3)}


async def _settled(node: Node) -> None:
    """Wait until every reaction has handled every record, and the history has them."""
    while (now := node.statistics())["reaction_lag"] or now["history_lag"]:  # noqa: ASYNC110 (as in ask)
        await trio.sleep(0.05)


def _mb(size: int) -> int:
    return round(size / 1e6)


if __name__ == "__main__":
    main()
