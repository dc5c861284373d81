"""Facts are never refused: any events in any order, also about things that are not there."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import DOMAINS
from engine.domain.contract import members
from engine.domain.coupon import Discount
from engine.domain.group.state import Spot
from engine.domain.order import Order, OrderChange, OrderLine
from engine.domain.user.messages import EventSent
from tests.harness_domain import NOW, STREAM_OF, Stream, check_replay

few = st.sampled_from(["o1", "o2", "3-1", "ramen", "c1", "self"])
st.register_type_strategy(OrderLine, st.builds(OrderLine, line=few, product=few, status=st.just("WAITING")))
st.register_type_strategy(Order, st.builds(Order, order=few, status=st.just("PLACED")))
st.register_type_strategy(
    OrderChange,
    st.builds(OrderChange, order=few, at=st.just(NOW), status=st.sampled_from(["READY", "CANCELLED", None])),
)
st.register_type_strategy(Discount, st.sampled_from([Discount(1000), Discount(percent=10, cap=500)]))
st.register_type_strategy(msgspec.Raw, st.sampled_from([msgspec.Raw(b"{}"), msgspec.Raw(b"[1]")]))
partitions, offsets = st.sampled_from([-1, 0, 1, 2, 64]), st.integers(0, 9)
st.register_type_strategy(Spot, st.builds(Spot, partitions, offsets))

_REFERENCES = {"coupon", "order", "line", "product", "call", "table", "notice", "store", "user"}
_REFERENCES |= {"payment", "refund", "attempt", "table", "task"}


def event_of(kind):
    """Any event of a domain: ids from a few, everything else at random."""

    def build(event):
        fields = {
            field.name: few
            for field in msgspec.structs.fields(event)
            if field.name in _REFERENCES and field.type is str
        }
        names = [field.name for field in msgspec.structs.fields(event)]
        times = {name: st.just(NOW) for name in names if name == "at" or name.endswith("_at")}
        if "status" in event.__struct_fields__:
            fields["status"] = st.sampled_from(["PLACED", "COOKING", "READY"])
        if "confidence" in event.__struct_fields__:
            fields["confidence"] = st.floats(0, 1)
        if {"partition", "upto"} <= set(event.__struct_fields__):
            fields |= {"partition": partitions, "upto": offsets}
        if event is EventSent:
            fields["data"] = st.dictionaries(st.text(), st.integers() | st.text())
        return st.builds(event, **fields, **times)

    return st.one_of([build(event) for event in members(DOMAINS[kind].Event)])


@pytest.mark.parametrize("kind", DOMAINS)
def test_evolve_takes_any_event(kind):
    """No event raises, whatever came before; replay and patches still agree with the state."""
    events = st.lists(event_of(kind), max_size=12)

    @settings(max_examples=60)
    @given(events)
    def run(events):
        stream = Stream(STREAM_OF[kind])
        for event in events:
            stream.evolve(event)
        stream.check()
        check_replay(stream, len(events) // 2)
        stream.domain.deadline(stream.state)

    run()
