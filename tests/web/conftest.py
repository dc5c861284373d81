"""A running server with the shop `s1`, for tests that do not need settings of their own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.web.site import Running, running, set_up


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
