"""Campaigns: open once and never early, prices only while open, and whoever has to hear of it does."""

import json

import msgspec
import pytest

from engine.domain import store, table
from engine.domain.campaign import CampaignNote, CampaignPrice
from engine.domain.store import campaigns, following
from engine.domain.store.announce import MenuAnnounced
from engine.domain.store.campaigns import (
    CampaignAnnounced,
    CampaignCancelled,
    CampaignClosed,
    CampaignOpened,
    CampaignScheduled,
    CancelCampaign,
    ScheduleCampaign,
    TurnCampaigns,
    price_now,
)
from engine.domain.store.following import FollowStore, StoreFollowed, StoreUnfollowed, UnfollowStore
from engine.domain.store.menu import PutProduct, SetSoldOut
from engine.domain.store.orders import OrderCreated
from engine.domain.store.tables import NoteTable
from engine.domain.table.copies import MenuShown, ShowMenu
from engine.domain.table.sitting import OpenTable
from engine.domain.times import to_text
from tests.domain.shop_given import EXTRA, MENU, SAT, SIZE, TABLE_3, create, item, wish
from tests.harness_domain import NOW, NOW_MS, Stream, World, check

MINUTE_MS = 60_000
OPENS_MS, CLOSES_MS = NOW_MS + 10 * MINUTE_MS, NOW_MS + 70 * MINUTE_MS
OPENS, CLOSES = to_text(OPENS_MS), to_text(CLOSES_MS)
PRICES = (CampaignPrice("ramen", 3900), CampaignPrice("tteok", 2000))
SCHEDULE = ScheduleCampaign("night", "야식 할인", OPENS, CLOSES, PRICES)
SCHEDULED = CampaignScheduled("night", "야식 할인", OPENS, NOW, CLOSES, PRICES)
OPENED = CampaignOpened("night", "야식 할인", OPENS, OPENS, CLOSES, PRICES)
CLOSED = CampaignClosed("night", CLOSES)
OPEN = [*MENU, SCHEDULED, OPENED]
TURN = TurnCampaigns()
NOTE = CampaignNote("night", "야식 할인", False, OPENS, CLOSES)


def statuses(stream):
    """Each campaign's status."""
    return {name: campaign.status for name, campaign in stream.state.campaigns.items()}


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        (MENU, SCHEDULE, [SCHEDULED]),
        ([*MENU, SCHEDULED], SCHEDULE, []),
        (OPEN, SCHEDULE, []),
        (MENU, ScheduleCampaign("now", "지금", NOW.replace(".000", "")), None),
        (MENU, ScheduleCampaign("now", "지금", to_text(NOW_MS - MINUTE_MS)), None),
        ([*MENU, TABLE_3], SCHEDULE, [SCHEDULED, MenuAnnounced(("3",), campaigns=(NOTE,))]),
    ],
)
def test_scheduling(given, when, then):
    """Once, also for a time that was a moment ago; open tables hear of it for their countdown."""
    check(store, given, when, then)


@pytest.mark.parametrize(
    ("when", "code"),
    [
        (ScheduleCampaign("night", "다른 이름", OPENS, CLOSES, PRICES), "campaign_exists"),
        (ScheduleCampaign("night", "야식 할인", OPENS), "campaign_exists"),
        (ScheduleCampaign("over", "끝", OPENS, CLOSES), "campaign_exists"),
        (ScheduleCampaign("a", "a", to_text(NOW_MS - MINUTE_MS - 1)), "opens_in_past"),
        (ScheduleCampaign("a", "a", OPENS, OPENS), "closes_before_opens"),
        (ScheduleCampaign("a", "a", CLOSES, OPENS), "closes_before_opens"),
        (ScheduleCampaign("a", "a", to_text(NOW_MS - 2), to_text(NOW_MS)), "closes_in_past"),
        (ScheduleCampaign("a", "a", "2027-01-15T25:00:00Z"), "time_invalid"),
        (ScheduleCampaign("a", "a", OPENS, None, (CampaignPrice("pizza", 1),)), "unknown_product"),
        (ScheduleCampaign("a", "a", OPENS, None, (PRICES[0], PRICES[0])), "duplicate_product"),
        (CancelCampaign("else"), "unknown_campaign"),
    ],
)
def test_campaigns_that_cannot_be(when, code):
    """Each says why; one that was called off is not revived."""
    over = [CampaignScheduled("over", "끝", OPENS, NOW, CLOSES), CampaignCancelled("over", NOW)]
    check(store, [*MENU, SCHEDULED, *over], when, rejected=code)


