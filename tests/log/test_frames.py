"""The format: what is packed is what is read, and nothing else is taken for it."""

from __future__ import annotations

from struct import pack_into
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log import frames
from engine.log.frames import Bad, Chain, Frame, SegmentHeader
from engine.records import Entry

LOG = bytes(range(16))
CHAIN = Chain(LOG, 3, 10, 100, 0xABCD)
HEADER = SegmentHeader(8, LOG, "abcdefgh", 3, 1 << 20, 101, 11, 0xABCD)

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.from_regex(r"(store|table|user):[A-Za-z0-9_.-]{1,64}", fullmatch=True),
        st.integers(1, 2**64 - 1),
        st.binary(max_size=50),
        st.binary(max_size=300),
    ),
    min_size=1,
    max_size=8,
)


def packed(entries: list[Entry], flags: int = 0) -> tuple[bytes, Chain]:
    """Return a frame that continues `CHAIN`."""
    payload = b"".join(frames.pack_entry(entry) for entry in entries)
    return frames.pack_frame(CHAIN, payload, len(entries), flags)


@given(ENTRIES, st.sampled_from([8, 4096]))
def test_what_is_packed_is_read(entries: list[Entry], align: int) -> None:
    """A frame gives back its entries and says what follows it."""
    data, following = packed(entries)
    frame = frames.parse_frame(data.ljust(16_384, b"\0"), 0, 16_384, align, CHAIN)
    assert isinstance(frame, Frame)
    assert frames.unpack_entries(frame.payload, frame.entries) == entries
    assert frames.last_versions(frame.payload, frame.entries) == dict(entry[:2] for entry in entries)
    assert sum(map(frames.entry_bytes, entries)) <= len(frame.payload) < len(data)
    assert (frame.first_position, frame.entries, frame.chain) == (101, len(entries), following)
    assert following == Chain(LOG, 3, 11, 100 + len(entries), following.crc)
    assert frame.end % align == 0
    assert frame.end >= len(data)


@given(ENTRIES)
def test_frames_are_a_chain(entries: list[Entry]) -> None:
    """A second frame is read only behind the first one."""
    first, middle = packed(entries)
    second, _ = frames.pack_frame(middle, b"", 0, frames.SEAL)
    data = first + second
    assert isinstance(frames.parse_frame(data, len(first), len(data), 8, middle), Frame)
    assert frames.parse_frame(data, len(first), len(data), 8, CHAIN) is Bad.FOREIGN


def test_every_flipped_bit_of_a_frame_is_seen() -> None:
    """No bit of header or payload can change unnoticed."""
    data, _ = packed([Entry("store:s1", 7, b"meta", b'{"body": 1}')])
    cases = 0
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        frame = frames.parse_frame(bytes(damaged), 0, len(data), 8, CHAIN)
        assert frame is (Bad.HEADER if bit < frames.FRAME_BYTES * 8 else Bad.PAYLOAD)
        cases += 1
    print(f"{cases} cases")


def test_every_flipped_bit_of_a_segment_header_is_seen() -> None:
    """No bit of a segment's header can change unnoticed."""
    data = frames.pack_segment(HEADER)
    assert frames.unpack_segment(data) == HEADER
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(frames.NotASegment):
            frames.unpack_segment(bytes(damaged))


@given(st.binary(max_size=400), st.integers(0, 80))
def test_garbage_is_never_a_frame(data: bytes, offset: int) -> None:
    """Arbitrary bytes are refused without an exception, wherever one starts to read."""
    assert isinstance(frames.parse_frame(data, min(offset, len(data)), len(data), 8, CHAIN), Bad)
    assert frames.find_frame(data, offset) is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_length_is_not_believed_beyond_the_segment(payload_bytes: int, entries: int) -> None:
    """A header that is whole but speaks of bytes that are not there is refused, and nothing is allocated."""
    data = bytearray(packed([Entry("store:s1", 7, b"", b"x")])[0])
    real = len(data) - frames.FRAME_BYTES
    pack_into("<II", data, 8, payload_bytes, entries)
    pack_into("<I", data, 76, crc32(data[:76]))
    frame = frames.parse_frame(bytes(data), 0, len(data), 8, CHAIN)
    if payload_bytes != real:
        assert frame in (Bad.FOREIGN, Bad.PAYLOAD)
    else:
        assert isinstance(frame, Frame)


@given(st.integers(0, 30), st.binary(max_size=60))
def test_entries_that_do_not_fill_their_payload_are_refused(entries: int, payload: bytes) -> None:
    """Whatever a payload holds, reading it gives entries or a `ValueError`."""
    try:
        found = frames.unpack_entries(memoryview(payload), entries)
    except ValueError:
        return
    assert len(found) == entries


def test_a_newer_format_is_told_from_damage() -> None:
    """A good header that asks for a newer reader is `TooNew`; a newer writer alone is no reason to refuse."""
    for format_, min_reader, error in ((9, 1, None), (9, 9, frames.TooNew)):
        data = bytearray(frames.pack_segment(HEADER))
        pack_into("<HH", data, 8, format_, min_reader)
        pack_into("<I", data, 124, crc32(data[:124]))
        if error is None:
            assert frames.unpack_segment(bytes(data)) == HEADER
        else:
            with pytest.raises(error):
                frames.unpack_segment(bytes(data))


def test_the_next_frame_is_found_behind_damage() -> None:
    """Frames are found by their header's own checksum, also when what is before them is garbage."""
    first, middle = packed([Entry("store:s1", 7, b"", b"x" * 90)])
    second, _ = frames.pack_frame(middle, b"", 0)
    data = b"\xf6ONF" + bytes(40) + first[:50] + b"\xf6ONF\xf6" + second
    at = frames.find_frame(data, 0)
    assert at == len(data) - len(second)
    assert frames.chain_at(data, at) == middle
    assert frames.positions_at(data, at) == (102, 0)


def test_the_format_stays_as_it_is() -> None:
    """Bytes that earlier versions wrote are read for ever: these were written by format 1."""
    frame, _ = frames.pack_frame(CHAIN, frames.pack_entry(Entry("store:s1", 2, b"m", b"{}")), 1, frames.SEAL)
    assert frames.pack_segment(HEADER).hex() == GOLDEN_SEGMENT
    assert frame.hex() == GOLDEN_FRAME


GOLDEN_SEGMENT = (
    "f64f4e44414c4f470100010001000800000102030405060708090a0b0c0d0e0f61626364656667680000000000000000"
    "0300000000000000000010000000000065000000000000000b000000000000006400000000000000cdab000000000000"
    "00000000000000000000000000000000000000000000000000000000f33ca814"
)
GOLDEN_FRAME = (
    "f64f4e460100000020000000010000000b00000000000000650000000000000064000000000000000001020304050607"
    "08090a0b0c0d0e0f0300000000000000cdab00006d44db0a00000000e2e7958f02000000000000000100000002000000"
    "080073746f72653a73316d7b7d000000"
)
