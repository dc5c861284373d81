"""What does an idle SSE connection cost: resident memory of the server, and CPU with pings every 15 s?

Memory is what the server's process grew by from before the first connection to the end, divided by the
connections; the kernel's memory for sockets is apart. CPU is over the whole measured time, in which nothing
is published.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from benchmarks.harness import Row, folder, median_row, parser, report
from benchmarks.loadgen import Target, faults, run_load
from benchmarks.onda import onda, stream_target
from benchmarks.peers.having import Unavailable, running


def main() -> None:
    """Measure and report."""
    options = parser("idle", __doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, nargs="+", default=[1_000, 9_000])
    options.add_argument(
        "--seconds", type=float, default=30.0, help="two pings at 15 s (the peers send none)"
    )
    options.add_argument("--servers", nargs="+", default=["onda", "nchan"])
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.connections = 1, 2.0, given.connections[:1]
    rows: list[Row] = []
    for server in given.servers:
        for connections in given.connections:
            try:
                runs = []
                for _ in range(given.runs):
                    runs.append(measure(server, connections, given))
                    print(runs[-1], file=sys.stderr)
            except Unavailable as why:
                rows.append({"server": server, "note": str(why)})
                break
            rows.append({**median_row(runs), "failed": sum(bool(run["note"]) for run in runs)})
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "seconds": given.seconds})
    if any(row.get("failed") for row in rows):
        raise SystemExit("a connection was lost: runs have failed")


def measure(server: str, connections: int, given: Any) -> Row:
    """One run against a fresh server."""
    with folder(given.folder) as data:
        if server == "onda":
            with onda(data) as (port, pid):
                return _once("Onda", stream_target(port, pid), connections, data, given)
        peer: Any = import_module(f"benchmarks.peers.{server}")
        peer.prepare()
        with running(peer, data, 480) as target:
            return _once(peer.NAME, target, connections, data, given)


def _once(name: str, target: Target, connections: int, data: Any, given: Any) -> Row:
    times = {"warm_s": 1, "seconds": given.seconds}
    result = run_load(target, data, subs=connections, pubs=0, publish=False, **times)
    grown = result["server_rss"] - result["server_rss_before"]
    return {
        "server": name,
        "connections": connections,
        "bytes each": round(grown / connections),
        "server RSS MB": round(result["server_rss"] / 1e6, 1),
        "server cpu %": round(100 * result["server_cpu_s"] / result["seconds"], 2),
        "pings": max(0, result["other_blocks"] - connections),  # each stream begins with one block
        "ready s": result["ready_s"],
        "note": str(faults(result) or ""),
    }


if __name__ == "__main__":
    main()
