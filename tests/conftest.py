"""Options and profiles that all tests share."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import nodes

settings.register_profile(
    "onda",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("onda")


KNOBS: tuple[tuple[str, type, float, str], ...] = (
    ("kill-rounds", int, 5, "how often the server is killed under load; 50 for the long run"),
    ("restarts", int, 2, "how often the server is restarted behind a bad network; 20 for the long run"),
    ("money-seeds", int, 12, "how many seeds of tests/simulation/test_money.py; 1000 for the long run"),
    ("group-records", int, 1000, "records that a group handles among kills; 10000 for the long run"),
    ("framing-examples", int, 1000, "requests made up against the edge's framing; 150000 for the long run"),
    ("flood", int, 300, "connections of strangers that press upon a shop; 10000 for the long run"),
    ("redis-away", float, 0.0, "seconds for which Redis is gone under load, at least; 30 for the long run"),
    ("cluster-rounds", int, 1, "how often each fault befalls several nodes; 10 for the long run"),
)
"""Options of the chaos tests, whose defaults keep a whole run short: name, type, default, help. Each has an
environment variable, too: `ONDA_KILL_ROUNDS`.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many nodes servers have, and knobs of the chaos tests."""
    environ = os.environ
    parser.addoption(
        "--nodes",
        type=int,
        default=int(environ.get("ONDA_NODES", "1")),
        help="how many nodes each server of web, browser and chaos tests has, on one Redis (ONDA_NODES)",
    )
    chaos = parser.getgroup("chaos")
    for name, kind, default, text in KNOBS:
        variable = f"ONDA_{name.upper().replace('-', '_')}"
        given = kind(environ.get(variable, default))
        chaos.addoption(f"--{name}", type=kind, default=given, help=f"{text} ({variable})")
    chaos.addoption(
        "--flash-full",
        action="store_true",
        default=bool(environ.get("ONDA_FLASH_FULL")),
        help="flash sales of 5,000 requests by 2,000 people (ONDA_FLASH_FULL=1)",
    )
    chaos.addoption(
        "--seed",
        type=int,
        default=int(environ["ONDA_SEED"]) if "ONDA_SEED" in environ else None,
        help="seed of the chaos tests; a failing run prints the one that it took",
    )


def pytest_configure(config: pytest.Config) -> None:
    nodes.COUNT = config.getoption("--nodes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no worker is left alone with one in the end, and skip what
    is about one node by nature, where servers have several.
    """
    long = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in long)
    for item in items:
        mark = item.get_closest_marker("one_node")
        if mark is not None and nodes.several():
            item.add_marker(pytest.mark.skip(reason=f"one node: {mark.args[0]}"))


@pytest.fixture(autouse=True)
def _nodes_of_this_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say whom the clients of this test go to, and end the logs that its servers shared."""
    nodes.ALL_TO_FIRST = request.node.get_closest_marker("first_node") is not None
    before = nodes.logs()  # of what lives longer
    yield
    for data in nodes.logs() - before:
        nodes.end_log(data)


INSTALLED = tuple(f"no {tool}" for tool in ("redis-server", "nginx", "promtool"))
"""What skips say of tools that `./test` installs; a missing browser or database fails by itself."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """A test that was skipped for want of what `./test` installs has failed, where all has to be there."""
    report = yield
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if os.environ.get("CI") and reason.endswith(INSTALLED):
        report.outcome = "failed"
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: given, or a fresh one that a failure shows."""
    given = request.config.getoption("--seed")
    chosen = int.from_bytes(os.urandom(4), "big") if given is None else given
    print(f"seed {chosen}: repeat with --seed {chosen}")
    return chosen
