"""Does a shop with 10,000 watchers slow the commands of another shop?

One server, two stores. The first has so many watchers and events at a steady rate; the second gets one
command after the other on one connection, at 50 a second, each timed from its request to its answer (commit
with fdatasync included). First alone, then beside the crowd. Open loop on both sides; who asks shares a core
with the watchers, so some of what is added is theirs.
"""

from __future__ import annotations

import sys
import time
from threading import Thread

from benchmarks.harness import LOAD_CPU, Row, folder, median_row, parser, pin, report, spread
from benchmarks.loadgen import faults, run_load
from benchmarks.onda import STORE, calling, onda, stream_target

OTHER = "other"
COMMANDS_A_SECOND = 50.0


def main() -> None:
    """Measure and report."""
    options = parser("fairness", __doc__.partition("\n")[0])
    options.add_argument("--watchers", type=int, nargs="+", default=[0, 100, 10_000])
    options.add_argument("--rate", type=float, default=50.0, help="events a second of the watched store")
    options.add_argument("--seconds", type=float, default=8.0)
    given = options.parse_args()
    if given.quick:
        given.runs, given.seconds, given.watchers = 1, 2.0, [0, 500]
    pin(LOAD_CPU)
    rows: list[Row] = []
    with folder(given.folder) as data, onda(data, (STORE, OTHER)) as (port, pid):
        target = stream_target(port, pid)
        for watchers in given.watchers:
            runs = []
            for _ in range(given.runs):
                found: list[Row] = []
                crowd = Thread(
                    target=lambda n=watchers, into=found: into.append(
                        run_load(
                            target, data, subs=n, pubs=4, rate=given.rate, warm_s=3.0, seconds=given.seconds
                        )
                    )
                )
                if watchers:
                    crowd.start()
                    time.sleep(3.0)  # all are there
                took = ask(port, given.seconds)
                if watchers:
                    crowd.join()
                    target.first_number += int(found[0]["produced"])
                runs.append(
                    {
                        "watchers": watchers,
                        "deliveries/s": round(found[0]["deliveries"] / found[0]["seconds"]) if found else 0,
                        **spread("command ms", took),
                        "failed": int(bool(found and faults(found[0]))),
                    }
                )
                print(runs[-1], file=sys.stderr)
            rows.append({**median_row(runs), "failed": sum(row["failed"] for row in runs)})
    report(__doc__.partition("\n")[0], rows, given.json, {"runs": given.runs, "seconds": given.seconds})
    if any(row["failed"] for row in rows):
        raise SystemExit("a gap or an error: runs have failed")


def ask(port: int, seconds: float) -> list[float]:
    """Give the other store a command at its time, again and again; return how long each took, in ms."""
    took = []
    with calling(port, OTHER) as call:
        began = time.monotonic()
        for number in range(int(seconds * COMMANDS_A_SECOND)):
            due = began + number / COMMANDS_A_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            call("adjust-stock", {"product": "p0", "delta": 1 - number % 2 * 2, "reason": "x"})
            took.append((time.monotonic() - due) * 1000)
    return took


if __name__ == "__main__":
    main()
