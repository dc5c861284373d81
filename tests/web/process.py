"""`onda` as a process: run to its end, or serving until told to stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import nodes
from tests.web.site import SECRET

ROOT = Path(__file__).parents[2]
LISTENING = re.compile(r"listening on (http://\S+)")
START_S = 60.0


def onda(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "web.cli", *arguments],
        cwd=ROOT,
        env=_environment(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Process:
    """A serving process. `said` are its lines, of both outputs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.popen = process
        self.said: list[str] = []
        self.url = ""
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.said.append(line.rstrip("\n"))
            if match := LISTENING.fullmatch(self.said[-1]):
                self.url = match[1]
                self._listening.set()
        self._listening.set()

    def wait_listening(self) -> None:
        assert self._listening.wait(START_S), self.said
        assert self.url, self.said

    def stop(self, number: int = signal.SIGTERM, within_s: float = 5.0) -> int:
        """Signal it, and return its exit code."""
        self.popen.send_signal(number)
        return self.wait(within_s)

    def wait(self, within_s: float = 5.0) -> int:
        code = self.popen.wait(within_s)
        self._reader.join(5)
        return code


class Processes:
    """Several nodes behind one port, with what tests do to a `Process`. What the first says is `said`."""

    def __init__(self, each: Sequence[Process], front: nodes.Front) -> None:
        self._each = each
        self._front = front
        self.popen = each[0].popen
        self.said = each[0].said
        self.url = f"http://127.0.0.1:{front.port}"

    def wait_listening(self) -> None:
        for process in self._each:
            process.wait_listening()

    def stop(self, number: int = signal.SIGTERM, within_s: float = 5.0) -> int:
        """Signal all of them, and return the exit code that is not 0, if there is one."""
        for process in self._each:
            process.popen.send_signal(number)
        codes = [process.wait(within_s) for process in self._each]
        self._front.close()
        return next(filter(None, codes), 0)


@contextmanager
def serving(data: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Process | Processes]:
    """Serve a folder on a free port, with as many nodes as `--nodes` says; ended hard at the end if it is
    still there.
    """
    if not nodes.several() or "--log" in options:
        with _serving("--data", str(data), *options, env=env) as process:
            yield process
        return
    more = {**nodes.environment(), **(env or {})}
    with ExitStack() as stack:
        each = [
            stack.enter_context(_serving(*nodes.options_of(data, name), *options, env=more))
            for name in nodes.names()
        ]
        front = stack.enter_context(nodes.front([int(one.url.rpartition(":")[2]) for one in each]))
        yield Processes(each, front)


@contextmanager
def _serving(*options: str, env: Mapping[str, str] | None) -> Iterator[Process]:
    popen = subprocess.Popen(
        [sys.executable, "-m", "web.cli", "serve", "--port", "0", *options],
        cwd=ROOT,
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    process = Process(popen)
    try:
        process.wait_listening()
        yield process
    finally:
        if popen.poll() is None:
            popen.kill()
        process.wait()
        assert popen.stdout is not None
        popen.stdout.close()


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONDA_")}
    return {**kept, "ONDA_SECRET": SECRET, "PYTHONUNBUFFERED": "1", **(more or {})}