@pytest.mark.parametrize(
    "opens_at",
    ["2027-01-15", "2027-01-15T08:00:00", "2027-01-15T08:00:00+09:00", "2027-01-15T08:00:00.0001Z", 1],
)
def test_times_are_utc(opens_at):
    """To the ms: what is finer could open early by its rest."""
    body = json.dumps({"campaign": "a", "name": "a", "opens_at": opens_at})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=ScheduleCampaign)


def test_a_shop_has_so_many_campaigns(monkeypatch):
    """Those that are not over are bounded; of those that are, the oldest leave."""
    monkeypatch.setattr(campaigns, "LIVE_MAX", 2)
    monkeypatch.setattr(campaigns, "OVER_MAX", 1)
    stream = check(store, MENU, ScheduleCampaign("a", "a", OPENS))
    stream.do(ScheduleCampaign("b", "b", to_text(OPENS_MS + 1)))
    assert store.deadline(stream.state) == (OPENS_MS, TURN)
    stream.do(TURN, now_ms=OPENS_MS)
    assert statuses(stream) == {"a": "OPEN", "b": "SCHEDULED"}
    check(store, stream.events, ScheduleCampaign("c", "c", CLOSES), rejected="too_many_campaigns")
    for number, name in enumerate(("c", "d", "e")):
        stream.do(CancelCampaign("ab"[number % 2] if number < 2 else "c"))
        stream.do(ScheduleCampaign(name, name, CLOSES))
    assert statuses(stream) == {"c": "CANCELLED", "d": "SCHEDULED", "e": "SCHEDULED"}


@pytest.mark.parametrize(
    ("given", "now_ms", "then"),
    [
        ([*MENU, SCHEDULED], OPENS_MS - 1, []),
        ([*MENU, SCHEDULED], OPENS_MS, [OPENED]),
        ([*MENU, SCHEDULED], CLOSES_MS - 1, [msgspec.structs.replace(OPENED, at=to_text(CLOSES_MS - 1))]),
        ([*MENU, SCHEDULED], CLOSES_MS, [msgspec.structs.replace(OPENED, at=CLOSES), CLOSED]),
        (OPEN, OPENS_MS, []),
        (OPEN, OPENS_MS - 1, []),
        (OPEN, CLOSES_MS - 1, []),
        (OPEN, CLOSES_MS, [CLOSED]),
        ([*OPEN, CLOSED], CLOSES_MS, []),
        ([*OPEN, CLOSED], NOW_MS, []),
        ([*MENU, SCHEDULED, CampaignCancelled("night", NOW)], OPENS_MS, []),
    ],
)
def test_opening_and_closing_to_the_millisecond(given, now_ms, then):
    """Once each, never early, however often and whenever the shop is woken; late is better than never."""
    check(store, given, TURN, then, now_ms=now_ms)


def test_its_deadlines():
    """First the opening, then the closing, then none; the soonest of many."""
    stream = check(store, [*MENU, CampaignScheduled("late", "l", CLOSES, NOW)], SCHEDULE)
    assert store.deadline(stream.state) == (OPENS_MS, TURN)
    stream.do(TURN, now_ms=OPENS_MS)
    assert store.deadline(stream.state) == (CLOSES_MS, TURN)
    stream.do(TURN, now_ms=CLOSES_MS)
    assert statuses(stream) == {"late": "OPEN", "night": "CLOSED"}
    assert store.deadline(stream.state) is None


