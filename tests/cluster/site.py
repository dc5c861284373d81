"""Several nodes on one Redis, as processes, with clients that remember everything; and what is done to them.

async with open_site(tmp_path, seed) as site:
    async with site.load():
        await site.acknowledged(100)
        await site.kill(site.nodes["a"])
        ...
    verdict = await site.verdict()
"""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis
import trio

from tests.chaos.deadline import wait_until, wait_until_it_holds
from tests.chaos.process import Server
from tests.chaos.proxy import Proxy
from tests.cluster.checker import Verdict, judge
from tests.cluster.guests import HOT, PRODUCTS, Door, Guest, opening, streams
from tests.cluster.history import Call, History, Outcome, now_ns
from tests.cluster.ledger import Ledger
from tests.cluster.readers import Reader, look
from tests.relays.redis_server import RedisServer, redis_server

PARTITIONS = 4
GUESTS = 3
"""Per node."""
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
QUICK = {
    "ONDA_REDIS_PARTITIONS": str(PARTITIONS),
    "ONDA_CHECKPOINT_S": "1",
    "ONDA_PING_S": "1",
    "ONDA_ROTATE_S": "3",
    "ONDA_SANDBOX": "off",
    "ONDA_SHUTDOWN_S": "2",
}
TRIMMED = {"ONDA_REFILL_BYTES": "300000"}
"""With this the log is dropped behind each checkpoint, but for what the ledger may not have seen yet."""
CLOSELY = {"ONDA_REFILL_BYTES": "160000"}
"""The same where there are few records."""
SETTLE_S = 30.0


