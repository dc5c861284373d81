"""A Redis that lets in only who knows its password, and one that speaks TLS."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import trio

from engine.commands import SendEvent
from tests.relays.redis_server import find_server, redis_server
from tests.web.site import Running, listening, running, wait_until

pytestmark = pytest.mark.skipif(find_server() is None, reason="no redis-server")

PASSWORD = "open-sesame"


async def goes_both_ways(site: Running) -> None:
    """What is sent out comes back as our own."""
    await wait_until(lambda: site.node.redis_up())
    await site.node.ask("user:1", SendEvent("a.b", {}))
    name, labels = "onda_redis_received_total", {"outcome": "own"}
    await wait_until(lambda: site.node.metrics.registry.get_sample_value(name, labels) == 1)


async def test_who_knows_the_password_is_let_in(tmp_path: Path) -> None:
    """It stands in the URL."""
    with redis_server(tmp_path, "--requirepass", PASSWORD) as server:
        async with running(redis_url=f"redis://:{PASSWORD}@127.0.0.1:{server.port}") as site:
            await goes_both_ways(site)


async def test_who_does_not_goes_on_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why, without the password that was tried; users of this node get their events."""
    caplog.set_level(logging.DEBUG)
    with redis_server(tmp_path, "--requirepass", PASSWORD) as server:
        url = f"redis://:wrong-word@127.0.0.1:{server.port}"
        async with running(open=True, redis_url=url) as site, site.client() as http:
            await wait_until(lambda: "no events from Redis" in caplog.text)
            async with listening(http, "/events/sse") as events:
                await site.node.ask("user:123", SendEvent("a.b", {"n": 1}))
                assert (await events.message())["n"] == 1
            assert (await http.get("/events/status")).json()["redisConnected"] is False
    assert "password" in caplog.text
    assert "wrong-word" not in caplog.text


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
async def test_over_tls(tmp_path: Path) -> None:
    """With a certificate that the URL vouches for."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    made = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", key, "-out", certificate]
    await trio.run_process(["openssl", *made.split(), *files], capture_stdout=True, capture_stderr=True)
    with redis_server(tmp_path) as free:
        port = str(free.port)
    tls = ["--port", "0", "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key]
    with redis_server(tmp_path, *tls, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"
        async with running(redis_url=url) as site:
            await goes_both_ways(site)
