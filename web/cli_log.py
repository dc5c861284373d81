"""Looking after the log from the command line: `verify`, `tail`, `backup`, `restore`, `truncate`."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import msgspec

from engine import load
from engine.errors import ConfigError, LogFailed
from engine.log.backup import LOG, Copied, backup, restore
from engine.log.disk import OSDisk
from engine.log.frames import Frame, unpack_entries
from engine.log.segments import Mark, scan, segment_numbers, segment_path
from engine.log.segments import load as load_segment
from engine.log.truncate import truncate_at
from engine.log.verify import Report, verify

FOLLOW_S = 0.2
"""How often `tail --follow` looks for more."""

EXIT_DAMAGED = 5

T = TypeVar("T")

_data = click.option("--data", metavar="DIR", help="Data folder.")
_file = click.option("--config", "file", metavar="FILE", help="Settings in TOML.")


def add_commands(cli: click.Group) -> None:
    """Add the commands of this module."""
    for command in (verify_, tail, backup_, restore_, truncate):
        cli.add_command(command)


@click.command("verify")
@_data
@_file
def verify_(data: str | None, file: str | None) -> None:
    """Read the log end to end, beside a running server too; exit code 5 when it is damaged."""
    report = _on_disk(verify, _log_folder(data, file))
    print(_told(report))
    for damage in report.damage:
        touched = "no record"
        if damage.last_position is None:
            touched = f"records from {damage.first_position}"
        elif damage.last_position >= damage.first_position:
            touched = f"records {damage.first_position} to {damage.last_position}"
        print(f"damaged: {damage.path} at byte {damage.offset}: {damage.why} ({touched})")
    sys.exit(0 if report.ok else EXIT_DAMAGED)


def _told(report: Report) -> str:
    end = "ended in order" if report.clean else "in use, or not ended in order"
    if report.torn_bytes:
        end += f", {report.torn_bytes} bytes at the end that nobody was told of"
    return (
        f"{'ok' if report.ok else 'DAMAGED'}: epoch {report.epoch}, {report.segments} segments, "
        f"{report.entries} records at {report.first} to {report.head}, {report.bytes} bytes, {end}"
    )


@click.command()
@click.option(
    "--lines", "-n", type=click.IntRange(0), default=10, help="The last so many records; 0 for all."
)
@click.option("--follow", "-f", is_flag=True, help="Go on as records are added.")
@click.option("--stream", help="Only this stream: store:s1, table:s1/3, user:u1.")
@click.option("--type", "type_", help="Only this type of event: OrderPlaced.")
@_data
@_file
def tail(
    lines: int, follow: bool, stream: str | None, type_: str | None, data: str | None, file: str | None
) -> None:
    """Print the last records, one envelope in a line, of a running or a stopped log."""
    folder = _log_folder(data, file)
    reader = _on_disk(Tail, folder)
    last: deque[bytes] = deque(maxlen=lines or None)
    last.extend(_matching(_on_disk(reader.take), stream, type_))
    _print(last)
    try:
        while follow:
            time.sleep(FOLLOW_S)
            _print(_matching(_on_disk(reader.take), stream, type_))
    except KeyboardInterrupt:
        return


class Tail:
    """Reads a log that somebody else may be writing, from where it stopped last time.

    A frame that is not whole yet is the end; it is looked at again next time.
    """

    def __init__(self, folder: str) -> None:
        self._disk = OSDisk()
        self._folder = folder
        self._segment = 0
        self._mark: Mark | None = None
        self._seen: tuple[int, int] | None = None
        if not segment_numbers(self._disk, folder):
            raise FileNotFoundError(folder)

    def take(self) -> list[tuple[str, bytes]]:
        """Return stream and envelope of each record that has come."""
        found: list[tuple[str, bytes]] = []

        def visit(frame: Frame) -> None:
            found.extend((entry.stream, entry.body) for entry in unpack_entries(frame.payload, frame.entries))

        numbers = [number for number in segment_numbers(self._disk, self._folder) if number >= self._segment]
        seen = (numbers[-1], os.stat(segment_path(self._folder, numbers[-1])).st_mtime_ns)
        if seen == self._seen:
            return found
        self._seen = seen
        for number in numbers:
            header, data = load_segment(self._disk, segment_path(self._folder, number))
            start = self._mark if number == self._segment else None
            result = scan(header, data, visit, start)
            self._segment, self._mark = number, Mark(result.end, result.chain)
        return found


class _Type(msgspec.Struct):
    type: str


def _matching(records: list[tuple[str, bytes]], stream: str | None, type_: str | None) -> Iterator[bytes]:
    for name, body in records:
        if stream is not None and name != stream:
            continue
        if type_ is None or msgspec.json.decode(body, type=_Type).type == type_:
            yield body


def _print(bodies: Iterator[bytes] | deque[bytes]) -> None:
    for body in bodies:
        sys.stdout.buffer.write(body + b"\n")
    sys.stdout.flush()


@click.command("backup")
@click.argument("target", metavar="DIR")
@_data
@_file
def backup_(target: str, data: str | None, file: str | None) -> None:
    """Copy the data folder, of a running server too, into DIR, which must be empty or new."""
    _print_copied("copied", _on_disk(backup, load({"data": data}, file)[0].data, target), target)


@click.command("restore")
@click.argument("source", metavar="DIR")
@_data
@_file
def restore_(source: str, data: str | None, file: str | None) -> None:
    """Make the data folder, which must be empty or new, out of a backup. Cursors begin afresh."""
    target = load({"data": data}, file)[0].data
    _print_copied("restored", _on_disk(restore, source, target), target)


def _print_copied(what: str, copied: Copied, target: str) -> None:
    records = f"records {copied.first} to {copied.head} in {copied.segments} segments"
    print(f"{what} to {target}: epoch {copied.epoch}, {records}, {', '.join(copied.databases)}")


@click.command()
@click.argument("position", type=click.IntRange(0))
@click.option("--yes", is_flag=True, help="Really: everything after the position is given up.")
@_data
@_file
def truncate(position: int, yes: bool, data: str | None, file: str | None) -> None:
    """Give up everything after POSITION of a damaged log (see `verify`); what is given up is kept aside."""
    if not yes:
        raise ConfigError("records will be given up: make a backup of the folder, then say --yes")
    done = _on_disk(truncate_at, _log_folder(data, file), position)
    print(f"the log ends at {done.head} now, epoch {done.epoch}")
    for path in done.kept_aside:
        print(f"kept aside: {path}")


def _log_folder(data: str | None, file: str | None) -> str:
    return os.path.join(load({"data": data}, file)[0].data, LOG)


def _on_disk(work: Callable[..., T], *args: Any) -> T:
    """Do something on the disk, and say in a line what the disk did not like."""
    try:
        return work(*args)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no log: {error.filename or error}") from error
    except OSError as error:
        raise LogFailed(str(error)) from error
