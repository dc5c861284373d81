"""What the nodes of one log in Redis tell each other beside it: which tokens are revoked, and questions that
only another node can answer.

Keys, all in partition 0's slot:

    {onda:0}:name             string: what all nodes together are called, made once
    {onda:0}:revoked          zset: token id by when it would have ended (ms)
    {onda:0}:revocations      what changes with each change of that
    {onda:0}:inbox:<holder>   list of questions to a node; goes with time
    {onda:0}:told:<question>  the answer to one; goes when it is read, or with time

Each node looks twice a second: one trip, however much there is. A question is taken once, by the node that it
is for. One whose answer stays away may have been acted on; one that could be taken back was not. While Redis
is away, what is known of tokens holds, and what Redis has lost of them is written back, as is the name.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import trio

from engine.errors import LogAway, LogFailed, NotTaken, Rejected, Unavailable, UnknownOutcome
from engine.lease import node_of
from engine.lease_redis import ALIVE_S, Leases
from engine.log.redis_asking import Refused, good
from engine.log.redis_lines import Away, Cut, Line
from engine.log.redis_route import Lines, Route
from engine.log.redis_scripts import script

LOOK_S = 0.4
"""With what follows, a revoked token's streams end within a second at every node."""
TAKE_MAX = 16
"""Questions taken at a time."""
SEEN_MAX = 1024
"""Questions remembered as taken: one may have been asked again, as its line was lost."""
KEPT_MS = 60_000
"""How long questions and answers that nobody takes are kept."""
TAKEN_S = 2.0
"""How long after it was asked a question has to be taken."""
ANSWER_S = 30.0
"""And answered: what is asked for may itself have to wait for others."""
NAP_S = 0.1

NAME = "{onda:0}:name"
REVOKED = "{onda:0}:revoked"
REVOCATIONS = "{onda:0}:revocations"
_META = "{onda:0}:meta"

REVOKE = script(
    """
if redis.call('HEXISTS', KEYS[3], 'epoch') == 0 then return 0 end
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] * 1000)
for n = 2, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[n + 1], ARGV[n]) end
redis.call('SET', KEYS[2], ARGV[1])
return 1
""",
    "allow-oom",
)
"""KEYS: revoked, revocations, meta. ARGV: what no other change has, then each token's id and end (ms).
Returns 0 when there is no log, or one that was moved away or is not there yet.
"""

NAMED = script(
    """
local name = redis.call('GET', KEYS[1])
if name or redis.call('EXISTS', KEYS[2]) == 0 then return name end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
""",
    "allow-oom",
)
"""KEYS: name, meta. ARGV: what the name is if there is none yet. Returns the name; nothing when there is no
log. A node may start while memory is full.
"""

ASK = script(
    """
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Answers a question from another node."""

logger = logging.getLogger("onda.cluster")


class Question(msgspec.Struct):
    """From one node to another."""

    id: str
    what: str
    words: dict[str, Any]


class Said(msgspec.Struct, omit_defaults=True):
    """The answer: a value; or what kind of error there was (a name in `_ERRORS`), its code and its detail."""

    value: Any = None
    error: str = ""
    code: str = ""
    detail: str = ""


_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (KeyError, Rejected, Unavailable, UnknownOutcome)
}
_encode = msgspec.msgpack.encode
_read_question = msgspec.msgpack.Decoder(Question).decode
_read_said = msgspec.msgpack.Decoder(Said).decode


