"""Times as text and back: the quick way for texts that are as we write them, and the thorough one agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.times import to_ms, to_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def thoroughly(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return (moment - EPOCH) // timedelta(milliseconds=1)


@given(st.integers(0, 253_402_300_799_999))
def test_text_and_back(ms: int) -> None:
    """Every moment up to the year 9999 comes back."""
    assert to_ms(to_text(ms)) == ms == thoroughly(to_text(ms))


@given(
    st.text("0123456789-:.TZW+ _٣", min_size=24, max_size=24)
    | st.from_regex(r"\d{4}.{12}:\d\d\..{3}Z", fullmatch=True)
)
def test_what_is_no_time_is_refused_as_ever(text: str) -> None:
    """Whatever has the length of a time of ours is read, or refused, as `datetime` does."""
    try:
        expected = thoroughly(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 (datetime has many words for it)
            to_ms(text)
    else:
        assert to_ms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T18:15:30.1_3Z",
        "2026-11-20T18:15:30. 13Z",
        "2026-11-20T18:15:30.+13Z",
        "2026-13-20T18:15:30.123Z",
    ],
)
def test_digits_are_digits(text: str) -> None:
    """What `int` would take is not enough."""
    with pytest.raises(ValueError):  # noqa: PT011 (datetime has many words for it)
        to_ms(text)


@pytest.mark.parametrize(
    "text", ["2026-W47-5T18:15:30.123Z", "2026-11-20 18:15:30.123Z", "2026-11-20T18:15:30.123+09:00"]
)
def test_other_ways_to_write_it(text: str) -> None:
    """ISO 8601 has several."""
    assert to_ms(text) == thoroughly(text)
