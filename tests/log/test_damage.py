"""Torn tail or damage: the same bytes, truncated and flipped everywhere, and what opening makes of each.

Every case ends in one of three ways: all entries are there; a torn tail was cut and what had been sealed,
or was known elsewhere, is there; or the log refuses, naming file and offset, and changes nothing. Wrong
content is never served.
"""

from __future__ import annotations

import random

import pytest

from engine.errors import LogCorrupt, LogFailed
from engine.log import frames
from engine.log.frames import FRAME_BYTES, HEADER_BYTES
from engine.log.segments import scan
from engine.log.verify import verify
from engine.records import Entry
from tests.log.journal import read_all
from tests.log.simulated import FOLDER, SEGMENT_BYTES, entries, open_log, run, segment
from tests.simulation.disk import Fault, SimulatedDisk

Found = list[tuple[int, Entry]]


async def _make(disk: SimulatedDisk, sealed: bool, sizes: list[list[int]], pad: int = 0) -> Found:
    """Make a log of one append per list of sizes; a process that is killed leaves no clean seal."""
    async with open_log(disk, pad=pad) as wal:
        version = 1
        for batch in sizes:
            await wal.append(entries("store:s1", version, batch))
            version += len(batch)
        if sealed:
            wal._commit.seal(frames.SEAL)
            while wal._commit.busy:
                await read_all(wal)
        found = await read_all(wal)
        disk.dead = True
    disk.restart()
    return found


async def _open(disk: SimulatedDisk, floor: int = 0) -> tuple[Found, int]:
    async with open_log(disk, acked_floor=floor) as wal:
        return await read_all(wal), wal.torn_bytes


def _made(sealed: bool, sizes: list[list[int]], pad: int = 0) -> tuple[SimulatedDisk, Found]:
    disk = SimulatedDisk()
    found = run(0, _make, disk, sealed, sizes, pad)
    return disk, found


def _last_frame(disk: SimulatedDisk, number: int = 1) -> tuple[int, int]:
    """Return where the last frame with entries begins and ends."""
    data = disk.content(segment(number))
    spans: list[tuple[int, int]] = []
    scan(frames.unpack_segment(data), data, lambda frame: spans.append((frame.offset, frame.end)))
    return spans[-1]


def _state(disk: SimulatedDisk) -> dict[str, bytes]:
    return {
        name: disk.content(f"{FOLDER}/{name}") for name in disk.names(FOLDER) if not name.startswith("spare")
    }


def _segments(disk: SimulatedDisk) -> list[str]:
    """Return the names of the segments on a disk."""
    return [name for name in disk.names(FOLDER) if name.endswith(".seg")]


def _refused(disk: SimulatedDisk, floor: int = 0) -> LogCorrupt:
    """Check that opening refuses and leaves every byte as it is."""
    before = _state(disk)
    with pytest.raises(LogCorrupt) as caught:
        run(0, _open, disk, floor)
    assert _state(disk) == before
    assert not verify(FOLDER, disk).ok or floor
    return caught.value


@pytest.mark.parametrize("pad", [0, 4096])
def test_a_last_batch_that_ends_anywhere_is_cut(pad: int) -> None:
    """Whatever part of the last batch reached the disk, the batches before are there and it is gone whole."""
    disk, found = _made(False, [[300, 40], [200], [30, 170]], pad)
    start, end = _last_frame(disk)
    whole = disk.content(segment(1))
    cases = 0
    used = start + len(whole[start:end].rstrip(b"\0"))
    for cut in (*range(start, used + 1), *range(used + 1, end, 199)):
        torn = disk.copy()
        torn.overwrite(segment(1), cut, bytes(SEGMENT_BYTES - cut))
        after, torn_bytes = run(0, _open, torn)
        if any(whole[cut:end]):
            assert after == found[:3]
            assert torn_bytes == len(whole[start:cut].rstrip(b"\0"))
            aside = [
                torn.content(f"{FOLDER}/{name}") for name in torn.names(FOLDER) if name.endswith(".torn")
            ]
            assert aside == ([whole[start:cut].rstrip(b"\0")] if torn_bytes else [])
        else:
            assert (after, torn_bytes) == (found, 0)
        assert run(0, _open, torn) == (after, 0)
        refusing = disk.copy()
        refusing.overwrite(segment(1), cut, bytes(SEGMENT_BYTES - cut))
        if any(whole[cut:end]):
            assert "positions 4 to 5" in _refused(refusing, floor=5).why
        cases += 2
    print(f"{cases} cases")