class Cluster:
    """One node's side of it.

    Attributes:
        name: of all of them together, as long as the log is there.
        revoked: tokens that count no more, and when they would have ended (ms).
        heard: told of those that are new in it.
        handlers: what this node answers, by name.
    """

    def __init__(self, leases: Leases) -> None:
        self.name = ""
        self.revoked: dict[str, int] = {}
        self.heard: Callable[[Iterable[str]], None] = lambda _: None
        self.handlers: dict[str, Handler] = {}
        self._leases = leases
        self._owed: dict[str, int] = {}
        self._mark: list[Any] = []  # of what is known of tokens; how many, too, as Redis may lose some
        self._inbox = f"{{onda:0}}:inbox:{leases.holder}"
        self._seen: deque[str] = deque(maxlen=SEEN_MAX)
        self._limiter = trio.CapacityLimiter(TAKE_MAX)

    async def join(self) -> None:
        """Learn what there is to know before anybody comes in. Raises as `look`."""
        self.name = f"onda.{os.urandom(8).hex()}"
        await self._be_named()
        await self.look()

    async def run(self) -> None:
        """Look, and answer, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                with suppress(LogAway):  # the log says so; what is known holds
                    for question in await self.look():
                        nursery.start_soon(self._answer, question)
                await trio.sleep(LOOK_S)

    async def look(self) -> list[Question]:
        """Learn what is new, and return the questions to this node.

        Raises:
            LogAway: Redis does not answer.
            LogFailed: it cannot be read.
        """
        if self._owed:
            await self._write_back()
        name, *mark, taken = await self._call(
            ("GET", NAME), ("GET", REVOCATIONS), ("ZCARD", REVOKED), ("LPOP", self._inbox, TAKE_MAX)
        )
        if name is None:  # somebody deleted it: what it was is known here
            await self._be_named()
        else:
            self.name = name.decode()
        if mark != self._mark:
            await self._read_revoked()
            self._mark = mark
        questions = []
        for data in taken or ():
            question = _read_question(data)
            if question.id not in self._seen:
                self._seen.append(question.id)
                questions.append(question)
        return questions

    async def _be_named(self) -> None:
        name = await self._leases.run(0, NAMED, (NAME, _META), (self.name,))
        if name is not None:
            self.name = name.decode()

    # Tokens

    def keep(self, tokens: Mapping[str, int]) -> None:
        """Have every node know of tokens that this one knows to be revoked."""
        fresh = {token: end_ms for token, end_ms in tokens.items() if token not in self.revoked}
        self.revoked |= fresh
        self._owed |= fresh

    async def _write_back(self) -> None:
        owed = dict(self._owed)
        await self._leases.run(0, REVOKE, (REVOKED, REVOCATIONS, _META), _words(owed))
        self._owed = {token: end_ms for token, end_ms in self._owed.items() if token not in owed}

    async def _read_revoked(self) -> None:
        found, (seconds, _) = await self._call(("ZRANGE", REVOKED, 0, -1, "WITHSCORES"), ("TIME",))
        now_ms = int(seconds) * 1000
        told = {token.decode(): int(end) for token, end in zip(found[::2], found[1::2], strict=True)}
        known = {token: end_ms for token, end_ms in self.revoked.items() if end_ms > now_ms}
        self._owed |= {token: end_ms for token, end_ms in known.items() if token not in told}
        fresh = told.keys() - self.revoked.keys()
        self.revoked = known | told
        self.heard(fresh)

    # Questions

    async def nodes(self) -> list[str]:
        """Return the nodes that said lately that they are there, as holders of leases.

        Raises:
            LogAway: Redis does not answer.
        """
        found, (seconds, _) = await self._call(("ZRANGE", "{onda:0}:nodes", 0, -1, "WITHSCORES"), ("TIME",))
        pairs = zip(found[::2], found[1::2], strict=True)
        return sorted(name.decode() for name, at in pairs if float(at) >= int(seconds) - ALIVE_S)

    async def others(self) -> list[str]:
        """As `nodes`, without this one."""
        return [holder for holder in await self.nodes() if holder != self._leases.holder]

    async def ask_all(self, what: str) -> dict[str, Any]:
        """Ask every other node; return the answers of those that gave one, by the node's name.

        Raises:
            LogAway: Redis does not answer.
        """
        answers: dict[str, Any] = {}

        async def ask(holder: str) -> None:
            with suppress(Unavailable, UnknownOutcome):
                answers[node_of(holder)] = await self.ask(holder, what, TAKEN_S)

        others = await self.others()
        async with trio.open_nursery() as nursery:
            for holder in others:
                nursery.start_soon(ask, holder)
        return answers

    async def ask(self, holder: str, what: str, within_s: float = ANSWER_S, **words: Any) -> Any:
        """Ask a node, and wait for its answer.

        Raises:
            KeyError: it knows of no such thing.
            Rejected: it refuses.
            NotTaken: it did not take the question.
            Unavailable: it cannot do it just now; nothing happened.
            UnknownOutcome: it took it, or may have, and no answer came.
        """
        question = Question(os.urandom(8).hex(), what, words)
        data = _encode(question)
        inbox, told = f"{{onda:0}}:inbox:{holder}", f"{{onda:0}}:told:{question.id}"
        await self._put(inbox, data)
        began_s, taken = trio.current_time(), False
        while (waited_s := trio.current_time() - began_s) < within_s or not taken:
            await trio.sleep(NAP_S)
            with suppress(LogAway):
                (found,) = await self._call(("GET", told))
                if found is not None:
                    with suppress(LogAway):
                        await self._call(("DEL", told))  # else it goes with time
                    return _unwrap(_read_said(found))
                if not taken and waited_s >= min(TAKEN_S, within_s):
                    (left,) = await self._call(("LREM", inbox, 0, data))
                    if left:
                        raise NotTaken(f"node {node_of(holder)} does not answer")
                    taken = True
            if waited_s > ANSWER_S:
                break
        raise UnknownOutcome(f"node {node_of(holder)} may have taken it, and gave no answer: look again")

    async def _put(self, inbox: str, data: bytes) -> None:
        """Put a question where a node takes it; raises as `look` only when it is not there."""
        cut = False

        def put(line: Line) -> None:
            nonlocal cut
            try:
                good(line.run(ASK, [((inbox,), (data, KEPT_MS))])[0])
            except Cut:
                cut = True
                raise

        log = self._leases.log
        try:
            await log.ask(partial(log.asking.ask, 0, put))
        except LogAway:
            if not cut:
                raise  # else it may be there: who waits for the answer finds out

    async def _answer(self, question: Question) -> None:
        async with self._limiter:
            said = await self._say(question)
        told = f"{{onda:0}}:told:{question.id}"
        try:
            await self._call(("SET", told, _encode(said), "PX", KEPT_MS))
        except LogAway as error:
            logger.warning("a question of another node has no answer: %s", error)

    async def _say(self, question: Question) -> Said:
        handler = self.handlers.get(question.what)
        if handler is None:  # another version asks
            return Said(error=Unavailable.__name__, detail=f"the node does not know {question.what}")
        try:
            return Said(await handler(question.words))
        except KeyError as error:
            return Said(error=KeyError.__name__, detail=str(error))
        except (Rejected, Unavailable, UnknownOutcome) as error:
            kind = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
            return Said(error=kind, code=error.code, detail=error.detail)

    async def _call(self, *commands: Sequence[Any]) -> list[Any]:
        log = self._leases.log

        def question(line: Line) -> list[Any]:
            return [good(answer) for answer in line.call(commands)]

        return await log.ask(partial(log.asking.ask, 0, question))


def _unwrap(said: Said) -> Any:
    if not said.error:
        return said.value
    kind = _ERRORS[said.error]
    raise Rejected(said.code, said.detail) if kind is Rejected else kind(said.detail)


def _words(tokens: Mapping[str, int]) -> list[Any]:
    words: list[Any] = [os.urandom(8).hex()]
    for token, end_ms in tokens.items():
        words += (token, end_ms)
    return words


def revoke(url: str, token: str, end_ms: int) -> None:
    """Revoke a token at every node of the log at a URL; for programs beside them. Blocking.

    Raises:
        ConfigError: the URL makes no sense.
        LogAway: Redis does not answer: nothing was revoked.
        LogFailed: there is no log, or it goes on elsewhere.
    """
    route = Route(url, 1, "onda-token")
    lines = Lines(route)
    try:
        line = lines.to(route.addresses()[0])
        (answer,) = line.run(REVOKE, [((REVOKED, REVOCATIONS, _META), _words({token: end_ms}))])
        there = good(answer)
    except (Away, Cut, Refused) as error:
        raise LogAway(f"Redis takes nothing, so it is not revoked: {error}") from None
    finally:
        lines.close()
    if not there:
        raise LogFailed("no log in this Redis is in use (none, or one that was moved), so it is not revoked")
