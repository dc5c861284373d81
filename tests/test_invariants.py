"""The table of invariants is complete, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = (ROOT / "docs" / "invariants.md").read_text()
LAST = 41


def test_every_invariant_has_its_row() -> None:
    """In order, each once, and each with a test."""
    rows = re.findall(r"^\| (\d+) \|.*\|.*\|$", TABLE, re.MULTILINE)
    assert [int(row) for row in rows] == list(range(1, LAST + 1))
    for row in re.findall(r"^\| \d+ \|.*$", TABLE, re.MULTILINE):
        assert "::" in row, f"no test holds this: {row}"


def test_each_test_that_is_named_is_there() -> None:
    """By file and by function, or by the name of a machine's test case."""
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE))
    assert len(named) > LAST
    assert len(re.findall("::", TABLE)) == len(re.findall(r"`[\w/]+\.py::\w+`", TABLE))
    for file, name in named:
        assert name in _names(ROOT / "tests" / file), f"{file} has no {name}"


def _names(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):  # TestShop = Shop.TestCase
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
