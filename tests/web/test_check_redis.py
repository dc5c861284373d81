"""`onda check --redis`: what it says under which settings, and with which exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.log.redis_site import ALWAYS, client, needs_redis, opened, until
from tests.relays.redis_server import redis_server
from web import cli
from web.cli_check_redis import Facts, judge

GOOD = {
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory": "1000000000",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "10",
}
INFO = {"redis_version": "7.2.4", "connected_slaves": "2", "used_memory": "50000000"}


def test_good_settings_are_good() -> None:
    """Synced, bounded, without eviction, with replicas that have to be there."""
    found = list(judge(Facts("shop:6379", INFO, GOOD)))
    assert {level for level, _ in found} == {"ok"}
    assert "survives the end of Redis and a power cut" in found[1][1]


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"appendonly": "no"}, "loss", "persistence is off"),
        ({"appendonly": "no", "save": "3600 1"}, "loss", "snapshots only (save 3600 1)"),
        ({"appendfsync": "everysec"}, "warn", "about the last second"),
        ({"appendfsync": "no"}, "loss", "had not yet written"),
        ({"no-appendfsync-on-rewrite": "yes"}, "loss", "nothing is synced"),
        ({"maxmemory-policy": "allkeys-lru"}, "loss", "evicts records"),
        ({"maxmemory-policy": "volatile-ttl"}, "warn", "no expiry"),
        ({"maxmemory": "0"}, "warn", "maxmemory 0"),
        ({"maxmemory": "60000000"}, "warn", "50 of 60 MB"),
        ({"min-replicas-to-write": "0"}, "warn", "without a bound"),
    ],
)
def test_each_setting_has_its_word(changed: dict[str, str], level: str, words: str) -> None:
    """One change of the good settings is one finding that is not `ok`, and says what it means."""
    found = [one for one in judge(Facts("shop:6379", INFO, {**GOOD, **changed})) if one[0] != "ok"]
    assert len(found) == 1
    assert found[0][0] == level
    assert words in found[0][1]


@pytest.mark.parametrize(
    ("info", "settings", "level", "words"),
    [
        ({"connected_slaves": "0"}, GOOD, "warn", "no replica"),
        ({"aof_last_write_status": "err"}, GOOD, "bad", "write of the AOF failed"),
        ({"rdb_last_bgsave_status": "err"}, GOOD, "bad", "snapshot failed"),
        ({}, None, "loss", "nobody can say"),
    ],
)
def test_what_the_server_says(
    info: dict[str, str], settings: dict[str, str] | None, level: str, words: str
) -> None:
    """Its state counts as its settings do."""
    found = [one for one in judge(Facts("shop:6379", {**INFO, **info}, settings)) if one[0] != "ok"]
    assert [(one[0], words in one[1]) for one in found] == [(level, True)]


def run(*arguments: str) -> int:
    """Run the command line; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)


@needs_redis
async def test_a_server_that_may_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A synced AOF and no eviction: exit code 0, and the log that is there is named."""
    with redis_server(tmp_path, *ALWAYS, "--maxmemory", "100mb") as server:
        async with opened(server, 8) as shared:
            epoch = shared.partitions[0].epoch
        assert run("check", "--redis", server.url) == 0
        said = capsys.readouterr().out
    assert "ok   appendfsync always" in said
    assert f"ok   a log of 8 partitions is there, epoch {epoch}" in said
    assert "warn no replica" in said
    assert "100 round trips" in said


@needs_redis
def test_a_server_that_may_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eviction, or nothing on disk: 1, unless the loss is accepted."""
    with redis_server(tmp_path, *ALWAYS, "--maxmemory-policy", "allkeys-lru") as server:
        assert run("check", "--redis", server.url) == 1
        assert "bad  maxmemory-policy allkeys-lru evicts" in capsys.readouterr().out
        assert run("check", "--redis", server.url, "--accept-loss") == 0
        assert "warn maxmemory-policy allkeys-lru evicts" in capsys.readouterr().out
    (tmp_path / "off").mkdir()
    with redis_server(tmp_path / "off") as server:
        assert run("check", "--redis", server.url) == 1
        assert "bad  persistence is off" in capsys.readouterr().out


@needs_redis
async def test_a_replica_and_one_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither can take an append, and accepting losses does not help."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with redis_server(tmp_path / "one", *ALWAYS) as one, redis_server(tmp_path / "two", *ALWAYS) as two:
        with client(two) as lower:
            lower.replicaof("127.0.0.1", one.port)
            await until(lambda: lower.info("replication")["master_link_status"] == "up")
        assert run("check", "--redis", two.url, "--accept-loss") == 1
        assert "is a replica" in capsys.readouterr().out
        assert run("check", "--redis", one.url) == 0
        assert "a primary with 1 replicas" in capsys.readouterr().out
    assert run("check", "--redis", one.url, "--accept-loss") == 1
    assert "cannot be reached" in capsys.readouterr().out


@needs_redis
def test_one_who_may_not_run_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user without the right to scripts cannot append, and one without CONFIG cannot be judged."""
    with redis_server(tmp_path, *ALWAYS) as server:
        with client(server) as direct:
            direct.acl_setuser(
                "kim", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-eval"]
            )
            direct.acl_setuser(
                "lee", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-config"]
            )
        assert run("check", "--redis", server.url.replace("//", "//kim:word@")) == 1
        assert "bad  scripts are refused" in capsys.readouterr().out
        assert run("check", "--redis", server.url.replace("//", "//lee:word@")) == 1
        assert "bad  CONFIG GET is refused" in capsys.readouterr().out


def test_a_url_that_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, as for any setting."""
    assert run("check", "--redis", "http://shop") == 3
    assert "redis_url" in capsys.readouterr().err
