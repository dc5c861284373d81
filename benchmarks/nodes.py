"""How many orders a second do two nodes on one Redis take, against one?

Closed loop: each connection sends its next order when the one before is answered; orders are those of
`benchmarks.orders`, copies to tables included. So that two nodes, Redis and the load have room on two cores,
each node may take only a share of one (`--share`, a control group); what counts is two nodes against one.
Two cores of one machine can be two threads of one core; then each is slower while the other is busy, as it is
beside a second node. So one node is measured a second time, with a `neighbour` that does nothing but use up a
second node's share: `against that` says what a second node on a box of its own would bring.

`by shop`: each node gets the orders of those shops that nginx sends there (`deploy/nginx`). `spread`: both
nodes get orders of all shops. `one shop`: all orders are of one shop, so its stream is fought for. `all at
one`: the second node gets no order, and only follows, and does some of what follows from them. `conflicts`:
appends that had to be decided again; `refused`: orders that were told to come back after eight tries. `copies
late`: records that had still to be copied to tables when the load ended. Redis syncs every append. What no
request asks for is out of a node's memory after 5 s (in a shop after 30 s), so as not to settle for longer.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from benchmarks.cluster import make_stores, neighbour, nodes, redis, share_of_a_core
from benchmarks.harness import Row, cpu_s, folder, median_row, parser, report
from benchmarks.loadgen import Target, run_together
from benchmarks.onda import gauge, order_requests
from engine.log import partition_of

EACH = 4
STORES = [
    name
    for number in (0, 1)
    for name in islice((f"b{n}" for n in count() if partition_of(f"store:b{n}", 2) == number), EACH)
]
"""As many shops for each of two nodes."""
PLACES = ("by shop", "spread", "one shop", "all at one")
DRAIN_S = 30.0
SETTLED = {"ONDA_IDLE_S": "5", "ONDA_CHECKPOINT_S": "3"}


def main() -> None:
    """Measure and report."""
    options = parser("nodes", __doc__.partition("\n")[0])
    options.add_argument(
        "--connections", type=int, nargs="+", default=[32, 128], help="of all nodes together"
    )
    options.add_argument("--share", type=float, default=0.4, help="of a core, for each node; 0: no bound")
    options.add_argument("--seconds", type=float, default=6.0)
    options.add_argument("--warm-up", type=float, default=2.0)
    options.add_argument("--settle", type=float, default=12.0, help="seconds with few orders before that")
    options.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    options.add_argument("--fsync", choices=["always", "everysec"], default="always")
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.warm_up, given.connections = 1, 2.0, 1.0, [32]
        given.settle = 4.0
    rows: list[Row] = []
    for place in given.places:
        for connections in given.connections:
            found = []
            for many, beside in ((1, False), (1, True), (2, False)):
                runs = []
                for _ in range(given.runs):
                    runs.append(measure(place, many, connections, given, beside=beside))
                    print(place, runs[-1], file=sys.stderr)
                what = {"orders": place, "nodes": many, "neighbour": "busy" if beside else ""}
                found.append({**what, **median_row(runs)})
            alone, beside_one, two = (row["orders/s"] for row in found)
            found[2]["against one"] = round(two / max(1, alone), 2)
            found[2]["against that"] = round(two / max(1, beside_one), 2)
            rows += found
    notes = {"runs": given.runs, "seconds": given.seconds, "share": given.share, "fsync": given.fsync}
    report(__doc__.partition("\n")[0], rows, given.json, notes)


def measure(place: str, many: int, connections: int, given: Any, *, beside: bool) -> Row:
    """One run against fresh nodes, with or without a neighbour."""
    stores = STORES[:1] if place == "one shop" else STORES
    with folder(given.folder) as data, ExitStack() as stack:
        url, redis_pid = stack.enter_context(redis(data / "redis", given.fsync))
        where = stack.enter_context(share_of_a_core(given.share))
        both = stack.enter_context(nodes(data, url, ["a", "b"][:many], where, SETTLED))
        if beside:
            stack.enter_context(neighbour(where))
        make_stores([port for port, _ in both], stores)
        loads = []
        for number, (port, pid) in enumerate(both[:1] if place == "all at one" else both):
            mine = stores
            if place == "by shop":
                mine = [store for store in stores if partition_of(f"store:{store}", many) == number]
            target = Target(port, [pid], requests=order_requests(mine))
            target.options = {"answers_have_events": True, "expect": '"status":'}
            target.first_number += 1_000_000_000 * number
            times = {"warm_s": given.warm_up, "seconds": given.seconds}
            loads.append((target, {**times, "pubs": connections // (1 if place == "all at one" else many)}))
        _settle([target for target, _ in loads], data, given.settle)
        pids = [pid for _, pid in both]
        redis_s, nodes_s = -cpu_s(redis_pid), -sum(map(cpu_s, pids))
        began = time.monotonic()
        results = run_together(loads, data)
        took = time.monotonic() - began
        redis_s, nodes_s = redis_s + cpu_s(redis_pid), nodes_s + sum(map(cpu_s, pids))
        ports = [port for port, _ in both]
        late = sum(map(partial(gauge, name="onda_reaction_lag"), ports))
        drained = _drain(ports)
        conflicts = sum(map(partial(gauge, name="onda_append_conflicts_total"), ports))
        shares = nodes_s / took, redis_s / took
        return _row(results, connections, conflicts, late, drained, shares)


def _settle(targets: list[Target], data: Path, seconds: float) -> None:
    """Open the tables, and let partitions go to the nodes that have more to do there."""
    run_together([(target, {"warm_s": 0.0, "seconds": seconds, "pubs": 2}) for target in targets], data)
    for target in targets:
        target.first_number += 100_000_000


def _row(
    results: list[Row],
    connections: int,
    conflicts: float,
    late: float,
    drained: float,
    shares: tuple[float, float],
) -> Row:
    refused = sum(result["errors"] for result in results)
    orders = sum(result["answered"] for result in results) - refused
    seconds = results[0]["seconds"]
    return {
        "connections": connections,
        "orders/s": round(orders / seconds),
        **{
            f"ms {column}": max(result["answer_ms"][column] for result in results)
            for column in ("p50", "p99")
        },
        "nodes cpu %": round(100 * shares[0]),
        "us of cpu each": round(1e6 * shares[0] * seconds / max(1, orders)),
        "redis cpu %": round(100 * shares[1]),
        "conflicts": round(conflicts),
        "refused": refused,
        "copies late": round(late),
        "drain s": round(drained, 1),
    }


def _drain(ports: list[int]) -> float:
    began = time.monotonic()
    while any(gauge(port, "onda_reaction_lag") for port in ports) and time.monotonic() < began + DRAIN_S:
        time.sleep(0.05)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
