"""How long from an order at one node to the screens of another, at 500 orders a second, beside one node?

Open loop: orders are sent at their time whether or not earlier ones were answered, and carry the time at
which they were due. The screens watch one shop, which gets `shop's` orders a second of all; the others go to
25 more shops at the same node. `screen ms` is from when an order was due to each screen's hands: the request,
the decision, the append (in Redis with `appendfsync always`), and the delivery. `one node`: screens where the
orders are, beside an idle second node; `two nodes`: the screens at the other node; `behind nginx`: the same,
all through it; `wal`: a node with a write-ahead log of its own. `hop ms` is how much longer the median screen
waits than the median answer. Each node has a core of its own, which the first shares with nothing and the
second with Redis, nginx and the load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cluster import doors, make_stores, nodes, redis
from benchmarks.harness import LOAD_CPU, SERVER_CPU, Row, folder, median_row, parser, pin, report
from benchmarks.loadgen import Target, faults, run_together
from benchmarks.onda import STORE, onda, order_requests, stream_target

PUBLISHERS = 32
OTHERS = [f"b{number}" for number in range(25)]
SETUPS = ("wal", "one node", "two nodes", "behind nginx")


def main() -> None:
    """Measure and report."""
    options = parser("hop", __doc__.partition("\n")[0])
    options.add_argument("--screens", type=int, default=20)
    options.add_argument("--rate", type=float, default=500.0, help="orders a second of all shops")
    options.add_argument("--shop-rate", type=float, default=50.0, help="of them, for the shop on the screens")
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--warm-up", type=float, default=2.0)
    options.add_argument("--fsync", choices=["always", "everysec"], default="always")
    options.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS))
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.warm_up = 1, 2.0, 0.5
    rows = []
    for setup in given.setups:
        runs = []
        for _ in range(given.runs):
            runs.append(measure(setup, given))
            print(setup, runs[-1], file=sys.stderr)
        rows.append({"set-up": setup, **median_row(runs), "failed": sum(bool(row["note"]) for row in runs)})
    notes = {"runs": given.runs, "seconds": given.seconds, "screens": given.screens, "fsync": given.fsync}
    report(__doc__.partition("\n")[0], rows, given.json, notes)
    if any(row["failed"] for row in rows):
        raise SystemExit("a gap or an error: runs have failed")


def measure(setup: str, given: Any) -> Row:
    """One run against fresh nodes."""
    times = {"warm_s": given.warm_up, "seconds": given.seconds}
    shop = {**times, "subs": given.screens, "pubs": PUBLISHERS, "rate": given.shop_rate}
    others = {**times, "pubs": PUBLISHERS, "rate": given.rate - given.shop_rate}
    with folder(given.folder) as data, _targets(setup, data, given.fsync) as (target, rest):
        seen, beside = run_together([(target, shop), (rest, others)], data)
    screen, answer = seen["delivery_ms"], seen["answer_ms"]
    return {
        "orders/s": round((seen["answered"] + beside["answered"]) / seen["seconds"]),
        "shop's": round(seen["deliveries"] / seen["seconds"] / given.screens, 1),
        **{f"screen ms {name}": screen[name] for name in ("p50", "p99", "p99.9", "max")},
        **{f"answer ms {name}": answer[name] for name in ("p50", "p99")},
        "hop ms": round(screen["p50"] - answer["p50"], 2),
        "nodes cpu %": round(100 * seen["server_cpu_s"] / seen["seconds"], 1),
        "note": " ".join(str(faults(one)) for one in (seen, beside) if faults(one)),
    }


@contextmanager
def _targets(setup: str, data: Path, fsync: str) -> Iterator[tuple[Target, Target]]:
    """Orders at the first node, screens where the set-up has them; and the other shops."""
    with ExitStack() as stack:
        if setup == "wal":
            port, pid = stack.enter_context(onda(data, [STORE, *OTHERS]))
            yield stream_target(port, pid, "order"), _orders(port, pid)
            return
        url, _ = stack.enter_context(redis(data / "redis", fsync))
        first = stack.enter_context(nodes(data, url, ["a"], partial(pin, SERVER_CPU)))
        second = stack.enter_context(nodes(data, url, ["b"], partial(pin, LOAD_CPU)))
        ports = [port for port, _ in first + second]
        make_stores(ports, [STORE, *OTHERS])
        if setup == "behind nginx":
            ports = stack.enter_context(doors(data / "nginx", ports))
        target = stream_target(ports[0], first[0][1], "order")
        target.pids = [pid for _, pid in first + second]
        target.options = {**target.options, "sub_port": ports[0 if setup == "one node" else 1]}
        yield target, _orders(ports[0], first[0][1])


def _orders(port: int, pid: int) -> Target:
    options: Row = {"answers_have_events": True, "expect": '"status":'}
    return Target(port, [pid], requests=order_requests(OTHERS), options=options)


if __name__ == "__main__":
    main()
