"""A group: who takes part, who gets which record, and what becomes of it."""

import pytest

from engine.domain import group
from engine.domain.group.delivery import Delivered, Handed, Pull, Window
from engine.domain.group.members import (
    EndLeases,
    GroupMade,
    Join,
    LeasesEnded,
    Leave,
    MemberJoined,
    MemberLeft,
    MemberRenewed,
    PartitionsAssigned,
    Renew,
)
from engine.domain.group.moving import MissRecords, RecordsMissed, Replay, Seek
from engine.domain.group.state import DELIVERIES_MAX, MEMBERS_MAX, PARKED_MAX, TRIES, WINDOW, Spot
from engine.domain.group.words import Ack, Back, Handled, Nack, Park, PutBack, RecordsParked
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream, check, check_replay

BY = "service:embedded"
LEASE = 30_000
JOINED = [
    GroupMade((0,)),
    MemberJoined("m", LEASE, NOW_MS + LEASE),
    PartitionsAssigned(1, {"m": (0,)}),
]
KEYS = Window(0, 1, ("a", "b", "a", None, None))


def joined(*members, partitions=1):
    """A group with these members."""
    stream = Stream("group:news/readers")
    for member in members:
        stream.do(Join(member, (0,) * partitions), BY)
    return stream


def pull(stream, member="m", window=KEYS, limit=10, now_ms=NOW_MS):
    """Return what a member gets: leases by offset."""
    told = stream.answer(Pull(member, (window,), limit), BY, now_ms)["records"]
    return {one["offset"]: one["lease"] for one in told}


def test_the_first_member_makes_the_group():
    """It begins where that member says, with all partitions."""
    check(group, [], Join("m", (0,)), JOINED, by=BY)
    stream = joined("m")
    told = stream.answer(Join("m", (7,)), BY)
    assert told == {"member": "m", "partitions": (0,), "generation": 2, "lease_ms": LEASE}
    assert stream.state.places[0].committed == 0, "only the first one says where to begin"


@pytest.mark.parametrize(("partitions", "members"), [(3, 1), (3, 2), (3, 3), (3, 5), (7, 3)])
def test_partitions_are_shared_evenly(partitions, members):
    """Each has one owner, as members come and go, and no more move than have to."""
    names = [f"m{number}" for number in range(members)]
    stream = joined(partitions=partitions)
    before = {}
    for command in [*(Join(name, (0,) * partitions) for name in names), *map(Leave, names[:-1])]:
        stream.do(command, BY)
        shares = {name: member.partitions for name, member in stream.state.members.items()}
        assert sorted(one for share in shares.values() for one in share) == list(range(partitions))
        sizes = [len(share) for share in shares.values()]
        assert max(sizes) - min(sizes) <= 1
        if isinstance(command, Join) and before:
            kept = sum(one in shares[name] for name, share in before.items() for one in share)
            assert kept == partitions - len(shares[command.member]), "only the new one's were taken away"
        before = shares


def test_records_come_in_order_per_key():
    """While one of a key is under way, the next waits; records without a key wait for nobody."""
    given = (Handed(0, 1, 1, "a"), Handed(0, 2, 1, "b"), Handed(0, 4, 1), Handed(0, 5, 1))
    then = [Delivered("m", 1, NOW_MS + LEASE, given)]
    stream = check(group, JOINED, Pull("m", (KEYS,)), then, by=BY)
    assert stream.do(Pull("m", (KEYS,)), BY) == []
    stream.do(Ack("m", ("0-1-1",)), BY)
    assert list(pull(stream)) == [3]


def test_what_is_not_shown_from_the_front_is_not_given_out():
    """An earlier record of the same key may lie before the window."""
    check(group, JOINED, Pull("m", (Window(0, 2, ("a",)),)), [], by=BY)
    check(group, JOINED, Pull("m", (Window(1, 1, ("a",)),)), [], by=BY)


def test_the_window_is_bounded():
    """A record that nobody handles holds the others back in the end, not at once."""
    stream = joined("m")
    keys = tuple(f"k{n}" for n in range(WINDOW + 50))
    leases = pull(stream, window=Window(0, 1, keys), limit=1000)
    assert list(leases) == list(range(1, WINDOW + 1))
    for offset, lease in leases.items():
        if offset > 1:
            stream.do(Ack("m", (lease,)), BY)
    assert pull(stream, window=Window(0, 1, keys)) == {}
    assert len(stream.state.places[0].done) == WINDOW - 1
    stream.do(Ack("m", (leases[1],)), BY)
    assert stream.state.places[0].committed == WINDOW
    assert list(pull(stream, window=Window(0, WINDOW + 1, keys[WINDOW:]), limit=3)) == [1001, 1002, 1003]


