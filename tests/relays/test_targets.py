"""Settings of webhooks: what may be sent to, signed with and sent, and what is refused at the start."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from engine import open_node
from engine.errors import ConfigError
from engine.relays.names import outside_name
from engine.relays.targets import read_targets, read_types
from tests.engine.shop import config
from tests.relays.receiver import KEY, SECRET
from tests.web.process import onda

URL = "https://receiver.example/hooks?key=k"


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        ("OrderPlaced", "ORDER_PLACED"),
        ("CouponIssued", "COUPON_ISSUED"),
        ("CampaignOpened", "EVENT_OPEN"),
        ("CampaignClosed", "EVENT_CLOSE"),
        ("PaymentSentToReview", "PAYMENT_SENT_TO_REVIEW"),
    ],
)
def test_names_outside_are_upper_snake_case(type_: str, name: str) -> None:
    """Receivers know events by these names; where the rule does not hold there is a table."""
    assert outside_name(type_) == name


def test_targets_have_a_name_by_place_and_show_only_their_host() -> None:
    """A path or a query may be a secret of the receiver."""
    other = "whsec_" + base64.b64encode(bytes(24)).decode()
    settings = config(webhook_url=f"{URL} http://[::1]:81/", webhook_secret=f"{SECRET} {other},{SECRET}")
    first, second = read_targets(settings)
    assert (first.name, first.url, first.host, first.keys) == ("webhook", URL, "receiver.example", (KEY,))
    assert (second.name, second.host, second.keys) == ("webhook-2", "::1:81", (bytes(24), KEY))
    assert read_targets(config()) == []


@pytest.mark.parametrize(
    "url",
    [
        "receiver.example",
        "ftp://receiver.example",
        "https:///hooks",
        "https://kim:pw123@receiver.example",
        "https://receiver.example/#part",
        "https://receiver.example:99999",
        "https://[::1",
        "http://receiver.example",
        "http://10.0.0.7/hooks",
        "http://127.0.0.1.example/hooks",
    ],
)
def test_addresses_that_cannot_be_used_are_refused(url: str) -> None:
    """Also plain HTTP to other machines, for what stands in a webhook is not for everybody."""
    with pytest.raises(ConfigError) as refused:
        read_targets(config(webhook_url=url, webhook_secret=SECRET))
    assert "pw123" not in str(refused.value)


def test_plain_http_goes_to_this_machine_or_where_a_setting_allows_it() -> None:
    """TLS protects nothing on the way to oneself."""
    for host in ("localhost", "127.0.0.1:8000", "127.8.8.8", "[::1]"):
        read_targets(config(webhook_url=f"http://{host}/", webhook_secret=SECRET))
    settings = config(webhook_url="http://10.0.0.7/", webhook_secret=SECRET, webhook_plain_http=True)
    assert read_targets(settings)[0].host == "10.0.0.7"


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hush-hush",
        KEY.hex(),
        "whsec_%",
        "whsec_not base64",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        f"{SECRET},",
        f"{SECRET} {SECRET}",
    ],
)
def test_secrets_that_protect_nothing_are_refused(secret: str) -> None:
    """One for each receiver, of a length that cannot be guessed; and they stay out of the message."""
    with pytest.raises(ConfigError) as refused:
        read_targets(config(webhook_url=URL, webhook_secret=secret))
    assert not secret or secret not in str(refused.value)


def test_a_receiver_stands_there_once() -> None:
    """Twice the same would get everything twice."""
    with pytest.raises(ConfigError, match="twice"):
        read_targets(config(webhook_url=f"{URL} {URL}", webhook_secret=f"{SECRET} {SECRET}"))


def test_types_are_named_as_inside_or_as_outside() -> None:
    """An unknown name is a mistake that would cost every webhook."""
    assert read_types(config(webhook_types="OrderPlaced, ORDER_READY,")) == {"OrderPlaced", "OrderReady"}
    assert "OrderPlaced" in read_types(config())
    with pytest.raises(ConfigError, match="OrderPlacd"):
        read_types(config(webhook_types="OrderPlacd"))


async def test_a_node_does_not_start_with_settings_that_make_no_sense() -> None:
    """Rather no start than webhooks that go nowhere."""
    with pytest.raises(ConfigError, match="webhook_secret"):
        async with open_node(config(webhook_url=URL)):
            raise AssertionError("it started")


def test_the_command_line_judges_webhooks_and_shows_no_secret(tmp_path: Path) -> None:
    """`check` says where they go, or what is wrong; `config` hides the keys."""
    good = {"ONDA_WEBHOOK_URL": URL, "ONDA_WEBHOOK_SECRET": SECRET}
    checked = onda("check", "--data", str(tmp_path), env=good)
    assert "webhook goes to receiver.example" in checked.stdout
    assert "key=k" not in checked.stdout
    bad = onda("check", "--data", str(tmp_path), env={**good, "ONDA_WEBHOOK_SECRET": "hush-hush"})
    assert bad.returncode == 1
    assert "webhook_secret must be" in bad.stdout
    shown = onda("config", env=good)
    assert shown.returncode == 0
    assert "webhook_secret" in shown.stdout
    assert SECRET.removeprefix("whsec_") not in shown.stdout
