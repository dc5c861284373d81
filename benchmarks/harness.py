"""What benchmarks share: pinning, a server process, percentiles, one table and one JSON file per question."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SERVER_CPU, LOAD_CPU = 0, 1
SECRET = "cd" * 32
START_WITHIN_S = 60.0

Row = dict[str, Any]


def parser(module: str, question: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=question)
    made.add_argument("--runs", type=int, default=3, help="runs, of which the median counts (default 3)")
    made.add_argument("--quick", action="store_true", help="one short run, to see that it works")
    made.add_argument(
        "--folder", type=Path, help="where data goes: a real disk (default: the temporary folder)"
    )
    made.add_argument(
        "--json", type=Path, default=RESULTS / f"{module}.json", help="where figures are written"
    )
    return made


def pin(cpu: int) -> None:
    """Keep this process on one core, where the system can; with one core it stays as it is."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {cpu})


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed; 0 when there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def spread(prefix: str, values: Sequence[float], digits: int = 2) -> Row:
    """p50, p99 and the maximum of some values, as columns."""
    return {
        f"{prefix} p50": round(percentile(values, 50), digits),
        f"{prefix} p99": round(percentile(values, 99), digits),
        f"{prefix} max": round(max(values, default=0.0), digits),
    }


def run_apart(function: str, *arguments: str, cpu: int | None = None) -> Row:
    """Call `benchmarks.MODULE:FUNCTION` with text arguments in a fresh process; return its row."""
    module, _, name = function.partition(":")
    code = f"import json; from {module} import {name}; print(json.dumps({name}(*{list(arguments)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=None if cpu is None else lambda: pin(cpu),
    )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def median_row(rows: Sequence[Row]) -> Row:
    """The median of each number over several runs; other columns as in the first."""
    return {
        name: median(row[name] for row in rows) if _is_number(value) else value
        for name, value in rows[0].items()
    }


def report(question: str, rows: Sequence[Row], file: Path, notes: Mapping[str, Any] | None = None) -> None:
    """Print one table, and write it with the machine's description as JSON."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_cell(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    print(f"\n{question}\n{machine()}\n")
    for at, line in enumerate(cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        if at == 0:
            print("  ".join("-" * width for width in widths))
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"question": question, "machine": machine(), "at": time.strftime("%FT%TZ", time.gmtime())}
    file.write_text(
        json.dumps({**content, **(notes or {}), "rows": list(rows)}, indent=1, ensure_ascii=False)
    )
    print(f"\nwritten to {file}")


def machine() -> str:
    """Processor, cores, kernel and Python in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


@contextmanager
def folder(parent: Path | None) -> Iterator[Path]:
    """A fresh folder for data, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="onda-bench-", dir=parent) as name:
        yield Path(name)


@contextmanager
def served(
    data: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    place: Callable[[], None] = lambda: pin(SERVER_CPU),
) -> Iterator[tuple[int, int]]:
    """A server process on its own core (or where `place` puts it, called in the process before it starts);
    give its port and process id, and end it afterwards.
    """
    command = [
        sys.executable,
        "-m",
        "web.cli",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--data",
        str(data),
    ]
    process = subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env={**os.environ, "ONDA_SECRET": SECRET, "PYTHONUNBUFFERED": "1", **(env or {})},
        stdout=subprocess.PIPE,
        preexec_fn=place,
    )
    try:
        yield _port(process), process.pid
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if b"listening on http://" in line:
            return int(line.rstrip().rpartition(b":")[2])
    raise SystemExit("the server ended before it listened")


def token(role: str = "service") -> str:
    """A token for a server started by `served`."""
    import jwt

    return jwt.encode(
        {"sub": "bench", "role": role, "exp": int(time.time()) + 86_400}, SECRET, algorithm="HS256"
    )


def repeated(runs: int, once: Callable[[], Row]) -> list[Row]:
    """Run something several times, telling on stderr how far it is."""
    rows = []
    for run in range(runs):
        rows.append(once())
        print(f"run {run + 1} of {runs}: {rows[-1]}", file=sys.stderr)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if _is_number(value) else str(value)
