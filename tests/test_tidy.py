"""Style is a test: who may import whom, sizes, names, and documentation that has to keep up."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from engine import codec
from engine.config import Config
from engine.metrics import GAUGES, PARTITION, Metrics
from web.handlers import STATUS

ROOT = Path(__file__).parent.parent
PRODUCT = sorted([*ROOT.glob("engine/**/*.py"), *ROOT.glob("web/**/*.py")])
ALL = sorted([*PRODUCT, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")])

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LONG_FUNCTIONS: frozenset[str] = frozenset()
"""Functions that are longer; this list may only shrink."""

BANNED_WORDS = {"manager", "service", "util", "utils", "helper", "helpers", "common", "base"}

CORE = {"errors", "records", "clock", "config", "metrics", "waiting"}
LIBRARIES = {
    "errors": set(),
    "records": set(),
    "clock": set(),
    "waiting": {"trio", "outcome"},
    "config": {"msgspec"},
    "metrics": {"prometheus_client"},
}
"""The core modules of the engine and the one library that each may use."""

IMPURE = {"time", "random", "uuid", "os", "socket", "threading", "asyncio", "trio", "logging", "secrets"}
ABOVE_LOG = {"domain", "codec", "actor", "node", "checkpoint", "reactions", "answers", "mailbox", "replay"}


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def engine_parts(path: Path) -> set[str]:
    """Return the first-level names of the engine that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("engine.")}


def test_the_engine_knows_no_web() -> None:
    """Nothing in the engine imports the web, Quart or Hypercorn."""
    for path in ROOT.glob("engine/**/*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in {"web", "quart", "quart_trio", "hypercorn"}, (path, name)


REDIS_DOORS = {"engine/relays/redis.py", "engine/log/redis_lines.py", "engine/log/redis_route.py"}
"""The relay's, and the log's: to connect, and to find servers."""


def test_redis_has_two_doors() -> None:
    """Only the relay's and the log's door import the Redis client, and only the relay imports its own."""
    for path in PRODUCT:
        where = path.relative_to(ROOT).as_posix()
        if where not in REDIS_DOORS:
            assert "redis" not in {name.split(".")[0] for name in imports(path)}, path
        if where not in ("engine/relays/redis.py", "engine/relays/user_events.py"):
            assert not any(name.startswith("engine.relays.redis") for name in imports(path)), path


def test_the_domain_is_pure() -> None:
    """Domain files use errors, msgspec and the pure part of the standard library; none is async."""
    for path in ROOT.glob("engine/domain/**/*.py"):
        assert engine_parts(path) <= {"domain", "errors"}, path
        for name in imports(path):
            top = name.split(".")[0]
            assert top in {"engine", "msgspec"} or top in sys.stdlib_module_names, (path, name)
            assert top not in IMPURE, (path, name)
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), path
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"now", "utcnow", "today"} or _is_context(node), (path, node.lineno)


def _is_context(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"context", "self"}


def test_the_core_modules_stand_alone() -> None:
    """Errors, records, clock, config, metrics: the standard library and at most their own library."""
    for name, libraries in LIBRARIES.items():
        path = ROOT / "engine" / f"{name}.py"
        assert engine_parts(path) <= CORE, path
        for imported in imports(path):
            top = imported.split(".")[0]
            assert top == "engine" or top in sys.stdlib_module_names | libraries, (path, imported)


def test_log_and_feed_know_only_bytes() -> None:
    """They import records, errors, clock and metrics, never a domain type or anything above."""
    for path in [*ROOT.glob("engine/log/*.py"), ROOT / "engine" / "feed.py"]:
        assert not engine_parts(path) & ABOVE_LOG, path


def test_the_web_uses_public_names() -> None:
    """The web sees the engine through its public names, errors and commands, not its machinery."""
    private = {
        "actor",
        "answers",
        "checkpoint",
        "mailbox",
        "replay",
        "supervisor",
        "tail",
        "timers",
        "upkeep",
        "waiting",
    }
    for path in ROOT.glob("web/**/*.py"):
        if not path.name.startswith("cli"):
            assert not engine_parts(path) & private, (path, engine_parts(path) & private)


