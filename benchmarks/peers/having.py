"""Getting peers: packages of the system, Go programs, a Python environment and a Node folder of their own.

Nothing goes into the project's own environment. What was built is kept in a folder under the temporary one
(or `ONDA_BENCH_PEERS`) for the next run.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from benchmarks.harness import SERVER_CPU, pin
from benchmarks.loadgen import Target

PYTHON_PACKAGES = (
    "sse-starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "quart",
    "quart-trio",
    "hypercorn",
)
NODE_PACKAGES = ("better-sse",)
START_WITHIN_S = 20.0
NICE = ("nice", "-n", "10")


class Unavailable(Exception):
    """A peer cannot be had on this machine; the text says why."""


class Peer(Protocol):
    """What each module of this package has."""

    NAME: str

    def prepare(self) -> str:
        """Make sure that it can be started; return its versions. Raises Unavailable."""

    def start(self, port: int, folder: Path) -> subprocess.Popen[bytes]:
        """Start it on one core with its data in a folder."""

    def target(self, port: int, size: int) -> Target:
        """Return how to subscribe, and to publish events of so many bytes (without pids)."""


def cache() -> Path:
    """Return the folder of what was built."""
    default = Path(tempfile.gettempdir()) / f"onda-peers-{os.getuid()}"
    folder = Path(os.environ.get("ONDA_BENCH_PEERS") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end; return what it printed.

    Raises:
        Unavailable: it is not there, or it failed.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no output"]
        raise Unavailable(f"{' '.join(map(str, command[:3]))}: {lines[-1][:200]}")
    return done.stdout


def package(command: str, *names: str) -> str:
    """Return the path of a program, from the system's packages when it is not there and we may install."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if found := shutil.which(command, path=path):
        return found
    if not shutil.which("apt-get") or os.getuid() != 0:
        raise Unavailable(f"no {command} here (Debian: apt install {' '.join(names)})")
    quiet = {"RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}  # install, but start no server
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", *names, env=quiet)
    if found := shutil.which(command, path=path):
        return found
    raise Unavailable(f"no {command} in {' '.join(names)}")


def go_program(module: str) -> Path:
    """Return a program built from a Go module, of its newest version when it was not built yet."""
    built = cache() / "bin" / re.sub(r"/v\d+$", "", module).rpartition("/")[2]
    if not built.exists():
        if not shutil.which("go"):
            raise Unavailable("no Go toolchain here")
        run(*NICE, "go", "install", f"{module}@latest", env={"GOBIN": str(built.parent)}, cwd=cache())
    return built


def peers_python() -> Path:
    """Return the Python of an environment that has the peers' packages."""
    folder = cache() / "venv"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        run(*NICE, sys.executable, "-m", "venv", folder)
        run(*NICE, python, "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES)
        (folder / "complete").touch()
    return python


def python_versions(*names: str) -> str:
    """Return the versions of packages in that environment."""
    code = (
        "import sys, importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    )
    return run(peers_python(), "-c", code, *names).strip()


def node_folder() -> Path:
    """Return a folder with the peers' Node packages."""
    folder = cache() / "node"
    if not (folder / "complete").exists():
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_text('{"private":true}')
        run(*NICE, "npm", "install", "--silent", *NODE_PACKAGES, cwd=folder)
        (folder / "complete").touch()
    return folder


def spawn(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server on its core; what it prints is dropped."""
    return subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: pin(SERVER_CPU),
    )


def free_port() -> int:
    """Return a port that nobody has just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(peer: Peer, folder: Path, size: int) -> Iterator[Target]:
    """A peer on a free port, until the `with` ends."""
    port = free_port()
    process = peer.start(port, folder)
    try:
        wait_for(port, process)
        target = peer.target(port, size)
        target.pids = [process.pid]
        yield target
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process listens on a port.

    Raises:
        Unavailable: it does not.
    """
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Unavailable(f"it did not listen within {START_WITHIN_S:.0f} s (exit {process.poll()})")
