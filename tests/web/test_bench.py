"""`onda bench` against a server that runs: its figures, what it leaves behind, and where it refuses to go."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.web.process import onda, serving
from tests.web.site import token

pytestmark = pytest.mark.slow


def run(url: str, store: str, *options: str, role: str = "owner") -> tuple[int, str]:
    """A short run with a token of that store; its exit code and all that it said."""
    bearer = token(role, store=store)
    short = ("--connections", "5", "--seconds", "1")
    done = onda("bench", url, "--token", bearer, "--store", store, *short, *options)
    return done.returncode, done.stdout + done.stderr


def test_a_run_makes_its_own_store_and_loses_nothing(tmp_path: Path) -> None:
    """Twice, as the second run finds the store of the first."""
    with serving(tmp_path, "--no-demo") as server:
        for _ in range(2):
            code, said = run(server.url, "measured", "--json")
            assert code == 0, said
            figures = json.loads(said)
            assert (figures["published"], figures["gaps"], figures["lost"]) == (10, 0, 0)
            assert 0 < figures["screen_ms"]["p50"] <= figures["screen_ms"]["max"]
        bearer = {"authorization": f"Bearer {token('owner', store='measured')}"}
        state = httpx.get(f"{server.url}/v1/stores/measured/sync", headers=bearer).json()["state"]
        assert state["products"]["onda-bench"]["sold_out"]
        assert state["orders"] == {}


def test_a_shop_that_is_in_use_is_left_alone_until_told(tmp_path: Path) -> None:
    """The demo shop is somebody's; a staff token and a store of others are refused at once."""
    with serving(tmp_path) as server:
        code, said = run(server.url, "demo")
        assert (code, "in use" in said) == (2, True), said
        bearer = {"authorization": f"Bearer {token('owner', store='demo')}"}
        state = httpx.get(f"{server.url}/v1/stores/demo/sync", headers=bearer).json()["state"]
        assert "onda-bench" not in state["products"]
        code, said = run(server.url, "demo", "--in-use")
        assert code == 0, said
        code, said = run(server.url, "demo", role="staff")
        assert (code, "owner" in said) == (2, True), said
        bearer = token("owner", store="other")
        done = onda("bench", server.url, "--token", bearer, "--store", "demo", "--in-use")
        assert (done.returncode, "forbidden" in done.stderr) == (1, True), done.stderr
