"""A running server with the shop `s1`, for tests that do not need settings of their own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.web.site import Running, running, set_up
from web import fanout
from web.poller import TaskPoller


@pytest.fixture
async def shop() -> AsyncIterator[Running]:
    """A server with the shop `s1` and its table 3 open."""
    async with running() as site:
        async with site.client("service") as client:
            await set_up(client, tables=("3",))
        yield site


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    """Put logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(params=["epoll", "tasks"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with each way of watching sockets."""
    if request.param == "tasks":
        monkeypatch.setattr(fanout, "make_poller", TaskPoller)
    return str(request.param)
