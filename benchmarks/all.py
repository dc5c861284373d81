"""Run everything one after the other, and write `benchmarks/RESULTS.md` and the plot: some 35 minutes.

Each benchmark is a process of its own and writes its JSON to `benchmarks/results/`; one that fails is told
and the others go on. `--quick` is a look whether all of it works; its figures go elsewhere and mean
nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import RESULTS, ROOT

MINUTES = {
    "readers_ceiling": 1.5,
    "fanout": 9.5,
    "latency": 1.5,
    "orders": 3.5,
    "storm": 1.0,
    "fairness": 2.0,
    "idle": 2.2,
    "hop": 3.0,
    "nodes": 8.0,
    "append": 0.7,
    "replay": 2.0,
    "stores": 2.0,
}
"""Benchmark -> how long it takes with the median of three, on a quiet machine with two cores."""

EXTRA = {
    "fanout": ("--also-order", "nchan"),
    "idle": ("--connections", "9000", "--seconds", "15"),
    "readers_ceiling": ("--in-a-write", "1", "10"),
}
"""Beyond a benchmark's defaults."""


def main() -> None:
    """Run and report."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.all", description=__doc__.partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="one short run of each, to see that it works")
    options.add_argument("--only", nargs="+", choices=list(MINUTES), default=list(MINUTES), metavar="NAME")
    options.add_argument("--folder", type=Path, help="where data goes: a real disk")
    given = options.parse_args()
    minutes = sum(MINUTES[name] for name in given.only) / (6 if given.quick else 1)
    results = Path(tempfile.mkdtemp(prefix="onda-quick-")) if given.quick else RESULTS
    _say(f"{len(given.only)} benchmarks, about {minutes:.0f} min; load now {os.getloadavg()[0]:.2f}")
    failed = []
    for name in given.only:
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(results / f"{name}.json")]
        command += ["--folder", str(given.folder)] if given.folder else []
        command += ["--quick"] if given.quick else list(EXTRA.get(name, ()))
        began = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        _say(f"{name}: exit {code} after {time.monotonic() - began:.0f} s")
        if code:
            failed.append(name)
    output = ["--output", str(results)] if given.quick else []
    command = [sys.executable, "-m", "benchmarks.results", "--from", str(results), *output]
    subprocess.run(command, cwd=ROOT, check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
