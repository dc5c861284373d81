"""Publishing to topics from another process: tries again, and keeps on disk what it could not send.

    async with open_publisher("http://127.0.0.1:8080", token, kept="unsent.jsonl") as publisher:
        await publisher.publish("customer-events", [{"event_id": …, "key": "cust123", "data": {…}}])

A batch is sent once and, while nobody takes it, three times more, with growing pauses. Then it is kept in a
file, and what is published later goes behind it, so that records with one key stay in order; each `publish`
begins with what is kept, and so does each start. Every record has an `event_id`, so one whose answer got lost
is not published twice. What is on its way when `publish` is cancelled is kept too.

A record that the server does not want goes into a file of its own, `*.refused`, when it was kept before. A
refusal that is not about records (a token that has ended, a wrong address) leaves everything that is kept.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import trio

from engine.records import ID
from web.exchange import RequestBody

RETRIES = 3
BACKOFF_S = 0.2
BACKOFF_S_MAX = 5.0
BATCH_MAX = 500
BATCH_BYTES_MAX = 900_000
TIMEOUT_S = 10.0

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNFIT = frozenset({400, 413, 422})
"""Statuses that are about the records; others are about the publisher."""

Record = dict[str, Any]


class Refused(Exception):
    """The server does not take this: `code` says why, and `records` are all that it does not have.

    `unfit`: it is about these records, and it will never take them; else about who sends them, or where to.
    """

    def __init__(self, code: str, detail: str, records: Sequence[Record], *, unfit: bool) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.records = records
        self.unfit = unfit


class Outcome(NamedTuple):
    """What became of a publication: how many records the server has, and how many wait on this disk."""

    sent: int
    kept: int


class _Kept(msgspec.Struct):
    topic: str
    record: Record


_decode_kept = msgspec.json.Decoder(_Kept).decode


@asynccontextmanager
async def open_publisher(
    url: str,
    token: str = "",
    *,
    kept: str | Path,
    backoff_s: float = BACKOFF_S,
    timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[Publisher]:
    """Open a publisher. `kept`: the file for what cannot be sent, of this publisher alone."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s) as client:
        yield Publisher(client, Path(kept), backoff_s)


class Publisher:
    """Made by `open_publisher`. `retries` counts the tries after first ones."""

    def __init__(self, client: httpx.AsyncClient, kept: Path, backoff_s: float) -> None:
        self.retries = 0
        self._client = client
        self._kept = kept
        self._backoff_s = backoff_s
        self._lock = trio.Lock()

    async def publish(self, topic: str, records: Iterable[Mapping[str, Any]]) -> Outcome:
        """Publish records (`data`, and `event_id`, `key`, `type`, `time` where there are such), in order.

        Raises:
            Refused: the server does not want them, nor what comes behind them: none of its `records` is sent
                or kept. What was kept before still is.
            OSError: they could be neither sent nor kept.
            ValueError: this is no name of a topic.
        """
        if not ID.match(topic):
            raise ValueError("a topic has 1-64 characters of A-Z a-z 0-9 _ . -")
        named = [{"event_id": str(uuid.uuid4()), **record} for record in records]
        batches = list(batched(named))
        async with self._lock:
            sent = 0
            try:
                if await self._send_kept():
                    for batch in batches:
                        if not await self._send(topic, batch):
                            break
                        sent += len(batch)
            except Refused as refusal:
                raise Refused(refusal.code, refusal.detail, named[sent:], unfit=refusal.unfit) from None
            except trio.Cancelled:
                await self._keep(topic, named[sent:])
                raise
            await self._keep(topic, named[sent:])
            return Outcome(sent, len(named) - sent)

    async def send_kept(self) -> bool:
        """Send what is kept; return whether nothing is left.

        Raises:
            Refused: by something that is not about the records: all that is kept still is.
        """
        async with self._lock:
            return await self._send_kept()

    async def _send(self, topic: str, batch: Sequence[Record], retries: int = RETRIES) -> bool:
        body = msgspec.json.encode({"records": batch})
        headers = {"content-type": "application/json"}
        for attempt in range(1 + retries):
            if attempt:
                self.retries += 1
                pause_s = min(self._backoff_s * 2.0 ** (attempt - 1), BACKOFF_S_MAX)
                await trio.sleep(pause_s * (0.5 + random.random() / 2))
            try:
                request = self._client.build_request(
                    "POST", f"/v1/topics/{topic}", content=body, headers=headers
                )
                request.stream = RequestBody(body)
                answer = await self._client.send(request)
            except httpx.RequestError:
                continue
            if answer.status_code < 300:
                return True
            if answer.status_code not in _AGAIN:
                raise _refused(answer, batch)
        return False

    async def _send_kept(self) -> bool:
        """Send what is kept, oldest first; a record that does not fit goes into a file of its own."""
        waiting = await trio.to_thread.run_sync(self._read)
        most = BATCH_MAX
        while waiting:
            topic = waiting[0].topic
            run = next(groupby(waiting[:most], attrgetter("topic")))[1]
            batch = next(batched([one.record for one in run]))
            try:
                if not await self._send(topic, batch):
                    return False
            except Refused as refusal:
                if not refusal.unfit:
                    raise
                if len(batch) > 1:  # one of them is to blame: find it
                    most = len(batch) // 2
                    continue
                await trio.to_thread.run_sync(self._append, topic, batch, self._kept.with_suffix(".refused"))
                most = BATCH_MAX
            waiting = waiting[len(batch) :]
            await trio.to_thread.run_sync(self._write, waiting)
        return True

    async def _keep(self, topic: str, records: Sequence[Record]) -> None:
        if records:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._append, topic, records, self._kept)

    def _append(self, topic: str, records: Sequence[Record], path: Path) -> None:
        lines = b"".join(msgspec.json.encode(_Kept(topic, record)) + b"\n" for record in records)
        with path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # without a line that was cut off as it was written
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[_Kept]:
        try:
            text = self._kept.read_bytes()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]  # a line without its end was cut off while it was written
        return [_decode_kept(line) for line in whole.split(b"\n") if line]

    def _write(self, waiting: Sequence[_Kept]) -> None:
        if not waiting:
            self._kept.unlink(missing_ok=True)
            return
        fresh = self._kept.with_suffix(".new")
        with fresh.open("wb") as file:
            file.writelines(msgspec.json.encode(one) + b"\n" for one in waiting)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._kept)


def batched(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield records in batches that one request can carry."""
    batch: list[Record] = []
    size = 0
    for record in records:
        bytes_ = len(msgspec.json.encode(record)) + 1
        if batch and (len(batch) == BATCH_MAX or size + bytes_ > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += bytes_
    if batch:
        yield batch


def _refused(answer: httpx.Response, batch: Sequence[Record]) -> Refused:
    try:
        told = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        told = {}
    code, detail = str(told.get("code", answer.status_code)), str(told.get("detail", ""))
    return Refused(code, detail, batch, unfit=answer.status_code in _UNFIT)
