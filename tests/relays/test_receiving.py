"""The other side: the receiver of the documentation, TLS, and a restart of the server in the middle."""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.relays.webhook import sign
from tests.chaos.deadline import wait_until as look_until
from tests.chaos.process import open_server, token
from tests.engine.shop import wait_until
from tests.relays.receiver import SECRET, Receiver, open_receiver
from tests.relays.test_webhook import count, place, shops
from web.client import Pace, open_client

DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"


def documented() -> dict[str, Any]:
    """What the Python example of the documentation defines."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCS), "exec"), names)
    return names


def test_the_signature_is_that_of_the_standard() -> None:
    """An example that libraries of Standard Webhooks are tested with."""
    key = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_the_documented_receiver_takes_what_is_ours_and_nothing_else() -> None:
    """As it stands in the documentation, on a real delivery."""
    read_webhook = documented()["read_webhook"]
    async with open_receiver() as receiver, shops(receiver) as node:
        await place(node, "store:s1", "a")
        await wait_until(lambda: receiver.taken)
    delivery = receiver.taken[0]
    assert read_webhook(SECRET, delivery.headers, delivery.body)["type"] == "ORDER_PLACED"
    rotated = {**delivery.headers, "webhook-signature": f"v1,AAAA {delivery.headers['webhook-signature']}"}
    assert read_webhook(SECRET, rotated, delivery.body)["id"] == delivery.id
    for headers, body in (
        ({}, delivery.body.replace(b'"a"', b'"b"')),
        ({"webhook-id": "another"}, delivery.body),
        ({"webhook-timestamp": str(int(delivery.headers["webhook-timestamp"]) + 1)}, delivery.body),
        ({"webhook-timestamp": "1614265330"}, delivery.body),
        ({"webhook-signature": "v1,AAAA"}, delivery.body),
        ({"webhook-signature": delivery.headers["webhook-signature"].replace("v1", "v0")}, delivery.body),
    ):
        with pytest.raises(ValueError, match=r"signed|old"):
            read_webhook(SECRET, {**delivery.headers, **headers}, body)


def test_the_documentation_names_what_is_sent() -> None:
    """The list of default types there is the one in force, and each is an event."""
    from engine import codec
    from engine.relays.targets import DEFAULT_TYPES

    sentence = re.search(r"names others, these are sent: (.*?)\.\n", DOCS.read_text(), re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == DEFAULT_TYPES
    assert codec.events("store").keys() >= DEFAULT_TYPES


async def test_a_receiver_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    """Its certificate is its own: it is waited for, as if it were away."""
    made = (
        "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    await trio.run_process(["openssl", *made.split(), *files], capture_stdout=True, capture_stderr=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    receiver, greeted = Receiver(), 0

    async def greet(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal greeted
        greeted += 1
        try:
            await stream.do_handshake()
            await receiver.serve(stream)  # type: ignore[arg-type]
        except (trio.BrokenResourceError, ssl.SSLError):
            return  # it does not trust us

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, greet, listeners)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        async with shops(receiver, webhook_url=f"https://localhost:{port}/") as node:
            await place(node, "store:s1", "a")
            await wait_until(lambda: greeted > 2 and count(node, "retried") > 2)
            assert not receiver.seen
            assert not node.parked()
        nursery.cancel_scope.cancel()


async def test_a_restart_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """The server is killed while webhooks wait or are on their way; the receiver acts once on each."""
    names = [f"o-{number}" for number in range(60)]
    async with open_receiver() as receiver:
        env = {
            "ONDA_WEBHOOK_URL": receiver.url,
            "ONDA_WEBHOOK_SECRET": SECRET,
            "ONDA_WEBHOOK_TYPES": "ORDER_PLACED",
            "ONDA_REACTION_BACKOFF_MS_MAX": "200",
        }
        async with (
            open_server(tmp_path / "data", "--no-demo", env=env) as (server, nursery),
            open_client(server.base, token(), pace=Pace(retry_first_s=0.05)) as client,
        ):
            await client.send("stores/s1/configure-store", {"name": "온다", "payment_mode": "postpay"})
            await client.send("stores/s1/put-product", {"product": "ramen", "name": "라면", "price": 4500})
            await client.send("stores/s1/open-store")
            for number, name in enumerate(names):
                if number in (20, 40):  # what is ordered from now on waits, or is on its way
                    refused, receiver.judge = len(receiver.seen), lambda _: "503"
                lines = [{"product": "ramen", "quantity": 1}]
                await client.send("stores/s1/create-order", {"order": name, "lines": lines})
                if number in (25, 45):
                    await look_until(lambda refused=refused: len(receiver.seen) > refused)
                    assert len(receiver.taken) < number
                    await server.kill()
                    receiver.judge = lambda _: "lost" if len(receiver.seen) % 7 == 0 else ""
                    await server.start(nursery)
            await look_until(lambda: len(receiver.taken) == len(names), 20)
    assert receiver.orders("store:s1") == names
    assert len(receiver.seen) > len(names)
