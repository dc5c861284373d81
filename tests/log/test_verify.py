"""`verify` says what is wrong and touches nothing; `truncate_at` gives up an end on request."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError, LogCorrupt, LogLocked
from engine.log.recovery import keep_aside
from engine.log.truncate import truncate_at
from engine.log.verify import verify
from engine.records import Entry
from tests.log.journal import read_all
from tests.log.simulated import FOLDER, SEGMENT_BYTES, entries, open_log, run, segment
from tests.simulation.disk import Fault, SimulatedDisk

APPENDS = 35


async def _make(disk: SimulatedDisk) -> list[tuple[int, Entry]]:
    async with open_log(disk) as wal:
        for version in range(1, APPENDS * 2, 2):
            await wal.append(entries("store:s1", version, [1_000, 960]))
        return await read_all(wal)


async def _open(disk: SimulatedDisk) -> tuple[str, list[tuple[int, Entry]]]:
    async with open_log(disk) as wal:
        found = await read_all(wal)
        await wal.append(entries("table:new/1", 1, [10]))
        return wal.epoch, found


@pytest.fixture(scope="module")
def original() -> tuple[SimulatedDisk, list[tuple[int, Entry]]]:
    """A log of three segments and 70 entries, two in each append."""
    disk = SimulatedDisk()
    return disk, run(0, _make, disk)


@pytest.fixture
def disk(original: tuple[SimulatedDisk, list[tuple[int, Entry]]]) -> SimulatedDisk:
    """A copy of it."""
    return original[0].copy()


def test_a_good_log(disk: SimulatedDisk) -> None:
    """Everything is counted, and nothing is written."""
    before = {name: disk.content(f"{FOLDER}/{name}") for name in disk.names(FOLDER)}
    report = verify(FOLDER, disk)
    assert report.ok
    assert report.clean
    assert (report.first, report.head, report.entries) == (1, 70, 70)
    assert (report.segments, report.bytes, report.torn_bytes) == (3, 3 * SEGMENT_BYTES, 0)
    assert report.frames == APPENDS + 1
    assert before == {name: disk.content(f"{FOLDER}/{name}") for name in disk.names(FOLDER)}
    assert not {call.split()[0] for call in disk.trace} & {
        "pwrite",
        "create",
        "rename",
        "unlink",
        "sync",
        "lock",
    }


def test_damage_is_named_with_the_positions_that_it_takes(disk: SimulatedDisk) -> None:
    """Two damaged places in two segments are both found, and what lies between is read."""
    disk.flip(segment(1), 4096 + 2_300, 0)  # in the second frame
    disk.flip(segment(2), 20_000, 1)
    report = verify(FOLDER, disk)
    assert [damage.path for damage in report.damage] == [segment(1), segment(2)]
    first, second = report.damage
    assert (first.first_position, first.last_position) == (3, 4)
    assert "payload" in first.why
    assert second.last_position == second.first_position + 1
    assert (report.head, report.entries) == (70, 66)


def test_missing_and_misplaced_segments(disk: SimulatedDisk) -> None:
    """A hole, a lost end and a wrong file are named."""
    hole = disk.copy()
    hole.remove(segment(2))
    assert ["missing" in damage.why for damage in verify(FOLDER, hole).damage] == [True]
    short = disk.copy()
    short.remove(segment(3))
    assert "after this one is missing" in verify(FOLDER, short).damage[0].why
    wrong = disk.copy()
    wrong.put(segment(2), disk.content(segment(1)))
    assert verify(FOLDER, wrong).damage[0].path == segment(2)


def test_an_end_that_is_being_written_is_no_damage(disk: SimulatedDisk) -> None:
    """Beside a running process the last frame may be half there."""
    report = verify(FOLDER, disk)
    data = disk.content(segment(3))
    end = len(data.rstrip(b"\0"))
    disk.overwrite(segment(3), end + -end % 8, data[4096:4136])
    torn = verify(FOLDER, disk)
    assert torn.ok
    assert torn.torn_bytes > 0
    assert torn.head == report.head


def test_versions_that_do_not_follow_are_damage(disk: SimulatedDisk) -> None:
    """Checksums that fit around entries that do not are a fault of ours, and found."""

    async def forge() -> None:
        async with open_log(disk) as wal:
            wal._commit._heads.note("store:s1", 98)
            await wal.append(entries("store:s1", 99, [10]))

    run(0, forge)
    report = verify(FOLDER, disk)
    assert [damage.first_position for damage in report.damage] == [71]
    assert "99" in report.damage[0].why


def test_truncating_keeps_what_is_before_and_a_copy_of_the_rest(
    original: tuple[SimulatedDisk, list[tuple[int, Entry]]],
) -> None:
    """At any position: whole batches before it stay, the epoch is new, and the log opens."""
    found = original[1]
    old_epoch = verify(FOLDER, original[0]).epoch
    for position in range(71):
        disk = original[0].copy()
        done = truncate_at(FOLDER, position, disk, entropy=lambda size: b"\7" * size)
        assert done.head == position - position % 2
        assert done.epoch != old_epoch
        report = verify(FOLDER, disk)
        assert report.ok
        assert report.clean
        assert (report.head, report.epoch) == (done.head, done.epoch)
        assert all(disk.content(path) for path in done.kept_aside)
        assert bool(done.kept_aside) == (done.head < 70)
        assert run(0, _open, disk) == (done.epoch, found[: done.head])


def test_truncating_makes_a_refused_log_open_again(disk: SimulatedDisk) -> None:
    """What `verify` names is what `truncate_at` needs."""
    disk.flip(segment(2), 20_000, 1)
    with pytest.raises(LogCorrupt):
        run(0, _open, disk)
    damage = verify(FOLDER, disk).damage[0]
    with pytest.raises(LogCorrupt):
        truncate_at(FOLDER, damage.first_position, disk)
    done = truncate_at(FOLDER, damage.first_position - 1, disk)
    assert done.head == damage.first_position - 1
    assert len(run(0, _open, disk)[1]) == done.head


def test_truncating_a_log_whose_later_segment_is_lost(disk: SimulatedDisk) -> None:
    """A missing or unreadable segment is an end too."""
    head = verify(FOLDER, disk).head
    disk.remove(segment(2))
    with pytest.raises(LogCorrupt):
        truncate_at(FOLDER, head, disk)
    last = verify(FOLDER, disk).damage[0].first_position - 1
    done = truncate_at(FOLDER, last, disk)
    assert done.head == last
    assert f"{segment(3)}.removed" in done.kept_aside
    assert len(run(0, _open, disk)[1]) == last


def test_truncating_can_be_interrupted(disk: SimulatedDisk) -> None:
    """Killed or without power at any call, it can be done again; before, the log is whole or refused."""
    probe = disk.copy()
    truncate_at(FOLDER, 10, probe)
    whole = run(0, _open, disk.copy())[1]
    for call in range(1, probe.calls + 1):
        for power in (False, True):
            again = disk.copy()
            again.fail_at = {call: Fault.KILL}
            with pytest.raises(OSError, match="dead"):
                truncate_at(FOLDER, 10, again)
            again.fail_at = {}
            again.power_cut() if power else again.restart()
            try:
                found = run(0, _open, again.copy())[1]
            except LogCorrupt:
                found = whole[:10]
            assert found in (whole, whole[:10])
            assert truncate_at(FOLDER, 10, again).head == 10
            assert run(0, _open, again)[1] == whole[:10]


def test_truncating_needs_a_log_of_ones_own(disk: SimulatedDisk) -> None:
    """A log in use is left alone, and so is one that was trimmed beyond the position."""

    async def in_use() -> None:
        async with open_log(disk):
            with pytest.raises(LogLocked):
                truncate_at(FOLDER, 10, disk)

    run(0, in_use)
    disk.remove(segment(1))
    with pytest.raises(ConfigError):
        truncate_at(FOLDER, 10, disk)


def test_nothing_aside_is_ever_overwritten(disk: SimulatedDisk) -> None:
    """The same bytes are kept once, other bytes beside them."""
    name = f"{FOLDER}/end"
    paths = [keep_aside(disk, FOLDER, name, data) for data in (b"one", b"one", b"two", b"on", b"two")]
    assert len(set(paths)) == 3
    assert [disk.content(path) for path in paths] == [b"one", b"one", b"two", b"on", b"two"]
