"""`onda trace`: one event end to end, beside a running server and after it."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import httpx
import pytest

from tests.web.process import onda, serving
from web.cli_trace import NoSuchEvent, Record, make_trace

RUN = ("--open", "--no-demo", "--plugin", "examples.accounts")


def record(position: int, id_: str, stream: str, cause: str = "", at: str = "00.000") -> Record:
    """A record at a time within one minute."""
    return Record(position, id_, stream, position, "Happened", f"2026-11-20T18:15:{at}Z", "service:x", cause)


def test_causes_and_what_follows_are_put_in_order() -> None:
    """Nearest cause first; consequences of consequences too; strangers not."""
    records = [
        record(1, "a", "store:s1"),
        record(2, "b", "store:s1", "a", "00.010"),
        record(3, "x", "store:s1", "other"),
        record(4, "c", "user:u1", "b", "00.015"),
        record(5, "d", "user:u1", "c", "00.040"),
    ]
    made = make_trace("b", reversed(records), {"follow": 4, "redis": 1}, {("follow", 2): "no luck"})
    assert [one.id for one in made.causes] == ["a"]
    assert [one.id for one in made.follows] == ["c", "d"]
    steps = [(step.step, step.at or step.by, step.ms) for step in made.steps]
    assert steps == [
        ("received", "2026-11-20T18:15:00.010Z", 0),
        ("durable", "2026-11-20T18:15:00.015Z", 5),
        ("published", "2026-11-20T18:15:00.015Z", 5),
        ("reacted: follow", None, None),
        ("reacted: redis", None, None),
        ("delivered", "2026-11-20T18:15:00.015Z", 5),
        ("delivered", "2026-11-20T18:15:00.040Z", 30),
    ]
    assert [step.note for step in made.steps[3:5]] == ["PARKED: no luck", "not yet, by the last checkpoint"]
    with pytest.raises(NoSuchEvent):
        make_trace("z", records, {}, {})


@pytest.mark.one_node("history, and the files of the write-ahead log")
def test_an_event_is_followed_from_the_account_to_the_user(tmp_path: Path) -> None:
    """The account's wish for snapshots, the snapshots, the user's event; also out of the history alone."""
    data = tmp_path / "data"
    with serving(data, *RUN) as server:
        assert httpx.post(f"{server.url}/accounts", json={"name": "a", "balance": 1}).status_code == 201
        until = time.monotonic() + 10
        while "EventSent" not in (shown := onda("tail", "-n", "0", "--data", str(data)).stdout):
            assert time.monotonic() < until
        ids = {one["type"]: one["id"] for one in map(json.loads, shown.splitlines())}
        beside = onda("trace", ids["SnapshotsWanted"], "--data", str(data), "--url", server.url)
        assert beside.returncode == 0, beside.stderr
        print(beside.stdout)
        assert re.search(r"received +by user:123", beside.stdout)
        assert re.search(r"\+\d+ ms +durable +at position 2 of the log", beside.stdout)
        assert re.search(r"delivered +to user:123 1 EventSent", beside.stdout)
        assert re.search(r"average: durable +\d+\.\d\d ms", beside.stdout)
        assert server.stop() == 0
    made = json.loads(onda("trace", ids["EventSent"], "--json", "--data", str(data)).stdout)
    assert [one["type"] for one in made["causes"]] == ["SnapshotsGenerated", "SnapshotsWanted"]
    assert {"step": "reacted: accounts", "note": "done"} in made["steps"]
    nothing = onda("trace", "no-such", "--data", str(data))
    assert (nothing.returncode, nothing.stderr.strip()) == (
        1,
        "onda: neither the log nor the history has an event no-such",
    )
    for segment in (data / "log").iterdir():  # all that was in it is in the history
        shutil.move(segment, tmp_path / segment.name)
    gone = json.loads(onda("trace", ids["SnapshotsWanted"], "--json", "--data", str(data)).stdout)
    assert [one["type"] for one in gone["follows"]] == ["SnapshotsGenerated", "EventSent"]


@pytest.mark.one_node("history, and the files of the write-ahead log")
def test_a_sighting_is_followed_from_its_own_id(tmp_path: Path) -> None:
    """Whoever sent it knows only that one: published, and what the three groups made of it."""
    data, event_id = tmp_path / "data", "0192D3A4-5B6C-7D8E-9F00-112233445566"
    at = "2026-11-20T18:15:30.000Z"
    seen = {"customer_id": "A", "location": "Entrance", "confidence": 1, "detected_at": at}
    with serving(data, "--open", "--no-demo") as server:
        body = {"event_id": event_id, "timestamp": at, "data": seen}
        assert httpx.post(f"{server.url}/v1/customers/identify", json=body).status_code == 200
        until = time.monotonic() + 10
        while not {"NoticeAdded", "VisitCounted"} <= {one["type"] for one in tail(data)}:
            assert time.monotonic() < until
        assert server.stop() == 0
    [noticed] = [one["id"] for one in tail(data) if one["type"] == "NoticeAdded"]
    for _ in range(2):
        made = json.loads(onda("trace", event_id, "--json", "--data", str(data)).stdout)
        assert made["event"]["type"] == "Published"
        assert {one["type"] for one in made["follows"]} == {"NoticeAdded", "VisitCounted"}
        causes = json.loads(onda("trace", noticed, "--json", "--data", str(data)).stdout)["causes"]
        assert [one["type"] for one in causes] == ["Published"]
        if (data / "log").exists():  # then out of the history alone
            for segment in (data / "log").iterdir():
                shutil.move(segment, tmp_path / segment.name)


def tail(data: Path) -> list[dict[str, str]]:
    """All records of the log."""
    return [json.loads(line) for line in onda("tail", "-n", "0", "--data", str(data)).stdout.splitlines()]
