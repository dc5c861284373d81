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


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many nodes servers have, and knobs of the chaos tests."""
    parser.addoption(
        "--nodes",
        type=int,
        default=int(os.environ.get("ONDA_NODES", "1")),
        help="how many nodes each server of web, browser and chaos tests has, on one Redis (ONDA_NODES)",
    )
    _add_knobs(parser.getgroup("chaos"))


def _add_knobs(chaos: pytest.OptionGroup) -> None:
    """Their defaults keep a whole run short."""
    environ = os.environ
    chaos.addoption(
        "--kill-rounds",
        type=int,
        default=int(environ.get("ONDA_KILL_ROUNDS", "5")),
        help="how often the server is killed under load (ONDA_KILL_ROUNDS; 50 for the long run)",
    )
    chaos.addoption(
        "--restarts",
        type=int,
        default=int(environ.get("ONDA_RESTARTS", "2")),
        help="how often the server is restarted behind a bad network (ONDA_RESTARTS; 20 for the long run)",
    )
    chaos.addoption(
        "--money-seeds",
        type=int,
        default=int(environ.get("ONDA_MONEY_SEEDS", "12")),
        help="how many seeds of tests/simulation/test_money.py (ONDA_MONEY_SEEDS; 1000 for the long run)",
    )
    chaos.addoption(
        "--flash-full",
        action="store_true",
        default=bool(environ.get("ONDA_FLASH_FULL")),
        help="flash sales of 5,000 requests by 2,000 people (ONDA_FLASH_FULL=1)",
    )
    chaos.addoption(
        "--group-records",
        type=int,
        default=int(environ.get("ONDA_GROUP_RECORDS", "1000")),
        help="records that a group handles among kills (ONDA_GROUP_RECORDS; 10000 for the long run)",
    )
    chaos.addoption(
        "--framing-examples",
        type=int,
        default=int(environ.get("ONDA_FRAMING_EXAMPLES", "1000")),
        help="requests made up against the edge's framing (ONDA_FRAMING_EXAMPLES; 150000 for the long run)",
    )
    chaos.addoption(
        "--flood",
        type=int,
        default=int(environ.get("ONDA_FLOOD", "300")),
        help="connections of strangers that press upon a shop (ONDA_FLOOD; 10000 for the long run)",
    )
    chaos.addoption(
        "--redis-away",
        type=float,
        default=float(environ.get("ONDA_REDIS_AWAY", "0")),
        help="seconds for which Redis is gone under load, at least (ONDA_REDIS_AWAY; 30 for the long run)",
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
    """Skip what is about one node by nature, where servers have several."""
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