class Site:
    """See the module. Made by `open_site`."""

    def __init__(
        self, redis: RedisServer, nodes: Mapping[str, Server], nursery: trio.Nursery, seed: int
    ) -> None:
        self.redis = redis
        self.nodes = dict(nodes)
        self.doors = [Door(name, server.port) for name, server in nodes.items()]
        self.proxies: dict[str, Proxy] = {}
        self.history = History()
        self.ledger = Ledger(self.history, PARTITIONS, redis.port)
        self.chance = random.Random(seed)
        self.healed_s: list[float] = []
        self.rounds = 0
        self.guests: list[Guest] = []
        self.readers: list[Reader] = []
        self._seed = seed
        self._nursery = nursery
        self._loads = 0

    # Clients

    async def prepare(self) -> None:
        """Make the shops, and wait until every node shows them."""
        maker = Guest(900, self.doors, self.history, self._seed)
        for wish in opening():
            call = await maker.settle(wish, maker._key())
            assert call is not None, "nobody takes an order"
            assert call.outcome == Outcome.OK, call
        await maker.leave()
        for door in self.doors:
            for stream in streams():
                await wait_until_it_holds(lambda door=door, stream=stream: _shows(door, stream), SETTLE_S)

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Guests order and readers follow until the block ends; then the guests finish."""
        self._loads += 1
        count = len(self.doors)
        self.guests = [
            Guest(
                100 * self._loads + number,
                self.doors[number % count :] + self.doors[: number % count],
                self.history,
                self._seed,
            )
            for number in range(GUESTS * count)
        ]
        followed = (*(f"store:{store}" for store in HOT), f"table:{HOT[0]}/1")
        self.readers = [
            Reader(f"{door.name}.{stream}.{self._loads}", door, stream, self.history)
            for door in self.doors
            for stream in followed
        ]
        async with trio.open_nursery() as nursery:
            for reader in self.readers:
                nursery.start_soon(reader.run)
            async with trio.open_nursery() as ordering:
                for guest in self.guests:
                    ordering.start_soon(guest.run)
                yield
                for guest in self.guests:
                    guest.enough = True
            await self._rest()
            nursery.cancel_scope.cancel()
        stuck = [line for guest in self.guests for line in guest.stuck]
        assert not stuck, f"without an answer: {stuck}"

    async def acknowledged(self, more: int, at: str = "", within_s: float = SETTLE_S) -> None:
        """Wait until so many more commands were carried out (at one node)."""
        start = len(self.history.calls)

        def enough() -> bool:
            fresh = self.history.calls[start:]
            return sum(_carried_out(call) and at in ("", call.node) for call in fresh) >= more

        await wait_until(enough, within_s, f"{more} more commands at {at or 'the nodes'}")

    async def healed(self, since_ns: int | None = None, within_s: float = SETTLE_S) -> float:
        """Wait until every node carries out commands that were sent from now on; return how long it took."""
        since_ns = since_ns or now_ns()
        took_ns = 0
        for door in self.doors:
            found: list[Call] = []

            def is_back(name: str = door.name, found: list[Call] = found) -> bool:
                found += [
                    call
                    for call in self.history.calls[-400:]
                    if call.node == name and call.called_ns > since_ns and _carried_out(call)
                ]
                return bool(found)

            await wait_until(is_back, within_s, f"{door.name} carries out commands again")
            took_ns = max(took_ns, found[0].returned_ns - since_ns)
        self.healed_s.append(took_ns / 1e9)
        self.rounds += 1
        return took_ns / 1e9

    async def _rest(self) -> None:
        """Wait until every node shows every stream as the log has it."""
        await self.ledger.look()
        for door in self.doors:
            for stream in streams():
                await wait_until_it_holds(
                    lambda door=door, stream=stream: self._is_at_rest(door, stream),
                    SETTLE_S,
                    f"{door.name} shows {stream} as the others",
                )

    async def _is_at_rest(self, door: Door, stream: str) -> bool:
        shown = [await look(one, stream) for one in self.doors]
        return all(one and (one.epoch, one.version) == (shown[0].epoch, shown[0].version) for one in shown)

    async def verdict(self, *, may_lose: bool = False) -> Verdict:
        """Judge what happened, after everything has come to rest."""
        await wait_until_it_holds(self.ledger.look, SETTLE_S)
        self.ledger.finish()
        for door in self.doors:
            for stream in streams():
                final = await look(door, stream)
                assert final is not None, f"{door.name} does not show {stream}"
                self.history.finals.append(final)
        self.history.said = {name: list(server.said) for name, server in self.nodes.items()}
        return judge(self.history, may_lose=may_lose)

    def report(self, what: str, verdict: Verdict) -> str:
        """Return one line of numbers."""
        calls = self.history.calls
        acked = sum(_carried_out(call) for call in calls)
        again = sum(call.outcome in (Outcome.UNAVAILABLE, Outcome.UNKNOWN) for call in calls)
        most = f"{max(self.healed_s):.2f}" if self.healed_s else "-"
        mean = f"{sum(self.healed_s) / len(self.healed_s):.2f}" if self.healed_s else "-"
        return (
            f"{what} | rounds {self.rounds} | acknowledged {acked} | sent again {again} | "
            f"lost, told {verdict.told} | lost, silent {verdict.silent} | doubled {verdict.doubled} | "
            f"healed in {mean} s, at most {most} s"
        )

    # Nodes

    async def kill(self, name: str) -> None:
        """SIGKILL a node."""
        await self.nodes[name].kill()

    async def start(self, name: str) -> None:
        """Start a node that was killed, or that ended."""
        await self.nodes[name].start(self._nursery)

    def on_duty(self, partition: int) -> str:
        """Return which node has the lease of a partition; empty: none."""
        with self.client() as client:
            holder = client.get(f"{{onda:{partition}}}:lease")
        return str(holder).rpartition(".")[0] if holder else ""

    # Redis

    def client(self) -> redis.Redis:
        """A client that is not ours; blocking, for short questions."""
        return redis.Redis(port=self.redis.port, decode_responses=True, protocol=2, socket_timeout=5)

    async def restart_redis(self, away_s: float = 0.0) -> int:
        """SIGKILL Redis and start it again; return when that was."""
        self.redis.stop()
        await trio.sleep(away_s)
        await trio.to_thread.run_sync(self.redis.start)
        return now_ns()


@asynccontextmanager
async def open_site(
    folder: Path,
    seed: int,
    *,
    nodes: Sequence[str] = ("a", "b"),
    redis: Sequence[str] = ALWAYS,
    env: Mapping[str, str] | None = None,
    make_proxy: Callable[[int], AbstractAsyncContextManager[Proxy]] | None = None,
    log_url: str = "",
    server: RedisServer | None = None,
) -> AsyncIterator[Site]:
    """Start Redis and nodes and make the shops; everything is killed at the end.

    Args:
        folder: for all files.
        seed: of what is ordered, and of `Site.chance`.
        nodes: their names.
        redis: options of its command line.
        env: further settings of the nodes.
        make_proxy: makes one before Redis for each node.
        log_url: where the nodes find Redis, if not at its own address.
        server: a Redis that runs already.
    """
    async with AsyncExitStack() as stack:
        if server is None:
            (folder / "redis").mkdir()
            server = stack.enter_context(redis_server(folder / "redis", *redis))
        nursery = await stack.enter_async_context(trio.open_nursery())
        proxies = {}
        servers = {}
        for name in nodes:
            url = log_url or server.url
            if make_proxy is not None:
                proxies[name] = await stack.enter_async_context(make_proxy(server.port))
                url = f"redis://127.0.0.1:{proxies[name].port}"
            options = ("--no-demo", "--node-id", name, "--log", url)
            servers[name] = Server(folder / name, *options, env={**QUICK, **(env or {})})
        site = Site(server, servers, nursery, seed)
        site.proxies = proxies
        try:
            async with trio.open_nursery() as starting:
                for one in servers.values():
                    starting.start_soon(one.start, nursery)
            nursery.start_soon(site.ledger.run)
            await site.prepare()
            yield site
        except BaseException:
            for name, one in servers.items():
                print("\n".join([f"-- node {name} said:", *one.said]))
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                for one in servers.values():
                    await one.kill()
            nursery.cancel_scope.cancel()


def check(site: Site, what: str, verdict: Verdict) -> None:
    """Print the numbers, and fail with what is wrong."""
    print(site.report(what, verdict))
    shown = "\n".join(verdict.findings[:20])
    assert not verdict.findings, f"{len(verdict.findings)} findings:\n{shown}"


def _carried_out(call: Call) -> bool:
    return call.outcome == Outcome.OK and not call.replayed


async def _shows(door: Door, stream: str) -> bool:
    """Whether a node has a stream with the whole menu: a table's copy comes after the table."""
    found = await look(door, stream)
    menu = "products" if stream.startswith("store:") else "menu"
    return found is not None and len(found.state[menu]) == PRODUCTS


