"""The log's format, to the bit. Pure: bytes in, bytes out.

A log is a folder of segments `0000000001.seg`, `0000000002.seg` …; all numbers are little-endian.

Segment: a header in the first 4096 bytes, then frames, then zeros up to `segment_bytes`. A segment has its
full size, zeroed and synced, before it gets its name. The first 128 bytes keep this shape in every later
format:

      0  magic            8   f6 "ONDALOG"
      8  format           u16 that wrote it
     10  min_reader       u16 the oldest format whose reader may open it
     12  checksum         u16 1 = zlib.crc32
     14  align            u16 frames start at multiples of it, 8 or 4096
     16  log              16  random; the same in every segment and frame of a log
     32  epoch            16  ASCII, padded with zeros; the log's epoch is that of its last segment
     48  segment          u64 its number, as in the file's name
     56  segment_bytes    u64 its size
     64  first_position   u64 of the first entry in it
     72  first_sequence   u64 of the first frame in it
     80  last_position    u64 of the segment before: first_position - 1
     88  last_crc         u32 header_crc of the last frame before this segment; 0 when there is none
     92  zeros            32
    124  crc              u32 over bytes 0–123

Frame: one batch of entries, written and synced before the next one is begun. It starts at a multiple of
`align`, and its rest up to the next multiple is zeros.

      0  magic            4   f6 "ONF": 0xf6 is in no UTF-8 text, so no body can look like a frame
      4  flags            u16 1 seal, 2 clean, 4 rolled
      6  zeros            u16
      8  payload_bytes    u32 a multiple of 8
     12  entries          u32 how many are in it
     16  sequence         u64 counts frames from 1 without a hole, across segments
     24  first_position   u64 of the first entry
     32  synced_position  u64 what was durable when this was built: first_position - 1, always
     40  log              16
     56  segment          u64
     64  previous_crc     u32 header_crc of the frame before, also across segments: a chain
     68  payload_crc      u32
     72  zeros            u32
     76  header_crc       u32 over bytes 0–75
     80  payload              entries, padded with zeros to a multiple of 8

A *seal* has no entries; that it is there proves that the frame before it had been synced. A *clean* seal
was the last thing that a process wrote before it ended in order. A *rolled* mark stands at the end of a
segment that has a successor, and proves that there is one; it is no link of the chain (the successor's
first frame has the same sequence).

Entry: version u64, meta_bytes u32, body_bytes u32, stream_bytes u16, then stream (UTF-8), meta and body.
"""

from __future__ import annotations

import enum
import re
from struct import Struct
from struct import error as StructError
from typing import NamedTuple
from zlib import crc32

from engine.records import Entry

FORMAT = 1
MIN_READER = 1

HEADER_BYTES = 4096
"""Frames start here: appending never rewrites the sector that holds the segment's header."""

FRAME_BYTES = 80
"""Of a frame's header, and so of a frame without entries."""

SEGMENT_BYTES_MAX = 1 << 30

SEAL = 1
CLEAN = 2
ROLLED = 4

_SEGMENT_MAGIC = b"\xf6ONDALOG"
_FRAME_MAGIC = b"\xf6ONF"
_SEGMENT = Struct("<8sHHHH16s16sQQQQQI32x")
_FRAME = Struct("<4sHHIIQQQ16sQIII")
_ENTRY = Struct("<QIIH")
_CRC = Struct("<I")
_NO_FRAME = bytes(FRAME_BYTES)
_EPOCH = re.compile(r"[a-z0-9]{8}\Z")


class SegmentHeader(NamedTuple):
    """What a segment says about itself; see the top of this file."""

    align: int
    log: bytes
    epoch: str
    segment: int
    segment_bytes: int
    first_position: int
    first_sequence: int
    last_crc: int


class Chain(NamedTuple):
    """What the next frame has to continue."""

    log: bytes
    segment: int
    sequence: int
    position: int
    crc: int


class Frame(NamedTuple):
    """A good frame and where it is in its segment."""

    offset: int
    end: int
    flags: int
    first_position: int
    entries: int
    payload: memoryview
    chain: Chain


class Bad(enum.Enum):
    """Why there is no good frame at some offset; the value is for people."""

    NOTHING = "zeros"
    HEADER = "damaged frame header"
    PAYLOAD = "damaged frame payload"
    FOREIGN = "a whole frame that does not belong here (stale, misdirected or out of order)"


class NotASegment(ValueError):
    """The header is damaged."""


