"""Ports for servers that tests start, and start again on the same one."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SPAN = 12_000


def free_port() -> int:
    """A port that nobody listens on, below those that outgoing connections take; tests that run beside these
    take others.

    (A client that dials a port of the ephemeral range while its server is down can end up talking to itself,
    and any connection may have taken it when the server comes back.)
    """
    low = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(max(1024, low - _SPAN) + worker, low, workers)
    for port in random.SystemRandom().sample(ports, len(ports)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
