"""The shop itself: configured first, opened and closed, paused and resumed, and tables hear of it."""

import pytest

from engine.domain import store
from engine.domain.product import ShopSign
from engine.domain.store.announce import MenuAnnounced
from engine.domain.store.kitchen import AcceptOrder
from engine.domain.store.menu import PutProduct
from engine.domain.store.shop import (
    CloseStore,
    ConfigureStore,
    OpenStore,
    OrdersPaused,
    OrdersResumed,
    PauseOrders,
    ResumeOrders,
    StoreClosed,
    StoreConfigured,
    StoreOpened,
)
from tests.domain.shop_given import CONFIGURED, OPEN, SIGN, TABLE_3, create
from tests.harness_domain import check


@pytest.mark.parametrize(
    "command",
    [OpenStore(), PutProduct("ramen", "라면", 5000), create(), AcceptOrder("o1"), PauseOrders("busy")],
)
def test_a_store_that_nobody_configured_knows_no_other_command(command):
    """Everything before configure-store is refused as an unknown store."""
    check(store, [], command, rejected="unknown_store")


def test_configure_makes_the_store_closed():
    """A new store exists with its settings, and takes orders only when it is opened."""
    stream = check(
        store, [], ConfigureStore("온다 분식", "postpay"), [StoreConfigured("온다 분식", "postpay", 600)]
    )
    assert not stream.state.shop["self"].open


@pytest.mark.parametrize(
    ("given", "command", "then"),
    [
        ([CONFIGURED], ConfigureStore("온다 분식", "postpay", 600), []),
        ([CONFIGURED], ConfigureStore("온다", "prepay", 60), [StoreConfigured("온다", "prepay", 60)]),
        ([CONFIGURED], OpenStore(), [StoreOpened()]),
        (OPEN, OpenStore(), []),
        (OPEN, CloseStore(), [StoreClosed()]),
        ([CONFIGURED], CloseStore(), []),
        (OPEN, PauseOrders("주방이 꽉 찼어요"), [OrdersPaused("주방이 꽉 찼어요")]),
        ([*OPEN, OrdersPaused("busy")], PauseOrders("busy"), []),
        ([*OPEN, OrdersPaused("busy")], PauseOrders("fire"), [OrdersPaused("fire")]),
        ([*OPEN, OrdersPaused("busy")], ResumeOrders(), [OrdersResumed()]),
        (OPEN, ResumeOrders(), []),
    ],
)
def test_settings_change_once_and_not_again(given, command, then):
    """What is so already is no event."""
    check(store, given, command, then)


def test_settings_leave_opening_alone():
    """An open store stays open when it gets another name."""
    stream = check(store, OPEN, ConfigureStore("온다 2", "postpay"))
    assert stream.state.shop["self"].open


def test_open_tables_are_told():
    """Each change of the shop is announced with the shop as it is then."""
    sign = ShopSign("온다 분식", "postpay", open=True, paused=True, pause_reason="busy")
    then = [OrdersPaused("busy"), MenuAnnounced(("3",), shop=sign)]
    check(store, [*OPEN, TABLE_3], PauseOrders("busy"), then)
    resumed = [OrdersResumed(), MenuAnnounced(("3",), shop=SIGN)]
    check(store, [*OPEN, TABLE_3, OrdersPaused("busy")], ResumeOrders(), resumed)
