"""What is logged, in what form, and that no token ever is."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from tests.web.site import running, set_up, token
from web.logs import configure_logs, hide

pytestmark = pytest.mark.first_node


async def test_no_token_reaches_the_access_log(capfd: pytest.CaptureFixture[str]) -> None:
    """With the access log on there is one line per answer, and its token is hidden."""
    configure_logs(as_json=True)
    good = token("owner:s1")
    async with running(access_log=True) as site:
        async with site.client("service") as client:
            await set_up(client)
        async with site.client() as client:
            headers = {"authorization": f"Bearer {good}", "cookie": f"onda_token={good}"}
            await client.get("/v1/stores/s1/sync", params={"token": good, "limit": 5}, headers=headers)
    said = capfd.readouterr().err
    (line,) = [json.loads(line) for line in said.splitlines() if "/v1/stores/s1/sync" in line]
    assert (line["event"], line["method"], line["status"]) == ("answered", "GET", 200)
    assert line["query"] == "token=[hidden]&limit=5"
    assert good not in said
    assert good.split(".")[1] not in said


async def test_the_access_log_is_off_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    """Answers are counted, not logged."""
    configure_logs(as_json=False)
    async with running() as site, site.client() as client:
        await client.get("/healthz")
    assert "answered" not in capfd.readouterr().err


async def test_a_fault_is_logged_with_its_trace_and_without_the_token(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators see what happened; clients and the log do not see the token."""
    configure_logs(as_json=False)
    good = token("service")
    async with running() as site, site.client() as client:

        async def ask(*_args: object, **_options: object) -> None:
            raise RuntimeError(f"cannot send token={good} to Bearer {good}")

        monkeypatch.setattr(site.node, "ask", ask)
        headers = {"authorization": f"Bearer {good}"}
        answer = await client.post("/v1/stores/s1/open-store", headers=headers)
    assert answer.status_code == 500
    said = capfd.readouterr().err
    assert "RuntimeError" in said
    assert "request failed" in said
    assert good not in said
    assert "cannot send" not in answer.text


def test_one_line_per_event_in_both_forms(capfd: pytest.CaptureFixture[str]) -> None:
    """Ours and the standard library's loggers come out alike."""
    for as_json in (True, False):
        configure_logs(as_json=as_json)
        structlog.get_logger("onda.x").warning("disk slow", ms=12)
        logging.getLogger("onda.log").warning("torn tail: %d bytes", 7)
        ours, theirs = capfd.readouterr().err.splitlines()
        if as_json:
            assert json.loads(ours) | {"timestamp": ""} == {
                "timestamp": "", "level": "warning", "event": "disk slow", "ms": 12,
            }  # fmt: skip
            assert json.loads(theirs)["event"] == "torn tail: 7 bytes"
        else:
            assert 'level=warning event="disk slow" ms=12' in ours
            assert 'event="torn tail: 7 bytes"' in theirs


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("GET /x?token=abc.def-1&y=2", "GET /x?token=[hidden]&y=2"),
        ("Authorization: bearer xyz", "Authorization: bearer [hidden]"),
        (f"made {token('service')}!", "made [hidden]!"),
        ("a table was opened", "a table was opened"),
    ],
)
def test_tokens_are_hidden_wherever_they_stand(text: str, hidden: str) -> None:
    """By the word before them, or by how they look."""
    assert hide(text) == hidden
