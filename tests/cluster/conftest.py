"""How often each fault happens."""

from __future__ import annotations

import pytest


@pytest.fixture
def cluster_rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--cluster-rounds"))
