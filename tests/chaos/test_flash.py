"""Flash sales over HTTP against a real server, also one that is killed in the middle and comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.evidence import Envelope
from tests.chaos.flash import (
    Said,
    Sale,
    Size,
    coupon_sale,
    dish_sale,
    hold,
    judge_coupons,
    judge_dishes,
    make_requests,
)
from tests.chaos.logbook import read_log
from tests.chaos.process import open_server
from tests.relays.receiver import SECRET, open_receiver

FULL = {"coupon": Size(5_000, 2_000, 200, 500), "dishes": Size(1_500, 1_000, 200, 50)}
SMALL = {"coupon": Size(600, 240, 40, 60), "dishes": Size(300, 200, 40, 12)}
KEEP_ALL = {"ONDA_REFILL_BYTES": str(4 << 30), "ONDA_CHECKPOINT_S": "1"}
"""The log keeps everything, as evidence."""

Judge = Callable[[Sale, list[Envelope]], list[str]]
KINDS: dict[str, tuple[Callable[[Size, int], Sale], Judge]] = {
    "coupon": (coupon_sale, judge_coupons),
    "dishes": (dish_sale, judge_dishes),
}


@pytest.mark.parametrize("kills", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_scarce_is_given_out_exactly(
    kind: str, kills: int, tmp_path: Path, seed: int, request: pytest.FixtureRequest
):
    """Exactly as many as there are, to whom it was told, whatever is repeated and whenever the power goes."""
    make, judge = KINDS[kind]
    sale = make((FULL if request.config.getoption("--flash-full") else SMALL)[kind], seed)
    async with open_server(tmp_path / "data", "--no-demo", env=KEEP_ALL) as (server, nursery):
        await hold(sale, server, nursery, kills)
        assert await server.stop() == 0
    print(f"{sale.answered} answers in {sale.took_s:.1f} s, {sale.broken} sent again")
    assert judge(sale, await read_log(tmp_path / "data")) == []
    assert bool(kills) == bool(sale.broken)


async def test_each_coupon_is_told_to_the_world_outside(tmp_path: Path, seed: int):
    """Through kills of the server, by a receiver that loses answers: all of them, in their order, once."""
    sale = coupon_sale(SMALL["coupon"], seed)
    async with open_receiver() as receiver:
        receiver.judge = lambda _: "lost" if len(receiver.seen) % 10 == 0 else ""
        env = {"ONDA_WEBHOOK_URL": receiver.url, "ONDA_WEBHOOK_SECRET": SECRET}
        env |= {"ONDA_WEBHOOK_TYPES": "COUPON_ISSUED", "ONDA_REACTION_BACKOFF_MS_MAX": "100"}
        async with open_server(tmp_path / "data", "--no-demo", env={**KEEP_ALL, **env}) as (server, nursery):
            await hold(sale, server, nursery, kills=2)
    sequences = [taken.message["data"]["sequence"] for taken in receiver.taken]
    assert sequences == list(range(1, sale.size.stock + 1))
    assert {taken.message["type"] for taken in receiver.taken} == {"COUPON_ISSUED"}
    assert len(receiver.seen) > len(receiver.taken)


def test_the_requests_hold_what_they_are_to_hold():
    """Everyone, second taps and repeats; the same for the same seed."""
    size = FULL["coupon"]
    wanted = make_requests(size, 7)
    assert len(wanted) == size.requests
    assert len({one.person for one in wanted}) == size.people
    assert size.people < len({one.key for one in wanted}) < size.requests - 1_000
    assert wanted == make_requests(size, 7)
    assert wanted != make_requests(size, 8)


def issued(sequence: int, person: str, version: int) -> list[Envelope]:
    """What the log holds when a coupon was issued."""
    data = {"sequence": sequence, "user": person}
    made = {"stream": "store:flash", "version": version, "type": "CouponIssued", "id": f"i{version}"}
    told = {"stream": f"user:{person}", "version": 1, "type": "CouponReceived", "id": f"r{version}"}
    return [{**made, "data": data}, {**told, "data": {}}]


def two_issued() -> tuple[Sale, list[Envelope]]:
    """A sale of two coupons to three people that went as it should."""
    sale = coupon_sale(Size(4, 3, 1, 2), 1)
    sale.wanted = [sale.wanted[0]] * 4
    sale.people = {"k0": "u0", "k1": "u1", "k2": "u2"}
    sale.waits_ms = [1.0] * 4
    first = Said(200, "", {"sequence": 1, "remaining": 1}, False)
    sale.answers["k0"] = [first, first._replace(replayed=True)]
    sale.answers["k1"] = [Said(200, "", {"sequence": 2, "remaining": 0}, False)]
    sale.answers["k2"] = [Said(422, "coupon_exhausted", {}, False)]
    return sale, issued(1, "u0", 1) + issued(2, "u1", 2)


def test_the_judge_of_coupons_sees_every_kind_of_mistake():
    """A judge that finds nothing would make the tests above worth nothing."""
    assert judge_coupons(*two_issued()) == []
    sale, records = two_issued()
    assert judge_coupons(sale, records + issued(3, "u2", 3)), "one too many"
    assert judge_coupons(sale, records[:2]), "one too few"
    assert judge_coupons(sale, [*issued(1, "u0", 1), *issued(2, "u0", 2)[:1]]), "two for one"
    assert judge_coupons(sale, issued(2, "u0", 1) + issued(1, "u1", 2)), "the wrong numbers"
    assert judge_coupons(sale, records[:3]), "the user was not told"
    sale.answers["k0"][1] = Said(200, "", {"sequence": 2, "remaining": 0}, True)
    assert judge_coupons(sale, records), "another answer to a repeat"
    sale, records = two_issued()
    sale.answers["k2"] = [Said(500, "internal", {}, False)]
    assert judge_coupons(sale, records), "a fault"
    sale, records = two_issued()
    sale.waits_ms.pop()
    assert judge_coupons(sale, records), "somebody was never answered"


def test_the_judge_of_dishes_sees_every_kind_of_mistake():
    """One order more, one that is not held, one that nobody was told of."""
    sale = dish_sale(Size(2, 2, 1, 1), 1)
    sale.waits_ms = [1.0, 1.0]
    sale.answers["k0"] = [Said(200, "", {"order": "o1"}, False)]
    sale.answers["k1"] = [Said(422, "sold_out", {}, False)]
    data = {"order": "o1", "user": "u0", "status": "CREATED", "stock": [{"after": 0}]}
    record = {"stream": "store:flash", "version": 1, "type": "OrderCreated", "id": "1", "data": data}
    assert judge_dishes(sale, [record]) == []
    assert judge_dishes(sale, []), "no order"
    assert judge_dishes(sale, [{**record, "data": {**data, "status": "PLACED"}}]), "not held"
    assert judge_dishes(sale, [{**record, "data": {**data, "user": "u1"}}]), "somebody else's"
    another = {**record, "version": 2, "id": "2", "data": {**data, "order": "o2", "stock": [{"after": -1}]}}
    assert judge_dishes(sale, [record, another]), "oversold"