# What can be done to the files of a Redis that is not running


def aof_of(folder: Path) -> Path:
    """Return the file to which Redis appends its commands."""
    (found,) = (folder / "redis" / "appendonlydir").glob("*.incr.aof")
    return found


def cut_aof(file: Path, upto: int) -> int:
    """Cut a file of commands at the end of the first whole change at or after byte `upto`; return how many
    bytes went.
    """
    data = file.read_bytes()
    at, inside = 0, False
    while at < len(data) and (at < upto or inside):
        words, at = _read_command(data, at)
        inside = (inside or words[0].upper() == b"MULTI") and words[0].upper() != b"EXEC"
    file.write_bytes(data[:at])
    return len(data) - at


def _read_command(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Read one command (`*N`, then `$length` and bytes for each word); return it and where the next is."""
    end = data.index(b"\r\n", at)
    if data[at : at + 1] == b"#":  # a note of the time
        return [data[at:end]], end + 2
    count, at = int(data[at + 1 : end]), end + 2
    words: list[Any] = []
    for _ in range(count):
        end = data.index(b"\r\n", at)
        length = int(data[at + 1 : end])
        words.append(data[end + 2 : end + 2 + length])
        at = end + 4 + length
    return words, at


def keep_copy(folder: Path) -> None:
    """Keep a copy of Redis' files, to be put back by `put_back`."""
    shutil.rmtree(folder / "copy", ignore_errors=True)
    shutil.copytree(folder / "redis" / "appendonlydir", folder / "copy")


def put_back(folder: Path) -> None:
    """Put the copy in the place of Redis' files."""
    shutil.rmtree(folder / "redis" / "appendonlydir")
    shutil.copytree(folder / "copy", folder / "redis" / "appendonlydir")
