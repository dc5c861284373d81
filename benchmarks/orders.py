"""How many durable orders a second over HTTP, each answered only after fdatasync, beside logs that do less?

Closed loop: each connection sends its next request when the one before is answered. Orders are real
`create-order` requests with an owner's token and an idempotency key: prices from the menu, stock held,
events and their copies to the table's stream written to the log. Every answer is checked. `reaction lag`
and `history lag` are the records that had still to be copied to tables, or written into the database, when
the load ended; `drain s` is how long until the copies were all there. Redis appends entries of as many
bytes as an order's request has to a stream (`appendfsync always`), NATS publishes them to JetStream
(`sync_interval: always`): an append, no decision. One core for the server, one for the load.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.harness import Row, folder, median_row, parser, report
from benchmarks.loadgen import Target, run_load
from benchmarks.onda import gauge, onda, order_requests
from benchmarks.peers import nats, redis_server
from benchmarks.peers.having import Unavailable, running

ENTRY_BYTES = 480
DRAIN_S = 60.0


def main() -> None:
    """Measure and report."""
    options = parser("orders", __doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, nargs="+", default=[1, 32, 256])
    options.add_argument("--stores", type=int, default=50)
    options.add_argument("--payment-mode", choices=["prepay", "postpay"], default="prepay")
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--warm-up", type=float, default=1.0)
    options.add_argument(
        "--servers", nargs="+", choices=["onda", "redis", "nats"], default=["onda", "redis", "nats"]
    )
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.warm_up = 1, 1.0, 0.5
    measures = {"onda": measure_onda, "redis": measure_peer, "nats": measure_peer}
    rows: list[Row] = []
    versions: dict[str, str] = {}
    for server in given.servers:
        for connections in given.connections:
            try:
                runs = []
                for _ in range(given.runs):
                    runs.append(measures[server](server, connections, versions, given))
                    print(runs[-1], file=sys.stderr)
            except Unavailable as why:
                rows.append({"server": server, "note": str(why)})
                break
            rows.append(median_row(runs))
            if failed := [run for run in runs if run["wrong answers"]]:
                rows[-1] |= {"wrong answers": failed[0]["wrong answers"], "note": failed[0]["note"]}
    notes = {"runs": given.runs, "seconds": given.seconds, "stores": given.stores, "versions": versions}
    report(__doc__.partition("\n")[0], rows, given.json, notes)
    if any(row.get("wrong answers") for row in rows):
        raise SystemExit("a wrong answer: this run has failed")


def measure_onda(server: str, connections: int, versions: dict[str, str], given: Any) -> Row:
    """One run against a fresh server."""
    versions["Onda"] = "this tree"
    stores = [f"b{number}" for number in range(given.stores)]
    with folder(given.folder) as data, onda(data, stores, given.payment_mode) as (port, pid):
        target = Target(port, [pid], requests=order_requests(stores))
        target.options = {"answers_have_events": True, "expect": '"status":'}
        row = _once("Onda", target, data, connections, given)
        ended = time.monotonic()
        lags = {
            "reaction lag": gauge(port, "onda_reaction_lag"),
            "history lag": gauge(port, "onda_history_lag"),
        }
        while gauge(port, "onda_reaction_lag") and time.monotonic() < ended + DRAIN_S:
            time.sleep(0.05)
        return {**row, **lags, "drain s": round(time.monotonic() - ended, 2)}


def measure_peer(server: str, connections: int, versions: dict[str, str], given: Any) -> Row:
    """One run against a fresh peer."""
    peer: Any = {"redis": redis_server, "nats": nats}[server]
    name = {"redis": "Redis XADD, appendfsync always", "nats": "NATS JetStream, sync always"}[server]
    versions[name] = peer.prepare()
    with folder(given.folder) as data, running(peer, data, ENTRY_BYTES) as target:
        durable = peer.durable(target.port, ENTRY_BYTES)
        durable.pids = target.pids
        return _once(name, durable, data, connections, given)


def _once(name: str, target: Target, data: Any, connections: int, given: Any) -> Row:
    times = {"warm_s": given.warm_up, "seconds": given.seconds}
    result = run_load(target, data, pubs=connections, **times)
    answer, took = result["answer_ms"], result["seconds"]
    return {
        "server": name,
        "connections": connections,
        "orders/s": round(result["answered"] / took),
        **{f"ms {column}": answer[column] for column in ("p50", "p99", "max")},
        "server cpu %": round(100 * result["server_cpu_s"] / took),
        "load cpu %": round(100 * result["load_cpu_s"] / took),
        "us of cpu each": round(1e6 * result["server_cpu_s"] / max(1, result["answered"]), 1),
        "wrong answers": result["errors"],
        "note": result["first_error"],
    }


if __name__ == "__main__":
    main()