def test_committed_never_passes_what_is_not_handled():
    """Words may come in any order."""
    stream = joined("m")
    leases = pull(stream)
    then = [Handled("m", NOW_MS + LEASE, (Spot(0, 4), Spot(0, 2)))]
    assert stream.do(Ack("m", (leases[4], leases[2])), BY) == then
    assert stream.state.places[0].committed == 0
    stream.do(Ack("m", (leases[1],)), BY)
    assert stream.state.places[0].committed == 2
    stream.do(Ack("m", tuple(pull(stream).values())), BY)
    assert (stream.state.places[0].committed, stream.state.places[0].done) == (4, {})
    check_replay(stream, 4)


def test_a_lease_that_ended_hands_the_record_over():
    """The word of who had it comes too late, and changes nothing."""
    stream = joined("m")
    leases = pull(stream, limit=1)
    now_ms = NOW_MS + LEASE
    assert group.deadline(stream.state) == (now_ms, EndLeases())
    then = [LeasesEnded((Spot(0, 1),), now_ms), MemberLeft("m", "ended")]
    assert stream.do(EndLeases(), BY, now_ms) == then
    stream.do(Join("other", (0,)), BY, now_ms)
    again = pull(stream, "other", limit=1, now_ms=now_ms)
    assert list(again) == [1]
    assert again != leases
    assert stream.answer(Ack("m", (leases[1],)), BY) == {"counted": 0, "late": [leases[1]]}
    assert stream.answer(Ack("other", (leases[1],)), BY) == {"counted": 0, "late": [leases[1]]}
    assert stream.answer(Ack("other", (again[1],)), BY) == {"counted": 1, "late": []}


def test_a_lease_is_renewed():
    """By `renew`, of the records that it names; a pull in vain keeps only the member."""
    stream = joined("m")
    leases = pull(stream, limit=2)
    stream.do(Ack("m", (leases[2],)), BY)
    now_ms = NOW_MS + LEASE - 1
    told = stream.answer(Renew("m", tuple(leases.values())), BY, now_ms)
    assert told["late"] == [leases[2]]
    assert stream.events[-1] == MemberRenewed("m", now_ms + LEASE, (Spot(0, 1),))
    assert group.deadline(stream.state) == (now_ms + LEASE, EndLeases())
    stream.do(Renew("m"), BY, now_ms + 1)
    assert group.deadline(stream.state) == (now_ms + LEASE, EndLeases()), "that record was not named"
    check(
        group,
        JOINED,
        Pull("m", ()),
        [MemberRenewed("m", NOW_MS + 20_000 + LEASE)],
        by=BY,
        now_ms=NOW_MS + 20_000,
    )
    check(group, JOINED, Pull("m", ()), [], by=BY, now_ms=NOW_MS + 1000)


def test_who_joins_again_has_nothing_in_hand():
    """A process that was killed starts anew under its name."""
    stream = joined("m")
    leases = pull(stream, limit=1)
    assert LeasesEnded((Spot(0, 1),), NOW_MS) in stream.do(Join("m", (0,)), BY)
    assert list(pull(stream, limit=1)) == [1]
    assert stream.answer(Ack("m", (leases[1],)), BY)["late"] == [leases[1]]


def test_a_record_that_came_back_waits_and_is_parked_in_the_end():
    """1 try and 3 retries, with growing delays; a later record of its key waits for it."""
    stream = joined("m")
    now_ms = NOW_MS
    for failures in range(1, TRIES):
        [lease] = pull(stream, limit=1, now_ms=now_ms).values()
        due_ms = now_ms + 1000 * 2 ** (failures - 1)
        then = [PutBack("m", now_ms + LEASE, (Back(0, 1, due_ms, failures),), "no")]
        assert stream.do(Nack("m", (lease,), reason="no"), BY, now_ms) == then
        assert 1 not in pull(stream, window=Window(0, 1, ("a", "b", "a")), now_ms=due_ms - 1)
        assert 3 not in stream.state.places[0].under_way
        now_ms = due_ms
    [lease] = pull(stream, limit=1, now_ms=now_ms).values()
    then = [RecordsParked((Spot(0, 1),), "no", now_ms)]
    assert stream.do(Nack("m", (lease,), reason="no"), BY, now_ms) == then
    parked = stream.state.parked["0-1"]
    assert (parked.key, parked.attempts, parked.reason) == ("a", TRIES, "no")
    assert 3 in pull(stream, now_ms=now_ms)


def test_a_delay_of_ones_own():
    """Also none at all."""
    stream = joined("m")
    [lease] = pull(stream, limit=1).values()
    stream.do(Nack("m", (lease,), 0), BY)
    assert list(pull(stream, limit=1)) == [1]


def test_a_record_that_ends_its_members_is_parked():
    """Nobody lives to say a word on it."""
    stream = joined("m")
    for _ in range(DELIVERIES_MAX):
        assert list(pull(stream, limit=1)) == [1]
        last = stream.do(Join("m", (0,)), BY)
    assert RecordsParked((Spot(0, 1),), "its members ended without a word on it", NOW_MS) in last
    assert list(pull(stream, limit=1)) == [2]


