"""Commands wait in the browser until the server has answered them: in order, once, over reloads and tabs."""

from __future__ import annotations

import re
import threading

import pytest

from tests.browser.conftest import show_blank

pytestmark = pytest.mark.browser


def unsent(page, expected):
    page.wait_for_function("(n) => client.unsent === n", arg=expected)


def bodies(fake):
    return [(seen.path.rsplit("/")[-1], seen.body) for seen in fake.commands()]


def logged(page, name):
    return page.evaluate("(name) => log.filter((l) => l[0] === name).map((l) => l[1])", name)


def test_sent_and_acknowledged(page, fake):
    """A command carries a key, a body and the token, and leaves the queue with the answer."""
    page.evaluate("() => void follow({}, {token: 'secret'})")
    settled = page.evaluate("() => client.send('accept-order', {order: 'o1'}).settled")
    assert settled == {"ok": True, "answer": {"cursor": "e1-0", "events": [], "result": {}}}
    [seen] = fake.commands()
    assert seen.path == "/v1/stores/s1/accept-order"
    assert seen.body == {"order": "o1"}
    assert seen.headers["authorization"] == "Bearer secret"
    assert len(seen.headers["idempotency-key"]) == 36
    unsent(page, 0)


def test_commands_to_other_streams(page, fake):
    """The board answers a table's call."""
    page.evaluate("() => void follow()")
    page.evaluate("() => client.send('answer-call', {call: 'c1'}, {feed: 'tables/s1/3'}).settled")
    assert fake.commands()[0].path == "/v1/tables/s1/3/answer-call"


def test_in_order_with_the_same_key_until_answered(page, fake):
    """The first command's answer is lost twice: the same key again, and nothing overtakes it."""
    lost = iter([(0, {}, None), (500, {}, {"code": "unknown_outcome"}), (503, {}, {"code": "overloaded"})])
    fake.command = lambda seen: next(lost, (200, {}, {"events": [], "result": {}}))
    page.evaluate("() => { follow(); client.send('one'); client.send('two'); client.send('three'); }")
    unsent(page, 0)
    assert [name for name, _ in bodies(fake)] == ["one", "one", "one", "one", "two", "three"]
    keys = [seen.headers["idempotency-key"] for seen in fake.commands()]
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 3


