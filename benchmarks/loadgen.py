"""The load generator as a process: built from `benchmarks/load/*.c` on first use, run on its own core.

It holds all subscribers and publishers in one epoll loop, proves that every subscriber got the same bytes in
the same order with nothing left out, and prints one line of JSON. Nothing here is specific to Onda: a target
says where to send which bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import LOAD_CPU, Row, cpu_s, pin, raise_file_limit, resident_bytes

SOURCES = Path(__file__).parent / "load"
PROGRAMS = {"load": ("main.c", "subscribers.c", "publishers.c"), "canned": ("canned.c",)}
FIRST_NUMBER = 100_000_000_000
"""Numbers of the events that peers are given: twelve digits, as the placeholder has."""

NUMBER, STAMP, CONNECTION = "@" * 12, "%" * 19, "&" * 6
"""What the generator replaces in a request: its number, the clock in ns, the connection's number."""

FAULTS = ("gaps", "different", "lost", "closed", "resets", "errors")
"""Counts of the result that must be 0."""

RUN_WITHIN_S = 300.0


class LoadFailed(Exception):
    """The generator ended without a result; what it said is on stderr."""


@dataclass
class Target:
    """What the generator needs to know of a server that runs."""

    port: int
    pids: Sequence[int]
    subscribe: bytes = b""
    """The request that opens a stream."""
    requests: Sequence[bytes] = ()
    """Requests that publish one event each, sent in turn."""
    greeting: bytes = b""
    """What a publisher of a line protocol says first."""
    first_number: int = FIRST_NUMBER
    options: dict[str, object] = field(default_factory=dict)
    """Further options of the generator, by their names in `main.c`; they win over those of a run."""
    before: Callable[[Target], None] | None = None
    """Called before each run: where it starts from."""


def event(size: int) -> str:
    """Return an event for a peer as JSON: its number, its stamp, and padding to so many characters."""
    text = f'{{"version":{NUMBER},"note":"{STAMP}","pad":""}}'
    return f"{text[:-2]}{'x' * max(0, size - len(text))}{text[-2:]}"


def post(path: str, body: str, *headers: str) -> bytes:
    """Return a POST with a JSON body, on a connection that is kept."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body.encode())}", "", body]).encode()


def get(path: str, *headers: str) -> bytes:
    """Return the request for an event stream."""
    head = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream", *headers]
    return "\r\n".join([*head, "", ""]).encode()


def program(name: str) -> Path:
    """Return a program of `benchmarks/load`, built when its sources have changed."""
    sources = [SOURCES / file for file in PROGRAMS[name]]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))).hexdigest()
    built = Path(tempfile.gettempdir()) / f"onda-{name}-{os.getuid()}-{digest[:12]}"
    if not built.exists():
        unfinished = built.with_suffix(f".{os.getpid()}")
        subprocess.run([*_compiler(), "-O2", "-o", str(unfinished), *map(str, sources)], check=True)
        unfinished.rename(built)
    return built


def _compiler() -> list[str]:
    """The system's C compiler; without one, that of PyPI's `ziglang`, in an environment of its own."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    folder = Path(tempfile.gettempdir()) / f"onda-compiler-{os.getuid()}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "ziglang"], check=True)
        (folder / "complete").touch()
    return [str(python), "-m", "ziglang", "cc"]


def run_load(target: Target, folder: Path, **options: object) -> Row:
    """Run the generator once against a target; return what it printed, and the servers' CPU in that time.

    Options are those of `main.c`. `server_cpu_s`, `server_rss` (bytes at the end of the measured time) and
    `server_rss_before` (before the first connection) are added.
    """
    if target.before is not None:
        target.before(target)
    files = {"sub_request": target.subscribe, "greeting": target.greeting}
    files["requests"] = b"".join(struct.pack("=I", len(one)) + one for one in target.requests)
    merged: dict[str, object] = {
        "sub_port": target.port,
        "pub_port": target.port,
        "base": target.first_number,
    }
    merged |= options | target.options
    for name in ("sync_request", "again_request"):
        if name in merged:
            files[name] = bytes(merged.pop(name))  # type: ignore[call-overload]
    for name, content in files.items():
        if content:
            (folder / name).write_bytes(content)
            merged[name] = folder / name
    command = [str(program("load"))]
    for name, value in merged.items():
        command.append(f"{name}={int(value) if isinstance(value, bool) else value}")
    before = sum(map(resident_bytes, target.pids))
    raise_file_limit()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(LOAD_CPU)
    ) as process:
        return {"server_rss_before": before, **_listen(process, target.pids)}


def run_together(runs: Sequence[tuple[Target, Row]], folder: Path) -> list[Row]:
    """Run generators at the same time, each against its target with its options; return their results."""
    folders = [folder / f"load-{number}" for number in range(len(runs))]
    for one in folders:
        one.mkdir(exist_ok=True)
    with ThreadPoolExecutor(len(runs)) as pool:
        jobs = [
            pool.submit(run_load, target, one, **options)
            for (target, options), one in zip(runs, folders, strict=True)
        ]
        return [job.result() for job in jobs]


def _listen(process: subprocess.Popen[str], pids: Sequence[int]) -> Row:
    assert process.stdout is not None
    extra: Row = {}
    for line in process.stdout:
        word = line.strip()
        if word == "MEASURING":
            extra["server_cpu_s"] = -sum(map(cpu_s, pids))
        elif word == "MEASURED":
            extra["server_cpu_s"] += sum(map(cpu_s, pids))
            extra["server_rss"] = sum(map(resident_bytes, pids))
        elif word.startswith("{"):
            return {**json.loads(word), **extra}
    raise LoadFailed(f"the load generator ended without a result (exit {process.wait(RUN_WITHIN_S)})")


def faults(result: Row) -> Row:
    """Return those counts of a result that should be 0 and are not, with what was seen first."""
    found = {name: result[name] for name in FAULTS if result[name]}
    if not result["drained"]:
        found["drained"] = False
    return {**found, "first": result["first_error"]} if found else {}
