"""The history on the command line, as a process of its own, beside a running server."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx

from tests.history.evening import dump
from tests.web.process import onda, serving
from tests.web.site import token


def test_rebuild_and_report(tmp_path: Path) -> None:
    """`onda history` says how far it is; `--rebuild` fills an empty one; the report comes from either."""
    data, copy = tmp_path / "data", f"sqlite:///{tmp_path}/copy.db"
    headers = {"authorization": f"Bearer {token('service')}"}
    with serving(data) as server:
        order = {"order": "o-1", "lines": [{"product": "gimbap", "quantity": 2}]}
        path = f"{server.url}/v1/stores/demo"
        assert httpx.post(f"{path}/create-order", json=order, headers=headers).status_code == 200
        made = onda("history", "--rebuild", "--db", copy, "--data", str(data))
        assert made.returncode == 0, made.stderr
        head = int(re.search(r"up to (\d+) of", made.stdout)[1])  # type: ignore[index]
        told = onda("report", "--store", "demo", "--json", "--db", copy, "--data", str(data))
        report = json.loads(told.stdout)
        assert report["orders"]["placed"] == 1
        assert report["position"] == head
        assert [due["order"] for due in report["open_orders"]] == ["o-1"]
        assert server.stop() == 0
    again = onda("history", "--rebuild", "--data", str(data))
    assert (again.returncode, "not empty" in again.stderr) == (3, True)
    assert f"records up to {head} of" in onda("history", "--data", str(data)).stdout
    shown = onda("report", "--store", "demo", "--data", str(data)).stdout
    assert "orders: 1 placed" in shown
    assert "carried forward: 1 orders, 7,000 due" in shown


def test_what_goes_wrong_is_one_line(tmp_path: Path) -> None:
    """No day, no folder, no database, no history."""
    there = ["--data", str(tmp_path)]
    for arguments, code, text in (
        (["report", "--store", "s1", "--day", "soon", *there], 3, "is no day: write it as"),
        (["history", "--data", str(tmp_path / "nowhere")], 3, "there is no folder"),
        (["history", "--db", "none", *there], 3, "there is no history"),
        (["history", "--rebuild", *there], 3, "there is no log"),
        (["history", "--db", "postgresql://onda:hush@127.0.0.1:1/x", *there], 1, "onda:***@127.0.0.1"),
        (["report", "--store", "s1", "--db", "mysql://onda:hush@127.0.0.1:1/x", *there], 1, "onda:***@127"),
    ):
        done = onda(*arguments)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "hush" not in done.stdout + done.stderr


def test_settings_are_shown_without_passwords() -> None:
    """Neither in the URL's middle nor at its end."""
    for url in (
        "postgresql://onda:hu@sh@h/x",
        "mysql://h/x?user=a&password=hush",
        "postgres://onda:hush@h/x",
    ):
        shown = onda("config", env={"ONDA_DB": url}).stdout
        line = next(line for line in shown.splitlines() if line.startswith("db = "))
        assert "***" in line
        assert "hush" not in line
        assert "sh@" not in line


def test_a_killed_server_leaves_a_history_without_holes_or_doubles(tmp_path: Path) -> None:
    """Killed in the middle, three times; afterwards it is what the log says, row by row."""
    data, copy = tmp_path / "data", f"sqlite:///{tmp_path}/copy.db"
    headers = {"authorization": f"Bearer {token('service')}"}
    for life in range(4):
        with serving(data) as server, httpx.Client(base_url=server.url, headers=headers) as client:
            for number in range(60):
                lines = [{"product": "gimbap", "quantity": 1}]
                order = {"order": f"o-{life}-{number}", "lines": lines, "user": "u1"}
                assert client.post("/v1/stores/demo/create-order", json=order).status_code == 200
            if life == 3:
                while client.get("/v1/history/store:demo", params={"limit": 1}).json()["lag"]:
                    time.sleep(0.05)
                assert server.stop() == 0
            else:
                server.popen.kill()
                server.wait()
    made = onda("history", "--rebuild", "--db", copy, "--data", str(data))
    assert made.returncode == 0, made.stderr
    kept, rebuilt = dump(f"sqlite:///{data}/history.db"), dump(copy)
    assert len(kept["events"]) > 480
    assert rebuilt == kept
