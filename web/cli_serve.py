"""Running the server from the command line: start, say where it is, and end in order and in time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import structlog
import trio

from engine import Config, open_node, tune_collector
from engine.clock import SystemClock
from engine.errors import LogLocked
from engine.payments import open_gateways
from web.cli_sandbox import own_sandbox
from web.demo import demo_links, make_cafe, make_demo
from web.server import open_server
from web.site import make_site
from web.tokens import load_secret

STOP_S = 4.9
"""From the signal to the end of the process; then it ends the hard way."""

EXIT_STUCK = 70

SWITCH_S = 0.0005
"""How long a thread beside trio's (history, checkpoint) may go on while trio's waits: 7 % more orders a
second than with Python's 5 ms (`benchmarks/orders.py`, 32 connections, one core).
"""

_log = structlog.get_logger("onda.cli")


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    tune_collector()
    sys.setswitchinterval(SWITCH_S)
    if config.plugins and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # plugins may lie where the server is started
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, stopping)
        async with (
            own_sandbox(config) as settings,
            open_gateways(settings) as gateways,
            open_node(config, gateways=gateways) as node,
        ):
            site = make_site(node, config)
            async with open_server(site) as server:
                if not gateways.links.known:  # the port was picked just now
                    gateways.links.publish(server.url)
                if config.open:
                    _log.warning("serving without tokens: whoever reaches this machine is the owner")
                if config.demo:
                    await make_demo(node)
                    await make_cafe(node)
                print(f"listening on {server.url}", flush=True)
                if config.demo:
                    _print_links(server.url, site.gate.secret)
                await stopping.wait()
                _log.info("stopping")
        nursery.cancel_scope.cancel()


async def _watch_signals(
    stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Begin to stop at the first signal, and end at once at the second."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if stopping.is_set():
                os.write(2, b"onda: ended at once, as told twice\n")
                os._exit(EXIT_STUCK)
            stopping.set()
            start_watchdog()


def start_watchdog(seconds: float = STOP_S) -> None:
    """End the process with a line on stderr when it is still there after so long."""
    timer = threading.Timer(seconds, _bark)
    timer.daemon = True
    timer.start()


def _bark() -> None:
    # Not by print: stderr's lock may be what hangs.
    os.write(2, b"onda: did not stop in time; ended hard, the next start recovers from the log\n")
    os._exit(EXIT_STUCK)


async def demo(config: Config) -> None:
    """Make the demo shop in a folder that no server has open, or else only print its links."""
    try:
        async with open_node(config) as node:
            await make_demo(node)
            await make_cafe(node)
    except LogLocked:
        print("a server has this folder open; its links:")
    else:
        print(f"the demo shop is in {config.data}; when it is served its links are:")
    _print_links(f"http://{config.host}:{config.port}", load_secret(config.secret, Path(config.data)))


def _print_links(url: str, secret: str) -> None:
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    for link in demo_links(url, secret, SystemClock()):
        print(f"  {link.what:12} {link.url}", flush=True)
