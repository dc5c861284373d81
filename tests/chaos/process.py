"""A real server process with its own data folder, on one port over all its lives; never left running.

The process gets SIGKILL with the death of the thread that started it (Linux), so that even a killed test run
leaves nothing behind: that is why it is started from the main thread, not by `trio.lowlevel.open_process`.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import trio

from tests import nodes
from tests.chaos.deadline import wait_until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
SECRET = "ab" * 32
"""What the tests' servers sign tokens with, so that tokens can be made before the first start."""

LINES_KEPT = 400
LISTENING = re.compile(rb"listening on http://\S+:(\d+)")
START_WITHIN_S = 60.0


class DidNotStart(Exception):
    """The process ended, or took too long, before it listened; the message holds what it said."""


class Server:
    """One data folder and port, and whichever process is serving them at the moment."""

    def __init__(
        self, data: Path, *options: str, env: Mapping[str, str] | None = None, port: int | None = None
    ) -> None:
        self.data = data
        self.port = free_port() if port is None else port
        self.said: deque[str] = deque(maxlen=LINES_KEPT)
        self._command = [
            sys.executable,
            "-m",
            "web.cli",
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self._command += ["--data", str(data), *options]
        self.env = {**os.environ, "ONDA_SECRET": SECRET, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._listening = trio.Event()
        self._ended = trio.Event()

    @property
    def base(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None, "not running"
        return self._process.pid

    def rss_bytes(self) -> int:
        """Memory of the process that is in RAM."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def launch(self, nursery: trio.Nursery, preexec: Callable[[], None] | None = None) -> None:
        """Start a process; do not wait for anything."""
        assert self._process is None, "running already"
        self._listening, self._ended = trio.Event(), trio.Event()
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: _prepare(preexec),
        )
        nursery.start_soon(self._watch, self._process, self._listening, self._ended)

    async def start(self, nursery: trio.Nursery, preexec: Callable[[], None] | None = None) -> float:
        """Start a process and wait until it listens; return how long that took, in seconds.

        Raises:
            DidNotStart: it did not.
        """
        began = time.monotonic()
        self.launch(nursery, preexec)
        with trio.move_on_after(START_WITHIN_S):
            await self.wait_listening()
            return time.monotonic() - began
        raise DidNotStart("\n".join(self.said))

    async def wait_listening(self) -> None:
        """Wait until the process that was launched listens.

        Raises:
            DidNotStart: it ended instead.
        """
        await self._listening.wait()
        if self._ended.is_set():
            raise DidNotStart("\n".join(self.said))

    async def wait_ended(self) -> int:
        """Wait until the process has ended; return its exit code (negative: the signal)."""
        process = self._process
        assert process is not None, "not running"
        await self._ended.wait()
        self._process = None
        assert process.returncode is not None
        return process.returncode

    async def kill(self) -> None:
        """SIGKILL, and wait for the end. Nothing to do when it is not running."""
        if self._process is not None:
            self._process.kill()
            await self.wait_ended()

    async def stop(self, within_s: float = 5.0) -> int:
        """SIGTERM, and wait for the end; return the exit code.

        Raises:
            trio.TooSlowError: it takes longer.
        """
        os.kill(self.pid, signal.SIGTERM)
        with trio.fail_after(within_s):
            return await self.wait_ended()

    async def _watch(
        self, process: subprocess.Popen[bytes], listening: trio.Event, ended: trio.Event
    ) -> None:
        """Collect what the process says until it ends, then reap it."""
        assert process.stdout is not None
        rest = b""
        with trio.CancelScope(shield=True):  # ends with the process, which the owner always ends
            async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as pipe:
                process.stdout.close()
                async for chunk in pipe:
                    *lines, rest = (rest + chunk).split(b"\n")
                    self.said.extend(line.decode("utf-8", "replace") for line in lines)
                    for found in filter(None, map(LISTENING.search, lines)):
                        self.port = int(found[1])
                        listening.set()
            await trio.to_thread.run_sync(process.wait)  # the pipe is closed: it is as good as gone
        self.said.append(f"-- exit code {process.returncode}")
        ended.set()
        listening.set()  # whoever waits for it has to look


class Servers:
    """Several nodes behind one port, with what tests do to a `Server`: they start together, and the plug is
    that of all. `pid` and memory are the first one's.
    """

    def __init__(self, data: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self.env = dict(env or {})
        self._front = nodes.Front(self.port)
        self._each = [
            Server(data / name, *options, *nodes.options_of(data, name)[2:], env=self.env, port=0)
            for name in nodes.names()
        ]
        for server in self._each:
            server.env |= nodes.environment()

    @property
    def base(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The first node's process."""
        return self._each[0].pid

    @property
    def said(self) -> list[str]:
        """The lines of all."""
        return [line for server in self._each for line in server.said]

    def rss_bytes(self) -> int:
        """Memory of all processes that is in RAM."""
        return sum(server.rss_bytes() for server in self._each)

    def launch(self, nursery: trio.Nursery, preexec: Callable[[], None] | None = None) -> None:
        """See `Server.launch`."""
        for server in self._each:
            server.launch(nursery, preexec)

    async def start(self, nursery: trio.Nursery, preexec: Callable[[], None] | None = None) -> float:
        """See `Server.start`."""
        began = time.monotonic()
        self.launch(nursery, preexec)
        with trio.move_on_after(START_WITHIN_S):
            await self.wait_listening()
            return time.monotonic() - began
        raise DidNotStart("\n".join(self.said))

    async def wait_listening(self) -> None:
        """See `Server.wait_listening`."""
        for server in self._each:
            await server.wait_listening()
        self._front.open([server.port for server in self._each])

    async def wait_ended(self) -> int:
        """See `Server.wait_ended`; the code is the first that is not 0."""
        codes = [await server.wait_ended() for server in self._each]
        self._front.close()
        return next(filter(None, codes), 0)

    async def kill(self) -> None:
        """SIGKILL for all, at once. Nothing to do when they are not running."""
        async with trio.open_nursery() as nursery:
            for server in self._each:
                nursery.start_soon(server.kill)
        self._front.close()

    async def stop(self, within_s: float = 5.0) -> int:
        """See `Server.stop`."""
        for server in self._each:
            os.kill(server.pid, signal.SIGTERM)
        with trio.fail_after(within_s):
            return await self.wait_ended()


@asynccontextmanager
async def open_server(
    data: Path, *options: str, env: Mapping[str, str] | None = None, start: bool = True
) -> AsyncIterator[tuple[Server | Servers, trio.Nursery]]:
    """A server of its own for a test, with as many nodes as `--nodes` says, and the nursery to start it again
    in; killed at the end.
    """
    server = (Servers if nodes.several() else Server)(data, *options, env=env)
    async with trio.open_nursery() as nursery:
        try:
            if start:
                await server.start(nursery)
            yield server, nursery
        except BaseException:
            print("\n".join(["-- the server said:", *server.said]))
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await server.kill()


def token(role: str = "service", *, sub: str = "test", ttl_s: int = 3600, **claims: str) -> str:
    """Sign a token for the tests' servers."""
    claim = {"sub": sub, "role": role, "exp": int(time.time()) + ttl_s, **claims}
    return jwt.encode(claim, SECRET, algorithm="HS256")


async def wait_gone(pid: int) -> None:
    """Wait until no process has this id any more."""
    await wait_until(lambda: not Path(f"/proc/{pid}").exists())


_LINUX = sys.platform == "linux"


def _prepare(preexec: Callable[[], None] | None) -> None:
    """In the child, before it becomes the server."""
    if _LINUX:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if preexec is not None:
        preexec()
