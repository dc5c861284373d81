"""Headless Chromium for the tests here, in a thread of its own: Playwright's loop and trio's do not mix."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.fake_server import FakeServer
from tests.browser.shop import Shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
WAIT_MS = 10_000

expect.set_options(timeout=WAIT_MS)
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="playwright")


def in_browser(work: Callable[[], Any]) -> Any:
    """Run `work` in Playwright's thread and return what it returns."""
    return _thread.submit(work).result()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("browser") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    in_browser(lambda: pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Chromium, or a skip that says what is missing (in CI a failure)."""
    if not os.access(CHROMIUM, os.X_OK):
        reason = f"no Chromium at {CHROMIUM}: install the package `chromium` to test the pages"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    playwright = in_browser(lambda: sync_playwright().start())
    browser = in_browser(
        lambda: playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
    )
    yield browser
    in_browser(browser.close)
    in_browser(playwright.stop)


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser profile: storage and tabs of one person."""
    yield from _profile(chromium)


@pytest.fixture
def guests(chromium: Browser) -> Iterator[BrowserContext]:
    """Another profile, on another device: a tab behind another one draws once a second."""
    yield from _profile(chromium)


def _profile(chromium: Browser) -> Iterator[BrowserContext]:
    """Open a profile whose pages must not raise errors or offend the content security policy."""
    context: BrowserContext = in_browser(lambda: chromium.new_context(locale="en-US"))
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda message: "Policy" in message.text and faults.append(message.text))
    in_browser(lambda: context.set_default_timeout(WAIT_MS))
    yield context
    in_browser(context.close)
    assert faults == []


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture(scope="session")
def tab(chromium: Browser) -> Iterator[Page]:
    """One tab for all tests of the client: each test's server is an origin with its own storage."""
    profile = _profile(chromium)
    context = next(profile)
    yield in_browser(context.new_page)
    next(profile, None)


@pytest.fixture
def page(tab: Page, fake: FakeServer) -> Page:
    """A blank page of the fake server with the client as `onda`, and `follow()` to open its feed."""
    in_browser(lambda: show_blank(tab, fake))
    return tab


def show_blank(page: Page, fake: FakeServer) -> None:
    page.goto(fake.url)
    page.evaluate(SETUP)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The demo shop, for all tests that leave it running: each takes a table of its own."""
    yield from _running(Shop(tmp_path_factory.mktemp("shop") / "data"))


@pytest.fixture
def own_shop(tmp_path: Path) -> Iterator[Shop]:
    """A demo shop whose plug a test may pull."""
    yield from _running(Shop(tmp_path / "data"))


def _running(shop: Shop) -> Iterator[Shop]:
    shop.start()
    try:
        yield shop
    finally:
        shop.close()


SETUP = """async () => {
    window.onda = await import("/static/onda.js");
    window.log = [];
    const quick = {graceMs: 150, watchdogMs: 20000, backoffBaseMs: 20, backoffCapMs: 60, stableMs: 0,
                   sendBackoffBaseMs: 20, sendBackoffCapMs: 60, deniedMs: 200};
    window.follow = (settings = {}, options = {}) => {
        const client = onda.open({feed: "stores/s1", settings: {...quick, ...settings}, ...options});
        for (const name of ["event", "status", "reset", "resync", "sent", "refused"])
            client.on(name, (detail) => log.push([name, detail]));
        window.client = client;
        return client;
    };
}"""
