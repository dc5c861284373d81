"""A data folder with a random log and checkpoint, and what has to be true of both after a move."""

from __future__ import annotations

import hashlib
import json
import random
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.answers import Answer, Known
from engine.checkpoint import Moment, Parked, SavedState
from engine.checkpoint_sqlite import open_checkpoint
from engine.log.disk import OSDisk
from engine.log.frames import pack_entry, unpack_entries
from engine.log.segments import load, scan, segment_numbers, segment_path
from engine.log.wal import open_wal
from engine.migrating import Sizes
from engine.migrating.kept_file import reading
from engine.migrating.places import Places
from engine.records import Entry

SIZES = Sizes(16_384, 0, 0)
REACTIONS = ("flow", "mail", "late")


class Made(NamedTuple):
    """What is in a folder: kept entries with their positions, and the checkpoint."""

    epoch: str
    entries: list[tuple[int, Entry]]
    places: Places
    states: list[SavedState]
    answers: list[tuple[Any, ...]]
    tasks: list[tuple[str, str]]

    @property
    def first(self) -> int:
        return self.places.position + 1 if not self.entries else self.entries[0][0]


class Shop:
    """Appends random commands of random streams, with ids that do not always grow."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.versions: dict[str, int] = {}
        self.positions: list[tuple[str, int]] = []  # stream and version of each record, dropped ones too
        self.epoch = ""
        self.bodies: dict[tuple[str, int], bytes] = {}

    def command(self) -> list[Entry]:
        """Return the entries of one command."""
        pick, number = self.random, len(self.positions)
        some = (f"table:s1/{pick.randrange(9)}", f"user:u{pick.randrange(30)}")
        stream = pick.choice(["store:s1", "store:s2", *some])
        if pick.random() < 0.02:
            stream = f"user:rare{number}"
        found = []
        count = pick.choice((1, 1, 1, 2, 3))
        for at in range(count):
            version = self.versions[stream] = self.versions.get(stream, 0) + 1
            ms = 1_800_000_000_000 + 10 * number + at + pick.randrange(-30, 30)
            id_ = f"{ms:012x}"[:8] + "-" + f"{ms:012x}"[8:] + f"-7{at:03x}-8000-{number:06x}{version:06x}"
            body = {
                "id": id_, "cursor": f"{self.epoch}-{version}", "stream": stream, "version": version,
                "type": "T", "time": "t", "by": "b", "cause": f"c{number}",
                "data": {"x": "x" * pick.randrange(200)}, "patch": {},
            }  # fmt: skip
            meta = b"meta" if at == count - 1 and pick.random() < 0.5 else b""
            found.append(Entry(stream, version, meta, json.dumps(body).encode()))
        return found


async def make(data: Path, seed: int, commands: int = 400, trimmed: bool = True, share: float = 0.0) -> None:
    """Make a folder. `share`: how much of the log is dropped at least, but for what it keeps anyway."""
    shop = Shop(seed)
    pick = shop.random
    data.mkdir(parents=True)
    async with open_wal(str(data / "log"), segment_bytes=SIZES.segment_bytes, reserve_bytes=0) as log:
        shop.epoch = log.epoch
        for _ in range(commands):
            entries = shop.command()
            shop.positions += [(entry.stream, entry.version) for entry in entries]
            shop.bodies |= {(entry.stream, entry.version): entry.body for entry in entries}
            await log.append(entries)
        position = pick.randrange(int(max(share, 0.5) * len(shop.positions)), len(shop.positions) + 1)
        if trimmed:
            await log.trim(pick.randrange(int(share * position), position))
        await _save(data, shop, log.first, position)


async def _save(data: Path, shop: Shop, first: int, position: int) -> None:
    pick, head = shop.random, len(shop.positions)
    seen: dict[str, int] = {}
    for stream, version in shop.positions[:position]:
        seen[stream] = version
    states = []
    for stream, version in seen.items():
        newer = pick.randrange(version, shop.versions[stream] + 1)
        due = pick.choice((None, 1_900_000_000_000 + pick.randrange(1000)))
        states.append(SavedState(stream, newer, b'{"v":%d}' % newer, due))
    answers = []
    for number in range(pick.randrange(80)):
        stream = pick.choice(sorted(seen))
        events = [b'{"id": "%d"}' % number] * pick.randrange(3)
        answer = Answer(f"{shop.epoch}-{number}", number, events, b'{"n":%d}' % number)
        known = Known(1_800_000_000_000 + number, f"{number:016x}", answer)
        answers.append((stream, f"guest\nkey\n{number}", known))
    places = {name: pick.randrange(max(0, first - 3), head + 1) for name in REACTIONS}
    checkpoint = await open_checkpoint(str(data / "checkpoint.db"))
    refill = pick.randrange(first - 1, position + 1)
    await checkpoint.take(Moment(position, head, refill, states, answers, places, 0, shop.epoch))
    for _ in range(3):
        low = pick.randrange(places["flow"], head + 1)
        high = pick.randrange(low, head + 1)
        for _ in range(pick.randrange(1, 3)):  # two starts may have found the same
            await checkpoint.add_rerun("flow", low, high)
    for _ in range(5):
        at = pick.randrange(1, head + 1)
        if at > places["mail"]:
            await checkpoint.count_attempt("mail", at, pick.randrange(1, 4))
    for at in sorted(pick.sample(range(1, head + 1), 20)):
        for name in pick.sample(REACTIONS, pick.randrange(1, 3)):
            stream, version = shop.positions[at - 1]
            body = shop.bodies[stream, version]
            await checkpoint.park(Parked(0, name, stream, at, version, body, "no", 4, 17))
    for number in range(pick.randrange(20)):
        await checkpoint.add_task(f"t{number}", f"u{pick.randrange(5)}", [])
    await checkpoint.close()


def look(data: Path) -> Made:
    """Read a folder without asking the code that moves."""
    disk, log = OSDisk(), str(data / "log")
    entries: list[tuple[int, Entry]] = []
    epoch = ""
    for number in segment_numbers(disk, log):
        header, content = load(disk, segment_path(log, number))
        epoch = header.epoch
        scan(
            header,
            content,
            lambda frame: entries.extend(
                enumerate(unpack_entries(frame.payload, frame.entries), frame.first_position)
            ),
        )
    with reading(str(data / "checkpoint.db")) as kept:
        answers = sorted((s, k, one.at_ms, one.digest, one.answer) for s, k, one in kept.answers())
        return Made(epoch, entries, kept.places(), sorted(kept.states()), answers, sorted(kept.tasks()))


def fingerprint(data: Path) -> dict[str, str]:
    """Return digests of everything that a move must leave alone."""
    files = [one for one in data.rglob("*") if one.is_file() and one.name not in ("LOCK", "MOVED")]
    return {
        str(one.relative_to(data)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in files
        if not one.name.endswith(("-shm", "-wal"))
    }


def by_stream(entries: Sequence[tuple[int, Entry]]) -> dict[str, list[bytes]]:
    """Return the bytes of each stream's entries, in order."""
    found: dict[str, list[bytes]] = {}
    for _, entry in entries:
        found.setdefault(entry.stream, []).append(pack_entry(entry))
    return found


