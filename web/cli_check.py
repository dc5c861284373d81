"""`onda check`: is this machine fit to serve with these settings?"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from engine import Config
from engine.errors import ConfigError, LogLocked
from engine.log.disk import OSDisk
from engine.relays.targets import read_targets, read_types

SYNCS = 100
SYNC_BYTES = 4096
SLOW_MS = 20.0
"""A sync that takes longer makes every order wait noticeably."""

LIES_MS = 0.02
"""A sync that is quicker than any disk: a cache that a power cut empties, or no disk at all."""

Finding = tuple[str, str]
"""`ok`, `warn` or `bad`, and a sentence."""


def check(config: Config) -> int:
    """Print what was found; returns the exit code: 0, or 1 when something has to be mended first."""
    worst = 0
    for level, text in _look(config):
        print(f"{level:4} {text}")
        worst = max(worst, level == "bad")
    return worst


def _look(config: Config) -> Iterator[Finding]:
    yield "ok", f"settings make sense; node {config.node_id}, {config.host}:{config.port}"
    yield from _judge_webhooks(config)
    folder = Path(config.data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        times_ms = measure_syncs(folder)
    except OSError as error:
        yield "bad", f"{folder} cannot be written: {error}"
        return
    yield _judge_syncs(times_ms)
    yield _judge_space(config, folder)
    yield _judge_lock(folder)
    if config.host not in ("127.0.0.1", "::1", "localhost"):
        yield "warn", f"{config.host} is reached from other machines; tokens travel in the clear without TLS"


def _judge_webhooks(config: Config) -> Iterator[Finding]:
    try:
        targets, types = read_targets(config), read_types(config)
    except ConfigError as error:
        yield "bad", str(error)
        return
    for target in targets:
        yield "ok", f"{target.name} goes to {target.host}: {len(types)} types of events"


def measure_syncs(folder: Path, count: int = SYNCS) -> list[float]:
    """Write and sync a small file as the log does; return how long each took, in ms, ascending."""
    path = folder / "check.tmp"
    disk = OSDisk()
    times_ms = []
    file = disk.open(str(path), write=True, create=True)
    try:
        disk.pwrite(file, bytes(SYNC_BYTES * count), 0)
        disk.sync(file)
        for number in range(count):
            began = time.perf_counter()
            disk.pwrite(file, os.urandom(SYNC_BYTES), number * SYNC_BYTES)
            disk.sync(file)
            times_ms.append((time.perf_counter() - began) * 1000)
    finally:
        disk.close(file)
        path.unlink(missing_ok=True)
    return sorted(times_ms)


def _judge_syncs(times_ms: list[float]) -> Finding:
    median, high = statistics.median(times_ms), times_ms[int(len(times_ms) * 0.99) - 1]
    text = f"{len(times_ms)} syncs of 4 KiB: median {median:.2f} ms, 99 % {high:.2f}, most {times_ms[-1]:.2f}"
    if median > SLOW_MS:
        return "warn", f"{text}: a slow disk, every order waits for it"
    if median < LIES_MS:
        return "warn", f"{text}: too quick to be true, a power cut may lose orders"
    return "ok", text


def _judge_space(config: Config, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    needed = config.reserve_bytes + 2 * config.segment_bytes
    text = f"{free / 1e9:.1f} GB free"
    if free < needed:
        return "bad", f"{text}: at least {needed / 1e6:.0f} MB are needed, or the log is read-only"
    return ("warn", f"{text}: little") if free < 10 * needed else ("ok", text)


def _judge_lock(folder: Path) -> Finding:
    path = folder / "log" / "LOCK"
    if not path.exists():
        return "ok", "no log yet: the first start makes it"
    disk = OSDisk()
    try:
        disk.unlock(disk.lock(str(path), f"process {os.getpid()}, onda check\n"))
    except LogLocked:
        return "ok", "a server has the log open"
    return "ok", "nobody has the log open"