def test_a_batch_of_which_any_sectors_arrived_is_cut() -> None:
    """Sectors of a batch that reached the disk in any combination are a torn tail, or the whole batch."""
    disk, found = _made(False, [[300], [3_000, 2_000]])
    start, end = _last_frame(disk)
    whole = disk.content(segment(1))
    source = random.Random(5)
    sectors = range(start - start % 512, end, 512)
    for _ in range(200):
        torn = disk.copy()
        lost = [sector for sector in sectors if source.random() < 0.4]
        for sector in lost:
            at = max(sector, start)
            torn.overwrite(segment(1), at, bytes(sector + 512 - at))
        after, torn_bytes = run(0, _open, torn)
        assert after == (found if torn.content(segment(1))[:end] == whole[:end] else found[:1])
        assert (torn_bytes > 0) == (after != found and len(lost) < len(sectors))


@pytest.mark.parametrize("sealed", [False, True])
def test_a_file_that_is_cut_short_is_refused(sealed: bool) -> None:
    """A segment has its full size from the moment it has a name, so a shorter file has lost what it held."""
    disk, _ = _made(sealed, [[300], [200]])
    start, end = _last_frame(disk)
    whole = disk.content(segment(1))
    for size in (0, 1, 127, 128, HEADER_BYTES, *range(start, end + 1, 13), SEGMENT_BYTES - 1):
        torn = disk.copy()
        torn.put(segment(1), whole[:size])
        assert _refused(torn).file == segment(1)


