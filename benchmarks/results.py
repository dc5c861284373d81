"""Write `benchmarks/RESULTS.md` and `docs/images/fanout.svg` from the JSON files of the last runs."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT
from benchmarks.plot import plot

ORDER = (
    "fanout",
    "latency",
    "orders",
    "storm",
    "idle",
    "fairness",
    "replay",
    "stores",
    "hop",
    "nodes",
    "readers_ceiling",
)
"""First in the page, in this order; others follow by name."""

TITLE = "Deliveries a second against connections, one core for the server"
BESIDE = {
    "fanout": ("deliveries/s", "connections", "higher"),
    "latency": ("screen ms p99", "clients", "lower"),
    "orders": ("orders/s", "connections", "higher"),
    "idle": ("bytes each", "connections", "lower"),
}
"""Benchmark -> the column that Onda is compared in, the column that must be equal, and which is better."""


def main() -> None:
    """Read, and write."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=__doc__.partition("\n")[0]
    )
    options.add_argument("--from", dest="source", type=Path, default=RESULTS, help="folder of the JSON files")
    options.add_argument("--output", type=Path, help="write to this folder instead of into the tree")
    given = options.parse_args()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(given.source.glob("*.json"))}
    names = [name for name in ORDER if name in found] + [name for name in found if name not in ORDER]
    page = given.output / "RESULTS.md" if given.output else ROOT / "benchmarks" / "RESULTS.md"
    image = given.output / "fanout.svg" if given.output else ROOT / "docs" / "images" / "fanout.svg"
    drawn = _draw(found["fanout"], image) if "fanout" in found else False
    text = _beginning(drawn, given.output is not None)
    text += "\n".join(_section(name, found[name]) for name in names)
    page.write_text(text)
    print(f"written to {page}" + (f" and {image}" if drawn else ""))


def _beginning(drawn: bool, elsewhere: bool) -> str:
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks.results` from the figures of `python -m benchmarks.all`.",
        "Figures move from machine to machine and from run to run; only ratios within one table count.",
        "",
    ]
    if drawn:
        lines += [f"![{TITLE}]({'fanout.svg' if elsewhere else '../docs/images/fanout.svg'})", ""]
    return "\n".join(lines) + "\n"


def _section(name: str, content: Mapping[str, Any]) -> str:
    method = re.sub(
        r"\s*\n(?!\n)", " ", (import_module(f"benchmarks.{name}").__doc__ or "").partition("\n\n")[2]
    )
    notes = {
        key: content[key]
        for key in ("runs", "seconds", "stores", "scale", "screens", "share", "fsync")
        if key in content
    }
    said = ", ".join(f"{key} {value}" for key, value in notes.items())
    lines = [
        f"## {content['question']}",
        "",
        f"`python -m benchmarks.{name}` · {content['at']} · {content['machine']} · {said}",
        "",
        *([method.strip(), ""] if method.strip() else []),
        *_table(content["rows"]),
        "",
        *_ratios(name, content["rows"]),
    ]
    if content.get("versions"):
        lines += ["Versions: " + "; ".join(f"{who}: {what}" for who, what in content["versions"].items()), ""]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = [name for row in rows for name in row]
    shown = [name for name in dict.fromkeys(columns) if any(row.get(name) not in (None, "") for row in rows)]
    aligned = ["---:" if any(_is_number(row.get(name)) for row in rows) else "---" for name in shown]
    lines = [f"| {' | '.join(shown)} |", f"|{'|'.join(aligned)}|"]
    for row in rows:
        cells = [_cell(row.get(name, "")) for name in shown]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _ratios(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Onda beside each of the others at the same load, as a sentence for each."""
    if name not in BESIDE:
        return []
    column, equal, better = BESIDE[name]
    kinds = [key for key in ("kind", "event") if key in rows[0]]
    lines = []
    for own in (row for row in rows if row.get("server") == "Onda"):
        beside = []
        for other in rows:
            same = all(other.get(key) == own.get(key) for key in (equal, *kinds))
            if same and other.get("server") != "Onda" and other.get(column):
                beside.append(f"{own[column] / other[column]:,.2f} × {other['server']}")
        if beside:
            load = ", ".join(str(own[key]) for key in (*kinds, equal))
            lines.append(f"- {column}, {load} {equal}: Onda is {', '.join(beside)}.")
    return [f"Ratios of {column} ({better} is better):", "", *lines, ""] if lines else []


def _draw(content: Mapping[str, Any], image: Path) -> bool:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in content["rows"]:
        if row.get("deliveries/s") and row.get("kind") == "small":
            lines.setdefault(row["server"], []).append((row["connections"], row["deliveries/s"]))
    if not lines:
        return False
    size = next(row["bytes"] for row in content["rows"] if row.get("bytes"))
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_text(plot(TITLE, "connections", f"deliveries a second ({size:.0f} bytes each)", lines))
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if _is_number(value) else str(value).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