def test_calling_off():
    """Before it opens it never will; while it is open it closes now; then there is nothing to call off."""
    check(store, [*MENU, SCHEDULED], CancelCampaign("night"), [CampaignCancelled("night", NOW)])
    stream = check(store, OPEN, CancelCampaign("night"), [CampaignClosed("night", NOW, cancelled=True)])
    assert stream.state.priced == {}
    assert store.deadline(stream.state) is None
    assert stream.answer(CancelCampaign("night")) == {"campaign": "night", "status": "CLOSED"}
    assert stream.decide(CancelCampaign("night"), "owner:kim") == []


@pytest.mark.parametrize(
    ("given", "now_ms", "price"),
    [
        ([*MENU, SCHEDULED], OPENS_MS, 5000),
        (OPEN, OPENS_MS - 1, 5000),
        (OPEN, OPENS_MS, 3900),
        (OPEN, CLOSES_MS - 1, 3900),
        (OPEN, CLOSES_MS, 5000),
        ([*OPEN, CLOSED], CLOSES_MS, 5000),
        ([*OPEN, CLOSED], OPENS_MS, 5000),
    ],
)
def test_prices_hold_only_while_it_is_open(given, now_ms, price):
    """By its state, and by the clock too: one that was set back or a closing that is late sells nothing
    cheaper.
    """
    stream = check(store, given, create(wish("ramen", 2)), now_ms=now_ms)
    order = next(event for event in stream.events if isinstance(event, OrderCreated))
    assert (order.lines[0].price, order.total) == (price, 2 * price)


def test_options_cost_the_same_in_a_campaign():
    """The price is the product's; what is chosen comes on top."""
    stream = check(store, OPEN, create(wish("tteok", options=("large", "egg"))), now_ms=OPENS_MS)
    assert stream.state.orders["o1"].total == 2000 + 1000 + 700


@pytest.mark.parametrize(("other", "price"), [(3000, 3000), (4500, 3900), (9000, 3900)])
def test_the_lowest_price_wins(other, price):
    """Of all that are open and of the menu; and when one closes the next one counts."""
    more = [
        CampaignScheduled("more", "m", OPENS, NOW, None, (CampaignPrice("ramen", other),)),
        CampaignOpened("more", "m", OPENS, OPENS, None, (CampaignPrice("ramen", other),)),
    ]
    stream = check(store, [*OPEN, *more, TABLE_3], TURN, now_ms=OPENS_MS)
    ramen = stream.state.products["ramen"]
    assert price_now(stream.state, ramen, OPENS_MS) == price
    events = stream.do(CancelCampaign("night"), now_ms=OPENS_MS)
    left = min(5000, other)
    assert price_now(stream.state, ramen, OPENS_MS) == left
    shown = next(event.products[0] for event in events if isinstance(event, MenuAnnounced))
    assert (shown.price, shown.was) == (left, 5000 if left < 5000 else None)


CHEAP = item(price=3900, was=5000)
CHEAP_TTEOK = item("tteok", name="떡볶이", price=2000, was=4000, options=(SIZE, EXTRA))
DEAR = (item(), item("tteok", name="떡볶이", price=4000, options=(SIZE, EXTRA)))


def test_tables_hear_of_prices_and_times():
    """As it opens and closes, with the price before."""
    stream = check(store, [*MENU, SCHEDULED, TABLE_3], TURN, now_ms=OPENS_MS)
    note = msgspec.structs.replace(NOTE, open=True)
    assert stream.events[-1] == MenuAnnounced(("3",), (CHEAP, CHEAP_TTEOK), None, (note,))
    stream.do(TURN, now_ms=CLOSES_MS)
    assert stream.events[-1] == MenuAnnounced(("3",), DEAR, None, ())