def test_parked_records_come_back_or_are_dropped():
    """An operator says which."""
    stream = joined("m")
    leases = pull(stream)
    stream.do(Park("m", (leases[1], leases[2]), "unreadable"), BY)
    assert stream.state.places[0].committed == 2
    assert stream.answer(Replay(("0-2",), drop=True), BY) == {"records": ["0-2"]}
    assert stream.answer(Replay(), BY) == {"records": ["0-1"]}
    assert stream.do(Replay(), BY) == []
    assert not stream.state.parked
    again = pull(stream, window=Window(0, 3, ("a",)))
    assert list(again) == [1], "it is given out though the group is beyond it; the next of its key waits"
    stream.do(Ack("m", (again[1],)), BY)
    assert stream.state.places[0].committed == 2
    check_replay(stream, 5)


def test_parked_records_are_bounded():
    """More cannot be parked by hand, and failures go on being tried."""
    stream = joined("m")
    keys = (None,) * WINDOW
    stream.do(Park("m", tuple(pull(stream, window=Window(0, 1, keys), limit=WINDOW).values())), BY)
    assert len(stream.state.parked) == PARKED_MAX
    window = Window(0, WINDOW + 1, (None,))
    for failures in range(1, TRIES + 2):
        [lease] = pull(stream, window=window).values()
        [event] = stream.do(Nack("m", (lease,), 0), BY)
        assert isinstance(event, PutBack)
        assert event.records[0].failures == failures
    [lease] = pull(stream, window=window).values()
    with pytest.raises(Rejected, match="parked"):
        stream.decide(Park("m", (lease,)), BY)


def test_a_group_goes_back_and_ahead():
    """What was under way before counts no longer."""
    stream = joined("m")
    leases = pull(stream)
    stream.do(Seek({0: 4}), BY)
    assert list(pull(stream, window=Window(0, 5, ("z",)))) == [5]
    stream.do(Seek({0: 0}), BY)
    again = pull(stream)
    assert list(again) == list(leases)
    assert again != leases
    assert stream.answer(Ack("m", (leases[1],)), BY)["counted"] == 0


def test_records_that_are_gone_are_passed_over_and_counted():
    """Never in silence."""
    stream = joined("m")
    leases = pull(stream)
    stream.do(Ack("m", (leases[2],)), BY)
    assert stream.do(MissRecords(0, 3), BY) == [RecordsMissed(0, 3, 1)]
    assert (stream.state.places[0].committed, stream.state.missed) == (3, 1)
    assert stream.do(MissRecords(0, 3), BY) == []
    assert stream.answer(Ack("m", (leases[1],)), BY)["counted"] == 1
    assert stream.state.places[0].committed == 3


@pytest.mark.parametrize(
    ("given", "when", "code"),
    [
        ([], Pull("m", ()), "unknown_member"),
        (JOINED, Renew("nobody"), "unknown_member"),
        (JOINED, Ack("m", ("0-1",)), "lease_invalid"),
        ([], Seek({0: 1}), "unknown_group"),
        (JOINED, Seek({1: 1}), "unknown_partition"),
        (JOINED, Replay(("0-1",)), "unknown_record"),
    ],
)
def test_refusals(given, when, code):
    """Each with its code."""
    check(group, given, when, rejected=code, by=BY)


def test_a_group_has_only_so_many_members():
    """Who is in may start anew."""
    stream = joined(*(f"m{n}" for n in range(MEMBERS_MAX)))
    with pytest.raises(Rejected) as refusal:
        stream.decide(Join("more", (0,)), BY)
    assert refusal.value.code == "too_many_members"
    stream.do(Join("m0", (0,)), BY)
    assert stream.do(Leave("nobody"), BY) == []


def test_a_clock_that_was_set_back_does_not_prolong_leases():
    """Who is gone by then loses its records after one lease, and not when the clock is there again."""
    stream = joined("dead", "m", partitions=2)
    assert len(pull(stream, "dead")) == 4
    back_ms = NOW_MS - 3_600_000
    events = stream.do(Pull("m", ()), BY, back_ms)
    spots = tuple(Spot(0, offset) for offset in (1, 2, 4, 5))
    until_ms = back_ms + LEASE
    assert events == [MemberRenewed("dead", until_ms, spots), MemberRenewed("m", until_ms)]
    assert stream.do(Pull("m", ()), BY, back_ms + 1) == []
    stream.do(Renew("m"), BY, until_ms - 1)
    stream.do(EndLeases(), BY, until_ms)
    assert list(stream.state.members) == ["m"]
    assert list(pull(stream, "m", now_ms=until_ms + 1)) == [1, 2, 4, 5]
