"""The client follows a feed through every kind of trouble without a hole, a repeat or a hot loop."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.browser


def things(page, expected):
    """Wait until the client's state is `expected`."""
    page.wait_for_function("(e) => JSON.stringify(client.state.things) === JSON.stringify(e)", arg=expected)


def status(page, expected, reason=None):
    page.wait_for_function("([s, r]) => client.status === s && client.reason === r", arg=[expected, reason])


def logged(page, name):
    return page.evaluate("(name) => log.filter((l) => l[0] === name).map((l) => l[1])", name)


def streaming(fake, times=1):
    fake.wait_for(lambda: fake.count("/stream") >= times and len(fake.streams) > 0)


def test_sync_comes_before_the_stream(page, fake):
    """A snapshot first, then the stream from its cursor, then live events."""
    fake.emit("a", {"n": 1})
    page.evaluate("() => void follow()")
    status(page, "live")
    assert [seen.path.rsplit("/")[-1] for seen in fake.seen] == ["sync", "stream"]
    assert fake.seen[1].query == {"after": "e1-1"}
    fake.emit("b", {"n": 2})
    things(page, {"a": {"n": 1}, "b": {"n": 2}})
    fake.emit("a", None)
    things(page, {"b": {"n": 2}})
    assert [e["live"] for e in logged(page, "event")] == [True, True]
    assert page.evaluate("() => client.cursor") == "e1-3"


def test_the_token_goes_in_a_header(page, fake):
    """Never in the address, where logs and history would keep it."""
    page.evaluate("() => void follow({}, {token: 'secret'})")
    status(page, "live")
    assert all(seen.headers["authorization"] == "Bearer secret" for seen in fake.seen)
    assert all("secret" not in str(seen.query) for seen in fake.seen)


def test_what_was_missed_comes_by_sync_before_reconnecting(page, fake):
    """Events made while the stream was away arrive once, in order, marked as not live."""
    page.evaluate("() => void follow()")
    streaming(fake)
    with fake.changed:
        fake.stream_answer = (503, {}, {"code": "overloaded"})
        fake.end_streams()
        for n in range(5):
            fake.emit(f"t{n}", n)
    things(page, {f"t{n}": n for n in range(5)})
    assert [(e["envelope"]["version"], e["live"]) for e in logged(page, "event")] == [
        (n, False) for n in range(1, 6)
    ]
    fake.stream_answer = None
    streaming(fake, 2)
    paths = [seen.path.rsplit("/")[-1] for seen in fake.seen]
    streams = [i for i, path in enumerate(paths) if path == "stream"]
    assert all(paths[i - 1] == "sync" for i in streams)


def test_polls_while_streams_fail_and_heals(page, fake):
    """Sync with a wait is the fallback; the stream is tried again and again, and comes back by itself."""
    fake.stream_answer = (502, {}, {})
    page.evaluate("() => void follow({backoffBaseMs: 3000, backoffCapMs: 3000})")
    status(page, "polling")
    fake.emit("a", 1)
    things(page, {"a": 1})
    assert page.evaluate("() => client.status") == "polling"
    fake.stream_answer = None
    status(page, "live")


def test_a_page_that_is_no_event_stream_counts_as_failure(page, fake):
    """A captive portal answers 200 with HTML."""
    fake.stream_answer = (200, {"Content-Type": "text/html"}, "<html>")
    page.evaluate("() => void follow()")
    status(page, "polling")


def test_a_stream_that_sends_nothing_is_given_up(page, fake):
    """A proxy that buffers shows headers and no bytes: that is not live."""
    fake.prime = False
    page.evaluate("() => void follow({openMs: 200})")
    fake.wait_for(lambda: fake.count("/stream") >= 2)
    status(page, "polling")
    assert "live" not in [s["status"] for s in logged(page, "status")]


def test_rotation_is_not_seen(page, fake):
    """`bye` with a retry: sync, wait as asked, reconnect; the status never leaves live."""
    page.evaluate("() => void follow({graceMs: 3000})")
    streaming(fake)
    status(page, "live")
    began = page.evaluate("() => performance.now()")
    fake.end_streams({"reason": "rotate", "retry_ms": 400})
    streaming(fake, 2)
    assert page.evaluate("() => performance.now()") - began >= 400
    fake.emit("a", 1)
    things(page, {"a": 1})
    assert [s["status"] for s in logged(page, "status")] == ["live"]


