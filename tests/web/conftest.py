"""A running server with the shop `s1`, for tests that do not need settings of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.web.site import Running, running, set_up


@pytest.fixture
async def shop() -> AsyncIterator[Running]:
    """A server with the shop `s1` and its table 3 open."""
    async with running() as site:
        async with site.client("service") as client:
            await set_up(client, tables=("3",))
        yield site
