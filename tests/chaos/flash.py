"""A flash sale: far more people than pieces, all at once, who tap twice and whose phones repeat themselves.

    coupon   everyone wants the same coupon; each may have one
    dishes   everyone orders the last dishes of a shop where one pays first; each order is held

Requests are made of a seed: everyone asks at least once; the rest are second taps (another key) and repeats
(the same key, anywhere later). Many connections take them from one queue. What holds is judged from the
answers and from the log alone.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import trio

from tests import nodes
from tests.chaos.deadline import wait_until_it_holds
from tests.chaos.evidence import Envelope, contiguous
from tests.chaos.lean import Line, Said
from tests.chaos.process import Server, token

STORE = "flash"
COUPON = "first"
DISH = "ramen"

SETUP = (
    ("configure-store", {"name": "반짝 할인", "payment_mode": "prepay"}),
    ("put-product", {"product": "kimbap", "name": "김밥", "price": 4000}),
    ("open-store", {}),
)


class Size(NamedTuple):
    """How big a sale is."""

    requests: int
    people: int
    connections: int
    stock: int


class Wanted(NamedTuple):
    """One request: who asks, and under which key."""

    person: str
    key: str


class Sale:
    """What one kind of sale asks for, and what came of it. Made by `coupon_sale` and `dish_sale`."""

    def __init__(
        self, command: str, body: dict[str, Any], size: Size, seed: int, too_late: frozenset[str]
    ) -> None:
        self.path = f"stores/{STORE}/{command}"
        self.body = body
        self.size = size
        self.too_late = too_late
        self.seed = seed
        self.wanted = make_requests(size, seed)
        self.answers: defaultdict[str, list[Said]] = defaultdict(list)
        self.people = {wanted.key: wanted.person for wanted in self.wanted}
        self.waits_ms: list[float] = []
        self.broken = 0
        self.took_s = 0.0
        self._answered = trio.Event()

    @property
    def answered(self) -> int:
        return len(self.waits_ms)

    async def run(self, port: int) -> None:
        """Let everybody ask, and wait for all answers."""
        tokens = {person: token("user", sub=person) for person in sorted(set(self.people.values()))}
        queue = iter(self.wanted)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(self.size.connections):
                nursery.start_soon(self._ask, port, queue, tokens)
        self.took_s = time.perf_counter() - began

    async def wait_answered(self, many: int) -> None:
        """Wait until so many requests have been answered."""
        while self.answered < many:
            await self._answered.wait()

    async def _ask(self, port: int, queue: Iterator[Wanted], tokens: dict[str, str]) -> None:
        line = Line(port)
        for person, key in queue:
            began = time.perf_counter()
            said = await line.send(self.path, tokens[person], self.body, key)
            self.waits_ms.append((time.perf_counter() - began) * 1000)
            self.answers[key].append(said)
            self._answered.set()
            self._answered = trio.Event()
        self.broken += line.broken
        await line.hang_up()

    def won(self) -> dict[str, Said]:
        """The first good answer of each key that got one."""
        return {key: said[0] for key, said in self.answers.items() if not said[0].code}

    def judge_answers(self) -> list[str]:
        """Everybody has an answer, a repeat the same one, and who is too late hears why."""
        findings = []
        if self.answered != len(self.wanted):
            findings.append(f"{self.answered} answers to {len(self.wanted)} requests")
        for key, said in self.answers.items():
            if len({answer.meaning for answer in said}) != 1:
                findings.append(f"{self.people[key]} {key} got different answers: {said}")
            if not said[0].code and sum(not answer.replayed for answer in said) > 1:
                findings.append(f"{self.people[key]} {key}: not marked as a repeat: {said}")
        codes = {answer.code for said in self.answers.values() for answer in said}
        if not codes - {""} <= self.too_late:
            findings.append(f"codes {codes}")
        if len(self.won()) != self.size.stock:
            findings.append(f"{len(self.won())} were told that they have one of {self.size.stock}")
        return findings


def coupon_sale(size: Size, seed: int) -> Sale:
    """Everyone wants the coupon."""
    late = frozenset({"coupon_exhausted", "coupon_already_issued"})
    return Sale("issue-coupon", {"coupon": COUPON}, size, seed, late)


def dish_sale(size: Size, seed: int) -> Sale:
    """Everyone orders one of the last dishes."""
    lines = [{"product": DISH, "quantity": 1}]
    return Sale("create-order", {"lines": lines}, size, seed, frozenset({"sold_out"}))


def make_requests(size: Size, seed: int) -> list[Wanted]:
    """Everyone once, then second taps and repeats; a repeat comes anywhere after what it repeats."""
    chance = random.Random(seed)
    firsts = [Wanted(f"u{number}", f"k{number}") for number in range(size.people)]
    chance.shuffle(firsts)
    requests = list(firsts)
    for number in range(size.requests - size.people):
        at = chance.randrange(len(requests))
        again = requests[at]
        if chance.random() < 0.5:
            again = Wanted(again.person, f"{again.key}-{number}")
        # Near what it repeats, so that both are often under way at the same time.
        requests.insert(min(at + 1 + int(chance.expovariate(1 / 50)), len(requests)), again)
    return requests


async def prepare(port: int, size: Size) -> None:
    """Make the shop, its coupon and its last dishes."""
    line, owner = Line(port), token("service")
    coupon = {"coupon": COUPON, "name": "선착순", "discount": 1000, "stock": size.stock}
    dish = {"product": DISH, "name": "라면", "price": 5000, "stock": size.stock}
    for command, body in (*SETUP, ("create-coupon", coupon), ("put-product", dish)):
        said = await line.send(f"stores/{STORE}/{command}", owner, body, f"setup-{len(str(body))}-{command}")
        assert said.status == 200, said
    await line.hang_up()


async def hold(
    sale: Sale,
    server: Server,
    nursery: trio.Nursery,
    kills: int = 0,
    preexec: Callable[[], None] | None = None,
) -> None:
    """Hold a sale; kill the server so many times while there is still something to be had, and start it
    again. Returns when everybody is answered and all that follows has happened.
    """
    await prepare(server.port, sale.size)
    chance = random.Random(sale.seed + 1)
    async with trio.open_nursery() as crowd:
        crowd.start_soon(sale.run, server.port)
        for kill in range(kills):
            low, high = sale.size.stock * kill // kills, sale.size.stock * (kill + 1) // kills
            await sale.wait_answered(max(1, chance.randint(low, high)))
            await server.kill()
            await server.start(nursery, preexec)
    await wait_until_it_holds(lambda: _is_quiet(server.base), 30, "reactions under way")


async def _is_quiet(base: str) -> bool:
    """Whether all reactions of each partition have come to its end, whoever is on duty for it."""
    async with httpx.AsyncClient(trust_env=False) as http:
        headers = {"authorization": f"Bearer {token()}"}
        answer = await http.get(f"{base}/v1/ops/reactions", headers=headers)
    rows = answer.json()["reactions"] if answer.is_success else []
    followed = sum(row["reaction"] == "follow" for row in rows)
    return followed == (nodes.PARTITIONS if nodes.several() else 1) and not any(row["lag"] for row in rows)


def judge_coupons(sale: Sale, records: list[Envelope]) -> list[str]:
    """Exactly the stock was issued, one to each at most, numbered 1, 2, 3 …, and told to whom it belongs."""
    issued = [record["data"] for record in records if record["type"] == "CouponIssued"]
    findings = contiguous(records) + sale.judge_answers()
    if [data["sequence"] for data in issued] != list(range(1, sale.size.stock + 1)):
        findings.append(f"issued: {[data['sequence'] for data in issued]}")
    holders = Counter(data["user"] for data in issued)
    findings += [f"{person} has {count}" for person, count in holders.items() if count > 1]
    owners = {data["sequence"]: data["user"] for data in issued}
    for key, said in sale.won().items():
        if owners.get(said.result["sequence"]) != sale.people[key]:
            findings.append(f"{sale.people[key]} was told {said.result}")
    received = Counter(
        record["stream"].removeprefix("user:") for record in records if record["type"] == "CouponReceived"
    )
    if received != holders:
        findings.append(
            f"coupons in users' streams: {received - holders} too many, {holders - received} missing"
        )
    return findings


def judge_dishes(sale: Sale, records: list[Envelope]) -> list[str]:
    """Exactly the stock is held, each piece by one order, and each order is told to whom it belongs."""
    created = [record["data"] for record in records if record["type"] == "OrderCreated"]
    findings = contiguous(records) + sale.judge_answers()
    if len(created) != sale.size.stock or any(data["status"] != "CREATED" for data in created):
        findings.append(f"{len(created)} orders: {Counter(data['status'] for data in created)}")
    left = [change["after"] for data in created for change in data["stock"]]
    if left != list(range(sale.size.stock))[::-1]:
        findings.append(f"stock after each order: {left}")
    owners = {data["order"]: data["user"] for data in created}
    told = {said.result["order"]: sale.people[key] for key, said in sale.won().items()}
    if told != owners:
        findings.append(
            f"told {set(told.items()) - set(owners.items())}, not {set(owners.items()) - set(told.items())}"
        )
    return findings
