"""What operators and their machines ask: is it alive, is it ready, how is it, what is parked, whose money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine import inspection, operating
from web.messages import Problem, Request, Response, allow, json_response
from web.site import Site

STREAMS = "streams"
"""What nodes ask each other."""
ROWS_MAX = 500
"""Streams that each of several nodes shows."""

_NO_STORE = [("cache-control", "no-store")]


def watch(site: Site, request: Request, page: str) -> Response:
    """Answer `/healthz`, `/readyz` and `/metrics`, which need no token.

    Raises:
        Problem: `malformed`.
    """
    if page == "healthz":
        return json_response(b'{"status":"alive"}', 200, _NO_STORE)
    if page == "metrics":
        return Response(200, [("content-type", CONTENT_TYPE_LATEST), *_NO_STORE], _metrics(site))
    return _ready(site, request.field("for"))


def _ready(site: Site, purpose: str | None) -> Response:
    """Say whether this node is ready for commands, or at least for reads and streams: those go on from
    memory while the log takes nothing, and where that is so for every node it must not end the screens.
    """
    if purpose not in (None, "commands", "reads"):
        raise Problem("malformed", "`for` must be commands or reads")
    writable = site.node.writable
    reasons = []
    if site.node.draining:
        reasons.append("draining")
    if not writable and purpose != "reads":
        reasons.append("log not writable")
    status = "not ready" if reasons else "ready"
    said = {"status": status, "reasons": reasons, "node": site.node.node_id, "writable": writable}
    return json_response(msgspec.json.encode(said), 503 if reasons else 200, _NO_STORE)


class _WebMetrics(Collector):
    """The counts of a site as Prometheus wants them."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> Iterable[Metric]:
        site = self._site
        answers = CounterMetricFamily("onda_http_responses", "Answers over HTTP by status", labels=["status"])
        for status, count in sorted(site.responses.items()):
            answers.add_metric([str(status)], count)
        ends = CounterMetricFamily(
            "onda_stream_ends", "Streams ended by the server, by reason", labels=["reason"]
        )
        for reason, count in sorted(site.ends.items()):
            ends.add_metric([reason], count)
        streams = GaugeMetricFamily("onda_streams", "Open streams by transport", labels=["transport"])
        for transport, count in sorted(site.streams.items()):
            streams.add_metric([transport], count)
        connections = GaugeMetricFamily("onda_connections", "Open connections", value=site.connections)
        away = CounterMetricFamily("onda_turned_away", "Connections refused at a cap", value=site.turned_away)
        return answers, ends, streams, connections, away


def _metrics(site: Site) -> bytes:
    """Return the node's metrics and those of the web, as text."""
    registry = CollectorRegistry()
    registry.register(_WebMetrics(site))
    return site.node.render_metrics() + generate_latest(registry)


async def operate(site: Site, request: Request, rest: list[str]) -> Response:
    """Answer `/v1/ops/…`, for the role `service`.

    Raises:
        Problem: `forbidden` or `not_found`.
    """
    match rest:
        case ["streams" | "reactions" | "parked" as page]:
            if done := allow(request, "GET", "HEAD"):
                return done
            _check_operator(site, request)
            return json_response(msgspec.json.encode(await _page(site, page)), 200, _NO_STORE)
        case ["payments"]:
            if done := allow(request, "GET", "HEAD"):
                return done
            _check_operator(site, request)
            return json_response(msgspec.json.encode(await site.money.look()), 200, _NO_STORE)
        case ["parked", id_, "replay" | "skip" as verb]:
            if done := allow(request, "POST"):
                return done
            _check_operator(site, request)
            return await _settle_parked(site, id_, verb)
        case _:
            raise Problem("not_found", "there is nothing at this path")


def _check_operator(site: Site, request: Request) -> None:
    who = site.gate.identify(request)
    if who.role != "service" and who.store != "*":
        raise Problem("forbidden", "this is for the role service")


async def _page(site: Site, page: str) -> dict[str, Any]:
    """Return a page: with a shared log, of all nodes."""
    if page == "parked":
        return {"parked": await operating.parked(site.node)}
    if page == "reactions":
        return {"reactions": await operating.reactions(site.node)}
    if site.node.cluster is None:
        return _streams(site)
    pages = {site.node.node_id: _streams_shown(site), **await site.node.cluster.ask_all(STREAMS)}
    shown: dict[str, Any] = {"streams": [], "open": Counter(), "ends": Counter(), "more": False, "nodes": {}}
    for name, of_node in sorted(pages.items()):
        shown["streams"] += [row | {"node": name} for row in of_node["streams"]]
        shown["open"].update(of_node["open"])
        shown["ends"].update(of_node["ends"])
        shown["more"] |= of_node["more"]
        shown["nodes"][name] = {"open": of_node["open"], "on_duty": of_node["on_duty"]}
    return shown


def answer_others(site: Site) -> None:
    """Answer what other nodes ask for their operators."""

    async def tell(_: Mapping[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return _streams_shown(site)

    if site.node.cluster is not None:
        site.node.cluster.handlers[STREAMS] = tell


def _streams(site: Site) -> dict[str, Any]:
    return {"streams": inspection.streams(site.node), "open": dict(site.streams), "ends": dict(site.ends)}


def _streams_shown(site: Site) -> dict[str, Any]:
    """Return what one of several nodes shows of its streams: the busiest, and its partitions."""
    page = _streams(site)
    rows = sorted(page["streams"], key=lambda row: (-row["held_down"], -row["subscribers"], -row["version"]))
    on_duty = [number for number, one in enumerate(site.node.partitions) if one.on_duty]
    return page | {"streams": rows[:ROWS_MAX], "more": len(rows) > ROWS_MAX, "on_duty": on_duty}


async def _settle_parked(site: Site, id_: str, verb: str) -> Response:
    try:
        await (site.node.replay_parked(int(id_)) if verb == "replay" else site.node.skip_parked(int(id_)))
    except (KeyError, ValueError):
        raise Problem("not_found", "nothing is parked under this id") from None
    return json_response(b'{"settled":true}', 200, _NO_STORE)