def test_an_answer_lost_after_the_deed_is_asked_for_again(page, fake):
    """Network errors do not tell whether it happened; the key does."""
    done = []

    def act(seen):
        done.append(seen.body)
        return 200, {}, {"events": [], "result": {}}

    def once_lost(seen):
        fake.answers[seen.headers["idempotency-key"]] = act(seen)
        return 0, {}, None

    fake.command = once_lost
    page.evaluate("() => { follow(); client.send('create-order', {n: 1}); }")
    unsent(page, 0)
    assert done == [{"n": 1}]
    assert len(fake.commands()) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_a_definite_refusal_is_handed_back(page, fake, status):
    """It leaves the queue, the page is told, and the next command goes on."""
    answers = iter([(status, {}, {"code": "sold_out", "detail": "No more gimbap."})])
    fake.command = lambda seen: next(answers, (200, {}, {"events": [], "result": {}}))
    settled = page.evaluate(
        "() => { follow(); const s = client.send('one'); client.send('two'); return s.settled; }"
    )
    problem = {"status": status, "code": "sold_out", "detail": "No more gimbap."}
    assert settled == {"ok": False, "problem": problem}
    unsent(page, 0)
    [refused] = logged(page, "refused")
    assert refused["problem"] == problem
    assert refused["entry"]["command"] == "one"
    assert refused["mine"] is True
    assert [name for name, _ in bodies(fake)] == ["one", "two"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_maybe_is_tried_again(page, fake, status):
    """Nothing is dropped on an answer that is none."""
    answers = iter([(status, {}, {}), (status, {}, {})])
    fake.command = lambda seen: next(answers, (200, {}, {"events": [], "result": {}}))
    page.evaluate("() => { follow(); client.send('one'); }")
    unsent(page, 0)
    assert len(fake.commands()) == 3
    assert logged(page, "refused") == []


def test_accepted_counts_as_answered(page, fake):
    """202: the server has it and works on it."""
    fake.command = lambda seen: (202, {}, {"events": [], "result": {"status": "UNKNOWN"}})
    assert page.evaluate("() => { follow(); return client.send('approve-payment').settled; }")["ok"] is True


def test_a_crash_of_the_server_holds_up_the_others_only_for_a_while(page, fake):
    """A command at which the server has a fault is handed back after a few tries."""
    fake.command = lambda seen: (
        (500, {}, {"code": "internal"}) if seen.path.endswith("bad") else (200, {}, {"events": []})
    )
    page.evaluate("() => { follow({crashTriesMax: 3}); client.send('bad'); client.send('good'); }")
    unsent(page, 0)
    assert [name for name, _ in bodies(fake)] == ["bad", "bad", "bad", "good"]
    assert logged(page, "refused")[0]["problem"]["code"] == "internal"


def test_a_refused_token_keeps_the_commands(page, fake):
    """An expired token is no reason to lose an order: it goes with the next one."""
    fake.command = lambda seen: (
        (200, {}, {"events": []}) if seen.headers.get("authorization") == "Bearer good" else (401, {}, {})
    )
    page.evaluate("() => { follow({deniedMs: 60000}); client.send('one'); }")
    fake.wait_for(lambda: len(fake.commands()) == 1)
    unsent(page, 1)
    page.evaluate("() => client.setToken('good')")
    unsent(page, 0)


def test_unsent_counts_what_is_in_flight(page, fake):
    """A command is done with the answer, not with the click."""
    answer = threading.Event()

    def slow(seen):
        assert answer.wait(10)
        return 200, {}, {"events": []}

    fake.command = slow
    page.evaluate("() => { follow(); client.send('one'); }")
    page.wait_for_timeout(100)  # time in which it would leave the queue too early
    assert page.evaluate("() => [client.unsent, client.pending.length]") == [1, 1]
    answer.set()
    unsent(page, 0)


def test_pending_until_the_event_is_here(page, fake):
    """Between the answer and its event a card still shows the clock."""
    page.evaluate("() => void follow()")
    page.wait_for_function("() => client.status === 'live'")

    def answer(seen):
        event = fake.emit("a", 1, cause=seen.headers["idempotency-key"], send=False)
        return 200, {}, {"events": [event], "result": {}}

    fake.command = answer
    page.evaluate("() => client.send('one').settled")
    assert page.evaluate("() => [client.unsent, client.pending.length]") == [0, 1]
    fake.ping()
    fake.ping()
    page.wait_for_function("() => client.state.things?.a === 1 && client.pending.length === 0")


def test_an_event_may_come_before_its_answer(page, fake):
    """What shows already is not pending, though the command is unsent until its answer is here."""
    page.evaluate("() => void follow()")
    page.wait_for_function("() => client.status === 'live'")
    go_on = threading.Event()

    def answer(seen):
        event = fake.emit("a", 1, cause=seen.headers["idempotency-key"])
        fake.changed.release()
        try:
            assert go_on.wait(10)
        finally:
            fake.changed.acquire()
        return 200, {}, {"events": [event], "result": {}}

    fake.command = answer
    page.evaluate("() => void client.send('one')")
    page.wait_for_function("() => client.state.things?.a === 1")
    assert page.evaluate("() => [client.unsent, client.pending.length]") == [1, 0]
    go_on.set()
    unsent(page, 0)
    assert page.evaluate("() => client.pending.length") == 0


def test_a_reload_keeps_what_is_unsent(page, fake):
    """Clicked while the server was down, sent once after a reload, in order."""
    fake.down = True
    page.evaluate("() => { follow(); for (const n of ['one', 'two', 'three']) client.send(n); }")
    fake.wait_for(lambda: len(fake.commands()) >= 2)
    tried = {seen.headers["idempotency-key"] for seen in fake.commands()}
    show_blank(page, fake)
    page.evaluate("() => void follow()")
    unsent(page, 3)
    with fake.changed:
        fake.down = False
        fake.seen.clear()
    unsent(page, 0)
    assert [name for name, _ in bodies(fake)] == ["one", "two", "three"]
    assert tried == {fake.commands()[0].headers["idempotency-key"]}


@pytest.mark.parametrize("locks", [True, False])
def test_several_tabs_send_each_command_once(page, fake, locks):
    """Two tabs share one queue: one sender at a time, with Web Locks and without."""
    other = page.context.new_page()
    show_blank(other, fake)
    for tab in (page, other):
        if not locks:
            tab.evaluate("() => Object.defineProperty(navigator, 'locks', {value: undefined})")
        tab.evaluate("() => void follow()")
    fake.down = True
    page.evaluate("() => { for (let n = 0; n < 5; n += 1) client.send('a', {n}); }")
    other.evaluate("() => { for (let n = 0; n < 5; n += 1) client.send('b', {n}); }")
    unsent(page, 10)
    unsent(other, 10)
    with fake.changed:
        fake.down = False
        fake.seen.clear()
    unsent(page, 0)
    unsent(other, 0)
    assert len({seen.headers["idempotency-key"] for seen in fake.commands()}) == 10
    for name in ("a", "b"):
        seen = [s.body["n"] for s in fake.commands() if s.path.endswith(f"/{name}")]
        assert sorted(set(seen)) == list(range(5))
        assert seen == sorted(seen)
    page.wait_for_function("() => log.filter((l) => l[0] === 'sent').length === 10")
    assert sum(1 for sent in logged(page, "sent") if sent["mine"]) == 5
    other.close()


def test_two_people_at_one_browser_do_not_share_a_queue(page, fake):
    """Commands of one are never sent with the other's token."""
    fake.down = True
    kim = "x." + "eyJyb2xlIjoib3duZXIiLCJzdWIiOiJraW0ifQ" + ".y"
    lee = "x." + "eyJyb2xlIjoic3RhZmYiLCJzdWIiOiJsZWUifQ" + ".y"
    page.evaluate("(token) => { follow({}, {token}); client.send('one'); client.close(); }", kim)
    page.evaluate("(token) => void follow({}, {token})", lee)
    assert page.evaluate("() => client.unsent") == 0
    page.evaluate("(token) => { client.close(); follow({}, {token}); }", kim)
    assert page.evaluate("() => client.unsent") == 1
    fake.down = False
    unsent(page, 0)


def test_full_is_said_at_once(page, fake):
    """The command that does not fit is not taken, and the caller knows."""
    fake.down = True
    error = page.evaluate(
        """() => {
            follow({unsentMax: 3});
            for (let n = 0; n < 3; n += 1) client.send('one');
            try { client.send('one'); } catch (e) { return [e instanceof onda.QueueFull, e.message]; }
        }"""
    )
    assert error == [True, "3 commands are waiting to be sent already"]
    assert page.evaluate("() => client.unsent") == 3


def test_too_old_to_be_meant(page, fake):
    """What waited for longer than its age limit is handed back, not sent."""
    fake.down = True
    page.evaluate("() => { follow({unsentAgeMs: 200}); client.send('submit-cart'); }")
    fake.wait_for(lambda: len(fake.commands()) >= 1)
    page.wait_for_function("() => log.some((l) => l[0] === 'refused')")
    assert logged(page, "refused")[0]["problem"]["code"] == "stale"
    fake.seen.clear()
    fake.down = False
    page.wait_for_function("() => client.status === 'live'")
    assert fake.commands() == []


def test_without_storage_it_still_sends(page, fake):
    """Private windows may refuse storage: the queue then lives as long as the page, and says so."""
    page.evaluate(
        "() => Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no'); }})"
    )
    assert page.evaluate("() => { follow(); return [client.durable, client.send('one') && true]; }") == [
        False,
        True,
    ]
    unsent(page, 0)
    assert len(fake.commands()) == 1


def test_ids_without_a_secure_context(page):
    """Plain http on a shop's network has no crypto.randomUUID."""
    made = page.evaluate(
        """async () => {
            const {uuid} = await import("/static/onda/requests.js");
            Object.defineProperty(crypto, "randomUUID", {value: undefined, configurable: true});
            return Array.from({length: 50}, uuid);
        }"""
    )
    assert len(set(made)) == 50
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", m) for m in made
    )
