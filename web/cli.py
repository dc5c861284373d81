"""The command line, and the composition root: `onda serve`, `demo`, `token`, `verify`, `backup`, `check` …

Failures that are to be expected (a folder in use, a port that is taken, a damaged log, a bad setting) are one
line on stderr and an exit code of their own; only a fault in Onda itself shows a trace.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec
import trio

from engine import Config, load
from engine.config import HIDDEN, URLS, hide_password, is_secret
from engine.errors import ConfigError, LogCorrupt, LogFailed, LogLocked, LogMoved, LogTooNew, OndaError
from web import cli_bench, cli_check, cli_history, cli_log, cli_migrate, cli_token, cli_trace
from web.logs import configure_logs
from web.openapi import installed_version

EXIT_CODES: dict[type[OndaError], int] = {
    ConfigError: 3,
    LogLocked: 4,
    LogCorrupt: 5,
    LogTooNew: 5,
    LogMoved: 7,
    LogFailed: 6,
}
"""Error -> exit code; the first kind that fits counts. 1: another expected failure; 2: wrong use of the
command line; 70: stuck or a fault.
"""

_data = click.option("--data", metavar="DIR", help="Folder of the log and the checkpoint.")
_file = click.option("--config", "file", metavar="FILE", help="Settings in TOML.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(installed_version(), prog_name="onda")
def cli() -> None:
    """Onda: a realtime order engine for shops."""


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.")
@_data
@click.option("--node-id", help="Name of this node.")
@click.option("--open", "open_", is_flag=True, default=None, help="No tokens at all; loopback only.")
@click.option("--no-demo", is_flag=True, help="Do not make the demo shop on the first start.")
@click.option("--log", "log_url", metavar="URL", help="Redis that has the log of several nodes.")
@click.option("--redis", "redis_url", metavar="URL", help="Share users' events with others over Redis.")
@click.option("--db", metavar="URL", help="Database of the history; none: no history.")
@click.option("--plugin", metavar="MODULE", multiple=True, help="Python module that extends the server.")
@_file
def serve(
    file: str | None, no_demo: bool, open_: bool | None, plugin: tuple[str, ...], **options: Any
) -> None:
    """Serve until SIGTERM or SIGINT."""
    from web import cli_serve  # here, as other commands need not wait for Quart and Hypercorn to load

    options["plugins"] = ",".join(plugin) or None
    config = _load(file, open=open_, demo=False if no_demo else None, **options)
    configure_logs(as_json=config.log_json)
    trio.run(cli_serve.serve, config)


@cli.command()
@_data
@_file
@click.option("--host", help="Address in the links.")
@click.option("--port", type=int, help="Port in the links.")
def demo(file: str | None, **options: Any) -> None:
    """Make the demo shop 온다 분식, and print links to it."""
    from web import cli_serve

    config = _load(file, **options)
    configure_logs(as_json=config.log_json)
    trio.run(cli_serve.demo, config)


@cli.command()
@_data
@_file
def config(file: str | None, **options: Any) -> None:
    """Print the settings in force, and where each comes from."""
    settings, sources = load(options, file)
    for name, value in msgspec.structs.asdict(settings).items():
        shown = HIDDEN if is_secret(name) and value else value
        if name in URLS:
            shown = hide_password(value)
        setting = f"{name} = {msgspec.json.encode(shown).decode()}"
        print(f"{setting:44} # {sources[name]}")


@cli.command("sandbox-pg")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=int, default=0, help="Port to listen on; 0 picks a free one.")
@click.option("--ledger", metavar="FILE", help="Where its books are kept; in memory when not given.")
@click.option("--fault", default="", help="A fault for every charge: decline, slow, flaky …")
@click.option("--url", default="", help="Where guests find it, if not at the address that it listens on.")
@_file
def sandbox_pg(file: str | None, **options: Any) -> None:
    """Run a payment gateway that moves no money, until SIGTERM or SIGINT."""
    from web import cli_sandbox

    config = _load(file)
    configure_logs(as_json=config.log_json)
    trio.run(cli_sandbox.run, config, cli_sandbox.Options(**options))


@cli.command()
@click.option("--role", type=click.Choice(["service", "owner", "staff", "table", "user"]), default="service")
@click.option("--store", default="", help="Of an owner, staff or a table.")
@click.option("--table", default="", help="Of a table.")
@click.option("--sub", default="", help="Who it is; the user's id for the role user.")
@click.option("--ttl", default="12h", help="How long it is good: 90s, 30m, 12h, 400d.")
@click.option("--revoke", metavar="TOKEN", help="Make a token count no more, instead of printing one.")
@click.option("--log", "log_url", metavar="URL", help="Redis that has the log of several nodes.")
@_data
@_file
def token(
    file: str | None, data: str | None, log_url: str | None, revoke: str | None, ttl: str, **claims: str
) -> None:
    """Print a token, or revoke one: with --log at every node of it."""
    settings = _load(file, data=data, log_url=log_url)
    if revoke:
        cli_token.revoke(settings, revoke)
    else:
        print(cli_token.make(settings, ttl=ttl, **claims))


@cli.command()
@click.option(
    "--redis", metavar="URL", help="Look at this Redis: what does an acknowledgement survive there?"
)
@click.option("--accept-loss", is_flag=True, help="Let pass settings of Redis that may lose what it had.")
@_data
@_file
def check(file: str | None, redis: str | None, accept_loss: bool, **options: Any) -> None:
    """Look at settings, disk, space and lock before they matter; or at a Redis."""
    if redis is not None:
        from web import cli_check_redis  # here, as redis-py takes its time to load

        sys.exit(cli_check_redis.check_redis(redis, accept_loss=accept_loss))
    sys.exit(cli_check.check(_load(file, **options)))


def _load(file: str | None, **options: Any) -> Config:
    return load(options, file)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the console script `onda`."""
    try:
        cli.main(arguments, prog_name="onda", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OndaError as error:
        _fail(error)
    except BaseExceptionGroup as group:
        expected, rest = group.split(OndaError)
        if rest is not None or expected is None:
            raise
        _fail(_first(expected))


def _first(group: BaseExceptionGroup[Any]) -> OndaError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _fail(error: OndaError) -> None:
    print(f"onda: {error.detail or error}", file=sys.stderr)
    sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))


cli_log.add_commands(cli)
cli_history.add_commands(cli)
cli_trace.add_commands(cli)
cli.add_command(cli_bench.bench)
cli.add_command(cli_migrate.migrate)

if __name__ == "__main__":
    main()
