"""Looking after the log from the command line: `verify`, `tail`, `backup`, `restore`."""

from __future__ import annotations

import click


def add_commands(cli: click.Group) -> None:
    """Add the commands of this module."""
