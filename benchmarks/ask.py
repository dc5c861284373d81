"""How many durable orders a second does the engine take, in process, each acknowledged only after fdatasync?

Closed loop: each asker sends its next order when the one before is answered. The orders are for tables, so
each also goes to its table's stream by a reaction. `drain s` is how long what was still under way at the end
took; `orders/s drained` counts that time too: it is the rate that could be kept up for ever.

`main us`, `log us` and `other us` are processor time per order until everything is drained: of trio's thread
(the askers' own share included), of the log's, and of those that write history and checkpoints. They say
more than the rates do where something else runs on the machine, too.
"""

from __future__ import annotations

import threading
import time

import trio

from benchmarks.harness import Row, folder, median_row, parser, repeated, report, run_apart, spread
from engine import Config, Node, open_node, tune_collector
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import CreateOrder, Wish
from engine.domain.store.shop import ConfigureStore, OpenStore

TABLES = 20
PRODUCTS = 10


def main() -> None:
    """Measure and report."""
    options = parser("ask", __doc__.partition("\n")[0])
    options.add_argument("--askers", type=int, nargs="+", default=[1, 32, 256])
    options.add_argument("--stores", type=int, default=50)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--warm-up", type=float, default=1.0)
    options.add_argument(
        "--no-tables", action="store_true", help="orders for no table: nothing follows from them"
    )
    options.add_argument("--no-history", action="store_true", help="without the history in SQL")
    given = options.parse_args()
    given.runs = 1 if given.quick else given.runs
    rows = []
    for askers in given.askers:

        def once(askers: int = askers) -> Row:
            with folder(given.folder) as data:
                texts = [str(data), str(askers), str(given.stores), str(given.seconds), str(given.warm_up)]
                texts += ["" if given.no_tables else "tables", "none" if given.no_history else ""]
                return run_apart("benchmarks.ask:measure", *texts)

        rows.append(median_row(repeated(given.runs, once)))
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "seconds": given.seconds})


def measure(
    data: str, askers: str, stores: str, seconds: str, warm_up: str, tables: str, db: str = ""
) -> Row:
    """One run, in this process."""
    tune_collector()
    config = Config(data=data, demo=False, db=db)
    return trio.run(_measure, config, int(askers), int(stores), float(seconds), float(warm_up), bool(tables))


async def _measure(
    config: Config, askers: int, stores: int, seconds: float, warm_up: float, tables: bool
) -> Row:
    waits_ms: list[float] = []

    async def ask(node: Node, asker: int) -> None:
        stream = f"store:b{asker % stores}"
        table = str(asker // stores % TABLES + 1) if tables else None
        count = 0
        while True:
            began = time.perf_counter()
            count += 1
            wishes = (Wish(f"p{count % PRODUCTS}", 1), Wish(f"p{(count + 3) % PRODUCTS}", 2))
            await node.ask(stream, CreateOrder(wishes, table=table), by="staff:bench", id=f"{asker}-{count}")
            waits_ms.append((time.perf_counter() - began) * 1000)

    async with open_node(config) as node:
        await make_stores(node, stores)
        async with trio.open_nursery() as nursery:
            for asker in range(askers):
                nursery.start_soon(ask, node, asker)
            await trio.sleep(warm_up)
            waits_ms.clear()
            began, cpu, before = time.perf_counter(), time.process_time(), thread_seconds()
            await trio.sleep(seconds)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            measured = list(waits_ms)
            nursery.cancel_scope.cancel()
        ended = time.perf_counter()
        await settled(node)
        drain_s = time.perf_counter() - ended
        spent = {name: seconds - before[name] for name, seconds in thread_seconds().items()}
    return {
        "askers": askers,
        "orders/s": round(len(measured) / took),
        **spread("ms", measured),
        "cpu %": round(100 * cpu / took),
        **{f"{name} us": round(1e6 * spent[name] / len(measured), 1) for name in spent},
        "drain s": round(drain_s, 2),
        "orders/s drained": round(len(measured) / (took + drain_s)),
    }


def thread_seconds() -> dict[str, float]:
    """Processor time that this process has used so far, in trio's thread, the log's and all others."""
    main, log = time.thread_time(), 0.0
    for thread in threading.enumerate():
        if thread.name == "onda-log" and thread.ident is not None:
            log += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return {"main": main, "log": log, "other": time.process_time() - main - log}


async def make_stores(node: Node, stores: int) -> None:
    """Stores with a menu, open."""
    for store in range(stores):
        stream = f"store:b{store}"
        await node.ask(stream, ConfigureStore("Bench", "postpay"))
        for product in range(PRODUCTS):
            await node.ask(stream, PutProduct(f"p{product}", f"Product {product}", 4500))
        await node.ask(stream, OpenStore())


async def settled(node: Node) -> None:
    """Wait until every reaction has handled every record."""
    while node.statistics()["reaction_lag"]:  # noqa: ASYNC110 (nothing sets an event for us)
        await trio.sleep(0.01)


if __name__ == "__main__":
    main()
