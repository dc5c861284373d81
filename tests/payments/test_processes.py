"""The sandbox from the command line: a process of its own, and beside the shop that `onda serve` runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.web.process import ROOT, onda, serving
from tests.web.site import token
from web.sandbox.ledger import Ledger

KEY = "key-of-the-sandbox"

pytestmark = pytest.mark.slow


@contextmanager
def sandbox_pg(*options: str, key: str = KEY) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Run `onda sandbox-pg`; gives the process, its address and what it said at first."""
    command = [sys.executable, "-m", "web.cli", "sandbox-pg", *options]
    env = {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "ONDA_SANDBOX_KEY": key}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline().rstrip()]
            match = re.fullmatch(r"sandbox-pg listening on (http://127\.0\.0\.1:\d+)", said[0])
            assert match is not None, said
            if not key:
                said.append(process.stdout.readline().rstrip())
            yield process, match[1], said
        finally:
            if process.poll() is None:
                process.kill()


def charge(url: str, ref: str, attempt: str, key: str = KEY) -> httpx.Response:
    """Charge 5,000 won."""
    headers = {"authorization": f"Bearer {key}", "idempotency-key": attempt}
    body = {"ref": ref, "order": "o-1", "amount": 5000}
    return httpx.post(f"{url}/v1/charges", json=body, headers=headers, trust_env=False)


def test_the_books_survive_the_process(tmp_path: Path) -> None:
    """Also when it is killed; and it ends in order when asked to."""
    file = str(tmp_path / "ledger.db")
    with sandbox_pg("--ledger", file) as (process, url, _):
        first = charge(url, "r-1", "a-1").json()
        process.kill()
        process.wait(5)
    with sandbox_pg("--ledger", file) as (process, url, _):
        assert charge(url, "r-1", "a-1").json() == first
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    ledger = Ledger(file, lambda: 0)
    assert ledger.balance() == 5000
    ledger.close()


def test_a_fault_from_the_start_and_a_key_of_its_own() -> None:
    """The key is printed as the settings that the shop needs."""
    with sandbox_pg("--fault", "decline", key="") as (_, url, said):
        match = re.search(r"ONDA_SANDBOX_URL=(\S+) ONDA_SANDBOX_KEY=(\S{20,})", said[1])
        assert match is not None
        assert match[1] == url
        assert charge(url, "r-1", "a-1").status_code == 401
        assert charge(url, "r-1", "a-1", key=match[2]).json()["code"] == "declined"


def test_a_fault_that_is_none_is_said() -> None:
    """In one line."""
    done = onda("sandbox-pg", "--fault", "earthquake")
    assert done.returncode == 3
    assert done.stderr.startswith("onda: there is no fault earthquake; there are decline, ")


def test_the_cafe_takes_payments_out_of_the_box(tmp_path: Path) -> None:
    """`onda serve`: the cafe is there beside the demo shop, and a guest pays on the sandbox's page."""
    with serving(tmp_path) as server:
        headers = {"authorization": f"Bearer {token('service')}"}
        with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as http:
            pay(http)
            charges = http.get("/metrics").text
            assert (
                'onda_gateway_calls_total{gateway="sandbox",verb="approve",verdict="APPROVED"} 1.0' in charges
            )
        assert server.stop() == 0
    assert any("no real money moves" in line for line in server.said)
    links = [line.split("http")[0].strip() for line in server.said if "?token=" in line]
    assert links == ["owner", "table 1", "customer", "progress", "cafe owner", "cafe table"]
    ledger = Ledger(str(tmp_path / "sandbox.db"), lambda: 0)
    assert ledger.balance() == 8800  # a latte and a scone
    ledger.close()
    with serving(tmp_path, env={"ONDA_SANDBOX": "off"}) as server:
        assert server.stop() == 0
    assert not any("sandbox" in line for line in server.said)


def test_a_pay_page_is_where_it_was_after_a_restart(tmp_path: Path) -> None:
    """Guests who are on it while the shop is killed and comes back go on there."""
    urls = []
    for _ in range(2):
        with serving(tmp_path) as server:
            urls += re.findall(r"sandbox=(http\S+)", "\n".join(server.said))
            assert httpx.get(urls[-1] + "/healthz", trust_env=False).status_code < 500
            server.popen.kill()
    assert len(urls) == 2
    assert urls[0] == urls[1]


def pay(http: httpx.Client) -> None:
    """Order and pay at the cafe as a guest of table 1."""

    def do(path: str, **body: Any) -> dict[str, Any]:
        answer = http.post(f"/v1/{path}", json=body)
        assert answer.status_code in (200, 202), answer.text
        result: dict[str, Any] = answer.json()["result"]
        return result

    def state() -> dict[str, Any]:
        found: dict[str, Any] = http.get("/v1/stores/cafe/sync").json()["state"]
        return found

    shop = state()
    assert shop["shop"]["self"]["payment_mode"] == "prepay"
    assert shop["shop"]["self"]["hold_seconds"] == 600
    assert shop["coupons"]["welcome"]["remaining"] == 100
    assert set(shop["tables"]) == {"1", "2"}
    lines = [{"product": "latte", "quantity": 1}, {"product": "scone", "quantity": 1}]
    made = do("stores/cafe/create-order", lines=lines, user="kim")
    assert made["total"] == 8800
    wanted = {"order": made["order"], "amount": 8800, "payer": "kim", "method": "sandbox"}
    payment = do("stores/cafe/prepare-payment", **wanted)["payment"]
    deadline = time.monotonic() + 5
    while not (found := state()["payments"][payment]).get("checkout"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    back = httpx.post(found["checkout"]["url"], data={"choice": "pay"}, trust_env=False)
    location = httpx.URL(back.headers["location"])
    assert str(location).startswith(f"{http.base_url}".rstrip("/") + f"/pay/cafe/{payment}?")
    ref = location.params["ref"]
    done = do("stores/cafe/approve-payment", order=made["order"], payment=payment, provider_ref=ref)
    assert done["status"] == "PAID"