def test_amber_only_after_the_grace(page, fake):
    """A dead server shows as reconnecting after the grace, as offline when the watchdog's time is over."""
    page.evaluate("() => void follow({graceMs: 300, watchdogMs: 1200})")
    streaming(fake)
    status(page, "live")
    with fake.changed:
        fake.down = True
        fake.end_streams()
    status(page, "reconnecting")
    status(page, "offline", "silent")
    fake.down = False
    status(page, "live")
    assert [s["status"] for s in logged(page, "status")] == ["live", "reconnecting", "offline", "live"]


def test_the_watchdog_leaves_a_silent_stream(page, fake):
    """Half-open connections give no error: silence does. One missed ping is `late`, two end the stream."""
    page.evaluate("() => void follow({watchdogMs: 600})")
    streaming(fake)
    status(page, "reconnecting", "late")
    streaming(fake, 2)
    status(page, "live")


def test_pings_keep_a_quiet_stream(page, fake):
    """Nothing but pings for longer than the watchdog's time is fine."""
    page.evaluate("() => void follow({watchdogMs: 900})")
    streaming(fake)
    for _ in range(8):
        fake.ping()
        page.wait_for_timeout(250)  # pings come by the clock: there is no condition to wait for
    assert fake.count("/stream") == 1


def test_a_server_that_takes_no_commands_says_so(page, fake):
    """Still live, but with a reason; until a ping without the word, or a stream that does not begin so."""
    page.evaluate("() => void follow()")
    streaming(fake)
    fake.ping(writable=False)
    status(page, "live", "read_only")
    fake.ping()
    status(page, "live")
    fake.ping(writable=False)
    status(page, "live", "read_only")
    fake.end_streams(bye={"reason": "rotate", "retry_ms": 10})
    streaming(fake, 2)
    status(page, "live")


@pytest.mark.parametrize("skip", [True, False])
def test_holes_and_repeats_never_reach_the_screen(page, fake, skip):
    """A version that does not follow makes the client sync again."""
    page.evaluate("() => void follow()")
    streaming(fake)
    fake.emit("a", 1)
    things(page, {"a": 1})
    if skip:
        fake.emit("lost", 2, send=False)
    else:
        stale = fake.records[-1] | {"patch": {"things": {"a": "stale"}}}
        fake.send(b"data: " + json.dumps(stale).encode() + b"\n\n")
    fake.emit("c", 3)
    things(page, {"a": 1} | ({"lost": 2} if skip else {}) | {"c": 3})
    streaming(fake, 2)
    assert [e["envelope"]["version"] for e in logged(page, "event")] == list(range(1, len(fake.records) + 1))


def test_a_hole_in_sync_itself_takes_a_snapshot(page, fake):
    """If even the delta skips a version, only a snapshot can be trusted."""
    page.evaluate("() => void follow()")
    streaming(fake)
    with fake.changed:
        fake.emit("a", 1, send=False)
        fake.emit("b", 2, send=False)
        fake.emit("c", 3, send=False)
        holed = [fake.records[0], fake.records[2]]
        fake.sync_answer = (200, {}, {"mode": "delta", "cursor": "e1-3", "events": holed, "more": False})
        fake.end_streams()
    fake.wait_for(lambda: fake.seen[-1].path.endswith("/sync") and "after" not in fake.seen[-1].query)
    fake.sync_answer = None
    things(page, {"a": 1, "b": 2, "c": 3})


def test_an_event_lost_at_the_end_shows_at_the_next_ping(page, fake):
    """No later event gives the hole away, so the ping's cursor does."""
    page.evaluate("() => void follow()")
    streaming(fake)
    fake.emit("a", 1, send=False)
    fake.ping()
    fake.ping()
    things(page, {"a": 1})
    streaming(fake, 2)


def test_reset_replaces_the_state(page, fake):
    """Another epoch after a restore: what is gone there is gone here, and the page is told why."""
    fake.emit("a", 1)
    page.evaluate("() => void follow()")
    streaming(fake)
    with fake.changed:
        fake.epoch, fake.records, fake.state = "e2", [], {"things": {"z": 1}}
        fake.end_streams()
    things(page, {"z": 1})
    assert logged(page, "reset") == [{"reason": "epoch"}]
    streaming(fake, 2)
    fake.emit("y", 2)
    things(page, {"z": 1, "y": 2})


