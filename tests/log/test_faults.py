"""Every disk call of a scenario with rolls, trim, recovery and an orderly end fails, or is the last one.

Each test prints how many cases ran (`pytest -s`). `ONDA_LOG_SEEDS=20` makes a longer run of it.
"""

from __future__ import annotations

import copy
import os
import random
from typing import Any

import pytest

from engine.errors import LogFailed
from tests.log.journal import Journal
from tests.log.simulated import entries, open_log, run, scenario
from tests.simulation.disk import Fault, SimulatedDisk

SEEDS = int(os.environ.get("ONDA_LOG_SEEDS", "1"))

REFUSING = (Fault.EIO, Fault.NO_SPACE, Fault.SHORT, Fault.SHORT_FULL)


async def _come_back(disk: SimulatedDisk, journal: Journal, **options: Any) -> None:
    """Open, check, go on over a roll, lose power, open and check again; close in order, open and check."""
    async with open_log(disk, acked_floor=journal.acked, **options) as wal:
        await journal.check(wal)
        for number in range(6):
            await journal.append(wal, entries(f"store:after-{number}", 1, [100, 3000]))
        disk.power_cut()
        disk.dead = True
    disk.restart()
    for _ in range(2):
        async with open_log(disk, acked_floor=journal.acked, **options) as wal:
            assert wal.torn_bytes == 0
            await journal.check(wal)


async def _only_open(disk: SimulatedDisk, journal: Journal) -> None:
    """Open and check, or end early because the disk says so."""
    try:
        async with open_log(disk, acked_floor=journal.acked) as wal:
            await journal.check(wal)
    except LogFailed:
        return


def _calls(seed: int, **options: Any) -> int:
    disk = SimulatedDisk(seed)
    run(seed, scenario, disk, Journal(), seed, **options)
    return disk.calls


def _next_process(disk: SimulatedDisk, *, power: bool) -> None:
    disk.fail_at = {}
    if power:
        disk.power_cut()
    else:
        disk.restart()


def _run_case(disk: SimulatedDisk, seed: int, call: int, fault: Fault, **options: Any) -> None:
    """Run the scenario with one fault, then the processes after it."""
    journal = Journal()
    disk.fail_at = {call: fault}
    try:
        run(seed, scenario, disk, journal, seed, **options)
        _next_process(disk, power=fault is Fault.POWER or (fault in REFUSING and call % 2 == 0))
        run(seed, _come_back, disk, journal, **options)
    except Exception as error:
        error.add_note(f"seed {seed}, {fault} at call {call}: {disk.trace[call - 1]}")
        raise


@pytest.mark.parametrize("fault", REFUSING)
def test_any_call_may_fail(fault: Fault) -> None:
    """Whichever call is refused, nothing acknowledged is lost, and the next process goes on."""
    cases = 0
    for seed in range(1, SEEDS + 1):
        for call in range(1, _calls(seed) + 1):
            _run_case(SimulatedDisk(seed * 1_000 + call), seed, call, fault)
            cases += 1
    print(f"{cases} cases")


def test_the_process_may_be_killed_at_any_call() -> None:
    """What a killed process left in the cache is a log that comes back with all that was acknowledged."""
    cases = 0
    for seed in range(1, SEEDS + 1):
        for call in range(1, _calls(seed) + 1):
            _run_case(SimulatedDisk(seed * 1_000 + call), seed, call, Fault.KILL)
            cases += 1
    print(f"{cases} cases")


@pytest.mark.parametrize("pad", [0, 4096])
def test_the_power_may_go_at_any_call(pad: int) -> None:
    """Unsynced sectors and names lost in any combination; with padding, torn sectors full of garbage too."""
    cases = 0
    for seed in range(1, SEEDS * (3 if pad == 0 else 1) + 1):
        for call in range(1, _calls(seed, pad=pad) + 1):
            disk = SimulatedDisk(seed * 1_000 + call, torn_sectors=pad == 4096)
            _run_case(disk, seed, call, Fault.POWER, pad=pad)
            cases += 1
    print(f"{cases} cases")


def _crashed(seed: int) -> tuple[SimulatedDisk, Journal]:
    """Return a disk and journal after the power went in the middle of the scenario."""
    calls = _calls(seed)
    disk, journal = SimulatedDisk(seed), Journal()
    disk.fail_at = {calls * (seed % 9 + 1) // 10: Fault.POWER}
    run(seed, scenario, disk, journal, seed)
    _next_process(disk, power=True)
    return disk, journal


def test_recovery_may_end_at_any_call() -> None:
    """Recovery that fails, is killed or loses power half way is done again, with the same result."""
    cases = 0
    for seed in range(1, 3 * SEEDS + 1):
        disk, journal = _crashed(seed)
        clean = disk.copy()
        run(seed, _only_open, clean, copy.deepcopy(journal))
        for call in range(1, clean.calls + 1):
            for fault in (Fault.KILL, Fault.POWER, Fault.EIO, Fault.NO_SPACE):
                again, notes = disk.copy(), copy.deepcopy(journal)
                again.fail_at = {call: fault}
                try:
                    run(seed, _only_open, again, notes)
                    _next_process(again, power=fault is Fault.POWER)
                    run(seed, _come_back, again, notes)
                except Exception as error:
                    error.add_note(f"seed {seed}, {fault} at call {call}: {again.trace[call - 1]}")
                    raise
                cases += 1
    print(f"{cases} cases")


def test_a_segment_whose_name_only_the_cache_has() -> None:
    """Killed between naming a segment and syncing the folder, then without power at any call of recovery."""
    cases = 0
    for seed in range(1, 2 * SEEDS + 1):
        probe = SimulatedDisk(seed)
        run(seed, scenario, probe, Journal(), seed)
        names = [call for call, text in enumerate(probe.trace, 1) if text.startswith("rename /data/spare /")]
        for name in names[1:]:  # the first one is the log's birth
            for call in range(1, 40):
                disk, journal = SimulatedDisk(seed), Journal()
                disk.fail_at = {name + 1: Fault.KILL}
                run(seed, scenario, disk, journal, seed)
                _next_process(disk, power=False)
                disk.random.seed(call)
                disk.fail_at = {disk.calls + call: Fault.POWER}
                run(seed, _only_open, disk, journal)
                _next_process(disk, power=True)
                run(seed, _come_back, disk, journal)
                cases += 1
    print(f"{cases} cases")


def test_a_plug_that_is_pulled_again_and_again() -> None:
    """Ten crashes in a row, at random calls of whatever the process is doing then."""
    for seed in range(60 * SEEDS):
        source = random.Random(seed)
        disk, journal = SimulatedDisk(seed), Journal()
        for _ in range(10):
            fault = source.choice((Fault.KILL, Fault.POWER, Fault.EIO))
            disk.fail_at = {disk.calls + source.randrange(1, 60): fault}
            run(seed, scenario, disk, journal, seed)
            _next_process(disk, power=fault is Fault.POWER)
        run(seed, _come_back, disk, journal)
    print(f"{60 * SEEDS} cases of 10 crashes")
