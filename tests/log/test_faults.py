"""Every disk call of a scenario with rolls, trim, recovery and an orderly end fails in every way, or is the
last one.

Each test prints how many cases ran (`pytest -s`, or the captured output of a failure).
"""

from __future__ import annotations

import pytest

from tests.log.journal import Journal
from tests.log.simulated import entries, open_log, run, scenario
from tests.simulation.disk import Fault, SimulatedDisk

REFUSING = (Fault.EIO, Fault.NO_SPACE, Fault.SHORT, Fault.SHORT_FULL)
STOPPING = (Fault.KILL, Fault.POWER)


async def _come_back(disk: SimulatedDisk, journal: Journal, **options: object) -> None:
    """Open, check, go on over a roll, lose power, open and check again; close in order, open and check."""
    async with open_log(disk, acked_floor=journal.acked, **options) as wal:
        await journal.check(wal)
        for round_ in range(6):
            await journal.append(wal, entries(f"store:after-{round_}", 1, [100, 3000]))
        disk.power_cut()
        disk.dead = True
    disk.restart()
    for _ in range(2):
        async with open_log(disk, acked_floor=journal.acked, **options) as wal:
            assert wal.torn_bytes == 0
            await journal.check(wal)


def _calls(seed: int, **options: object) -> int:
    disk = SimulatedDisk(seed)
    run(seed, scenario, disk, Journal(), seed, **options)
    return disk.calls


def _run_case(disk: SimulatedDisk, seed: int, plan: dict[int, Fault], **options: object) -> Journal:
    journal = Journal()
    disk.fail_at = dict(plan)
    run(seed, scenario, disk, journal, seed, **options)
    _next_process(disk, seed)
    return journal


def _next_process(disk: SimulatedDisk, seed: int) -> None:
    fault = disk.fail_at.get(disk.calls) if disk.dead else None
    disk.fail_at = {}
    if fault is Fault.POWER or (fault is None and seed % 2):
        disk.power_cut()
    else:
        disk.restart()


@pytest.mark.parametrize("pad", [0, 4096])
@pytest.mark.parametrize("fault", REFUSING)
def test_any_call_may_fail(fault: Fault, pad: int) -> None:
    """Whichever call is refused, nothing acknowledged is lost, and the next process goes on."""
    cases = 0
    for seed in (1, 2):
        for call in range(1, _calls(seed, pad=pad) + 1):
            disk = SimulatedDisk(seed)
            journal = _run_case(disk, seed, {call: fault}, pad=pad)
            try:
                run(seed, _come_back, disk, journal, pad=pad)
            except Exception as error:
                error.add_note(f"seed {seed}, {fault} at call {call}: {disk.trace[call - 1]}")
                raise
            cases += 1
    print(f"{cases} cases")


@pytest.mark.parametrize("pad", [0, 4096])
@pytest.mark.parametrize("fault", STOPPING)
def test_the_process_may_end_at_any_call(fault: Fault, pad: int) -> None:
    """Killed or without power after any call, a log comes back with all that it acknowledged."""
    cases = 0
    for seed in range(6 if fault is Fault.POWER else 2):
        for call in range(1, _calls(seed, pad=pad) + 1):
            disk = SimulatedDisk(seed * 1000 + call, torn_sectors=pad == 4096)
            journal = _run_case(disk, seed, {call: fault}, pad=pad)
            try:
                run(seed, _come_back, disk, journal, pad=pad)
            except Exception as error:
                error.add_note(f"seed {seed}, {fault} at call {call}: {disk.trace[call - 1]}")
                raise
            cases += 1
    print(f"{cases} cases")
