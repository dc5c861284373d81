"""How long until 9,000 clients that were cut off all at once have synced and stream again, none with a gap?

All clients hold a cursor; their connections are cut by reset in one moment, and events that they miss are
published. Then all come back, at most `--burst` connects pending at a time, with events going on at a rate:
each asks for `sync` after its cursor, takes what it missed, and opens a stream from there. Served: its stream
has begun. Each event must reach each client once and in order, by whichever of the two ways, and no client
may be given a reset.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.harness import Row, folder, median_row, parser, report
from benchmarks.loadgen import faults, run_load
from benchmarks.onda import onda, stream_target


def main() -> None:
    """Measure and report."""
    options = parser("storm", __doc__.partition("\n")[0])
    options.add_argument("--clients", type=int, nargs="+", default=[1_000, 9_000])
    options.add_argument("--missed", type=int, default=50, help="events that each of them missed")
    options.add_argument("--rate", type=float, default=20.0, help="events a second while they come back")
    options.add_argument("--burst", type=int, default=1_000, help="connects that may be pending")
    given = options.parse_args()
    if given.quick:
        given.runs, given.clients = 1, given.clients[:1]
    rows: list[Row] = []
    for clients in given.clients:
        runs = []
        for _ in range(given.runs):
            runs.append(measure(clients, given))
            print(runs[-1], file=sys.stderr)
        rows.append({**median_row(runs), "failed": sum(bool(run["note"]) for run in runs)})
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "burst": given.burst})
    if any(row["failed"] for row in rows):
        raise SystemExit("a gap or an error: runs have failed")


def measure(clients: int, given: Any) -> Row:
    """One run against a fresh server."""
    with folder(given.folder) as data, onda(data) as (port, pid):
        target = stream_target(port, pid)
        options = {"burst": given.burst, "rate": given.rate, "away": given.missed}
        result = run_load(target, data, storm=True, subs=clients, pubs=8, drain_s=60, **options)
    served = result["served_ms"]
    return {
        "clients": clients,
        "all served s": round(result["storm_s"], 3),
        **{f"served s {name}": round(served[name] / 1000, 3) for name in ("p50", "p99")},
        "first connect s": result["ready_s"],
        "gaps": result["gaps"],
        "lost": result["lost"],
        "resets": result["resets"],
        "server cpu s": round(result["server_cpu_s"], 2),
        "server RSS MB": round(result["server_rss"] / 1e6),
        "note": str(faults(result) or ""),
    }


if __name__ == "__main__":
    main()