def test_what_tables_hear_in_between_keeps_the_price():
    """A product that is sold out, or that gets another price on the menu, is still in the campaign."""
    stream = check(store, [*OPEN, TABLE_3], SetSoldOut("ramen", True), now_ms=OPENS_MS)
    assert stream.events[-1].products == (item(sold_out=True, price=3900, was=5000),)
    stream.do(PutProduct("ramen", "라면", 4200), now_ms=OPENS_MS)
    assert stream.events[-1].products == (item(sold_out=True, price=3900, was=4200),)
    stream.do(PutProduct("ramen", "라면", 3000), now_ms=OPENS_MS)
    assert stream.events[-1].products == (item(sold_out=True, price=3000),)


def test_a_table_that_opens_hears_of_campaigns():
    """Of those that are not over."""
    over = [CampaignScheduled("over", "끝", OPENS, NOW), CampaignCancelled("over", NOW)]
    stream = check(store, [*OPEN, *over], NoteTable("3", 4, True, 2, NOW))
    told = next(event for event in stream.events if isinstance(event, MenuAnnounced))
    assert told.campaigns == (msgspec.structs.replace(NOTE, open=True),)
    assert CHEAP in told.products


def test_a_table_shows_campaigns():
    """All that it is told of, and no others any more."""
    stream = check(table, SAT, ShowMenu(campaigns=(NOTE,)), [MenuShown(campaigns=(NOTE,))])
    assert stream.do(ShowMenu(campaigns=(NOTE,))) == []
    assert stream.do(ShowMenu()) == []
    opened = msgspec.structs.replace(NOTE, open=True)
    other = msgspec.structs.replace(NOTE, campaign="lunch")
    assert stream.do(ShowMenu(campaigns=(opened, other))) == [MenuShown(campaigns=(opened, other))]
    assert stream.do(ShowMenu(campaigns=(other,))) == [MenuShown(over=("night",))]
    assert list(stream.visible()["campaigns"]) == ["lunch"]


@pytest.mark.parametrize(
    ("given", "when", "by", "then"),
    [
        (MENU, FollowStore(), "user:u1", [StoreFollowed("u1", 1, NOW)]),
        (MENU, FollowStore("u1"), "user:u1", [StoreFollowed("u1", 1, NOW)]),
        (MENU, FollowStore("u1"), "service:pos", [StoreFollowed("u1", 1, NOW)]),
        ([*MENU, StoreFollowed("u1", 1, NOW)], FollowStore(), "user:u1", []),
        ([*MENU, StoreFollowed("u1", 1, NOW)], UnfollowStore(), "user:u1", [StoreUnfollowed("u1", NOW)]),
        (MENU, UnfollowStore(), "user:u1", []),
    ],
)
def test_following(given, when, by, then):
    """Once, for oneself or through the shop."""
    stream = check(store, given, when, then, by=by)
    assert store.answer(stream.state, when, []) == {"following": isinstance(when, FollowStore)}
    assert "u1" not in json.dumps(stream.visible()), "followers are nobody's business"


@pytest.mark.parametrize("command", [FollowStore, UnfollowStore])
@pytest.mark.parametrize(
    ("user", "by", "code"), [("u2", "user:u1", "forbidden"), (None, "staff:lee", "user_missing")]
)
def test_who_cannot_follow(command, user, by, code):
    """Nobody follows for others but the shop."""
    check(store, MENU, command(user), rejected=code, by=by)


def test_a_shop_has_so_many_followers(monkeypatch):
    """They are kept in memory."""
    monkeypatch.setattr(following, "FOLLOWERS_MAX", 1)
    given = [*MENU, StoreFollowed("u1", 1, NOW)]
    check(store, given, FollowStore(), rejected="too_many_followers", by="user:u2")
    check(store, given, FollowStore(), [], by="user:u1")


