"""Commands of the Python client: once, whatever the wire does, and a definite no is told from a hiccup."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.web.fake_onda import answer_bytes, open_fake, problem
from web.client import Pace, QueueFull, Refused, Reply, Unanswered, open_client
from web.outbox import Outbox

EAGER = Pace(retry_first_s=0.01, retry_most_s=0.05, answer_s=5.0, silence_s=5.0)


async def test_a_command_is_answered():
    """The answer comes back parsed, with the key, the token and the body on the wire."""
    async with open_fake() as fake, open_client(fake.base, "t0ken", pace=EAGER) as client:
        reply = await client.send("stores/s1/create-order", {"table": "3"}, key="k1")
        assert reply == Reply(cursor="e1-0", events=[], result={"table": "3"}, replayed=False, pending=False)
        method, target, headers = fake.requests[-1]
        assert (method, target) == ("POST", "/v1/stores/s1/create-order")
        assert headers["authorization"] == "Bearer t0ken"
        assert headers["idempotency-key"] == "k1"


@pytest.mark.parametrize(
    "hiccup",
    [
        None,
        problem(503, "overloaded"),
        problem(504, "unknown_outcome"),
        problem(500, "unknown_outcome"),
        answer_bytes(502, b"<html>bad gateway</html>", kind="text/html"),
        answer_bytes(404, b"<html>no such page</html>", kind="text/html"),
        answer_bytes(200, b"<html>please log in to the Wi-Fi</html>", kind="text/html"),
        answer_bytes(200, {"hello": "world"}),
        answer_bytes(302, b"", {"Location": "/login"}),
        b"garbage\r\n\r\n",
    ],
    ids=[
        "hang-up",
        "503",
        "504",
        "500 unknown",
        "502",
        "foreign 404",
        "captive portal",
        "foreign JSON",
        "302",
        "garbage",
    ],
)
async def test_a_hiccup_is_sent_again_with_the_same_key(hiccup: bytes | None):
    """Whatever is not a definite answer of ours is followed by the same key again."""
    async with open_fake() as fake, open_client(fake.base, pace=EAGER) as client:
        fake.script = [hiccup, hiccup]
        reply = await client.send("stores/s1/create-order", {})
        assert reply.result == {}
        assert len({headers["idempotency-key"] for _, _, headers in fake.requests}) == 1
        assert len(fake.requests) == 3


async def test_a_refusal_is_raised_at_once():
    """A problem with a code is for good: it comes as `Refused`, and nothing is sent again."""
    async with open_fake() as fake, open_client(fake.base, pace=EAGER) as client:
        fake.script = [problem(422, "sold_out", "no more ramen")]
        with pytest.raises(Refused, match="no more ramen") as refused:
            await client.send("stores/s1/create-order", {})
        assert (refused.value.code, refused.value.status) == ("sold_out", 422)
        assert len(fake.requests) == 1


async def test_a_fault_of_the_server_is_a_refusal():
    """500 `internal` says that nothing happened and would not happen the next time either."""
    async with open_fake() as fake, open_client(fake.base, pace=EAGER) as client:
        fake.script = [problem(500, "internal")]
        with pytest.raises(Refused) as refused:
            await client.send("stores/s1/create-order", {})
        assert refused.value.code == "internal"


async def test_a_deadline_ends_the_trying():
    """Without an answer in time the outcome is unknown, and the key to go on with is told."""
    async with open_client("http://127.0.0.1:9", pace=EAGER) as client:
        with trio.fail_after(5), pytest.raises(Unanswered) as unanswered:
            await client.send("stores/s1/create-order", {}, key="k7", within_s=0.1)
        assert unanswered.value.key == "k7"


async def test_a_server_that_never_answers_does_not_hold_a_request():
    """A request has its own deadline, after which it is sent again on a fresh connection."""
    accepted = 0

    async def hold(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        async with stream:
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hold, listeners)
        base = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_client(base, pace=Pace(retry_first_s=0.01, answer_s=0.1)) as client:
            with pytest.raises(Unanswered):
                await client.send("stores/s1/create-order", {}, within_s=1.0)
        nursery.cancel_scope.cancel()
    assert accepted >= 2


async def test_retry_after_is_honoured(autojump_clock: trio.testing.MockClock):
    """The pause after a 503 is at least what the server asked for."""
    pace = Pace(retry_first_s=0.01)
    assert all(7.0 <= pace.pause_s(0, 7.0) <= 7.01 for _ in range(100))
    assert max(Pace(retry_first_s=1, retry_most_s=3).pause_s(50) for _ in range(1000)) <= 3


async def test_retry_after_of_an_answer_is_read():
    """A command that is told to wait two seconds is not sent again before."""
    async with open_fake() as fake, open_client(fake.base, pace=EAGER) as client:
        fake.script = [problem(503, "read_only", headers={"Retry-After": "2"})]
        began = trio.current_time()
        await client.send("stores/s1/create-order", {})
        assert trio.current_time() - began >= 2


async def test_a_fresh_token_is_taken_for_each_request():
    """A token that is a function is asked each time: the one of yesterday has expired."""
    tokens = iter(["a", "b"])
    async with open_fake() as fake, open_client(fake.base, lambda: next(tokens), pace=EAGER) as client:
        fake.script = [None]
        await client.send("stores/s1/create-order", {})
        assert [headers["authorization"] for _, _, headers in fake.requests] == ["Bearer a", "Bearer b"]


async def test_what_the_block_raises_comes_out_as_it_is():
    """No exception group around the caller's own error."""
    with pytest.raises(LookupError):
        async with open_client("http://127.0.0.1:9"):
            raise LookupError


