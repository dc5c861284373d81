"""A group under any sequence of members, words and clocks, against books that know no events."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.domain import group
from engine.domain.group.delivery import Pull, Window
from engine.domain.group.members import EndLeases, Join, Leave, Renew
from engine.domain.group.moving import Replay
from engine.domain.group.state import PARKED_MAX, WINDOW
from engine.domain.group.words import Ack, Nack, Park
from engine.errors import Rejected
from tests.harness_domain import NOW_MS, Stream, check_replay

PARTITIONS = 2
MEMBERS = ("m1", "m2", "m3")
BY = "service:embedded"
members = st.sampled_from(MEMBERS)


class Groups(RuleBasedStateMachine):
    """Records come in, members come and go, and words are said, also late ones."""

    def __init__(self):
        super().__init__()
        self.stream = Stream("group:news/readers")
        self.now_ms = NOW_MS
        self.records = [[] for _ in range(PARTITIONS)]  # keys
        self.handled = set()
        self.parked = set()
        self.replayed = set()
        self.deliveries = {}  # (partition, offset) -> how often
        self.out = {}  # lease -> (member, partition, offset)

    def send(self, command):
        try:
            return self.stream.answer(command, BY, self.now_ms)
        except Rejected as refusal:
            return refusal.code

    @rule(
        partition=st.integers(0, PARTITIONS - 1), keys=st.lists(st.sampled_from(["a", "b", None]), max_size=5)
    )
    def publish(self, partition, keys):
        self.records[partition] += keys

    @rule(member=members, lease_ms=st.sampled_from([1000, 5000]))
    def join(self, member, lease_ms):
        self.send(Join(member, (0,) * PARTITIONS, lease_ms))

    @rule(member=members)
    def leave(self, member):
        self.send(Leave(member))

    @rule(member=members, some=st.booleans())
    def renew(self, member, some):
        self.send(Renew(member, tuple(self.out)[:3] if some else ()))

    @rule(ms=st.sampled_from([1, 500, 1000, 3000, 20_000]))
    def wait(self, ms):
        """Time goes by; deadlines are kept."""
        end_ms = self.now_ms + ms
        while (due := group.deadline(self.stream.state)) is not None and due[0] <= end_ms:
            self.now_ms = max(self.now_ms, due[0])
            assert due[1] == EndLeases()
            self.send(due[1])
            after = group.deadline(self.stream.state)
            assert after is None or after[0] > self.now_ms, "a deadline does not come to its end"
        self.now_ms = end_ms

    @rule(member=members, limit=st.integers(1, 4), stale=st.integers(0, 2))
    def pull(self, member, limit, stale):
        """The view may be older than the state: it begins before what is committed meanwhile."""
        places = self.stream.state.places
        windows = []
        for number, place in enumerate(places):
            first = max(0, place.committed - stale)
            windows.append(Window(number, first + 1, tuple(self.records[number][first:])))
        before = {(number, offset) for number, place in enumerate(places) for offset in place.under_way}
        told = self.send(Pull(member, tuple(windows), limit))
        if told == "unknown_member":
            assert member not in self.stream.state.members
            return
        assert len(told["records"]) <= limit
        for one in told["records"]:
            spot = one["partition"], one["offset"]
            assert spot not in before, "given out while another has it"
            assert spot not in self.handled or spot in self.replayed, "given out though it is handled"
            assert one["partition"] in self.stream.state.members[member].partitions
            self.check_order(*spot)
            self.deliveries[spot] = self.deliveries.get(spot, 0) + 1
            self.out[one["lease"]] = (member, *spot)
            assert (one["attempt"] == 1) == (self.deliveries[spot] == 1), "doubles are known as such"

    def check_order(self, partition, offset):
        key = self.records[partition][offset - 1]
        if key is None or (partition, offset) in self.replayed:
            return
        for earlier in range(1, offset):
            if self.records[partition][earlier - 1] == key:
                spot = partition, earlier
                assert spot in self.handled | self.parked, f"{spot} of the same key is not done"

    @precondition(lambda self: self.out)
    @rule(data=st.data(), word=st.sampled_from(["ack", "ack", "nack", "park"]), other=st.booleans())
    def say(self, data, word, other):
        """Any lease that ever was, good or late, shown by anybody."""
        lease = data.draw(st.sampled_from(sorted(self.out)))
        owner, *spot = self.out[lease]
        member = data.draw(members) if other else owner
        spot = tuple(spot)
        place = self.stream.state.places[spot[0]]
        under = place.under_way.get(spot[1])
        good = under is not None and under.member == member and lease.endswith(f"-{under.delivery}")
        command = {
            "ack": Ack(member, (lease,)),
            "nack": Nack(member, (lease,), data.draw(st.sampled_from([None, 0, 2000]))),
            "park": Park(member, (lease,)),
        }[word]
        told = self.send(command)
        assert told == {"counted": int(good), "late": [] if good else [lease]}
        if good and word == "ack":
            self.handled.add(spot)
            self.parked.discard(spot)
        self.note_parked()

    def note_parked(self):
        for parked in self.stream.state.parked.values():
            self.parked.add((parked.partition, parked.offset))

    @rule(drop=st.booleans())
    def replay(self, drop):
        self.note_parked()
        if not drop and self.stream.state.places:
            self.replayed |= {(one.partition, one.offset) for one in self.stream.state.parked.values()}
        self.send(Replay(drop=drop))

    @invariant()
    def committed_passes_nothing(self):
        self.note_parked()
        for number, place in enumerate(self.stream.state.places):
            for offset in range(1, place.committed + 1):
                assert (number, offset) in self.handled | self.parked

    @invariant()
    def bounded(self):
        state = self.stream.state
        assert len(state.members) <= len(MEMBERS)
        assert len(state.parked) <= PARKED_MAX
        for place in state.places:
            assert len(place.done) <= WINDOW
            ahead = [*place.done, *place.under_way, *place.waiting]
            assert len(set(ahead)) == len(ahead), "a record is in one place only"
            assert all(offset > place.committed for offset in place.done)

    @invariant()
    def partitions_have_one_owner(self):
        shares = [one for member in self.stream.state.members.values() for one in member.partitions]
        assert not shares or sorted(shares) == list(range(PARTITIONS))

    def teardown(self):
        """In the end a willing member gets through everything, and nothing was left out."""
        if self.stream.state.places:
            self.wait(60_000)
            self.join("m1", 600_000 // 2)
            for other in MEMBERS[1:]:
                self.send(Leave(other))
            self.wait(60_000)
            for _ in range(1 + 2 * sum(map(len, self.records))):
                self.pull("m1", 4, 0)
                for lease, (member, *spot) in list(self.out.items()):
                    if member == "m1" and self.send(Ack("m1", (lease,)))["counted"]:
                        self.handled.add(tuple(spot))
            self.note_parked()
            for number, keys in enumerate(self.records):
                assert self.stream.state.places[number].committed == len(keys)
                for offset in range(1, len(keys) + 1):
                    assert (number, offset) in self.handled | self.parked, "left out"
        check_replay(self.stream, len(self.stream.events) // 2)


TestGroups = Groups.TestCase
TestGroups.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
