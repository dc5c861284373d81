"""A partition of a topic: what is accepted, once, and where it is then."""

from msgspec import Raw

from engine.domain import topic
from engine.domain.topic import (
    IDS_MAX,
    ONCE_MS,
    RECORDS_MAX,
    MakeTopic,
    Publish,
    Published,
    Record,
    TopicMade,
    evolve,
    partition_of,
)
from tests.harness_domain import NOW_MS, Stream, check, check_replay

DATA = Raw(b'{"n":1}')
BY = "service:pos"


def record(name, key="k"):
    return Record(name, DATA, key, "Sold")


def published(name, key="k", at_ms=NOW_MS):
    return Published(name, DATA, at_ms, key, "Sold")


def test_a_record_is_accepted_once():
    """Its repeat gets the first offset again, alone or among others, and within one command."""
    stream = check(topic, [published("a")], Publish((record("a"),)), [], by=BY)
    told = stream.answer(Publish((record("b"), record("a"), record("b"))), BY)["records"]
    assert told == [
        {"event_id": "b", "offset": 2, "duplicate": False},
        {"event_id": "a", "offset": 1, "duplicate": True},
        {"event_id": "b", "offset": 2, "duplicate": True},
    ]
    check_replay(stream, 1)


def test_an_id_is_free_again_after_a_day():
    """Then it is another record."""
    later = Publish((record("a"),))
    check(topic, [published("a")], later, [], by=BY, now_ms=NOW_MS + ONCE_MS - 1)
    new = published("a", at_ms=NOW_MS + ONCE_MS)
    check(topic, [published("a")], later, [new], by=BY, now_ms=NOW_MS + ONCE_MS)


def test_ids_are_bounded():
    """A partition that takes very much remembers the newest."""
    state = topic.State()
    for number in range(IDS_MAX + 3000):
        evolve(state, published(f"e{number}"))
    assert IDS_MAX <= len(state.ids) < IDS_MAX + RECORDS_MAX + 1024
    assert f"e{IDS_MAX + 2999}" in state.ids
    assert state.head == IDS_MAX + 3000
    for number in range(1024):
        evolve(state, published(f"f{number}", at_ms=NOW_MS + ONCE_MS))
    assert len(state.ids) <= 1024, "what is older than a day is forgotten"


def test_the_oldest_known_id_is_told_beside_as_many_new_ones_as_can_be():
    """What a command answers with is not forgotten while it is carried out."""
    for count in (IDS_MAX, IDS_MAX + 1024 - 300):
        stream = Stream("topic:news/0")
        for number in range(count):
            evolve(stream.state, published(f"e{number}"))
        old = f"e{count - IDS_MAX}"
        new = tuple(record(f"n{number}") for number in range(RECORDS_MAX - 1))
        told = stream.answer(Publish((record(old), *new)), BY)["records"]
        assert told[0] == {"event_id": old, "offset": count - IDS_MAX + 1, "duplicate": True}
        assert sum(one["duplicate"] for one in told) == 1


def test_how_many_partitions_there_are_is_fixed():
    """A key must not change its place."""
    stream = Stream("topic:news/partitions")
    assert stream.do(MakeTopic(3), BY) == [TopicMade(3)]
    assert stream.do(MakeTopic(5), BY) == []
    assert stream.answer(MakeTopic(5), BY) == {"partitions": 3}
    check(topic, [TopicMade(3)], Publish((record("a"),)), rejected="not_a_partition", by=BY)


def test_a_key_always_goes_to_one_partition():
    """By CRC-32, which other languages have too."""
    assert [partition_of(key, 3) for key in ("cust123", "고객", "a")] == [1, 0, 0]
    assert {partition_of(f"c{n}", 3) for n in range(30)} == {0, 1, 2}
