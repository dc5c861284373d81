"""An append as the script in Redis takes it, and what its answer means. Pure.

See `engine.log.redis_scripts.APPEND` for both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from engine.errors import Conflict, Forked, UnknownOutcome
from engine.log import Basis, frames
from engine.records import Entry


def pack_append(
    entries: Sequence[Entry], basis: Basis | None, epoch: str, publish: str, channel: str, bytes_max: int
) -> tuple[list[str], list[Any], int]:
    """Return the streams of an append, the script's arguments, and its size in bytes.

    Args:
        entries: what is appended; versions of a stream count without a hole.
        basis: what it was decided on; without it only versions are compared, in `epoch`.
        epoch: the partition's.
        publish: `PUBLISH` or `SPUBLISH`.
        channel: where to.
        bytes_max: of all entries together.

    Raises:
        Conflict: the versions make no sense.
        ValueError: too large, or a basis that does not fit.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    packed: list[Any] = []
    size = 0
    names = list(dict.fromkeys(entry.stream for entry in entries))
    ids = basis.ids if basis is not None else [os.urandom(8).hex() for _ in entries]
    if basis is not None and (len(names) != 1 or len(ids) != len(entries)):
        raise ValueError("an append with a basis has one stream, and an id for each entry")
    for (stream, version, meta, body), name in zip(entries, ids, strict=True):
        if not (isinstance(meta, bytes) and isinstance(body, bytes)):
            raise TypeError("meta and body are bytes")
        known = last.get(stream)
        if version < 1 or (known is not None and version != known + 1):
            raise Conflict(f"{stream}: version {version} does not follow {known}")
        first.setdefault(stream, version)
        last[stream] = version
        data = frames.pack_entry(Entry(stream, version, meta, body))
        size += len(data)
        packed += (names.index(stream) + 1, name, data)
    if not 0 < size <= bytes_max:
        raise ValueError(f"an append of {size} bytes; 1 to {bytes_max} are possible")
    after = basis.after if basis is not None else "*"
    heads = [word for name in names for word in (name, first[name] - 1, after)]
    turns = basis.turns if basis is not None else None
    who = (turns.who, int(turns.more)) if turns is not None else ("", 0)
    epoch = basis.epoch if basis is not None else epoch
    return names, [epoch, publish, channel, len(names), *who, *heads, *packed], size


def judge_append(answer: list[Any], streams: list[str], expected: int, basis: Basis | None) -> int:
    """Return the position of what was appended to version `expected`, or raise what else happened.

    Raises:
        Conflict: another node was faster.
        Forked: what it was decided on is not in the log any more, or the epoch is over.
        UnknownOutcome: keys are missing.
    """
    word = answer[0]
    if word in (b"ok", b"same"):
        position: int = answer[1]
        return position
    if word == b"epoch":
        raise Forked(f"the epoch is {answer[1].decode()} now")
    if word == b"gone":
        raise UnknownOutcome
    _, number, version, last, found = answer
    there: str = found.decode()
    text = f"{streams[number - 1]} is at version {version}"
    if basis is not None and (version < expected or (there and there != basis.after)):
        raise Forked(f"{text}, and {basis.after} is not in it any more", version, last.decode())
    raise Conflict(text, version, last.decode())
