"""Topics over HTTP, for services: publishing, and groups whose members share a topic's records.

POST /v1/topics/{topic}                          one record, or {"records": […]}
GET  /v1/topics/{topic}                          its partitions, and how many records each has had
POST /v1/topics/{topic}/groups/{group}/join      {member?, lease_s?, start?}
POST …/pull      {member, limit?, wait_s?}       records, each with its lease
POST …/ack       {member, leases}                handled
POST …/nack      {member, leases, delay_s?, reason?}   again, later
POST …/park      {member, leases, reason?}       put aside
POST …/renew     {member, leases?}               still at it
POST …/leave     {member}
POST …/seek      {after?: {partition: offset}, time?}
POST …/replay    {records?, drop?}               what was put aside comes back, or is dropped
GET  …/lag       how far behind the group is
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from engine import Message
from engine.domain.fields import Id, Note, Ref, Time
from engine.domain.group.members import Leave, Renew
from engine.domain.group.moving import Offset, Replay
from engine.domain.group.state import PARKED_MAX, Lease, Leases
from engine.domain.group.words import Ack, Nack, Park
from engine.domain.times import to_ms
from engine.domain.topic import RECORDS_MAX
from engine.errors import Malformed, Rejected
from engine.publishing import topic_stream
from engine.records import ID
from web.messages import Headers, Problem, Request, Response, allow, json_response
from web.site import Site
from web.tokens import Identity

LIMIT_MAX = 200
WAIT_S_MAX = 25.0
LEASES_MAX = 1000

T = TypeVar("T")

_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?\Z', re.IGNORECASE)
_NO_STORE: Headers = [("cache-control", "no-store")]

Seconds = Annotated[float, Meta(ge=0.5, le=600.0)]
Delay = Annotated[float, Meta(ge=0.0, le=86_400.0)]


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request; its docstring describes the request."""


class PublishBody(Body, frozen=True):
    """Publish a record (`data`, and what else a record has), or up to 500 as `records`."""

    records: Annotated[list[Message], Meta(min_length=1, max_length=RECORDS_MAX)]


class JoinBody(Body, frozen=True):
    """Take part. A member that says nothing for `lease_s` is out. A new group starts with the first record,
    or after the last one.
    """

    member: Id | None = None
    lease_s: Seconds = 30.0
    start: Literal["first", "last"] = "first"


class PullBody(Body, frozen=True):
    """Get up to `limit` records of the member's partitions; wait `wait_s` for the first one."""

    member: Ref
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 100
    wait_s: Annotated[float, Meta(ge=0.0, le=WAIT_S_MAX)] = 0.0


class AckBody(Body, frozen=True):
    """The records of these leases are handled."""

    member: Ref
    leases: Leases


class NackBody(Body, frozen=True):
    """The records of these leases failed: give them out again after `delay_s` (else after 1, 2, 4 s)."""

    member: Ref
    leases: Leases
    delay_s: Delay | None = None
    reason: Note = ""


class ParkBody(Body, frozen=True):
    """The records of these leases cannot be handled: put them aside."""

    member: Ref
    leases: Leases
    reason: Note = ""


class RenewBody(Body, frozen=True):
    """The member is alive, and works on the records of these leases."""

    member: Ref
    leases: Annotated[tuple[Lease, ...], Meta(max_length=LEASES_MAX)] = ()


class LeaveBody(Body, frozen=True):
    """The member goes; others get what it has."""

    member: Ref


class SeekBody(Body, frozen=True):
    """Go on after these offsets, by partition, or with what was accepted at `time` or later."""

    after: Annotated[dict[int, Offset], Meta(max_length=64)] | None = None
    time: Time | None = None


class ReplayBody(Body, frozen=True):
    """Give out parked records (`<partition>-<offset>`; all when left out) again, or drop them."""

    records: Annotated[tuple[Lease, ...], Meta(max_length=PARKED_MAX)] | None = None
    drop: bool = False


async def topics(site: Site, request: Request, rest: list[str]) -> Response:
    """Answer `/v1/topics/…`.

    Raises:
        Problem: `not_found`, `method_not_allowed`, `unauthorized`, `forbidden`, `unsupported_media_type`.
        OndaError: as `engine.topics.Topics`.
    """
    names = rest[:1] + rest[2:3]
    if not all(ID.match(name) for name in names):
        raise Problem("not_found", "name a topic, and a group, with 1-64 characters of A-Z a-z 0-9 _ . -")
    match rest:
        case [topic]:
            if done := allow(request, "GET", "HEAD", "POST"):
                return done
            who = _service(site, request)
            if request.method == "POST":
                return await _publish(site, who, topic, request)
            return await _describe(site, topic)
        case [topic, "groups", group, "lag"]:
            if done := allow(request, "GET", "HEAD"):
                return done
            _service(site, request)
            return _answer(await site.node.topics.lag(topic, group))
        case [topic, "groups", group, verb] if verb in VERBS:
            if done := allow(request, "POST"):
                return done
            who = _service(site, request)
            body, act = VERBS[verb]
            return _answer(await act(site, who, topic, group, read_body(request, body)))
        case _:
            raise Problem("not_found", "there is nothing at this path")


