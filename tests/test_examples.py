"""The examples run as they stand, and their second run finds what the first one left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_embedding_in_a_program(tmp_path: Path) -> None:
    """Orders, follows, and keeps: each run adds one order to the board."""
    for orders in ("o1", "o1, o2"):
        run = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "embed.py"), str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
        )
        assert "followed" in run.stdout
        assert f"orders on the board: {orders}\n" in run.stdout
