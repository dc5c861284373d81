"""What operators and their machines ask."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import Rejected
from tests.web.site import Running, listening, order, running
from tests.web.test_commands import check_problem

pytestmark = pytest.mark.first_node


async def test_health_and_readiness_need_no_token(shop: Running) -> None:
    """Alive is not ready: who drains, or cannot write, is alive still."""
    async with shop.client() as client:
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        said = {"status": "ready", "reasons": [], "node": "onda-1", "writable": True}
        for path in ("/readyz", "/readyz?for=reads", "/readyz?for=commands"):
            assert (await client.get(path)).json() == said
        check_problem(await client.get("/readyz?for=fun"), 400, "malformed")
        assert (await client.head("/healthz")).status_code == 200
        await shop.node.stop()
        for path in ("/readyz", "/readyz?for=reads"):
            draining = await client.get(path)
            assert (draining.status_code, draining.json()["reasons"]) == (503, ["draining"])
        assert (await client.get("/healthz")).status_code == 200


async def test_a_full_disk_is_not_ready(shop: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that takes no orders says so."""
    monkeypatch.setattr(type(shop.node), "writable", property(lambda _node: False))
    async with shop.client() as client:
        answer = await client.get("/readyz")
        reads = await client.get("/readyz?for=reads")
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["log not writable"])
    assert (reads.status_code, reads.json()["reasons"], reads.json()["writable"]) == (200, [], False)


async def test_metrics_are_in_the_text_format(shop: Running) -> None:
    """The node's and the web's, with the open streams."""
    async with shop.client("service") as client, listening(client, "/v1/stores/s1/stream") as stream:
        await stream.message("snapshot")
        await client.get("/nowhere")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for line in (
        'onda_streams{transport="sse"} 1.0',
        'onda_http_responses_total{status="404"} 1.0',
        "onda_subscribers 1.0",
        "onda_connections 2.0",
    ):
        assert line in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert "process_resident_memory_bytes" in names


@pytest.mark.parametrize("page", ["streams", "reactions", "parked"])
async def test_operators_pages_are_for_the_service_only(shop: Running, page: str) -> None:
    """An owner is no operator of the node."""
    async with shop.client("service") as client:
        answer = await client.get(f"/v1/ops/{page}")
        assert isinstance(answer.json()[page], list)
    for who, status in (("owner:s1", 403), ("user:u1", 403), (None, 401)):
        async with shop.client(who) as client:
            assert (await client.get(f"/v1/ops/{page}")).status_code == status
            assert (await client.post("/v1/ops/parked/1/replay")).status_code == status


async def test_streams_and_reactions_show_where_they_are(shop: Running) -> None:
    """Each stream in memory with its version, each reaction with its position."""
    async with shop.client("service") as client:
        done = await order(client)
        streams = (await client.get("/v1/ops/streams")).json()["streams"]
        reactions = (await client.get("/v1/ops/reactions")).json()["reactions"]
    shown = {stream["stream"]: stream["version"] for stream in streams}
    assert shown["store:s1"] == done["events"][-1]["version"]
    flow = ["follow", "gateway", "progress", "tasks"]
    names = [reaction["reaction"] for reaction in reactions]
    assert [name for name in names if name in flow] == flow * len(shop.node.partitions)


async def test_parked_records_are_replayed_or_skipped_by_id(
    shop: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node does it; what is not parked is 404, what it refuses 422."""
    asked: list[Any] = []

    async def settle(id_: int) -> None:
        asked.append(id_)
        if id_ == 8:
            raise Rejected("not_first", "an earlier record of this stream is parked")

    async with shop.client("service") as client:
        check_problem(await client.post("/v1/ops/parked/7/replay"), 404, "not_found")
        check_problem(await client.post("/v1/ops/parked/x/skip"), 404, "not_found")
        check_problem(await client.post("/v1/ops/parked/7/eat"), 404, "not_found")
        check_problem(await client.get("/v1/ops/parked/7/skip"), 405, "method_not_allowed")
        monkeypatch.setattr(shop.node, "replay_parked", settle)
        monkeypatch.setattr(shop.node, "skip_parked", settle)
        assert (await client.post("/v1/ops/parked/7/replay")).json() == {"settled": True}
        assert (await client.post("/v1/ops/parked/9/skip")).status_code == 200
        check_problem(await client.post("/v1/ops/parked/8/skip"), 422, "not_first")
    assert asked == [7, 9, 8]


async def test_the_pages_and_files_are_served_with_tags(shop: Running) -> None:
    """A browser asks whether its copy is good; nothing outside the folder is given."""
    async with shop.client() as client:
        page = await client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for path in ("/docs", "/openapi.json", "/static/onda.js"):
            first = await client.get(path)
            again = await client.get(path, headers={"if-none-match": first.headers["etag"]})
            assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
            assert first.headers["x-content-type-options"] == "nosniff"
        assert (await client.get("/static/onda.js")).headers[
            "content-type"
        ] == "text/javascript; charset=utf-8"
        for path in (
            "/static/..%2fapp.py",
            "/static/%2e%2e/app.py",
            "/static//etc/passwd",
            "/static/",
            "/static/no",
        ):
            check_problem(await client.get(path), 404, "not_found")
        check_problem(await client.post("/static/onda.js"), 404, "not_found")


async def test_every_answer_is_safe_to_show() -> None:
    """No sniffing, no framing, and no address (with its token) goes to another site."""
    async with running() as site, site.client() as client:
        for path in ("/", "/healthz", "/nowhere", "/docs"):
            headers = (await client.get(path)).headers
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
