"""No secret of a gateway is seen again: not in settings, logs, events, errors, metrics or files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from engine.config import Config, is_secret
from tests.payments.player import Asked, Played, playing
from tests.web.process import onda, serving
from tests.web.site import token

SECRETS = {
    "secret": "own-secret-" * 4,
    "sandbox_key": "sandbox-key-hushhush",
    "naverpay_client_secret": "naver-secret-hushhush",
    "toss_secret_key": "toss-secret-hushhush",
    "kakaopay_secret_key": "kakao-secret-hushhush",
}
BESIDE = {"naverpay_client_id": "naver-id", "kakaopay_cid": "TC0ONETIME"}
ENV = {f"ONDA_{name.upper()}": value for name, value in {**SECRETS, **BESIDE}.items()}


def test_settings_that_are_secret_are_known_by_their_names() -> None:
    """Whoever adds one has it hidden; what is none stays readable."""
    for name in SECRETS:
        assert is_secret(name)
    for name in ("port", "naverpay_client_id", "toss_url", "kakaopay_cid", "public_url"):
        assert name in Config.__struct_fields__
        assert not is_secret(name)


def test_shown_settings_hide_them() -> None:
    """`onda config`, and the struct itself where somebody logs it."""
    shown = onda("config", env=ENV)
    assert shown.returncode == 0, shown.stderr
    kept = repr(Config(**{**SECRETS, **BESIDE}))
    for text in (shown.stdout + shown.stderr, kept):
        assert "hushhush" not in text
        assert SECRETS["secret"] not in text
        assert "naver-id" in text
    assert 'toss_secret_key = "[hidden]"' in shown.stdout
    assert 'toss_url = ""' in shown.stdout


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"ONDA_NAVERPAY_CLIENT_ID": "x"}, "naverpay_client_id needs naverpay_client_secret"),
        ({"ONDA_KAKAOPAY_SECRET_KEY": "kakao-secret-hushhush"}, "kakaopay_secret_key needs kakaopay_cid"),
        ({"ONDA_TOSS_URL": "toss-secret-hushhush"}, "toss_url must begin with https://"),
        ({"ONDA_TOSS_URL": "http://api.tosspayments.com"}, "toss_url must begin with https://: our keys"),
        ({"ONDA_NAVERPAY_URL": "http://127.0.0.1.evil.example"}, "naverpay_url must begin with https://"),
        ({"ONDA_SANDBOX": "maybe"}, "sandbox"),
        ({"ONDA_GATEWAY_TIMEOUT_S": "0"}, "gateway_timeout_s must be more than 0"),
    ],
)
def test_bad_settings_are_said_without_them(env: dict[str, str], said: str) -> None:
    """One line that names the setting."""
    done = onda("config", env=env)
    assert done.returncode == 3
    assert said in done.stderr
    assert "hushhush" not in done.stderr


@pytest.mark.slow
async def test_a_gateway_that_shouts_them_is_not_repeated(tmp_path: Path) -> None:
    """It puts our own headers into its error messages: they stay out of events, logs, metrics and files."""

    def shout(asked: Asked) -> Played:
        secret = asked.headers.get("authorization") or asked.headers.get("x-naver-client-secret")
        told = f"who is this? {secret} {dict(asked.headers)}"
        return Played(400, {"code": told, "message": told, "error_code": told, "error_message": told})

    async with playing(shout) as gateway:
        env = {**ENV, **{f"ONDA_{name}_URL": gateway.url for name in ("TOSS", "NAVERPAY", "KAKAOPAY")}}
        env |= {"ONDA_PUBLIC_URL": "https://shop.example", "ONDA_ACCESS_LOG": "1"}
        with serving(tmp_path, "--no-demo", env=env) as server:
            headers = {"authorization": f"Bearer {token('service', secret=SECRETS['secret'])}"}
            async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10) as http:
                for method in ("toss", "naverpay"):
                    await _pay(http, method)
                seen = (await http.get("/v1/stores/s1/sync")).text + (await http.get("/metrics")).text
            assert server.stop() == 0
    assert len(gateway.asked) >= 4
    assert "[hidden]" in seen
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in (seen, "\n".join(server.said), *(content.decode("latin-1") for content in files)):
        assert "hushhush" not in text
    assert any("onda.gateway" in line or "UNKNOWN" in line for line in server.said)


async def _pay(http: httpx.AsyncClient, method: str) -> None:
    async def do(name: str, /, **body: Any) -> dict[str, Any]:
        answer = await http.post(f"/v1/stores/s1/{name}", json=body)
        assert answer.status_code in (200, 202), answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    await do("configure-store", name="s", payment_mode="prepay")
    await do("put-product", product="ramen", name="라면", price=4500)
    await do("open-store")
    made = await do("create-order", lines=[{"product": "ramen", "quantity": 1}], user="kim")
    wanted = {"order": made["order"], "amount": 4500, "payer": "kim", "method": method}
    payment = (await do("prepare-payment", **wanted))["payment"]
    done = await do("approve-payment", order=made["order"], payment=payment, provider_ref="ref-1")
    with trio.fail_after(10):
        while done["status"] != "UNKNOWN":
            await trio.sleep(0.05)
            done = (await http.get("/v1/stores/s1/sync")).json()["state"]["payments"][payment]
