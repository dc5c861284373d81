"""How many appends a second does the log take, each acknowledged only after fdatasync?

Closed loop, nothing but the log: each appender hands over its next entry when the one before is durable.
`bare sync ms` is one write of the same size and one fdatasync into a prepared file, in a plain loop in the
same run: what the disk itself allows a single appender.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import trio

from benchmarks.harness import Row, folder, median_row, parser, repeated, report, run_apart, spread
from engine.log.wal import open_wal
from engine.records import Entry


def main() -> None:
    """Measure and report."""
    options = parser("append", __doc__.partition("\n")[0])
    options.add_argument("--appenders", type=int, nargs="+", default=[1, 50, 256])
    options.add_argument("--bytes", type=int, default=700, help="body of an entry (default 700)")
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--warm-up", type=float, default=0.5)
    options.add_argument("--pad", type=int, default=0, choices=[0, 4096])
    given = options.parse_args()
    given.runs = 1 if given.quick else given.runs
    rows = []
    for appenders in given.appenders:

        def once(appenders: int = appenders) -> Row:
            with folder(given.folder) as data:
                texts = [data, appenders, given.bytes, given.seconds, given.warm_up, given.pad]
                return run_apart("benchmarks.append:measure", *map(str, texts))

        rows.append(median_row(repeated(given.runs, once)))
    notes = {"runs": given.runs, "seconds": given.seconds, "bytes": given.bytes, "pad": given.pad}
    report(__doc__.partition("\n")[0], rows, given.json, notes)


def measure(data: str, appenders: str, body: str, seconds: str, warm_up: str, pad: str) -> Row:
    """One run, in this process."""
    bare = _bare_sync_ms(Path(data), int(body))
    row: Row = trio.run(
        _measure, Path(data), int(appenders), int(body), float(seconds), float(warm_up), int(pad)
    )
    return {**row, "bare sync ms": round(bare, 3)}


async def _measure(data: Path, appenders: int, body: int, seconds: float, warm_up: float, pad: int) -> Row:
    waits_ms: list[float] = []
    async with open_wal(str(data / "log"), pad=pad, reserve_bytes=0) as wal:

        async def append(stream: str) -> None:
            version = 0
            while True:
                version += 1
                entry = Entry(stream, version, b"", b"x" * body)
                began = time.perf_counter()
                await wal.append([entry])
                waits_ms.append((time.perf_counter() - began) * 1000)

        async with trio.open_nursery() as nursery:
            for number in range(appenders):
                nursery.start_soon(append, f"table:s1/{number}")
            await trio.sleep(warm_up)
            waits_ms.clear()
            before = wal.statistics()
            began, cpu = time.perf_counter(), time.process_time()
            await trio.sleep(seconds)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            after = wal.statistics()
            measured = list(waits_ms)
            nursery.cancel_scope.cancel()
    batches = after["batches"] - before["batches"]
    return {
        "appenders": appenders,
        "appends/s": round(len(measured) / took),
        **spread("ms", measured, 3),
        "in a batch": round((after["entries"] - before["entries"]) / batches, 1),
        "batch ms": round(1000 * (after["sync_s"] - before["sync_s"]) / batches, 3),
        "cpu %": round(100 * cpu / took),
    }


def _bare_sync_ms(folder: Path, size: int) -> float:
    """Median time of one write and fdatasync, without anything else."""
    took_ms = []
    file = os.open(folder / "bare", os.O_RDWR | os.O_CREAT)
    try:
        os.write(file, bytes(1 << 20))
        os.fsync(file)
        for number in range(300):
            began = time.perf_counter()
            os.pwrite(file, bytes(size), number * size % (1 << 19))
            os.fdatasync(file)
            took_ms.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(file)
    return median(took_ms)


if __name__ == "__main__":
    main()
