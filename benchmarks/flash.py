"""How many requests a second does a flash sale answer, over HTTP, each good answer on disk?

Closed loop: each of the connections sends its next request when the one before is answered. 5,000 requests of
2,000 users for a coupon of 500, and 1,500 for the last 50 dishes, second taps and repeats with the same key
among them; `ms` is from the first byte sent to the final answer. With `--kills` the server is killed in the
middle and started again, and the waits hold that time. Answers and log are judged; one finding fails the run.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from benchmarks.harness import (
    LOAD_CPU,
    SERVER_CPU,
    Row,
    folder,
    median_row,
    parser,
    pin,
    repeated,
    report,
    spread,
)
from tests.chaos.flash import Size, coupon_sale, dish_sale, hold, judge_coupons, judge_dishes
from tests.chaos.logbook import read_log
from tests.chaos.process import open_server

KINDS = {
    "coupon": (coupon_sale, judge_coupons, Size(5_000, 2_000, 200, 500)),
    "dishes": (dish_sale, judge_dishes, Size(1_500, 1_000, 200, 50)),
}
KEEP_ALL = {"ONDA_REFILL_BYTES": str(4 << 30)}


def main() -> None:
    """Measure and report."""
    options = parser("flash", __doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, default=200)
    options.add_argument("--kills", type=int, nargs="+", default=[0, 1], help="kills in the middle of a run")
    given = options.parse_args()
    given.runs = 1 if given.quick else given.runs
    pin(LOAD_CPU)
    rows = []
    for kind in KINDS:
        for kills in given.kills:

            def once(kind: str = kind, kills: int = kills) -> Row:
                with folder(given.folder) as data:
                    return trio.run(measure, kind, kills, given.connections, data)

            rows.append(median_row(repeated(given.runs, once)))
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs})


async def measure(kind: str, kills: int, connections: int, data: Path) -> Row:
    """One sale against a fresh server."""
    make, judge, size = KINDS[kind]
    sale = make(size._replace(connections=connections), 1)
    pinned = partial(pin, SERVER_CPU)
    async with open_server(data, "--no-demo", env=KEEP_ALL, start=False) as (server, nursery):
        await server.start(nursery, pinned)
        await hold(sale, server, nursery, kills, pinned)
        await server.stop()
    findings = judge(sale, await read_log(data))
    if findings:
        raise SystemExit(f"this run has failed: {findings}")
    return {
        "sale": kind,
        "kills": kills,
        "connections": connections,
        "requests": sale.answered,
        "given out": len({said.meaning for said in sale.won().values()}),
        "sent again": sale.broken,
        "requests/s": round(sale.answered / sale.took_s),
        **spread("ms", sale.waits_ms),
    }


if __name__ == "__main__":
    main()
