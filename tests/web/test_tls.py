"""TLS by setting, and HTTP/2 with it: Hypercorn's from the first byte, with the same answers."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio

from engine.errors import ConfigError
from tests.web.site import config, running, set_up, token, wait_until

pytestmark = pytest.mark.first_node


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """The files of a certificate for loopback, which is its own authority, and of its key.

    By a program: were the package cryptography around, PyJWT would load it with every server that tests
    start, which takes a sixth of the time until it serves; users' servers have none.
    """
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    making = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*making.split(), *names, "-out", cert, "-keyout", key], check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
async def test_commands_and_syncs_over_tls(files: tuple[str, str], http2: bool, version: str) -> None:
    cert, key = files
    trusting = ssl.create_default_context(cafile=cert)
    async with running(tls_cert=cert, tls_key=key, http2=http2, rotate_s=0.2) as site:
        assert site.url.startswith("https://127.0.0.1:")
        headers = {"authorization": f"Bearer {token('service')}"}
        async with httpx.AsyncClient(
            base_url=site.url, headers=headers, verify=trusting, http2=True, timeout=5
        ) as client:
            await set_up(client)
            answer = await client.get("/v1/stores/s1/sync")
            assert answer.status_code == 200
            assert answer.http_version == version
            stream = await client.get("/v1/stores/s1/stream")
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert stream.text.startswith("event: snapshot\n")
            assert '"reason":"rotate"' in stream.text
    assert site.site.streams["sse"] == 0


async def test_who_does_not_speak_tls_does_no_harm(files: tuple[str, str]) -> None:
    cert, key = files
    trusting = ssl.create_default_context(cafile=cert)
    async with running(tls_cert=cert, tls_key=key) as site:
        async with await site.connect() as plain:
            await plain.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                assert b"200" not in await plain.receive_some(4096)
        async with httpx.AsyncClient(base_url=site.url, verify=trusting, timeout=5) as client:
            assert (await client.get("/healthz")).status_code == 200
        await wait_until(lambda: site.site.connections == 0)


async def test_a_handshake_that_does_not_end_holds_no_place(files: tuple[str, str]) -> None:
    cert, key = files
    async with running(tls_cert=cert, tls_key=key, head_timeout_s=0.3) as site, await site.connect():
        await wait_until(lambda: site.site.connections == 1)
        await wait_until(lambda: site.site.connections == 0, within_s=3)


async def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing")
    for name in ("none.pem", "cert.pem"):
        with pytest.raises(ConfigError, match="tls_cert"):
            async with running(tls_cert=str(tmp_path / name)):
                raise AssertionError("it started")


@pytest.mark.parametrize("settings", [{"tls_key": "key.pem"}, {"http2": True}])
def test_tls_settings_go_together(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="need tls_cert"):
        config(**settings)