def turned(stream, now_ms):
    """Wake the shop until it waits for something later; return what it announced to followers."""
    told = []
    for _ in range(50):
        due = store.deadline(stream.state)
        if due is None or due[0] > now_ms:
            return told
        told += [event for event in stream.do(due[1], now_ms=now_ms) if isinstance(event, CampaignAnnounced)]
    raise AssertionError("it never comes to rest")


def test_followers_are_told_in_chunks(monkeypatch):
    """Each once, also those who follow while others are being told; who unfollows in between is left out."""
    monkeypatch.setattr(campaigns, "CHUNK", 3)
    monkeypatch.setattr(campaigns, "CHUNKS_PER_TURN", 2)
    users = [f"u{number}" for number in range(1, 15)]
    followed = [StoreFollowed(user, number, NOW) for number, user in enumerate(users, 1)]
    stream = check(store, [*MENU, *followed, SCHEDULED], TURN, [OPENED], now_ms=OPENS_MS)
    first = stream.do(TURN, now_ms=OPENS_MS)
    assert [event.users for event in first] == [("u1", "u2", "u3"), ("u4", "u5", "u6")]
    stream.do(UnfollowStore(), "user:u2")
    stream.do(UnfollowStore(), "user:u9")
    stream.do(FollowStore(), "user:late")
    told = [*first, *turned(stream, OPENS_MS)]
    assert [user for event in told for user in event.users] == [*users[:8], *users[9:], "late"]
    assert [event.last for event in told] == [False] * (len(told) - 1) + [True]
    assert store.deadline(stream.state) == (CLOSES_MS, TURN)


@pytest.mark.parametrize("leave", [1, 4])
def test_telling_ends_when_nobody_is_left(leave, monkeypatch):
    """Followers may all go while they are being told."""
    monkeypatch.setattr(campaigns, "CHUNK", 1)
    monkeypatch.setattr(campaigns, "CHUNKS_PER_TURN", 1)
    followed = [StoreFollowed(f"u{number}", number, NOW) for number in range(1, leave + 1)]
    stream = check(store, [*MENU, *followed, SCHEDULED, OPENED], TURN, now_ms=OPENS_MS)
    for number in range(1, leave + 1):
        stream.do(UnfollowStore(), f"user:u{number}")
    turned(stream, OPENS_MS)
    assert stream.state.telling == {}


def test_a_campaign_that_is_over_tells_nobody():
    """Called off while followers are being told, or opened after its end."""
    followed = [StoreFollowed("u1", 1, NOW)]
    stream = check(store, [*MENU, *followed, SCHEDULED, OPENED], CancelCampaign("night"))
    assert store.deadline(stream.state) is None
    stream = check(store, [*MENU, *followed, SCHEDULED], TURN, now_ms=CLOSES_MS)
    assert turned(stream, CLOSES_MS) == []


def test_everybody_hears_of_it_once():
    """Table and user, with every delivery made twice."""
    world = World(lambda: True)
    shop: Stream = world["store:s1"]
    for event in MENU:
        shop.evolve(event)
    world.ask("table:s1/3", OpenTable(2))
    world.ask("store:s1", FollowStore(), "user:u1")
    world.ask("store:s1", SCHEDULE)
    world.settle()
    seen = world["table:s1/3"]
    assert seen.visible()["campaigns"]["night"]["open"] is False
    assert seen.visible()["menu"]["ramen"]["price"] == 5000
    for now_ms, price in ((OPENS_MS, 3900), (CLOSES_MS, 5000)):
        world.now_ms = now_ms
        while (due := store.deadline(shop.state)) is not None and due[0] <= now_ms:
            world.ask("store:s1", due[1])
        world.settle()
        assert seen.visible()["menu"]["ramen"]["price"] == price
    assert seen.visible()["campaigns"] == {}
    (notice,) = world["user:u1"].visible()["notices"].values()
    assert (notice["title"], notice["body"]) == ("야식 할인", "지금 시작했어요")
