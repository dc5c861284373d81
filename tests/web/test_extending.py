"""docs/extending.md as it stands: its blocks become files, its commands are run, its output comes out."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what a process prints; pytest's own time limit ends us if it prints nothing."""
    assert process.stdout is not None
    while line := process.stdout.readline():
        yield line.rstrip("\n")


def write_files(folder: Path) -> None:
    """Make the files of the page; blocks of one file follow each other."""
    for language, text in BLOCKS:
        if language == "python":
            name, _, rest = text.removeprefix("# ").partition("\n")
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            with path.open("a") as file:
                file.write(rest)


def commands() -> list[list[str]]:
    """Return the commands of the page: serve, listen, change."""
    found = [shlex.split(text) for language, text in BLOCKS if language == "sh"]
    assert [command[0] for command in found] == ["onda", "curl", "curl"]
    return found


@pytest.mark.one_node("the page starts one server")
@pytest.mark.skipif(not any(Path(p, "curl").exists() for p in os.get_exec_path()), reason="no curl")
def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    """A plugin of the page's blocks, served and asked as the page says, with only the port changed."""
    write_files(tmp_path)
    serve, listen, change = commands()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", "web.cli", *serve[1:], "--port", "0", "--data", str(tmp_path / "data")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    listener = None
    try:
        url = next(line for line in lines(server) if line.startswith("listening on ")).split()[-1]

        def here(command: list[str]) -> list[str]:
            return [part.replace("http://localhost:8080", url) for part in command]

        listener = subprocess.Popen([*here(listen), "-s"], stdout=subprocess.PIPE, text=True)
        seen = lines(listener)
        assert next(seen).startswith("retry:")
        done = subprocess.run([*here(change), "-s"], capture_output=True, text=True, check=True, timeout=10)
        assert json.loads(done.stdout) == {"balance": 1500, "name": "여행"}
        other = '{}, "user": "somebody-else"'  # not one value: nobody speaks for others by it
        refused = [*here(change)[:-1], other, "-s"]
        done = subprocess.run(refused, capture_output=True, text=True, check=True, timeout=10)
        assert json.loads(done.stdout)["code"] == "malformed", done.stdout
        event = next(line for line in seen if line.startswith("data:") and '"ping"' not in line)
        expected = next(text for language, text in BLOCKS if not language).strip()
        assert re.sub(r'"timestamp":"[^"]+"', '"timestamp":"…"', event) == expected
    finally:
        for process in (listener, server):
            if process is not None:
                process.terminate()
                process.wait(10)
                assert process.stdout is not None
                process.stdout.close()