class TooNew(ValueError):
    """The header asks for a newer reader."""


def pack_segment(header: SegmentHeader) -> bytes:
    """Return the 128 bytes of a segment's header."""
    head = _SEGMENT.pack(
        _SEGMENT_MAGIC,
        FORMAT,
        MIN_READER,
        1,
        header.align,
        header.log,
        header.epoch.encode("ascii"),
        header.segment,
        header.segment_bytes,
        header.first_position,
        header.first_sequence,
        header.first_position - 1,
        header.last_crc,
    )
    return head + _CRC.pack(crc32(head))


def unpack_segment(data: bytes) -> SegmentHeader:
    """Read a segment's header.

    Raises:
        TooNew: only a newer format's reader may open it.
        NotASegment: damaged, or no segment at all.
    """
    size = _SEGMENT.size
    if len(data) < size + 4 or data[:8] != _SEGMENT_MAGIC:
        raise NotASegment("this is no segment of a log")
    if _CRC.unpack_from(data, size)[0] != crc32(data[:size]):
        raise NotASegment("damaged segment header")
    _, format_, min_reader, checksum, align, *rest = _SEGMENT.unpack_from(data)
    if min_reader > FORMAT:
        raise TooNew(
            f"written by format {format_}, which asks for a reader of {min_reader}; this one is {FORMAT}"
        )
    log, epoch, segment, segment_bytes, first_position, first_sequence, last_position, last_crc = rest
    name = epoch.rstrip(b"\0").decode("ascii", "replace")
    sane = (
        checksum == 1
        and align in (8, HEADER_BYTES)
        and HEADER_BYTES < segment_bytes <= SEGMENT_BYTES_MAX
        and _EPOCH.match(name) is not None
        and last_position == first_position - 1
    )
    if not sane:
        raise NotASegment("the segment header makes no sense")
    return SegmentHeader(align, log, name, segment, segment_bytes, first_position, first_sequence, last_crc)


def start_chain(header: SegmentHeader) -> Chain:
    """Return what the first frame of a segment has to continue."""
    return Chain(
        header.log, header.segment, header.first_sequence - 1, header.first_position - 1, header.last_crc
    )


def pack_entry(entry: Entry) -> bytes:
    """Return an entry's bytes.

    Raises:
        ValueError: a number is too large for the format.
    """
    stream, version, meta, body = entry
    name = stream.encode()
    try:
        return b"".join((_ENTRY.pack(version, len(meta), len(body), len(name)), name, meta, body))
    except StructError as error:
        raise ValueError(f"{stream[:100]} version {version}: {error}") from None


def unpack_entry(data: bytes, at: int = 0) -> tuple[Entry, int]:
    """Return the entry at `at`, and where it ends.

    Raises:
        ValueError: it does not fit in.
    """
    try:
        version, meta_bytes, body_bytes, stream_bytes = _ENTRY.unpack_from(data, at)
    except StructError as error:
        raise ValueError(str(error)) from None
    stream_end = at + _ENTRY.size + stream_bytes
    meta_end = stream_end + meta_bytes
    end = meta_end + body_bytes
    if end > len(data):
        raise ValueError(f"an entry of {end - at} bytes in {len(data) - at}")
    stream = data[at + _ENTRY.size : stream_end].decode()
    return Entry(stream, version, data[stream_end:meta_end], data[meta_end:end]), end


def entry_bytes(entry: Entry) -> int:
    """Return how many bytes an entry takes in a payload, for streams of ASCII."""
    return _ENTRY.size + len(entry.stream) + len(entry.meta) + len(entry.body)


def pack_frame(chain: Chain, payload: bytes, count: int, flags: int = 0) -> tuple[bytes, Chain]:
    """Return a frame's bytes (not yet padded to `align`) and what the next frame has to continue."""
    short = -len(payload) % 8
    if short:
        payload += bytes(short)
    sequence = chain.sequence + 1
    head = _FRAME.pack(
        _FRAME_MAGIC,
        flags,
        0,
        len(payload),
        count,
        sequence,
        chain.position + 1,
        chain.position,
        chain.log,
        chain.segment,
        chain.crc,
        crc32(payload),
        0,
    )
    crc = crc32(head)
    following = Chain(chain.log, chain.segment, sequence, chain.position + count, crc)
    return b"".join((head, _CRC.pack(crc), payload)), following


def aligned(size: int, align: int) -> int:
    """Round up to a multiple of `align`."""
    return size + -size % align


