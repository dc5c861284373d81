"""How many deliveries a second, against the number of connections, beside other hubs with the same load?

Closed loop over the whole system: events are published on 32 connections as long as fewer are on their way
to the slowest subscriber than were lately delivered in half a second (at least 8), so that each
server runs at the rate that it can keep up with, none is flooded, and all may gather alike. Every
subscriber's bytes are compared with every other's: an event that is left out, doubled, out of order or
different fails the run. Onda's events come from real commands, each on disk before it is delivered; the
peers get events of the same size and keep them in memory. One core for the server, one for the load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, folder, median_row, parser, report
from benchmarks.loadgen import LoadFailed, Target, faults, run_load
from benchmarks.onda import KINDS, onda, stream_target
from benchmarks.peers import ABSENT
from benchmarks.peers.having import Peer, Unavailable, running

PEERS = ("nchan", "better_sse", "node", "sse_starlette", "quart_hypercorn", "redis_server", "nats")
PUBLISHERS = 32
LAG_S = 0.5
"""How far the slowest subscriber may be behind: what each server is kept busy with."""
BYTES = {"small": 480, "order": 2_000}
"""Size of an event where Onda was not run first to say it."""
AROUND_BYTES = 30
"""Of the id line and the field names around an event."""
ORDER_CONNECTIONS = [1_000]


def main() -> None:
    """Measure and report."""
    options = parser("fanout", __doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, nargs="+", default=[100, 1_000, 5_000, 9_000])
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=["small"], help="of Onda's events")
    options.add_argument(
        "--also-order", nargs="*", metavar="PEER", help="then orders, Onda and these peers only"
    )
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--warm-up", type=float, default=1.5)
    options.add_argument("--servers", nargs="+", choices=["onda", *PEERS], default=["onda", *PEERS])
    options.add_argument("--bytes", type=int, help="size of the peers' events (default: as Onda's are)")
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.warm_up = 1, 1.0, 1.0
        given.connections = [count for count in given.connections if count <= 1_000] or given.connections[:1]
    rows: list[Row] = []
    versions: dict[str, str] = {}
    plan = [(kind, server, given.connections) for kind in given.kinds for server in given.servers]
    if given.also_order is not None:
        plan += [("order", server, ORDER_CONNECTIONS) for server in ("onda", *given.also_order)]
    sizes = dict.fromkeys(KINDS, given.bytes)
    for kind, server, connections in plan:
        most = None if server == "onda" else getattr(_peer(server), "MOST_CONNECTIONS", None)
        counts = [count for count in connections if most is None or count <= most]
        try:
            made, version = measure(server, kind, sizes[kind] or BYTES[kind], counts, given)
        except Unavailable as why:
            rows.append({"server": server, "kind": kind, "note": str(why)})
            print(rows[-1], file=sys.stderr)
            continue
        versions.update(version)
        if server == "onda" and not given.bytes:
            sizes[kind] = round(made[0].get("bytes", BYTES[kind])) - AROUND_BYTES
        rows.extend(made)
        if counts != connections:
            rows.append(
                {"server": made[0]["server"], "kind": kind, "note": f"not beyond {most:,} connections"}
            )
    rows.extend({"server": name, "note": why} for name, why in ABSENT.items())
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "versions": versions})
    if any(row.get("failed") for row in rows):
        raise SystemExit("a gap or an error: runs have failed")


def measure(
    server: str, kind: str, size: int, counts: Sequence[int], given: Any
) -> tuple[list[Row], dict[str, str]]:
    """A fresh server for each number of connections; the median of its runs."""
    rows: list[Row] = []
    versions: dict[str, str] = {}
    for connections in counts:
        with folder(given.folder) as data, _server(server, kind, data, size) as (name, version, target):
            versions[name] = version
            about = {"server": name, "kind": kind, "connections": connections}
            try:
                runs = [
                    once(target, data, connections, given.warm_up, given.seconds) for _ in range(given.runs)
                ]
            except LoadFailed as why:
                rows.append({**about, "failed": given.runs, "note": str(why)})
                continue
        failed = [row for row in runs if row["failed"]]
        rows.append({**about, **median_row(runs), "failed": len(failed)})
        rows[-1] |= {"note": failed[0]["note"]} if failed else {}
        print(rows[-1], file=sys.stderr)
    return rows, versions


@contextmanager
def _server(server: str, kind: str, data: Path, size: int) -> Iterator[tuple[str, str, Target]]:
    if server == "onda":
        with onda(data) as (port, pid):
            yield "Onda", "this tree", stream_target(port, pid, kind)
    else:
        peer = _peer(server)
        version = peer.prepare()
        with running(peer, data, size) as target:
            yield peer.NAME, version, target


def _peer(server: str) -> Peer:
    module: Any = import_module(f"benchmarks.peers.{server}")
    return module  # type: ignore[no-any-return]


def once(target: Target, data: Path, connections: int, warm_up: float, seconds: float) -> Row:
    """One run."""
    result = run_load(
        target,
        data,
        subs=connections,
        pubs=PUBLISHERS,
        window=16,
        lag_s=LAG_S,
        warm_s=warm_up,
        seconds=seconds,
        drain_s=60,
        sample=max(1, connections // 100),
    )
    target.first_number += int(result["produced"])  # so that events of an earlier run would be noticed
    took = result["seconds"]
    found = faults(result)
    return {
        "connections": connections,
        "bytes": round(result["bytes"] / max(1, result["deliveries"])),
        "deliveries/s": round(result["deliveries"] / took),
        "events/s": round(result["deliveries"] / took / connections, 1),
        "window": result["window"],
        "in a read": round(result["deliveries"] / max(1, result["reads"]), 1),
        "ms p50": result["delivery_ms"]["p50"],
        "ms p99": result["delivery_ms"]["p99"],
        "server cpu %": round(100 * result["server_cpu_s"] / took),
        "load cpu %": round(100 * result["load_cpu_s"] / took),
        "ready s": result["ready_s"],
        "failed": bool(found),
        "note": str(found or ""),
    }


if __name__ == "__main__":
    main()