def test_flipped_bits_of_the_last_batch() -> None:
    """Unsealed, a damaged last batch is taken for torn, or the log refuses; sealed, or known elsewhere, it
    refuses.
    """
    cases = 0
    for sealed in (False, True):
        disk, found = _made(sealed, [[300, 40], [120]])
        start, end = _last_frame(disk)
        for bit in range(start * 8, end * 8):
            if bit >= (start + FRAME_BYTES) * 8 and bit % 13:
                continue  # every bit of the header, one in thirteen of the payload
            damaged = disk.copy()
            damaged.flip(segment(1), bit // 8, bit % 8)
            if sealed:
                assert _refused(damaged).offset == start
            else:
                assert run(0, _open, damaged.copy())[0] == found[:2]
                assert _refused(damaged, floor=3).offset == start
            cases += 1
    print(f"{cases} cases")


def test_recovery_seals_what_it_found() -> None:
    """What the last process left unsealed is proven by the next one: later damage to it is no torn tail."""
    disk, found = _made(False, [[300], [120]])
    start, _end = _last_frame(disk)
    run(0, _open_and_die, disk)
    disk.restart()
    assert run(0, _open, disk.copy())[0] == found
    disk.flip(segment(1), start + 100, 0)
    assert _refused(disk).offset == start


async def _open_and_die(disk: SimulatedDisk) -> None:
    async with open_log(disk):
        disk.dead = True


def test_flipped_bits_before_the_last_batch_are_refused() -> None:
    """A damaged frame with a good one behind it had been acknowledged."""
    disk, _ = _made(False, [[60], [50], [40]])
    start, _end = _last_frame(disk)
    cases = 0
    for bit in range(HEADER_BYTES * 8, start * 8, 3):
        damaged = disk.copy()
        damaged.flip(segment(1), bit // 8, bit % 8)
        error = _refused(damaged)
        assert error.file == segment(1)
        assert HEADER_BYTES <= error.offset <= bit // 8
        cases += 1
    print(f"{cases} cases")


def test_flipped_bits_in_a_segment_header_are_refused() -> None:
    """Of the first, a middle and the last segment."""
    disk, _ = _made(False, [[2_000]] * 35)
    assert len(_segments(disk)) == 3
    cases = 0
    for number in (1, 2, 3):
        for bit in range(0, 128 * 8, 1 if number == 3 else 19):
            damaged = disk.copy()
            damaged.flip(segment(number), bit // 8, bit % 8)
            assert _refused(damaged).file == segment(number)
            cases += 1
    print(f"{cases} cases")


def test_flipped_bits_anywhere_never_give_wrong_content() -> None:
    """Over three segments, a flip is refused, is in zeros that nobody reads, or cuts the last batch."""
    disk, found = _made(False, [[2_000]] * 35)
    last = _last_frame(disk, 3)
    source = random.Random(11)
    counts = {"refused": 0, "harmless": 0, "cut": 0}
    for _ in range(400):
        number = source.randrange(1, 4)
        bit = source.randrange(SEGMENT_BYTES * 8)
        damaged = disk.copy()
        damaged.flip(segment(number), bit // 8, bit % 8)
        try:
            after, _torn = run(0, _open, damaged)
        except LogCorrupt as error:
            counts["refused"] += error.file == segment(number)
            continue
        if after == found:
            assert bit // 8 < HEADER_BYTES or (number == 3 and bit // 8 >= last[1])
            counts["harmless"] += 1
        else:
            assert after == found[:-1]
            assert number == 3
            assert last[0] <= bit // 8 < last[1]
            counts["cut"] += 1
    print(counts)
    assert sum(counts.values()) == 400, "a refusal named another file"
    assert counts["refused"] > 150


def test_a_missing_segment_is_refused() -> None:
    """The first may be gone (trimmed); one in the middle, or the last, may not, known floor or not."""
    disk, found = _made(False, [[2_000]] * 35)
    for number in (2, 3):
        damaged = disk.copy()
        damaged.remove(segment(number))
        assert "missing" in _refused(damaged).why
    trimmed = disk.copy()
    trimmed.remove(segment(1))
    after, _ = run(0, _open, trimmed)
    assert after == found[-len(after) :]
    empty = SimulatedDisk()
    empty.make_folder(FOLDER)
    with pytest.raises(LogCorrupt, match="no log"):
        run(0, _open, empty, 7)


def test_segments_of_other_places_are_refused() -> None:
    """A segment under another's name, an older state of one, and one of another log."""
    disk, _ = _made(False, [[2_000]] * 35)
    swapped = disk.copy()
    swapped.put(segment(2), disk.content(segment(3)))
    assert "segment 3" in _refused(swapped).why
    doubled = disk.copy()
    doubled.put(segment(4), disk.content(segment(3)))
    assert _refused(doubled).file == segment(4)

    older, _ = _made(False, [[2_000]] * 22)
    stale = disk.copy()
    stale.put(segment(2), older.content(segment(2)))
    assert _refused(stale).file == segment(2)

    stranger = SimulatedDisk()
    run(0, _make_other, stranger)
    foreign = disk.copy()
    foreign.put(segment(2), stranger.content(segment(2)))
    assert "another log" in _refused(foreign).why


async def _make_other(disk: SimulatedDisk) -> None:
    async with open_log(disk, entropy=lambda size: b"\1" * size) as wal:
        for version in range(1, 30):
            await wal.append(entries("store:s1", version, [2_000]))


def test_frames_of_other_places_are_refused() -> None:
    """A frame that a write put in the wrong place, or a stale one behind the end, is never read as data."""
    disk, _ = _made(False, [[500], [500], [500]])
    start, end = _last_frame(disk)
    whole = disk.content(segment(1))
    last = whole[start:end]
    for at, data in ((start, whole[HEADER_BYTES : HEADER_BYTES + len(last)]), (end, last), (end + 800, last)):
        damaged = disk.copy()
        damaged.overwrite(segment(1), at, data)
        _refused(damaged)
    elsewhere = disk.copy()
    elsewhere.overwrite(segment(1), start, bytes(len(last)))
    elsewhere.overwrite(segment(1), end + 160, last)
    assert "later frame" in _refused(elsewhere).why


def test_an_unreadable_disk_is_refused() -> None:
    """A disk that does not deliver is not an empty log, and nothing is rewritten on its word."""
    disk, _ = _made(False, [[500]])
    for call in range(1, 11):
        broken = disk.copy()
        broken.fail_at[call] = Fault.EIO
        before = _state(broken)
        with pytest.raises(LogFailed):
            run(0, _open, broken)
        assert _state(broken) == before, broken.trace[-1]
        broken.dead = False
        assert len(run(0, _open, broken)[0]) == 1
