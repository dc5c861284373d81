"""How fast is a replay, and how long a start: after a crash, and with a checkpoint and more history?

A process fills a data folder with orders and kills itself; a fresh process then opens it, and the time of
that is taken (imports apart). `tail` rows have no checkpoint, so everything is replayed; `checkpoint` rows
had one at the end. `events/s` are those of the whole start, from opening the folder to the first command
that could be answered; `CPU events/s` are the same by CPU time, which what else runs disturbs less.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import trio

from benchmarks.ask import PRODUCTS, make_stores, settled
from benchmarks.harness import (
    ROOT,
    Row,
    folder,
    median_row,
    parser,
    repeated,
    report,
    resident_bytes,
    run_apart,
)
from engine import Config, open_node
from engine.domain.store.kitchen import MarkReady, MarkServed
from engine.domain.store.orders import CreateOrder, Wish

STORES = 50
ASKERS = 64
OPEN_ORDERS = 20
"""Orders that each asker leaves open; older ones are served."""
SIZES = {"200,000 events": (200_000, 0), "64 MB": (0, 64 << 20), "2 × history": (400_000, 0)}


def main() -> None:
    """Measure and report."""
    options = parser("replay", __doc__.partition("\n")[0])
    given = options.parse_args()
    given.runs = 1 if given.quick else given.runs
    scale = 10 if given.quick else 1
    rows = []
    for name, kept in (
        ("200,000 events", "tail"),
        ("64 MB", "tail"),
        ("200,000 events", "checkpoint"),
        ("2 × history", "checkpoint"),
    ):
        events, size = SIZES[name]
        with folder(given.folder) as data:
            fill_and_crash(data, events // scale, size // scale, kept)
            opened = repeated(
                given.runs,
                lambda data=data, kept=kept: run_apart("benchmarks.replay:reopen", str(data), kept),
            )
            rows.append({"history": name, "kept as": kept, **median_row(opened)})
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "scale": 1 / scale})


def fill_and_crash(data: Path, events: int, size: int, kept: str) -> None:
    """Fill a folder in a process of its own, which ends by SIGKILL."""
    code = f"from benchmarks.replay import fill; fill({str(data)!r}, {events}, {size}, {kept!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, done.returncode


def fill(data: str, events: int, size: int, kept: str) -> None:
    """Take orders until there are so many events, or bytes of log; then die."""
    trio.run(_fill, data, events, size, kept)


def reopen(data: str, kept: str) -> Row:
    """Open the folder once, and end before a checkpoint would be written: the next one finds the same."""
    import engine.history  # noqa: F401 (what opening a node would import, outside of what is timed)

    return trio.run(_reopen, data, kept)


async def _fill(data: str, events: int, size: int, kept: str) -> None:
    never = {"checkpoint_s": 1e9, "checkpoint_bytes": 1 << 40} if kept == "tail" else {}
    async with open_node(Config(data=data, demo=False, segment_bytes=16 << 20, **never)) as node:
        await make_stores(node, STORES)
        enough = trio.Event()

        async def ask(asker: int) -> None:
            stream = f"store:b{asker % STORES}"
            table = str(asker // STORES + 1)
            left: list[str] = []
            count = 0
            while not enough.is_set():
                count += 1
                wishes = (Wish(f"p{count % PRODUCTS}", 1), Wish(f"p{(count + 3) % PRODUCTS}", 2))
                await node.ask(stream, CreateOrder(wishes, f"{asker}-{count}", table=table), by="staff:bench")
                left.append(f"{asker}-{count}")
                if len(left) > OPEN_ORDERS:
                    oldest = left.pop(0)
                    await node.ask(stream, MarkReady(oldest), by="staff:bench")
                    await node.ask(stream, MarkServed(oldest), by="staff:bench")
                if (size and node.statistics()["log_bytes"] > size) or (events and node.log.head >= events):
                    enough.set()

        async with trio.open_nursery() as nursery:
            for asker in range(ASKERS):
                nursery.start_soon(ask, asker)
        await settled(node)
        if kept == "checkpoint":
            await node.upkeep.take()
        os.kill(os.getpid(), signal.SIGKILL)


async def _reopen(data: str, kept: str) -> Row:
    began, cpu = time.perf_counter(), time.process_time()
    async with open_node(Config(data=data, demo=False, checkpoint_s=1e9, checkpoint_bytes=1 << 40)) as node:
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        first = time.perf_counter()
        await node.read("store:b0")
        read_s = time.perf_counter() - first
        statistics = node.statistics()
        replayed = node.log.head - node.checkpoint.position
        row = {
            "events": node.log.head,
            "log MB": round(statistics["log_bytes"] / 1e6, 1),
            "replayed": replayed,
            "open s": round(took, 3),
            "CPU s": round(cpu, 3),
            "events/s": round(replayed / took) if kept == "tail" else 0,
            "CPU events/s": round(replayed / cpu) if kept == "tail" else 0,
            "first read ms": round(read_s * 1000, 2),
            "RSS MB": round(resident_bytes(os.getpid()) / 1e6),
        }
        print(json.dumps(row), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
