"""The sandbox from the command line: as a process of its own, or beside the shop that `onda serve` runs."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
import trio

from engine import MEMORY, Config
from engine.clock import SystemClock
from engine.errors import ConfigError
from engine.payments.gateways import wants_sandbox
from web.sandbox.handlers import FAULTS, Sandbox
from web.sandbox.ledger import Ledger
from web.sandbox.pages import origin
from web.sandbox.server import open_sandbox

LEDGER = "sandbox.db"
PORT = "sandbox.port"
"""Names in the data folder."""

_log = structlog.get_logger("onda.sandbox")


class Options(NamedTuple):
    """What `onda sandbox-pg` was told."""

    host: str
    port: int
    ledger: str | None
    fault: str
    url: str


async def run(config: Config, options: Options) -> None:
    """Serve a sandbox until SIGTERM or SIGINT.

    Raises:
        ConfigError: no such fault, the ledger cannot be opened, or the address cannot be served.
    """
    if options.fault not in ("", *FAULTS):
        raise ConfigError(f"there is no fault {options.fault}; there are {', '.join(FAULTS)}")
    key = config.sandbox_key or secrets.token_urlsafe(24)
    try:
        ledger = Ledger(options.ledger, SystemClock().now_ms)
    except sqlite3.Error as error:
        raise ConfigError(f"the ledger {options.ledger} cannot be opened: {error}") from error
    shop = origin(config.public_url)
    sandbox = Sandbox(ledger, key, fault=options.fault, url=options.url.rstrip("/"), shop=shop)
    with closing(ledger), trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_sandbox(sandbox, host=options.host, port=options.port) as serving:
            print(f"sandbox-pg listening on {serving.url}", flush=True)
            if not config.sandbox_key:
                print(f"  for the shop: ONDA_SANDBOX_URL={serving.url} ONDA_SANDBOX_KEY={key}", flush=True)
            async for _ in signals:
                break


@asynccontextmanager
async def own_sandbox(config: Config) -> AsyncIterator[Config]:
    """Run a sandbox beside the shop, if the settings want one and name no other; give the settings with its
    address. Without one the shop still serves.
    """
    if not wants_sandbox(config) or config.sandbox_url:
        yield config
        return
    try:
        ledger = _open_ledger(config)
    except (OSError, sqlite3.Error) as error:
        _log.error("no sandbox: its ledger cannot be opened", error=str(error))
        yield config
        return
    key = config.sandbox_key or secrets.token_urlsafe(24)
    sandbox = Sandbox(ledger, key, shop=origin(config.public_url))
    with closing(ledger):
        async with open_sandbox(sandbox, port=await _same_port(config)) as serving:
            _remember_port(config, serving.url)
            _log.warning("payments go to the sandbox: no real money moves", sandbox=serving.url)
            yield msgspec.structs.replace(config, sandbox_url=serving.url, sandbox_key=key)


async def _same_port(config: Config) -> int:
    """Return the port of the last time if it is free, 0 otherwise: guests who are on the pay page while the
    shop restarts come back to it.
    """
    port = _last_port(config)
    try:
        for listener in await trio.open_tcp_listeners(port, host="127.0.0.1"):
            listener.socket.close()
    except (OSError, OverflowError):
        return 0
    return port


def _last_port(config: Config) -> int:
    try:
        return int(Path(config.data, PORT).read_text())
    except (OSError, ValueError):
        return 0


def _remember_port(config: Config, url: str) -> None:
    if config.data != MEMORY:
        Path(config.data, PORT).write_text(url.rpartition(":")[2])


def _open_ledger(config: Config) -> Ledger:
    clock = SystemClock()
    if config.data == MEMORY:
        return Ledger(None, clock.now_ms)
    os.makedirs(config.data, exist_ok=True)
    return Ledger(os.path.join(config.data, LEDGER), clock.now_ms)
