"""How long from publishing to every screen, at 100 events a second for 1,000 subscribers, beside nchan?

Open loop: events are sent at their time whether or not earlier ones were answered, and each carries the time
at which it was due, so a stall shows. `screen ms` is from there to each subscriber's hands: for Onda the
request, the decision, the commit with fdatasync, and the delivery; for the peers the request and the
delivery. `answer ms` is until the reply to the publisher. One core for the server, one for the load.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from benchmarks.fanout import AROUND_BYTES
from benchmarks.harness import Row, folder, median_row, parser, report
from benchmarks.loadgen import Target, faults, run_load
from benchmarks.onda import KINDS, onda, stream_target
from benchmarks.peers.having import Unavailable, running

PUBLISHERS = 32


def main() -> None:
    """Measure and report."""
    options = parser("latency", __doc__.partition("\n")[0])
    options.add_argument("--clients", type=int, nargs="+", default=[100, 1_000])
    options.add_argument("--rate", type=float, default=100.0, help="events a second")
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--warm-up", type=float, default=1.0)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--servers", nargs="+", default=["onda", "nchan"])
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.clients = 1, 2.0, given.clients[:1]
    rows: list[Row] = []
    versions: dict[str, str] = {}
    for kind in given.kinds:
        size = 480
        for server in given.servers:
            try:
                made = measure(server, kind, size, versions, given)
            except Unavailable as why:
                made = [{"server": server, "event": kind, "note": str(why)}]
            size = round(made[0]["bytes"]) - AROUND_BYTES if server == "onda" else size
            rows.extend(made)
    notes = {"runs": given.runs, "seconds": given.seconds, "versions": versions}
    report(__doc__.partition("\n")[0], rows, given.json, notes)
    if any(row.get("failed") for row in rows):
        raise SystemExit("a gap or an error: runs have failed")


def measure(server: str, kind: str, size: int, versions: dict[str, str], given: Any) -> list[Row]:
    """One server with each number of clients; medians of the runs."""
    with folder(given.folder) as data:
        if server == "onda":
            with onda(data) as (port, pid):
                return [
                    _rows("Onda", kind, stream_target(port, pid, kind), n, data, given) for n in given.clients
                ]
        peer: Any = import_module(f"benchmarks.peers.{server}")
        versions[peer.NAME] = peer.prepare()
        with running(peer, data, size) as target:
            return [_rows(peer.NAME, kind, target, clients, data, given) for clients in given.clients]


def _rows(name: str, kind: str, target: Target, clients: int, data: Any, given: Any) -> Row:
    runs = []
    for _ in range(given.runs):
        runs.append(_once(target, clients, data, given))
        print(name, kind, runs[-1], file=sys.stderr)
    return {
        "server": name,
        "event": kind,
        **median_row(runs),
        "failed": sum(bool(row["note"]) for row in runs),
    }


def _once(target: Target, clients: int, data: Any, given: Any) -> Row:
    times = {"warm_s": given.warm_up, "seconds": given.seconds}
    result = run_load(target, data, subs=clients, pubs=PUBLISHERS, rate=given.rate, **times)
    target.first_number += int(result["produced"])
    screen, answer = result["delivery_ms"], result["answer_ms"]
    return {
        "clients": clients,
        "bytes": round(result["bytes"] / max(1, result["deliveries"])),
        "events/s": round(result["deliveries"] / result["seconds"] / clients, 1),
        **{f"screen ms {name}": screen[name] for name in ("p50", "p99", "p99.9", "max")},
        **{f"answer ms {name}": answer[name] for name in ("p50", "p99", "max")},
        "server cpu %": round(100 * result["server_cpu_s"] / result["seconds"], 1),
        "note": str(faults(result) or ""),
    }


if __name__ == "__main__":
    main()
