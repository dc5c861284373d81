"""How long from an order at one node to the screens of another, at 500 orders a second, beside one node?

Open loop: orders are sent at their time whether or not earlier ones were answered, and carry the time at which
they were due. `screen ms` is from there to each screen's hands: the request, the decision, the append in Redis
(`appendfsync always`), and the delivery. `one node`: order and screen at the same node, beside another; `two
nodes`: the order at one, the screens at the other; `behind nginx`: both through it; `wal`: a node with a
write-ahead log of its own, for comparison. `hop ms` is what the median screen waits longer than the median
answer. Both nodes share a core; Redis, nginx and the load share the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster import doors, make_stores, nodes, redis
from benchmarks.harness import Row, folder, median_row, parser, report
from benchmarks.loadgen import Target, faults, run_load
from benchmarks.onda import STORE, onda, stream_target

PUBLISHERS = 32
SETUPS = ("wal", "one node", "two nodes", "behind nginx")


def main() -> None:
    """Measure and report."""
    options = parser("hop", __doc__.partition("\n")[0])
    options.add_argument("--screens", type=int, default=20)
    options.add_argument("--rate", type=float, nargs="+", default=[100.0, 500.0], help="orders a second")
    options.add_argument("--seconds", type=float, default=6.0)
    options.add_argument("--warm-up", type=float, default=2.0)
    options.add_argument("--fsync", choices=["always", "everysec"], default="always")
    options.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS))
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.warm_up = 1, 2.0, 0.5
    rows = []
    for setup in given.setups:
        for rate in given.rate:
            runs = []
            for _ in range(given.runs):
                runs.append(measure(setup, rate, given))
                print(setup, runs[-1], file=sys.stderr)
            failed = sum(bool(row["note"]) for row in runs)
            rows.append({"set-up": setup, "rate": rate, **median_row(runs), "failed": failed})
    notes = {"runs": given.runs, "seconds": given.seconds, "screens": given.screens, "fsync": given.fsync}
    report(__doc__.partition("\n")[0], rows, given.json, notes)
    if any(row["failed"] for row in rows):
        raise SystemExit("a gap or an error: runs have failed")


def measure(setup: str, rate: float, given: Any) -> Row:
    """One run against fresh nodes."""
    with folder(given.folder) as data, _target(setup, data, given.fsync) as target:
        times = {"warm_s": given.warm_up, "seconds": given.seconds}
        result = run_load(target, data, subs=given.screens, pubs=PUBLISHERS, rate=rate, **times)
    screen, answer = result["delivery_ms"], result["answer_ms"]
    return {
        "orders/s": round(result["deliveries"] / result["seconds"] / given.screens, 1),
        **{f"screen ms {name}": screen[name] for name in ("p50", "p99", "p99.9", "max")},
        **{f"answer ms {name}": answer[name] for name in ("p50", "p99")},
        "hop ms": round(screen["p50"] - answer["p50"], 2),
        "nodes cpu %": round(100 * result["server_cpu_s"] / result["seconds"], 1),
        "note": str(faults(result) or ""),
    }


@contextmanager
def _target(setup: str, data: Path, fsync: str) -> Iterator[Target]:
    """Orders at the first node, screens where the set-up has them."""
    with ExitStack() as stack:
        if setup == "wal":
            port, pid = stack.enter_context(onda(data))
            yield stream_target(port, pid, "order")
            return
        url, _ = stack.enter_context(redis(data / "redis", fsync))
        both = stack.enter_context(nodes(data, url, 2))
        ports = [port for port, _ in both]
        make_stores(ports, [STORE])
        if setup == "behind nginx":
            ports = stack.enter_context(doors(data / "nginx", ports))
        target = stream_target(ports[0], both[0][1], "order")
        target.pids = [pid for _, pid in both]
        target.options = {**target.options, "sub_port": ports[0 if setup == "one node" else 1]}
        yield target


if __name__ == "__main__":
    main()
