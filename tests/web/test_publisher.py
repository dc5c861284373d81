"""The publisher: tries again, keeps what it cannot send, and nothing is lost, doubled or out of order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from tests.web.site import running, token
from web.publisher import BATCH_BYTES_MAX, BATCH_MAX, Publisher, Refused, batched, open_publisher

pytestmark = pytest.mark.first_node


class Away:
    """A server that answers as it is told, and remembers what it was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.got: list[list[str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        told = self.answers.pop(0) if self.answers else 200
        self.got.append([one["event_id"] for one in msgspec.json.decode(request.content)["records"]])
        if isinstance(told, Exception):
            raise told
        return httpx.Response(told, json={"code": "code", "detail": "detail"})

    def publisher(self, kept: Path) -> Publisher:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self), base_url="http://onda")
        return Publisher(client, kept, 0.0001)


def records(*names: str) -> list[dict[str, Any]]:
    return [{"event_id": name, "key": "k", "data": name} for name in names]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "unsent.jsonl"


async def test_one_try_and_three_more(kept: Path) -> None:
    """Whatever may pass: no connection, too much to do, an answer that does not come."""
    away = Away(httpx.ConnectError("no"), 503, httpx.ReadTimeout("no"))
    publisher = away.publisher(kept)
    assert await publisher.publish("news", records("a")) == (1, 0)
    assert away.got == [["a"]] * 4
    assert publisher.retries == 3
    assert not kept.exists()


async def test_what_cannot_be_sent_is_kept_and_goes_first(kept: Path) -> None:
    """Also by the next process, and in order."""
    away = Away(200, *[503] * 8)
    publisher = away.publisher(kept)
    many = records(*(f"r{n}" for n in range(BATCH_MAX + 1)))
    assert await publisher.publish("news", many) == (BATCH_MAX, 1)
    assert await publisher.publish("news", records("b")) == (0, 1)
    assert len(away.got) == 1 + 4 + 4, "what is kept was tried first, and b not at all"
    assert away.got[-1] == [f"r{BATCH_MAX}"]
    with kept.open("ab") as file:
        file.write(b'{"topic":"news","rec')  # a process that ended while it wrote
    assert await Away(*[503] * 4).publisher(kept).publish("news", records("c")) == (0, 1)
    back = Away()
    assert await back.publisher(kept).publish("news", records("d")) == (1, 0)
    assert back.got == [[f"r{BATCH_MAX}", "b", "c"], ["d"]]
    assert not kept.exists()


async def test_what_is_refused_is_told_and_not_kept(kept: Path) -> None:
    """Of what was kept before, it is put aside so that the others can go."""
    away = Away(400)
    with pytest.raises(Refused) as refusal:
        await away.publisher(kept).publish("news", records("a"))
    assert (refusal.value.code, len(away.got)) == ("code", 1)
    assert not kept.exists()
    await Away(*[503] * 4).publisher(kept).publish("old", records("a"))
    back = Away(422)
    assert await back.publisher(kept).publish("news", records("b")) == (1, 0)
    assert back.got == [["a"], ["b"]]
    assert b'"a"' in kept.with_suffix(".refused").read_bytes()


async def test_what_comes_behind_a_refusal_is_told_too(kept: Path) -> None:
    """Nobody else would know that it was not sent."""
    away = Away(200, 422)
    names = [f"r{n}" for n in range(3 * BATCH_MAX)]
    with pytest.raises(Refused) as refusal:
        await away.publisher(kept).publish("news", records(*names))
    assert [one["event_id"] for one in refusal.value.records] == names[BATCH_MAX:]
    assert refusal.value.unfit
    assert not kept.exists()


async def test_one_record_that_does_not_fit_takes_no_other_along(kept: Path) -> None:
    """Of those that were kept together only this one is put aside."""
    names = [f"r{n}" for n in range(10)]
    await Away(*[503] * 4).publisher(kept).publish("news", records(*names))

    class Picky(Away):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            self.answers = [422 if b'"r6"' in request.content else 200]
            return super().__call__(request)

    back = Picky()
    assert await back.publisher(kept).send_kept()
    taken = [name for batch in back.got if "r6" not in batch for name in batch]
    assert taken == [name for name in names if name != "r6"]
    aside = kept.with_suffix(".refused").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["record"]["event_id"] for line in aside] == ["r6"]
    assert not kept.exists()


@pytest.mark.parametrize("status", [301, 401, 403, 404])
async def test_a_refusal_of_the_publisher_leaves_what_is_kept(kept: Path, status: int) -> None:
    """A token that has ended says nothing about the records."""
    await Away(*[503] * 4).publisher(kept).publish("news", records("a"))
    before = kept.read_bytes()
    publisher = Away(status, status).publisher(kept)
    with pytest.raises(Refused):
        await publisher.send_kept()
    with pytest.raises(Refused) as refusal:
        await publisher.publish("news", records("b"))
    assert [one["event_id"] for one in refusal.value.records] == ["b"]
    assert not refusal.value.unfit
    assert kept.read_bytes() == before
    assert not kept.with_suffix(".refused").exists()


async def test_what_is_on_its_way_when_all_is_cancelled_is_kept(kept: Path) -> None:
    """It may have arrived, and then it is there once all the same."""
    publisher = Away(200, *[503] * 4).publisher(kept)
    publisher._backoff_s = 60
    with trio.move_on_after(0.2) as scope:
        await publisher.publish("news", records(*(f"r{n}" for n in range(BATCH_MAX + 2))))
    assert scope.cancelled_caught
    back = Away()
    assert await back.publisher(kept).send_kept()
    assert back.got == [[f"r{BATCH_MAX}", f"r{BATCH_MAX + 1}"]]


async def test_a_name_that_no_topic_can_have(kept: Path) -> None:
    """Kept, its records would be in the way of all others."""
    with pytest.raises(ValueError, match="1-64 characters"):
        await Away(*[503] * 4).publisher(kept).publish("new s", records("a"))
    assert not kept.exists()


def test_batches_fit_into_a_request() -> None:
    """By count and by bytes."""
    assert [len(batch) for batch in batched(records(*map(str, range(1001))))] == [500, 500, 1]
    large = [{"data": "x" * 60_000}] * 40
    sizes = [len(msgspec.json.encode(batch)) for batch in batched(large)]
    assert max(sizes) <= BATCH_BYTES_MAX + 100
    assert len(sizes) == 3


async def test_against_a_server(kept: Path) -> None:
    """Ids are made where there are none; a batch sent twice is there once."""
    async with running() as site, open_publisher(site.url, token("service"), kept=kept) as publisher:
        assert await publisher.publish("news", [{"data": 1}, {"data": 2}]) == (2, 0)
        await publisher.publish("news", records("a"))
        await publisher.publish("news", records("a"))
        heads = [await site.node.topics.shelf.head(f"topic:news/{number}") for number in range(3)]
        assert sum(heads) == 3