async def test_enqueued_commands_are_sent_in_order_once_there_is_a_network():
    """What was enqueued while nothing worked goes out in order, each once, and `unsent` counts down."""
    settled: list[tuple[str, Reply | Refused]] = []
    async with open_fake() as fake:
        fake.script = [None] * 5
        async with open_client(fake.base, pace=EAGER, on_settled=lambda *a: settled.append(a)) as client:
            for count in range(10):
                await client.enqueue("stores/s1/create-order", {"n": count}, key=f"k{count}")
            with trio.fail_after(5):
                await client.wait_sent()
            assert client.unsent == 0
        assert list(fake.done) == [f"k{count}" for count in range(10)]
        assert [key for key, _ in settled] == list(fake.done)


async def test_a_refused_command_leaves_the_outbox():
    """A definite no settles a command: the ones behind it are not held up."""
    settled: dict[str, Reply | Refused] = {}
    async with open_fake() as fake:
        fake.script = [problem(422, "sold_out")]
        async with open_client(fake.base, pace=EAGER, on_settled=settled.__setitem__) as client:
            await client.enqueue("stores/s1/create-order", {}, key="a")
            await client.enqueue("stores/s1/create-order", {}, key="b")
            with trio.fail_after(5):
                await client.wait_sent()
    assert isinstance(settled["a"], Refused)
    assert isinstance(settled["b"], Reply)


async def test_an_expired_token_does_not_drop_what_is_enqueued(monkeypatch: pytest.MonkeyPatch):
    """401 says nothing about the command: it stays until there is a good token."""
    monkeypatch.setattr("web.outbox.UNAUTHORIZED_PAUSE_S", 0.01)
    async with open_fake() as fake:
        fake.script = [problem(401, "unauthorized")] * 3
        async with open_client(fake.base, pace=EAGER) as client:
            await client.enqueue("stores/s1/create-order", {}, key="a")
            with trio.fail_after(5):
                await client.wait_sent()
        assert list(fake.done) == ["a"]


async def test_the_outbox_outlives_the_program(tmp_path: Path):
    """Commands enqueued by one program, which is gone, are sent by the next one with the same keys."""
    file = tmp_path / "outbox"
    async with open_client("http://127.0.0.1:9", pace=EAGER, outbox=file) as client:
        await client.enqueue("stores/s1/create-order", {"n": "온다"}, key="a")
        await client.enqueue("stores/s1/create-order", {"n": 2}, key="b")
        assert client.unsent == 2
    with file.open("ab") as torn:
        torn.write(b'{"key":"c","path":"stores')
    async with open_fake() as fake, open_client(fake.base, pace=EAGER, outbox=file) as client:
        with trio.fail_after(5):
            await client.wait_sent()
        assert {key: answer["result"] for key, answer in fake.done.items()} == {
            "a": {"n": "온다"},
            "b": {"n": 2},
        }
        await client.enqueue("stores/s1/create-order", {}, key="d")
        with trio.fail_after(5):
            await client.wait_sent()
        assert list(fake.done) == ["a", "b", "d"]
    assert file.read_bytes() == b""


async def test_a_settled_command_is_not_sent_by_the_next_program(tmp_path: Path):
    """The file remembers what was answered, also while others still wait."""
    file = tmp_path / "outbox"
    lines = [
        {"key": "a", "path": "stores/s1/x", "body": "{}"},
        {"key": "b", "path": "stores/s1/x", "body": "{}"},
        {"key": "a", "settled": True},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with open_fake() as fake, open_client(fake.base, pace=EAGER, outbox=file) as client:
        with trio.fail_after(5):
            await client.wait_sent()
        assert list(fake.done) == ["b"]


async def test_the_outbox_is_bounded():
    """One more than the bound is refused, and a key that waits already takes no second place."""
    outbox = Outbox(commands_max=2)
    await outbox.put("a", "stores/s1/x", b"{}")
    await outbox.put("b", "stores/s1/x", b"{}")
    await outbox.put("b", "stores/s1/x", b"{}")
    with pytest.raises(QueueFull):
        await outbox.put("c", "stores/s1/x", b"{}")
    assert len(outbox) == 2
