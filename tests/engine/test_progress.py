"""Orders that are carried out step by step: what each refusal leaves, and that crashes repeat nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import trio

from engine import Node, open_node
from engine.domain.store.cancelling import CancelOrder
from engine.domain.store.menu import PutProduct
from engine.domain.store.orders import OrderCreated
from engine.domain.store.settling import BillSettled, SettleOrder
from engine.domain.store.shop import CloseStore, ConfigureStore, OpenStore, PauseOrders
from engine.errors import Rejected
from engine.progress import TOPIC, OrderWish, Progress
from tests.engine.shop import OWNER, STORE, config, state_of, wait_until

USER = "user:u1"


async def open_shop(node: Node, mode: Any = "postpay", stock: int = 5) -> None:
    await node.ask(STORE, ConfigureStore("온다", mode), by=OWNER)
    await node.ask(STORE, PutProduct("laptop", "노트북", 1_290_000, stock=stock), by=OWNER)
    await node.ask(STORE, OpenStore(), by=OWNER)


async def wish(node: Node, name: str = "노트북", quantity: int = 1, store: str = "s1") -> str:
    task = node.clock.new_id()
    await node.publish(TOPIC, [OrderWish("u1", task, store, name, quantity).message()])
    return task


async def marks(node: Node, task: str) -> list[tuple[str, int, str]]:
    """What a task went through."""
    return await node.examine(
        USER,
        lambda state, _: [
            (mark.status, mark.percentage, mark.step_name) for mark in state.marks.get(task, [])
        ],
    )


async def ended(node: Node, task: str) -> list[tuple[str, int, str]]:
    """Wait for the end of a task; return what it went through."""
    with await node.subscribe(USER) as follow:
        while (found := await marks(node, task))[-1:] == [] or found[-1][0] not in ("COMPLETED", "FAILED"):
            await follow.wait()
            follow.take()
        return found


BEGUN = ("STARTED", 0, "")
CHECKED = ("PROGRESS", 25, "주문 검증")
RESERVED = ("PROGRESS", 50, "재고 확인")
PAID = ("PROGRESS", 75, "결제 처리")


async def test_an_order_goes_through_all_steps() -> None:
    """It is a real one: placed, counted off, paid, and on the user's own list."""
    async with open_node(config()) as node:
        await open_shop(node)
        task = await wish(node, quantity=2)
        assert await ended(node, task) == [BEGUN, CHECKED, RESERVED, PAID, ("COMPLETED", 100, "")]
        shop = await state_of(node, STORE)
        order = shop["orders"][task]
        assert (order["user"], order["status"], order["paid"]) == ("u1", "PLACED", 2_580_000)
        assert shop["products"]["laptop"]["stock"] == 3
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
        assert f"s1/{task}" in (await state_of(node, USER))["orders"]


@pytest.mark.parametrize(
    ("change", "wished", "steps", "words"),
    [
        (None, {"quantity": 6}, [BEGUN, CHECKED], "재고가 부족합니다: 노트북"),
        (None, {"name": "비행기"}, [BEGUN], "없는 상품입니다: 비행기"),
        (None, {"store": "nowhere"}, [BEGUN], "없는 가게입니다: nowhere"),
        (CloseStore(), {}, [BEGUN], "영업 중이 아닙니다: s1"),
        (PauseOrders("바빠요"), {}, [BEGUN], "지금은 주문을 받지 않습니다: s1"),
    ],
)
async def test_a_refused_step_ends_the_task_where_it_is(
    change: Any, wished: dict[str, Any], steps: list[Any], words: str
) -> None:
    """With the reason, and without an order."""
    async with open_node(config()) as node:
        await open_shop(node)
        if change is not None:
            await node.ask(STORE, change, by=OWNER)
        task = await wish(node, **wished)
        found = await ended(node, task)
        assert found == [*steps, ("FAILED", steps[-1][1], steps[-1][2])]
        state = await state_of(node, USER)
        assert state["tasks"][task]["reason"] == words
        assert (await state_of(node, STORE))["orders"] == {}
        assert not node.parked()


async def test_the_last_pieces_go_to_the_first() -> None:
    """Of seven wishes for five pieces two fail, and the shop has none left."""
    async with open_node(config()) as node:
        await open_shop(node)
        tasks = [await wish(node) for _ in range(7)]
        ends = [(await ended(node, task))[-1][:2] for task in tasks]
        assert ends == [("COMPLETED", 100)] * 5 + [("FAILED", 25)] * 2
        assert (await state_of(node, STORE))["products"]["laptop"]["stock"] == 0


async def test_where_guests_pay_first_the_task_waits_and_hears_of_the_end() -> None:
    async with open_node(config()) as node:
        await open_shop(node, "prepay")
        task = await wish(node)
        await wait_until(lambda: node.statistics()["reaction_lag"] == 0)
        assert await marks(node, task) == [BEGUN, CHECKED, RESERVED]
        await node.ask(STORE, CancelOrder(task, "마음이 바뀌었어요"), by=USER)
        assert (await ended(node, task))[-1] == ("FAILED", 50, "재고 확인")
        assert (await state_of(node, USER))["tasks"][task]["reason"] == "주문이 취소되었습니다"


