"""What the shop knows of its tables and calls."""

import pytest

from engine.domain import store
from engine.domain.store import announce
from engine.domain.store.announce import MenuAnnounced
from engine.domain.store.tables import CallNoted, NoteCall, NoteTable, TableNoted
from tests.domain.shop_given import EXTRA, MENU, OPEN, SIGN, SIZE, TABLE_3, item
from tests.harness_domain import NOW, check

SEATED = [*MENU, TABLE_3]
OPENED = NoteTable("3", 4, True, 2, NOW)
CALL = CallNoted("3", "c5", "water", NOW)
EVERYTHING = (
    item(),
    item("kimbap", name="김밥", price=3000),
    item("notebook", name="노트북", price=1_500_000),
    item("tteok", name="떡볶이", price=4000, options=(SIZE, EXTRA)),
)


def test_a_table_that_opens_is_told_everything():
    """The whole menu and the shop's sign, for that table alone."""
    then = [TABLE_3, MenuAnnounced(("3",), EVERYTHING, SIGN)]
    stream = check(store, [*MENU, TableNoted("2", 1, True)], OPENED, then)
    assert stream.visible()["tables"]["3"] == {"table": "3", "open": True, "guests": 2, "opened_at": NOW}


def test_without_a_menu_there_is_still_the_shop():
    """A table in an empty shop knows that it is open."""
    check(store, OPEN, OPENED, [TABLE_3, MenuAnnounced(("3",), shop=SIGN)])


def test_a_large_menu_goes_out_in_pieces(monkeypatch):
    """The shop's sign goes with the first."""
    monkeypatch.setattr(announce, "ANNOUNCED_MAX", 3)
    then = [
        TABLE_3,
        MenuAnnounced(("3",), EVERYTHING[:3], SIGN),
        MenuAnnounced(("3",), EVERYTHING[3:]),
    ]
    check(store, MENU, OPENED, then)


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        (SEATED, OPENED, []),
        (MENU, NoteTable("3", 4, False), []),
        (SEATED, NoteTable("3", 4, False), [TableNoted("3", 4)]),
        (SEATED, NoteTable("3", 4, False, calls=("c5",)), [TableNoted("3", 4, calls=("c5",))]),
        (SEATED, NoteCall("3", "c5", "water", NOW), [CALL]),
        ([*SEATED, CALL], NoteCall("3", "c5", "water", NOW), []),
        (
            [*SEATED, CALL],
            NoteCall("3", "c5", "water", NOW, answered=True),
            [CallNoted("3", "c5", "water", NOW, answered=True)],
        ),
        (SEATED, NoteCall("3", "c5", "water", NOW, answered=True), []),
    ],
)
def test_notes(given, command, then):
    """What the tables say, once."""
    check(store, given, command, then)


def test_calls_end_with_the_sitting():
    """No bell rings for a party that has left."""
    stream = check(store, [*SEATED, CALL], NoteTable("3", 4, False, calls=("c5",)))
    assert stream.visible()["calls"] == {}
    assert stream.visible()["tables"]["3"]["open"] is False


def test_a_call_as_the_board_sees_it():
    """It goes by table and call."""
    stream = check(store, SEATED, NoteCall("3", "c5", "water", NOW))
    call = {"table": "3", "call": "c5", "kind": "water", "called_at": NOW}
    assert stream.visible()["calls"] == {"3/c5": call}


def test_a_new_party_without_a_goodbye():
    """Should the end of a sitting never be heard of, the next one still counts."""
    stream = check(store, SEATED, NoteTable("3", 5, True, 3, NOW))
    assert stream.state.sittings == {"3": 5}
