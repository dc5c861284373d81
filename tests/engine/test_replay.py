"""A start that reads the log in chunks: what rings get back, answers over a chunk's end, odd envelopes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from engine import Answer, Config, Cursor, Node, open_node, replay
from engine.codec import Envelope, StoredEnvelope, decode_event, decode_stored, encode, stored_time
from engine.domain.topic import Published
from tests.engine.shop import OWNER, STORE, config, make_shop, order


async def test_rings_get_back_only_the_newest_of_a_long_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tail larger than what rings may keep is replayed whole; an old cursor then starts afresh."""
    settings = config(str(tmp_path), checkpoint_s=3600.0)
    async with open_node(settings) as node:
        await make_shop(node)
        epoch, early = node.epoch, node.actors[STORE].version
        for number in range(60):
            await node.ask(STORE, order(order=f"o{number}"), by=OWNER)
        live = await node.read(STORE)
        node.upkeep.take = _nothing  # type: ignore[method-assign]
    monkeypatch.setattr(replay, "CHUNK_BYTES", 2_000)
    async with open_node(_with(settings, feeds_bytes_max=8_000)) as node:
        assert await node.read(STORE) == live
        feed = node.feeds[STORE]
        assert 0 < feed.bytes <= 8_000
        late = (await node.subscribe(STORE, Cursor(epoch, live.version - 2))).take()
        assert [frame.version for frame in late] == [live.version - 1, live.version]
        assert (await node.subscribe(STORE, Cursor(epoch, early))).reset == "expired"


@pytest.mark.parametrize("chunk_bytes", [1, 2_000, 1 << 20])
async def test_an_answer_is_the_same_wherever_a_chunk_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    """Commands with and without an id, several records each: repeated after a start they answer as before."""
    settings = config(str(tmp_path), checkpoint_s=3600.0)
    answers: dict[str, Answer] = {}

    async def ask(node: Node, stream: str, number: int) -> None:
        name = f"{stream[6:]}-{number}"
        id_ = name if number % 3 else None
        answer = await node.ask(stream, order(order=name), by=OWNER, id=id_)
        if id_ is not None:
            answers[id_] = answer

    async with open_node(settings) as node:
        for stream in (STORE, "store:s2"):
            await make_shop(node, stream)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                for stream in (STORE, "store:s2"):
                    nursery.start_soon(ask, node, stream, number)
        node.upkeep.take = _nothing  # type: ignore[method-assign]
    monkeypatch.setattr(replay, "CHUNK_BYTES", chunk_bytes)
    async with open_node(settings) as node:
        for id_, answer in answers.items():
            assert len(answer.events) == 2
            again = await node.ask(f"store:{id_[:2]}", order(order=id_), by=OWNER, id=id_)
            assert again == answer._replace(replayed=True)


@pytest.mark.parametrize(
    ("data", "patch"),
    [
        ({"patch": {}}, {}),
        ({"a": 1, "patch": {"b": 2}, "c": [{"x": 0, "patch": {}}]}, {}),
        ({"a": ',"patch":{', "b": '"time":"never"'}, {"x": {"y": {"a": 1, "patch": {"b": 2}}}}),
        ({"a": 1, "patch": {"b": 2}}, {"x": {"y": {"a": '","patch":{', "patch": {"b": {}}}}}),
    ],
)
def test_an_event_is_found_whatever_stands_beside_it(
    data: dict[str, object], patch: dict[str, dict[str, object]]
) -> None:
    """Fields named `patch`, and text that looks like one, mislead nobody."""
    event = Published("e1", msgspec.Raw(encode(data)), 5, type="Order")
    time = "2026-11-20T18:15:30.123Z"
    envelope = Envelope("i", "abc-7", "topic:t/0", 7, "Published", time, 'by","time":"x', "c", event, patch)
    body = encode(envelope)
    whole = msgspec.json.decode(body, type=StoredEnvelope)
    assert decode_stored("topic", body) == decode_event("topic", whole.type, whole.data) == event
    assert stored_time(body) == whole.time == time


def test_an_event_of_a_newer_version_is_refused() -> None:
    """A type that nobody knows is an error, not something else."""
    envelope = Envelope("i", "abc-7", "topic:t/0", 7, "Unheard", "", "", "", {"a": 1}, {})
    with pytest.raises(msgspec.DecodeError):
        decode_stored("topic", encode(envelope))


def _with(settings: Config, **changes: object) -> Config:
    return msgspec.structs.replace(settings, **changes)


async def _nothing() -> bool:
    await trio.lowlevel.checkpoint()
    return True
