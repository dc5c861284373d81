"""Campaigns: at their time they open, once and never early, and their prices hold only while they are open.

The shop wakes itself by its deadline and compares with the clock when it decides, so a wake-up that comes too
early, twice or late changes nothing. A campaign whose whole time passed while nobody ran the shop opens and
closes in one go, and nobody is told.

Where campaigns overlap the lowest price wins, and the menu's own price is never exceeded.

Followers are told in chunks, each a commit of its own that asks for the next one: so a crash tells nobody
twice, and no commit grows with the number of followers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, ClassVar, assert_never

from msgspec import Meta
from msgspec.structs import replace

from engine.domain import contract
from engine.domain.campaign import CANCELLED, CLOSED, OPEN, SCHEDULED, CampaignPrice
from engine.domain.contract import Context
from engine.domain.fields import Id, Name, Ref, Time
from engine.domain.store.announce import announce_campaigns
from engine.domain.store.state import Campaign, Product, Special, State
from engine.domain.times import read_time, to_ms
from engine.errors import Rejected

LIVE_MAX = 100
"""Campaigns of a shop that are open or will be."""
OVER_MAX = 50
"""Campaigns that are over and still shown: beyond that the oldest go."""
PRICES_MAX = 100
PAST_MS = 60_000
"""A campaign may be scheduled for a time that is over so long: it opens at once."""
CHUNK = 500
CHUNKS_PER_TURN = 10


class ScheduleCampaign(contract.Command, frozen=True):
    """Open a `campaign` under a `name` at `opens_at`, with `prices` of products until it ends at
    `closes_at`.
    """

    allowed: ClassVar = frozenset({"owner"})
    campaign: Id
    name: Name
    opens_at: Time
    closes_at: Time | None = None
    prices: Annotated[tuple[CampaignPrice, ...], Meta(max_length=PRICES_MAX)] = ()


class CancelCampaign(contract.Command, frozen=True):
    """Call the `campaign` off: it never opens, or closes now."""

    allowed: ClassVar = frozenset({"owner"})
    campaign: Ref


class TurnCampaigns(contract.Command, frozen=True):
    """Open and close what is due, and go on telling followers."""


class CampaignScheduled(contract.Event, frozen=True):
    """A campaign will open. Those in `dropped` are over and shown no longer."""

    campaign: str
    name: str
    opens_at: str
    at: str
    closes_at: str | None = None
    prices: tuple[CampaignPrice, ...] = ()
    dropped: tuple[str, ...] = ()


class CampaignOpened(contract.Event, frozen=True):
    """The campaign is open: its prices hold from now on."""

    campaign: str
    name: str
    opens_at: str
    at: str
    closes_at: str | None = None
    prices: tuple[CampaignPrice, ...] = ()


class CampaignClosed(contract.Event, frozen=True):
    """The campaign is over: at its time, or because it was `cancelled` while open."""

    campaign: str
    at: str
    cancelled: bool = False


class CampaignCancelled(contract.Event, frozen=True):
    """The campaign will not open."""

    campaign: str
    at: str


class CampaignAnnounced(contract.Event, frozen=True):
    """These followers hear that the campaign is open. `upto` is the number of the last of them; with `last`
    all have been told.
    """

    campaign: str
    name: str
    at: str
    users: tuple[str, ...]
    upto: int
    last: bool = False
    closes_at: str | None = None


Command = ScheduleCampaign | CancelCampaign | TurnCampaigns
Event = CampaignScheduled | CampaignOpened | CampaignClosed | CampaignCancelled | CampaignAnnounced

_TURN = TurnCampaigns()


def decide(state: State, command: Command, context: Context) -> list[contract.Event]:
    """Return what happens to campaigns; `[]` for one that is scheduled like this already or is over.

    Raises:
        Rejected: `campaign_exists`, `too_many_campaigns`, `time_invalid`, `opens_in_past`,
            `closes_in_past`, `closes_before_opens`, `unknown_product`, `duplicate_product`,
            `unknown_campaign`.
    """
    match command:
        case ScheduleCampaign():
            events = _scheduled(state, command, context)
        case CancelCampaign(campaign=name):
            campaign = state.campaigns.get(name)
            if campaign is None:
                raise Rejected("unknown_campaign", f"There is no campaign {name}")
            events = []
            if campaign.status == SCHEDULED:
                events = [CampaignCancelled(name, context.now)]
            elif campaign.status == OPEN:
                events = [CampaignClosed(name, context.now, cancelled=True)]
        case TurnCampaigns():
            events = list(_due(state, context)) or list(_told(state, context))
        case _:
            assert_never(command)
    return [*events, *_for_tables(state, events)]


def evolve(state: State, event: Event) -> None:
    """Move the campaign on, and its prices and the next time to look at it with it."""
    name = event.campaign
    if isinstance(event, CampaignScheduled):
        for old in event.dropped:
            state.campaigns.pop(old, None)
            state.campaign_due.pop(old, None)
            state.telling.pop(old, None)
        state.campaigns[name] = Campaign(
            name, event.name, SCHEDULED, event.opens_at, event.closes_at, event.prices
        )
        _set_due(state, name, event.opens_at)
        return
    campaign = state.campaigns.get(name)
    if campaign is None:
        return
    match event:
        case CampaignOpened(at=at):
            state.campaigns[name] = replace(campaign, status=OPEN, opened_at=at)
            _set_due(state, name, campaign.closes_at)
            special = _window(campaign)
            for line in campaign.prices:
                specials = state.priced.setdefault(line.product, {})
                specials[name] = replace(special, price=line.price)
            if state.followers:
                state.telling[name] = 0
        case CampaignClosed(at=at) | CampaignCancelled(at=at):
            status = CLOSED if isinstance(event, CampaignClosed) else CANCELLED
            state.campaigns[name] = replace(campaign, status=status, closed_at=at)
            _set_due(state, name, None)
            state.telling.pop(name, None)
            for line in campaign.prices:
                specials = state.priced.get(line.product, {})
                specials.pop(name, None)
                if not specials:
                    state.priced.pop(line.product, None)
        case CampaignAnnounced(upto=upto):
            if event.last:
                state.telling.pop(name, None)
            else:
                state.telling[name] = upto
        case _:
            assert_never(event)


def touched(event: Event) -> list[tuple[str, str]]:
    """The campaign; who was told is in nobody's view."""
    match event:
        case CampaignScheduled(campaign=name, dropped=dropped):
            return [("campaigns", name), *(("campaigns", old) for old in dropped if old != name)]
        case CampaignAnnounced():
            return []
        case _:
            return [("campaigns", event.campaign)]


