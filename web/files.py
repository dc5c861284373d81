"""How many sockets may be open, so that there are always files left for the log and the checkpoint."""

from __future__ import annotations

import sys

FILES_KEPT = 256
"""Files that are not sockets of clients: segments of the log, databases, gateways, modules being loaded."""


def raise_file_limit(connections: int) -> int:
    """Ask the system for enough files; return how many connections there may be, at least 1."""
    if sys.platform == "win32":  # the limit there is memory
        return connections
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES_KEPT
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # the system knows a bound of its own: live with what there is
            return max(1, soft - FILES_KEPT)
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, soft - FILES_KEPT))
