"""What holds for every command and event: roles, sizes, names, and that every one is handled."""

import json
import re

import msgspec
import pytest

from engine.domain import DOMAINS, store, table, user
from engine.domain.contract import Command, Event, members
from engine.domain.reactions import FOLLOWED
from engine.domain.store.kitchen import RecallOrder
from engine.domain.store.menu import AdjustStock, PutProduct
from engine.domain.store.orders import CreateOrder
from engine.domain.store.shop import ConfigureStore
from engine.domain.table.cart import AddToCart
from tests.harness_domain import event_types

COMMANDS = [(kind, command) for kind, domain in DOMAINS.items() for command in members(domain.Command)]

ROLES = {
    "owner": "RefundPayment ResolveRefund "
    "ConfigureStore PutProduct ResolvePayment CreateCoupon ScheduleCampaign CancelCampaign",
    "owner staff": "OpenStore CloseStore PauseOrders ResumeOrders SetSoldOut AdjustStock AcceptOrder "
    "RejectOrder StartCooking MarkItemReady MarkReady MarkServed RecallOrder CancelLine AnswerCall "
    "CloseTable QueryPayment SettleTable SettleOrder IdentifyCustomer",
    "owner staff table": "OpenTable AddToCart ChangeQuantity RemoveFromCart SubmitCart CallStaff",
    "owner staff user": "FollowStore UnfollowStore",
    "owner staff table user": "PreparePayment ApprovePayment CreateOrder CancelOrder IssueCoupon",
    "service": "Notify StartTask AdvanceTask CompleteTask FailTask CleanupTasks SendEvent",
    "": "ReceiveEvent "
    "ForgetTasks NoteVisit CountVisit MakeTopic Publish Join Renew Leave EndLeases Pull "
    "Ack Nack Park Seek Replay MissRecords "
    "SettleRefund RetryRefunds ExpireHolds ConfirmStock NoteCheckout SettleApproval ReconcilePayments "
    "RetireCoupons TurnCampaigns RecordCoupon RecordCouponUse ShowOffers "
    "TakeCart ArchiveOrders NoteTable NoteCall ReturnCart ShowMenu RecordOrder RecordChange",
}


def test_roles():
    """Who may send what; what nobody may send comes from inside."""
    actual = {command.__name__: " ".join(sorted(command.allowed)) for _, command in COMMANDS}
    assert actual == {name: roles for roles, names in ROLES.items() for name in names.split()}


@pytest.mark.parametrize(("kind", "command"), COMMANDS)
def test_commands_explain_themselves(kind, command):
    """The API's description is made of these sentences: each names the command's fields."""
    assert issubclass(command, Command)
    for field in command.__struct_fields__:
        assert re.search(rf"`{field}`", command.__doc__), f"{command.__name__} does not speak of {field}"


@pytest.mark.parametrize("kind", DOMAINS)
def test_a_domain_has_what_the_engine_calls(kind):
    """Collections are fields of the state, and each event is a struct with a past behind it."""
    domain = DOMAINS[kind]
    state = domain.State()
    assert all(getattr(state, name) == {} for name in domain.COLLECTIONS)
    assert domain.deadline(state) is None
    assert all(issubclass(event, Event) and event.__doc__ for event in members(domain.Event))


def test_what_is_followed_exists():
    """A renamed event would silently lose its consequences."""
    assert {name.partition(".")[2] for name in event_types()} >= FOLLOWED
    assert {"CartSubmitted", "OrderCreated", "OrderServed", "TableClosed", "CallAnswered"} <= FOLLOWED


def test_states_are_independent():
    """A fresh state shares nothing with another one."""
    for domain in (store, table, user):
        one, two = domain.State(), domain.State()
        assert all(getattr(one, name) is not getattr(two, name) for name in domain.COLLECTIONS)


ORDER = {"lines": [{"product": "ramen", "quantity": 1}]}


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (CreateOrder, {"lines": []}),
        (CreateOrder, {"lines": [ORDER["lines"][0]] * 101}),
        (CreateOrder, {"lines": [{"product": "ramen", "quantity": 0}]}),
        (CreateOrder, {"lines": [{"product": "ramen", "quantity": 1000}]}),
        (CreateOrder, {"lines": [{"product": "ramen", "quantity": "1"}]}),
        (CreateOrder, {"lines": [{"product": "ramen", "quantity": 1, "price": 1}]}),
        (CreateOrder, {"lines": [{"product": "ramen", "quantity": 1, "note": "x" * 501}]}),
        (CreateOrder, {"lines": [{"product": "x" * 65, "quantity": 1}]}),
        (CreateOrder, {"lines": [{"product": "ramen", "quantity": 1, "line": "a b"}]}),
        (CreateOrder, ORDER | {"order": "x" * 65}),
        (CreateOrder, ORDER | {"order": "o1\n"}),
        (CreateOrder, ORDER | {"order": "주문"}),
        (CreateOrder, ORDER | {"order": ""}),
        (CreateOrder, ORDER | {"table": "../3"}),
        (CreateOrder, ORDER | {"total": 1}),
        (CreateOrder, ORDER | {"shipping": {"name": "김"}}),
        (PutProduct, {"product": "a b", "name": "a", "price": 1}),
        (PutProduct, {"product": "a", "name": "", "price": 1}),
        (PutProduct, {"product": "a", "name": "x" * 201, "price": 1}),
        (PutProduct, {"product": "a", "name": "a", "price": -1}),
        (PutProduct, {"product": "a", "name": "a", "price": 100_000_001}),
        (PutProduct, {"product": "a", "name": "a", "price": 1.5}),
        (PutProduct, {"product": "a", "name": "a", "price": 1, "stock": -1}),
        (PutProduct, {"product": "a", "name": "a", "price": 1, "options": [{}] * 11}),
        (AdjustStock, {"product": "a", "delta": 1, "reason": ""}),
        (ConfigureStore, {"name": "a", "payment_mode": "later"}),
        (ConfigureStore, {"name": "a", "payment_mode": "postpay", "hold_seconds": 0}),
        (ConfigureStore, {"name": "a", "payment_mode": "postpay", "hold_seconds": 3601}),
        (RecallOrder, {"order": "o1", "status": "PLACED"}),
        (AddToCart, {"product": "a", "quantity": 1, "colour": "red"}),
    ],
)
def test_sizes_are_checked_while_decoding(command, fields):
    """Nothing outside the limits comes near a decision."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(fields), type=command)


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (CreateOrder, ORDER | {"order": "A-z_0.9" + "x" * 57, "table": "3", "user": "u1"}),
        (CreateOrder, ORDER | {"shipping": {"name": "김", "phone": "010", "address": "서울"}}),
        (PutProduct, {"product": "a", "name": "라면", "price": 100_000_000, "stock": None}),
        (AddToCart, {"product": "a", "quantity": 999, "options": ["x"], "note": "", "by": "민지"}),
    ],
)
def test_what_fits_is_taken(command, fields):
    """The largest values are still fine."""
    assert msgspec.json.decode(json.dumps(fields), type=command)


def test_every_command_has_a_schema():
    """The API's description can be made of them."""
    schemas, _ = msgspec.json.schema_components([command for _, command in COMMANDS])
    assert len(schemas) == len(COMMANDS)