def answer(state: State, command: Command) -> dict[str, object]:
    """Return the campaign and how it stands."""
    if isinstance(command, TurnCampaigns):
        return {}
    return {"campaign": command.campaign, "status": state.campaigns[command.campaign].status}


def deadline(state: State) -> tuple[int, Command] | None:
    """Return when the next campaign opens or closes; at once while followers are being told."""
    for name in state.telling:
        return _window(state.campaigns[name]).opens_ms, _TURN
    for due_ms in state.campaign_due.values():
        return due_ms, _TURN
    return None


def price_now(state: State, product: Product, now_ms: int) -> int:
    """Return what one piece of the product costs without options: the lowest of the menu's price and those
    of the campaigns that are open, by their own times too.
    """
    if not state.priced:
        return product.price
    price = product.price
    for special in state.priced.get(product.product, {}).values():
        if special.price < price and special.holds(now_ms):
            price = special.price
    return price


def _scheduled(state: State, command: ScheduleCampaign, context: Context) -> list[contract.Event]:
    name, prices = command.campaign, command.prices
    opens_at, closes_at = read_time(command.opens_at), read_time(command.closes_at)
    assert opens_at is not None
    known = state.campaigns.get(name)
    if known is not None:
        same = known.name, known.opens_at, known.closes_at, known.prices
        if known.status in (SCHEDULED, OPEN) and same == (command.name, opens_at, closes_at, prices):
            return []
        raise Rejected("campaign_exists", f"There is a campaign {name} already, which is {known.status}")
    if to_ms(opens_at) < context.now_ms - PAST_MS:
        raise Rejected("opens_in_past", f"{opens_at} is over: choose a time to come")
    if closes_at is not None and closes_at <= opens_at:
        raise Rejected("closes_before_opens", "A campaign has to close after it opens")
    if closes_at is not None and to_ms(closes_at) <= context.now_ms:
        raise Rejected("closes_in_past", f"{closes_at} is over: choose a time to come")
    for line in prices:
        if line.product not in state.products:
            raise Rejected("unknown_product", f"There is no product {line.product}")
    if len({line.product for line in prices}) != len(prices):
        raise Rejected("duplicate_product", "A product has one price in a campaign")
    if len(state.campaign_due) + _open_ended(state) >= LIVE_MAX:
        raise Rejected("too_many_campaigns", f"A shop has {LIVE_MAX} campaigns at most that are not over")
    over = [old.campaign for old in state.campaigns.values() if old.status in (CLOSED, CANCELLED)]
    dropped = tuple(over[: max(0, len(over) - OVER_MAX)])
    return [CampaignScheduled(name, command.name, opens_at, context.now, closes_at, prices, dropped)]


