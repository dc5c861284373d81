"""One database server of each kind for all tests, and a fresh database in it for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.history import servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Server]:
    server = servers.postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.Server]:
    server = servers.mariadb()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes fresh databases of one kind; each test runs on every kind."""
    count = 0

    def make() -> str:
        nonlocal count
        count += 1
        if request.param == "sqlite":
            return f"sqlite:///{tmp_path}/history{count}.db"
        server: servers.Server = request.getfixturevalue(request.param)
        return server.new_database().render_as_string(hide_password=False)

    if request.param != "sqlite":
        request.getfixturevalue(request.param)  # skips here, not in the middle of the test
    return make
