"""PostgreSQL and MariaDB of our own: in a temporary folder, on a free port, not as root, gone afterwards."""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from tests.ports import free_port

START_S = 60.0


def find_tool(name: str, *folders: str) -> str:
    """Path of a program; without it the test is skipped, and fails where everything has to be there (CI)."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
    if found is None:
        missing = f"{name} is not installed: this database is not tested"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def not_root(*names: str) -> str:
    """A user that a database server accepts to run as."""
    if os.geteuid() != 0:
        return getpass.getuser()
    users = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*names, "nobody") if name in users)


class Server:
    """A database server under test. `start` and `stop` may be repeated; `remove` ends it for good."""

    def __init__(self, user: str, admin: URL, make: Callable[[Path], list[str]], end: signal.Signals) -> None:
        self.admin = admin
        self._end = end
        self._user = user
        self.folder = Path(tempfile.mkdtemp(prefix="onda-db-"))
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._command = make(self.folder)

    @property
    def running(self) -> bool:
        return self._process is not None

    def run(self, *command: str) -> None:
        """Run a tool as the server's user to its end."""
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user())
        assert done.returncode == 0, done.stdout + done.stderr

    def _as_user(self) -> dict[str, Any]:
        options: dict[str, Any] = {"cwd": self.folder}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self._user)
            options |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return options

    def start(self) -> None:
        with open(self.folder / "said", "ab") as said:
            self._process = subprocess.Popen(self._command, stdout=said, stderr=said, **self._as_user())
        deadline = time.monotonic() + START_S
        while not self._answers():
            said_so_far = (self.folder / "said").read_text(errors="replace")
            assert self._process.poll() is None, said_so_far
            assert time.monotonic() < deadline, said_so_far
            time.sleep(0.05)

    def _answers(self) -> bool:
        engine = create_engine(self.admin, connect_args={"connect_timeout": 2})
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except OperationalError:
            return False
        finally:
            engine.dispose()
        return True

    def stop(self) -> None:
        """End the server, open connections or not."""
        if self._process is not None:
            self._process.send_signal(self._end)
            self._process.wait(START_S)
            self._process = None

    def new_database(self) -> URL:
        """Where a fresh, empty database is."""
        self._databases += 1
        name = f"onda{self._databases}"
        engine = create_engine(self.admin, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.admin.set(database=name)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)


def postgres() -> Server:
    """A PostgreSQL that is not started yet."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    program, initdb = find_tool("postgres", *folders), find_tool("initdb", *folders)
    port = free_port()
    admin = URL.create("postgresql+psycopg", "onda", "hush", "127.0.0.1", port, "postgres")
    command = [program, "-D", "data", "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
    server = Server(not_root("postgres"), admin, lambda _folder: command, signal.SIGINT)
    server.run(initdb, "-D", "data", "-U", "onda", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
    return server


def mariadb() -> Server:
    """A MariaDB that is not started yet."""
    program, install = find_tool("mariadbd", "/usr/sbin"), find_tool("mariadb-install-db", "/usr/sbin")
    port = free_port()
    admin = URL.create("mysql+pymysql", "root", None, "127.0.0.1", port, "mysql")

    def make(folder: Path) -> list[str]:
        command = [program, "--no-defaults", f"--datadir={folder}/data", f"--port={port}"]
        command += ["--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
        return [*command, "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]

    server = Server(not_root("mysql"), admin, make, signal.SIGTERM)
    options = ["--no-defaults", f"--datadir={server.folder}/data", "--skip-test-db"]
    server.run(install, *options, "--auth-root-authentication-method=normal")
    return server