def test_nobody_imports_the_command_line() -> None:
    """`web.cli` composes everything and is imported by nothing but its own parts."""
    for path in PRODUCT:
        if not path.name.startswith("cli"):
            assert not any(re.match(r"web\.cli(_|\.|$)", name) for name in imports(path)), path


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes_and_names(path: Path) -> None:
    """Files and functions stay small, modules begin with a sentence, and vague names are not used."""
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    words = re.split(r"[_.]", path.stem)
    assert not BANNED_WORDS & set(words)
    tree = ast.parse(text)
    if path in PRODUCT and text.strip():
        assert ast.get_docstring(tree), "the module has no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            last = re.findall(r"[A-Z][a-z]*", node.name)[-1:]
            assert not BANNED_WORDS & {word.lower() for word in last}, node.name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX or node.name in LONG_FUNCTIONS, (node.name, length)


def test_no_error_is_swallowed() -> None:
    """No handler in the product consists of `pass`."""
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert not all(isinstance(line, ast.Pass) for line in node.body), (path, node.lineno)


def test_the_environment_has_one_reader() -> None:
    """Only `engine/config.py` looks at environment variables."""
    for path in PRODUCT:
        if path.relative_to(ROOT).as_posix() != "engine/config.py":
            assert "environ" not in path.read_text(), path


def test_every_setting_is_documented() -> None:
    """Each setting has a row in docs/settings.md."""
    text = (ROOT / "docs" / "settings.md").read_text()
    for name in Config.__struct_fields__:
        assert f"`{name}`" in text, name


def test_every_metric_is_documented() -> None:
    """Each metric has a row in docs/metrics.md."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    names = {family.name for family in Metrics().registry.collect()}
    assert {f"onda_{name}" for name in GAUGES} <= names
    for name in names | {f"onda_partition_{name}" for name in PARTITION}:
        assert f"`{name}" in text, name


PASSED_ON = {
    "actor.py",
    "app.py",
    "cart.py",
    "cluster_redis.py",
    "edge.py",
    "handlers.py",
    "outcomes.py",
    "server.py",
}
"""Files that hand on a code which stands elsewhere; everywhere else a code is written out."""

FRAMING = {"framing.py", "heads.py"}


def refusal_codes(path: Path) -> Iterator[str]:
    """Yield the codes of the errors that a file raises, and of the classes of errors that it makes."""
    names = {"Rejected", "Problem", "Refusal", "problem_response"}
    if path.name in FRAMING:  # elsewhere a client's word for what it was told
        names.add("Refused")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in names:
                code = node.args[0]
                written = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
                for part in written:
                    if isinstance(part, ast.Constant):
                        yield part.value
                    else:
                        assert path.name in PASSED_ON, f"{path}:{node.lineno}: which code is this?"
        elif isinstance(node, ast.ClassDef) and node.bases:
            for line in node.body:
                target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
                value = getattr(line, "value", None)
                if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Constant):
                    yield value.value


def test_every_refusal_has_a_line_and_every_line_a_refusal() -> None:
    """Each code has its row in docs/refusals.md, once, and each row there is a code of the sources."""
    codes = {code for path in PRODUCT for code in refusal_codes(path)} - {""} | set(STATUS)
    rows = re.findall(r"^\| `(\w+)` \| \S.*\. \|$", (ROOT / "docs" / "refusals.md").read_text(), re.MULTILINE)
    assert sorted(codes - set(rows)) == [], "without a line"
    assert sorted(set(rows) - codes) == [], "without a code"
    assert len(rows) == len(set(rows))


def test_every_dependency_has_its_reason() -> None:
    """Each dependency of the project file has a line in docs/dependencies.md."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for block in re.findall(r"^(?:dependencies|test|lint) = \[(.*?)\]", project, re.DOTALL | re.MULTILINE):
        for name in re.findall(r'"([A-Za-z-]+)', block):
            assert name.lower() in text.lower(), name


@pytest.mark.parametrize("kind", ["store", "table", "user"])
def test_every_command_says_what_it_does(kind: str) -> None:
    """Commands carry their documentation and, unless only the engine sends them, their roles."""
    for name, command in codec.commands(kind).items():
        assert command.__doc__, name
        assert isinstance(command.allowed, frozenset), name