def _service(site: Site, request: Request) -> Identity:
    who = site.gate.identify(request)
    if who.role != "service" and who.store != "*":
        raise Problem("forbidden", "topics are for services")
    return who


def read_body(request: Request, type_: type[T]) -> T:
    """Read a request's body; an empty one counts as `{}`.

    Raises:
        Problem: `unsupported_media_type`.
        Malformed: it does not fit; the detail names the field.
    """
    if request.body and not _JSON.match(request.headers.get("content-type", "")):
        raise Problem("unsupported_media_type", "send the body as application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "send the body without content-encoding")
    try:
        return msgspec.json.decode(request.body or b"{}", type=type_)
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from None
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None


def _answer(value: Any) -> Response:
    return json_response(msgspec.json.encode(value), 200, _NO_STORE)


async def _publish(site: Site, who: Identity, topic: str, request: Request) -> Response:
    raw = read_body(request, dict[str, msgspec.Raw])
    many = "records" in raw
    messages = read_body(request, PublishBody).records if many else [read_body(request, Message)]
    placed = await site.node.topics.publish(topic, messages, by=who.by)
    return _answer({"records": [one._asdict() for one in placed]})


async def _describe(site: Site, topic: str) -> Response:
    node = site.node.topics
    count = await node.partitions(topic)
    if not count:
        raise Problem("unknown_topic", f"nobody has published to {topic} yet")
    heads = [await node.shelf.head(topic_stream("topic", topic, str(number))) for number in range(count)]
    partitions = [{"partition": number, "head": head} for number, head in enumerate(heads)]
    return _answer({"topic": topic, "partitions": partitions})


async def _join(site: Site, who: Identity, topic: str, group: str, body: JoinBody) -> Any:
    member = body.member or f"m-{site.node.clock.new_id()}"
    lease_ms = int(body.lease_s * 1000)
    return await site.node.topics.join(topic, group, member, lease_ms=lease_ms, start=body.start, by=who.by)


async def _pull(site: Site, who: Identity, topic: str, group: str, body: PullBody) -> Any:
    pull = site.node.topics.pull
    given = await pull(topic, group, body.member, limit=body.limit, wait_s=body.wait_s, by=who.by)
    return {"records": given}


async def _ack(site: Site, who: Identity, topic: str, group: str, body: AckBody) -> Any:
    return await site.node.topics.ask(topic, group, Ack(body.member, body.leases), by=who.by)


async def _nack(site: Site, who: Identity, topic: str, group: str, body: NackBody) -> Any:
    delay_ms = None if body.delay_s is None else int(body.delay_s * 1000)
    word = Nack(body.member, body.leases, delay_ms, body.reason)
    return await site.node.topics.ask(topic, group, word, by=who.by)


async def _park(site: Site, who: Identity, topic: str, group: str, body: ParkBody) -> Any:
    word = Park(body.member, body.leases, body.reason)
    return await site.node.topics.ask(topic, group, word, by=who.by)


async def _renew(site: Site, who: Identity, topic: str, group: str, body: RenewBody) -> Any:
    return await site.node.topics.ask(topic, group, Renew(body.member, body.leases), by=who.by)


async def _leave(site: Site, who: Identity, topic: str, group: str, body: LeaveBody) -> Any:
    return await site.node.topics.ask(topic, group, Leave(body.member), by=who.by)


async def _seek(site: Site, who: Identity, topic: str, group: str, body: SeekBody) -> Any:
    if (body.after is None) == (body.time is None):
        raise Rejected("seek_invalid", "Say `after` which offsets, or from which `time` on")
    at_ms = None
    if body.time is not None:
        try:
            at_ms = to_ms(body.time)
        except ValueError:
            raise Rejected("time_invalid", f"{body.time} is no time") from None
    after = await site.node.topics.seek(topic, group, at_ms=at_ms, after=body.after, by=who.by)
    return {"after": after}


async def _replay(site: Site, who: Identity, topic: str, group: str, body: ReplayBody) -> Any:
    return await site.node.topics.ask(topic, group, Replay(body.records, body.drop), by=who.by)


Act = Callable[[Site, Identity, str, str, Any], Awaitable[Any]]

VERBS: dict[str, tuple[type[Body], Act]] = {
    "join": (JoinBody, _join),
    "pull": (PullBody, _pull),
    "ack": (AckBody, _ack),
    "nack": (NackBody, _nack),
    "park": (ParkBody, _park),
    "renew": (RenewBody, _renew),
    "leave": (LeaveBody, _leave),
    "seek": (SeekBody, _seek),
    "replay": (ReplayBody, _replay),
}
"""What a member or an operator can ask of a group, and with which body."""