class Meddling:
    """A host before whose settling something happens."""

    def __init__(self, node: Node, first: Any) -> None:
        self._node, self._first = node, first

    async def ask_inside(self, stream: str, command: Any, **fields: Any) -> Any:
        if isinstance(command, SettleOrder):
            await self._first(command.order)
        return await self._node.ask_inside(stream, command, **fields)

    async def examine(self, *args: Any) -> Any:
        return await self._node.examine(*args)


class Held:
    """Wishes that are not carried out until somebody says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[Any] = []
        self._handle = Progress._handle
        records = self.records

        async def note(_: Progress, record: Any) -> None:
            records.append(record)

        monkeypatch.setattr(Progress, "_handle", note)

    async def carry_out(self, node: Node, first: Any) -> str:
        """Carry out one wish, with `first` just before its payment; return the task."""
        task = await wish(node)
        await wait_until(lambda: self.records)
        await self._handle(Progress(Meddling(node, first)), self.records[0])  # type: ignore[arg-type]
        return task


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


async def test_an_order_that_is_cancelled_before_it_is_paid_is_no_success(held: Held) -> None:
    """Nothing is due then, but that does not make it paid."""
    async with open_node(config()) as node:
        await open_shop(node)

        async def cancel(order: str) -> None:
            await node.ask(STORE, CancelOrder(order, "다 나갔어요"), by=OWNER)

        task = await held.carry_out(node, cancel)
        assert (await marks(node, task))[-1] == ("FAILED", 50, "재고 확인")
        assert (await state_of(node, USER))["tasks"][task]["reason"] == "주문이 취소되었습니다"


async def test_an_order_that_somebody_else_settled_is_paid(held: Held) -> None:
    async with open_node(config()) as node:
        await open_shop(node)

        async def settle(order: str) -> None:
            await node.ask(STORE, SettleOrder(order, "cash"), by=OWNER)

        task = await held.carry_out(node, settle)
        assert (await marks(node, task))[-1] == ("COMPLETED", 100, "")


async def test_an_order_that_cannot_be_paid_is_taken_back(held: Held) -> None:
    """The till refuses: the task ends at 50 %, and the stock is there again."""
    async with open_node(config()) as node:
        await open_shop(node)

        async def refuse(_order: str) -> None:
            raise Rejected("not_payable", "카드 단말기가 꺼져 있습니다")

        task = await held.carry_out(node, refuse)
        assert (await marks(node, task))[-1] == ("FAILED", 50, "재고 확인")
        assert (await state_of(node, USER))["tasks"][task]["reason"] == "카드 단말기가 꺼져 있습니다"
        shop = await state_of(node, STORE)
        assert shop["orders"][task]["status"] == "CANCELLED"
        assert shop["products"]["laptop"]["stock"] == 5


class Plug(Exception):
    """The process ends here."""


class Cut:
    """A host that loses its plug before or after its n-th command."""

    def __init__(self, node: Node, at: int, after: bool) -> None:
        self._node, self._at, self._after = node, at, after

    async def ask_inside(self, *args: Any, **fields: Any) -> Any:
        self._at -= 1
        if self._at == 0 and not self._after:
            raise Plug
        answer = await self._node.ask_inside(*args, **fields)
        if self._at == 0:
            raise Plug
        return answer

    async def examine(self, *args: Any) -> Any:
        return await self._node.examine(*args)


@pytest.mark.parametrize("at", range(1, 8))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("menu", ["the same", "renamed", "gone"])
async def test_a_record_that_is_handled_again_goes_on(
    monkeypatch: pytest.MonkeyPatch, at: int, after: bool, menu: str
) -> None:
    """Cut off anywhere, and with another menu by then: one order, paid once, and one end."""
    records: list[Any] = []

    async def note(_: Progress, record: Any) -> None:
        records.append(record)

    monkeypatch.setattr(Progress, "_handle", note)
    async with open_node(config()) as node:
        await open_shop(node)
        task = await wish(node)
        await wait_until(lambda: records)
        monkeypatch.undo()
        with pytest.raises(Plug):
            await Progress(Cut(node, at, after))._handle(records[0])
        made = task in (await state_of(node, STORE))["orders"]
        if menu != "the same":
            name = "맥북" if menu == "gone" else "노트북"
            await node.ask(STORE, PutProduct("other", name, 1000), by=OWNER)
            await node.ask(STORE, PutProduct("laptop", "옛 노트북", 1_290_000), by=OWNER)
        for _ in range(2):
            await Progress(node)._handle(copy.copy(records[0]))
        found = await marks(node, task)
        done = menu != "gone" or made
        assert found[-1][0] == ("COMPLETED" if done else "FAILED")
        assert len([mark for mark in found if mark[0] in ("COMPLETED", "FAILED")]) == 1
        kinds = await types_of(node, STORE)
        assert kinds.count(OrderCreated.__name__) == kinds.count(BillSettled.__name__) == int(done)


async def types_of(node: Node, stream: str) -> list[str]:
    """The types of every record of a stream."""
    return [frame.type for frame in node.feeds[stream].after(0, 10_000)]


async def test_it_goes_on_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wished for while nobody carried it out is carried out at the next start."""

    async def wait(_: Progress, __: Any) -> None:
        await trio.sleep_forever()

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "_handle", wait)
        async with open_node(config(str(tmp_path))) as node:
            await open_shop(node)
            task = await wish(node)
    async with open_node(config(str(tmp_path))) as node:
        assert (await ended(node, task))[-1] == ("COMPLETED", 100, "")
        assert await node.tasks.user_of(task) == "u1"
