"""A running demo shop for the page tests: a real server process, tokens for it, and commands to it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from tests import nodes
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
SECRET = "cd" * 32
SANDBOX_KEY = "ef" * 16
START_S = 60.0
STOP_S = 10.0
SANDBOX = re.compile(r"sandbox=(http\S+)")


class Shop:
    """The demo shop on one port and data folder, over as many lives of its process as a test wants."""

    def __init__(self, data: Path, *options: str, log: str = "") -> None:
        self.data = data
        self.log = log
        self.options = options
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env: dict[str, str] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._front = nodes.Front(self.port)
        self._ports: list[int] = []
        self._http = httpx.Client(base_url=self.url, timeout=10)

    def start(self) -> None:
        """Start the server, with as many nodes as `--nodes` says, and wait until it listens."""
        if "--log" in self.options or not nodes.several():
            log = ["--log", self.log] if self.log else []
            self._start("--port", str(self.port), "--data", str(self.data), *log, *self.options)
            return
        self._env = {**nodes.environment(), "ONDA_PUBLIC_URL": self.url}
        self._ports = []
        for name in nodes.names():
            said = self._start("--port", "0", *nodes.options_of(self.data, name, self.log), *self.options)
            self._ports.append(int(said[-1].rpartition(":")[2]))
            if found := SANDBOX.search("\n".join(said)):  # the first one's is that of all
                self._env["ONDA_SANDBOX_URL"] = found[1]
        self._front.open(self._ports)

    def _start(self, *options: str) -> list[str]:
        """Start a process, and return what it said until it listened."""
        process = subprocess.Popen(
            [sys.executable, "-m", "web.cli", "serve", *options],
            cwd=ROOT,
            env=os.environ
            | self._env
            | {"ONDA_SECRET": SECRET, "ONDA_SANDBOX_KEY": SANDBOX_KEY, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(process)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        said: list[str] = []
        deadline = time.monotonic() + START_S
        while not (said and said[-1].startswith("listening on ")):
            try:
                said.append(lines.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                self.kill()
                raise AssertionError(f"no server in {START_S} s; it said: {said}") from None
        return said

    def kill(self) -> None:
        """End the process the hard way, as a pulled plug would."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        self._http.close()
        self._end(signal.SIGTERM)
        nodes.end_log(self.data)

    def _end(self, how: signal.Signals) -> None:
        for process in self._processes:
            process.send_signal(how)
        for process in self._processes:
            process.wait(STOP_S)
        self._processes.clear()
        self._front.close()

    def token(self, role: str, sub: str = "kim", **claims: str) -> str:
        now = int(time.time())
        payload = {"sub": sub, "role": role, "jti": uuid.uuid4().hex, "iat": now, "exp": now + 3600, **claims}
        return jwt.encode(payload, SECRET, algorithm="HS256")

    def board(self, sub: str = "kim", store: str = "demo", role: str = "owner") -> str:
        """Return the address of a board, with an owner's token."""
        return f"{self.url}/board/{store}?token={self.token(role, sub, store=store)}"

    def table(self, table: str, store: str = "demo") -> str:
        """Return the address of a table's page, with its token."""
        token = self.token("table", f"t{table}", store=store, table=table)
        return f"{self.url}/t/{store}/{table}?token={token}"

    def user(self, user: str) -> str:
        """Return the address of a customer's page, with their token."""
        return f"{self.url}/u/{user}?token={self.token('user', user)}"

    def ops(self) -> str:
        """Return the address of the operators' page, with a service's token."""
        return f"{self.url}/ops?token={self.token('service', 'ops')}"

    def fault(self, gateway: str, fault: str, verb: str = "charge") -> None:
        """Switch a fault of the sandbox on (`""`: off); `gateway` is an address of it."""
        parts = urlsplit(gateway)
        answer = self._http.put(
            f"{parts.scheme}://{parts.netloc}/v1/faults",
            json={"fault": fault, "verb": verb},
            headers={"Authorization": f"Bearer {SANDBOX_KEY}"},
        )
        assert answer.status_code == 200, answer.text

    def cancel_behind_its_back(self, gateway: str, charge: str, amount: int) -> None:
        """Give back a part of a charge at the sandbox itself, so that the shop cannot give back all of it."""
        parts = urlsplit(gateway)
        answer = self._http.post(
            f"{parts.scheme}://{parts.netloc}/v1/cancels",
            json={"charge": charge, "amount": amount},
            headers={"Authorization": f"Bearer {SANDBOX_KEY}", "Idempotency-Key": uuid.uuid4().hex},
        )
        assert answer.status_code == 200, answer.text

    def do(self, path: str, **fields: Any) -> dict[str, Any]:
        """Send a command as a service and return its result; of several nodes each has heard of it then, so
        that pages which are opened now show it.
        """
        headers = {"Authorization": f"Bearer {self.token('service', store='demo')}"}
        answer = self._http.post(f"/v1/{path}", json=fields, headers=headers)
        assert answer.status_code == 200, answer.text
        done = answer.json()
        feed = path.rpartition("/")[0]
        for port in self._ports:
            url = f"http://127.0.0.1:{port}/v1/{feed}/sync"
            self._http.get(url, params={"after": done["cursor"]}, headers=headers).raise_for_status()
        return done["result"]

    def post(self, path: str) -> dict[str, Any]:
        """Send a request without a body as a service and return its answer."""
        answer = self._http.post(path, headers={"Authorization": f"Bearer {self.token('service')}"})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def order(self, table: str, *products: str) -> str:
        """Order one piece of each product for a table and return the order's id."""
        lines = [{"product": product, "quantity": 1} for product in products]
        return self.do("stores/demo/create-order", table=table, lines=lines)["order"]

    def state(self, feed: str = "stores/demo") -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token('service', store='demo')}"}
        return self._http.get(f"/v1/{feed}/sync", headers=headers).raise_for_status().json()["state"]


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout as stdout:
        for line in stdout:
            lines.put(line)