def name_of(made: Made, position: int) -> tuple[str, int] | None:
    """Return stream and version of the kept record at a position."""
    at = bisect_right([place for place, _ in made.entries], position) - 1
    if at < 0 or made.entries[at][0] != position:
        return None
    return made.entries[at][1].stream, made.entries[at][1].version


def check_same(old: Made, new: Made) -> None:
    """The way there and back has changed nothing but the order between partitions."""
    assert by_stream(new.entries) == by_stream(old.entries)
    assert new.epoch == old.epoch
    assert [place for place, _ in new.entries] == [place for place, _ in old.entries]
    assert (new.states, new.answers, new.tasks) == (old.states, old.answers, old.tasks)
    check_places(old, new)


def check_places(old: Made, new: Made) -> None:
    """A reaction goes on behind the longest prefix that it had done; records keep what is said of them."""
    before = {(entry.stream, entry.version): place for place, entry in old.entries}
    order = [before[entry.stream, entry.version] for _, entry in new.entries]
    first = new.first
    for name in REACTIONS:
        done = 0
        while done < len(order) and order[done] <= old.places.positions[name]:
            done += 1
        assert new.places.positions[name] == first - 1 + done, name
    saved = {one.stream: one.version for one in old.states}
    covered = 0
    for (_, entry), place in zip(new.entries, order, strict=True):
        if place > old.places.position or entry.version > saved[entry.stream]:
            break
        covered += 1
    assert new.places.position == first - 1 + covered
    assert new.places.refill <= new.places.position <= new.places.floor == first - 1 + len(order)
    assert attempts(new) == {one for one in attempts(old) if one[1] is not None}
    assert parked(new) == parked(old)
    assert len({(one.reaction, one.position) for one in new.places.parked}) == len(new.places.parked)
    for one in new.places.parked:
        assert one.position >= 1
        assert name_of(new, one.position) in (None, (one.stream, one.version))
        assert (name_of(new, one.position) is None) == ((one.stream, one.version) not in before)


def attempts(made: Made) -> set[Any]:
    return {(name, name_of(made, place), count) for name, place, count in made.places.attempts}


def parked(made: Made) -> list[Any]:
    return sorted((*one[1:3], *one[4:]) for one in made.places.parked)


def starts(made: Made, name: str) -> dict[tuple[str, int], int]:
    """How many starts found each record that a reaction has not done."""
    ranges = [(low, high) for reaction, low, high in made.places.reruns if reaction == name]
    return {
        (entry.stream, entry.version): sum(low < place <= high for low, high in ranges)
        for place, entry in made.entries
        if place > made.places.positions[name]
    }