def parse_frame(data: bytes | memoryview, offset: int, limit: int, align: int, chain: Chain) -> Frame | Bad:
    """Read the frame at `offset` of `data`, which must continue `chain` and end by `limit`."""
    size = payload_bytes_at(data, offset)
    if size is None:
        return (
            Bad.NOTHING if data[offset : offset + FRAME_BYTES] == _NO_FRAME[: limit - offset] else Bad.HEADER
        )
    _, flags, _, _, count, sequence, first, synced, log, segment, previous, payload_crc, _ = (
        _FRAME.unpack_from(data, offset)
    )
    if (log, segment, sequence - 1, synced, first - 1, previous) != (
        chain.log,
        chain.segment,
        chain.sequence,
        chain.position,
        chain.position,
        chain.crc,
    ):
        return Bad.FOREIGN
    start = offset + FRAME_BYTES
    end = offset + aligned(FRAME_BYTES + size, align)
    if end > limit:
        return Bad.FOREIGN
    payload = memoryview(data)[start : start + size]
    if crc32(payload) != payload_crc:
        return Bad.PAYLOAD
    crc = _CRC.unpack_from(data, offset + FRAME_BYTES - 4)[0]
    following = Chain(log, segment, sequence, chain.position + count, crc)
    return Frame(offset, end, flags, first, count, payload, following)


def payload_bytes_at(data: bytes | memoryview, offset: int) -> int | None:
    """Return the payload's size of the frame header at `offset`; None when that header is not good."""
    if data[offset : offset + 4] != _FRAME_MAGIC or len(data) < offset + FRAME_BYTES:
        return None
    if _CRC.unpack_from(data, offset + FRAME_BYTES - 4)[0] != crc32(data[offset : offset + FRAME_BYTES - 4]):
        return None
    size: int = _FRAME.unpack_from(data, offset)[3]
    return size


def find_frame(data: bytes, offset: int) -> int | None:
    """Return where the next good frame header at or after `offset` is, whatever log it belongs to."""
    while (offset := data.find(_FRAME_MAGIC, offset)) >= 0:
        if payload_bytes_at(data, offset) is not None:
            return offset
        offset += 1
    return None


def positions_at(data: bytes, offset: int) -> tuple[int, int]:
    """Return first position and count of the good frame header at `offset`."""
    fields = _FRAME.unpack_from(data, offset)
    return fields[6], fields[4]


def unpack_entries(payload: memoryview, count: int) -> list[Entry]:
    """Return the entries of a payload whose checksum was good.

    Raises:
        ValueError: they do not fill it.
    """
    entries = []
    at = 0
    unpack = _ENTRY.unpack_from
    new = tuple.__new__  # a third of the time of `Entry(...)`, on the path of every replay
    data = bytes(payload)
    try:
        for _ in range(count):
            version, meta_bytes, body_bytes, stream_bytes = unpack(data, at)
            stream_end = at + 18 + stream_bytes
            meta_end = stream_end + meta_bytes
            stream = data[at + 18 : stream_end].decode()
            at = meta_end + body_bytes
            entries.append(new(Entry, (stream, version, data[stream_end:meta_end], data[meta_end:at])))
    except StructError as error:
        raise ValueError(str(error)) from None
    if aligned(at, 8) != len(data):
        raise ValueError("the entries do not fill their frame")
    return entries


def last_versions(payload: memoryview, count: int) -> dict[str, int]:
    """Return the last version of each stream that has entries in a payload whose checksum was good.

    Raises:
        ValueError: there are fewer entries in it.
    """
    found: dict[bytes, int] = {}
    at = 0
    unpack = _ENTRY.unpack_from
    data = bytes(payload)
    try:
        for _ in range(count):
            version, meta_bytes, body_bytes, stream_bytes = unpack(data, at)
            stream_end = at + 18 + stream_bytes
            found[data[at + 18 : stream_end]] = version
            at = stream_end + meta_bytes + body_bytes
    except StructError as error:
        raise ValueError(str(error)) from None
    return {stream.decode(): version for stream, version in found.items()}


def chain_at(data: bytes, offset: int) -> Chain:
    """Return what the good frame header at `offset` continues, for reading on behind damage."""
    fields = _FRAME.unpack_from(data, offset)
    return Chain(
        log=fields[8], segment=fields[9], sequence=fields[5] - 1, position=fields[6] - 1, crc=fields[10]
    )
