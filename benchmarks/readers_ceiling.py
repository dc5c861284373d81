"""How many deliveries a second can the load generator's readers take, from the simplest sender there is?

The sender (`load/canned.c`) writes canned frames to each connection in turn, so many in one write; it does
nothing else. The readers do all that they do in the other benchmarks: decode, cut, compare order and bytes.
Where `readers cpu %` is below 100 it was the sender that was slower. One write for each delivery is the most
that a hub without coalescing can do.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.harness import SERVER_CPU, Row, folder, median_row, parser, pin, raise_file_limit, report
from benchmarks.loadgen import Target, faults, get, program, run_load


def main() -> None:
    """Measure and report."""
    options = parser("readers_ceiling", __doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, nargs="+", default=[100, 1_000, 9_000])
    options.add_argument("--in-a-write", type=int, nargs="+", default=[1, 10, 30])
    options.add_argument("--bytes", type=int, default=480)
    options.add_argument("--seconds", type=float, default=2.0)
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.connections = 1, 1.0, given.connections[:2]
    raise_file_limit()
    rows = []
    for connections in given.connections:
        for frames in given.in_a_write:
            runs = [measure(connections, frames, given) for _ in range(given.runs)]
            rows.append({**median_row(runs), "failed": sum(bool(run["note"]) for run in runs)})
            print(rows[-1], file=sys.stderr)
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "seconds": given.seconds})
    if any(row["failed"] for row in rows):
        raise SystemExit("a gap: the readers are at fault")


def measure(connections: int, frames: int, given: Any) -> Row:
    """One run."""
    figures = (connections, frames, given.bytes, given.seconds + 1)
    with (
        folder(given.folder) as data,
        subprocess.Popen(
            [program("canned"), *map(str, figures)],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: pin(SERVER_CPU),
        ) as sender,
    ):
        assert sender.stdout is not None
        target = Target(int(sender.stdout.readline()), [sender.pid], get("/"), first_number=0)
        times = {"warm_s": 1.0, "seconds": given.seconds, "drain_s": 5}
        result = run_load(target, data, subs=connections, pubs=0, publish=False, **times)
    took = result["seconds"]
    return {
        "connections": connections,
        "frames in a write": frames,
        "bytes": given.bytes,
        "deliveries/s": round(result["deliveries"] / took),
        "reads/s": round(result["reads"] / took),
        "sender cpu %": round(100 * result["server_cpu_s"] / took),
        "readers cpu %": round(100 * result["load_cpu_s"] / took),
        "note": str(faults(result) or ""),
    }


if __name__ == "__main__":
    main()