def test_snapshot_and_reset_on_the_stream(page, fake):
    """The stream itself may replace the state."""
    page.evaluate("() => void follow()")
    streaming(fake)
    fake.send(
        b'event: reset\nid: e7-4\ndata: {"cursor":"e7-4","state":{"things":{"q":1}},"reason":"expired"}\n\n'
    )
    things(page, {"q": 1})
    assert page.evaluate("() => client.cursor") == "e7-4"
    assert logged(page, "reset") == [{"reason": "expired"}]


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_token_is_no_hot_loop(page, fake, code):
    """Offline with a reason; tried again rarely; a new token works at once."""
    fake.sync_answer = (code, {}, {"code": "unauthorized"})
    page.evaluate("() => void follow({deniedMs: 60000})")
    status(page, "offline", "unauthorized")
    page.wait_for_timeout(300)  # time in which a hot loop would show
    assert len(fake.seen) == 1
    fake.sync_answer = None
    page.evaluate("() => client.setToken('new')")
    status(page, "live")


def test_bye_unauthorized_stops(page, fake):
    """A revoked token ends the stream; the client does not knock on."""
    page.evaluate("() => void follow({deniedMs: 60000})")
    streaming(fake)
    fake.sync_answer = (401, {}, {})
    fake.end_streams({"reason": "unauthorized", "retry_ms": 0})
    status(page, "offline", "unauthorized")
    assert fake.count("/stream") == 1


def test_retry_after_is_honoured(page, fake):
    """503 with Retry-After: not before."""
    fake.sync_answer = (503, {"Retry-After": "1"}, {"code": "overloaded"})
    page.evaluate("() => void follow()")
    fake.wait_for(lambda: len(fake.seen) == 1)
    fake.sync_answer = None
    began = page.evaluate("() => performance.now()")
    streaming(fake)
    assert page.evaluate("() => performance.now()") - began >= 900
    assert fake.count("/sync") == 2


def test_coming_online_ends_the_wait(page, fake):
    """The browser says that the network is back: do not wait out the pause."""
    fake.down = True
    page.evaluate("() => void follow({backoffBaseMs: 60000, backoffCapMs: 60000})")
    fake.wait_for(lambda: len(fake.seen) >= 1)
    fake.down = False
    page.evaluate("() => dispatchEvent(new Event('online'))")
    status(page, "live")


def test_coming_online_checks_a_stream_that_looks_alive(page, fake):
    """Phones change networks without a word: a sync asks whether the stream still brings everything."""
    page.evaluate("() => void follow()")
    streaming(fake)
    status(page, "live")
    page.evaluate("() => dispatchEvent(new Event('online'))")
    fake.wait_for(lambda: fake.count("/sync") == 2)
    assert fake.count("/stream") == 1
    fake.emit("a", 1, send=False)
    page.wait_for_timeout(1_050)  # checks are at least a second apart
    page.evaluate("() => dispatchEvent(new Event('online'))")
    things(page, {"a": 1})


def test_a_hidden_page_gives_its_connection_back(page, fake):
    """After a while out of sight the stream is closed; a look at the page brings everything back."""
    page.evaluate("() => void follow({pauseHiddenMs: 50})")
    streaming(fake)
    hide = "(h) => { Object.defineProperty(document, 'hidden', {value: h, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    status(page, "paused")
    fake.emit("a", 1)
    page.evaluate(hide, False)
    things(page, {"a": 1})
    status(page, "live")


def test_the_servers_clock_is_known(page, fake):
    """Timers run on the server's clock, from the ping's time."""
    page.evaluate("() => void follow()")
    streaming(fake)
    fake.ping(time="2030-01-01T00:00:00.000Z")
    page.wait_for_function("() => new Date(client.now()).getUTCFullYear() === 2030")


def test_many_pages_of_sync(page, fake):
    """`more` is followed until the head."""
    page.evaluate("() => void follow()")
    streaming(fake)
    with fake.changed:
        for n in range(3):
            fake.emit(f"t{n}", n, send=False)
        one, two, _ = fake.records
        fake.sync_answer = (200, {}, {"mode": "delta", "cursor": "e1-2", "events": [one, two], "more": True})
        fake.end_streams()
    fake.wait_for(lambda: fake.seen[-1].query.get("after") == "e1-2")
    fake.sync_answer = None
    things(page, {"t0": 0, "t1": 1, "t2": 2})


def test_closing_stops_everything(page, fake):
    """After close() nothing is asked and nothing is told."""
    page.evaluate("() => void follow()")
    streaming(fake)
    page.evaluate("() => client.close()")
    fake.emit("a", 1)
    page.wait_for_timeout(200)  # time in which a loop that goes on would show
    assert len(fake.seen) == 2
    assert logged(page, "event") == []
