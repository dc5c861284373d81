"""Members of a group, each on its own connection to a real server, that are killed without a word; and the
books on what they did.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import httpx
import trio

from web.exchange import RequestBody

LEASE_S = 0.5
LIMIT = 20


class Books:
    """What was handled, in which order, and how often; shared by all members, as a database would be."""

    def __init__(self) -> None:
        self.by_key: dict[str, list[int]] = defaultdict(list)
        self.handled: set[str] = set()
        self.doubles: Counter[str] = Counter()
        self.faults: list[str] = []

    def handle(self, record: dict[str, Any]) -> None:
        """Have the record's effect, unless it was had before."""
        name, key, number = record["event_id"], record["key"], record["data"]["number"]
        if name in self.handled:
            self.doubles[name] += 1
            if record["attempt"] < 2:
                self.faults.append(f"{name} came twice as a first delivery")
            return
        self.handled.add(name)
        if number != len(self.by_key[key]):
            self.faults.append(f"{name}: {number} of {key} after {len(self.by_key[key])} others")
        self.by_key[key].append(number)


class Member:
    """One member; `scope.cancel()` kills it where it is. `in_hand`: handled, and not yet acknowledged."""

    def __init__(self, base: str, token: str, group: str, name: str, books: Books, chance: random.Random):
        self.scope = trio.CancelScope()
        self.in_hand = 0
        self._base = base
        self._headers = {"authorization": f"Bearer {token}"}
        self._group = group
        self._name = name
        self._books = books
        self._chance = chance

    async def run(self) -> None:
        """Handle records until it is killed."""
        with self.scope:
            async with httpx.AsyncClient(base_url=self._base, headers=self._headers, timeout=5) as http:
                joined = False
                while True:
                    try:
                        if not joined:
                            answer = await self._post(http, "join", member=self._name, lease_s=LEASE_S)
                            joined = answer.status_code == 200
                            continue
                        answer = await self._post(
                            http, "pull", member=self._name, limit=LIMIT, wait_s=LEASE_S / 2
                        )
                        if answer.status_code != 200:
                            joined = False
                            await trio.sleep(0.02)
                            continue
                        await self._work(http, answer.json()["records"])
                    except httpx.TransportError:
                        await trio.sleep(0.05)

    async def _work(self, http: httpx.AsyncClient, records: list[dict[str, Any]]) -> None:
        done: list[str] = []
        for record in records:
            self.in_hand = len(done)
            await trio.sleep(self._chance.uniform(0, 0.01))
            if self._chance.random() < 0.02:
                await self._post(http, "nack", member=self._name, leases=[record["lease"]], delay_s=0)
                continue
            self._books.handle(record)
            done.append(record["lease"])
        if done:
            await self._post(http, "ack", member=self._name, leases=done)
        self.in_hand = 0

    async def _post(self, http: httpx.AsyncClient, verb: str, **body: Any) -> httpx.Response:
        request = http.build_request("POST", f"{self._group}/{verb}", json=body)
        request.stream = RequestBody(request.content)
        return await http.send(request)