def _open_ended(state: State) -> int:
    """Return how many are open and wait for no time."""
    live = (name for name, campaign in state.campaigns.items() if campaign.status == OPEN)
    return sum(name not in state.campaign_due for name in live)


def _due(state: State, context: Context) -> Iterator[contract.Event]:
    for name, due_ms in state.campaign_due.items():
        if due_ms > context.now_ms:
            break
        campaign = state.campaigns[name]
        if campaign.status == SCHEDULED:
            times = campaign.opens_at, context.now, campaign.closes_at
            yield CampaignOpened(name, campaign.name, *times, campaign.prices)
            closes_ms = _window(campaign).closes_ms
            if closes_ms is None or closes_ms > context.now_ms:
                continue
        yield CampaignClosed(name, context.now)


def _told(state: State, context: Context) -> Iterator[contract.Event]:
    """Return the next chunks of one campaign that is being told."""
    for name, told in islice(state.telling.items(), 1):
        campaign = state.campaigns[name]
        waiting = [item for item in state.followers.items() if item[1] > told]
        for start in range(0, min(len(waiting), CHUNK * CHUNKS_PER_TURN) or 1, CHUNK):
            chunk = waiting[start : start + CHUNK]
            upto = chunk[-1][1] if chunk else told
            users = tuple(user for user, _ in chunk)
            last = start + CHUNK >= len(waiting)
            closes_at = campaign.closes_at
            yield CampaignAnnounced(name, campaign.name, context.now, users, upto, last, closes_at)


def _for_tables(state: State, events: list[contract.Event]) -> list[contract.Event]:
    """Return what tables are told: all campaigns as after these events, and the prices that moved."""
    after = dict(state.campaigns)
    moved: dict[str, dict[str, Special]] = {}
    news = False
    for event in events:
        match event:
            case CampaignScheduled(campaign=name):
                times = event.opens_at, event.closes_at
                after[name] = Campaign(name, event.name, SCHEDULED, *times, event.prices)
            case CampaignOpened(campaign=name) | CampaignClosed(campaign=name):
                campaign = after[name]
                opened = isinstance(event, CampaignOpened)
                after[name] = replace(campaign, status=OPEN if opened else CLOSED)
                for line in campaign.prices:
                    specials = moved.setdefault(line.product, dict(state.priced.get(line.product, {})))
                    specials.pop(name, None)
                    if opened:
                        specials[name] = replace(_window(campaign), price=line.price)
            case CampaignCancelled(campaign=name):
                after[name] = replace(after[name], status=CANCELLED)
            case _:
                continue
        news = True
    return announce_campaigns(state, after, moved) if news else []


def _window(campaign: Campaign) -> Special:
    """Return the campaign's times, with no price."""
    closes_ms = None if campaign.closes_at is None else to_ms(campaign.closes_at)
    return Special(0, to_ms(campaign.opens_at), closes_ms)


def _set_due(state: State, name: str, at: str | None) -> None:
    """Note when to look at a campaign next; the soonest comes first."""
    due = {other: due_ms for other, due_ms in state.campaign_due.items() if other != name}
    if at is not None:
        due[name] = to_ms(at)
    state.campaign_due = dict(sorted(due.items(), key=lambda item: item[1]))
