"""The command line as a process: serving from the first start to the last, and every failure in one line."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trio

from engine.errors import LogFailed
from engine.log.redis_asking import Gone
from engine.log.wal import Wal
from tests import nodes
from tests.web.process import ROOT, onda, serving
from tests.web.site import SECRET, token
from web import cli

slow = pytest.mark.slow
SECRETLESS = {"ONDA_SECRET": ""}


def ask(url: str, path: str, **options: object) -> httpx.Response:
    """One request as the service."""
    headers = {"authorization": f"Bearer {token('service')}"}
    return httpx.request("POST" if "json" in options else "GET", url + path, headers=headers, **options)  # type: ignore[arg-type]


@pytest.mark.one_node("nodes that share a log have to be given their secret")
@slow
def test_the_first_start_makes_the_demo_shop_and_its_links_work(tmp_path: Path) -> None:
    """A fresh folder: the shop, its links with tokens, a secret of its own; SIGTERM ends it in order."""
    with serving(tmp_path, env=SECRETLESS) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert server.said.count(f"listening on {server.url}") == 1
        links = dict(line.split(maxsplit=1) for line in wait_said(server, "customer") if "?token=" in line)
        state = {}
        for what, link in (("owner", "stores/demo"), ("customer", "users/guest")):
            shown = re.search(r"\?token=(\S+)", links[what])
            assert shown is not None
            answer = httpx.get(f"{server.url}/v1/{link}/sync", params={"token": shown[1]})
            assert answer.status_code == 200
            state[what] = answer.json()["state"]
        assert httpx.get(links["owner"]).status_code == 200
        shop = state["owner"]
        assert shop["shop"]["self"]["name"] == "온다 분식"
        assert shop["shop"]["self"]["open"]
        assert len(shop["products"]) >= 12
        assert "노트북" in {product["name"] for product in shop["products"].values()}
        assert sum(product["stock"] is not None for product in shop["products"].values()) == 2
        assert {name: table["open"] for name, table in shop["tables"].items()} == dict.fromkeys(
            "123456", False
        )
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
        assert server.stop() == 0
    assert "sealed" not in "".join(server.said)
    assert onda("verify", "--data", str(tmp_path)).stdout.rstrip().endswith("ended in order")


def wait_said(server: object, word: str) -> list[str]:
    """Wait until the process has said something; return all its lines."""
    deadline = time.monotonic() + 5
    while not any(word in line for line in server.said):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, server.said  # type: ignore[attr-defined]
        time.sleep(0.01)
    return [line.strip() for line in server.said]  # type: ignore[attr-defined]


@slow
def test_a_second_start_has_everything_and_makes_nothing(tmp_path: Path) -> None:
    """Orders are there after a restart, also one by force; the cursor still resumes."""
    with serving(tmp_path) as server:
        cursor = ask(server.url, "/v1/stores/demo/sync").json()["cursor"]
        body = {"lines": [{"product": "gimbap", "quantity": 2}]}
        done = ask(server.url, "/v1/stores/demo/create-order", json=body)
        assert done.json()["result"]["total"] == 7000
        server.stop(signal.SIGKILL)
    with serving(tmp_path) as server:
        synced = ask(server.url, f"/v1/stores/demo/sync?after={cursor}").json()
        assert synced["events"] == done.json()["events"]
        assert server.stop(signal.SIGINT) == 0


def test_no_demo_makes_none(tmp_path: Path) -> None:
    """With `--no-demo` there is no shop and there are no links."""
    with serving(tmp_path, "--no-demo") as server:
        assert ask(server.url, "/v1/stores/demo/sync").status_code == 404
        assert server.stop() == 0
    assert not any("token=" in line for line in server.said)


@slow
def test_it_stops_in_time_with_stalled_readers(tmp_path: Path) -> None:
    """Clients that hold streams and read nothing do not delay the end; the log is closed in order."""
    env = {"ONDA_SEND_BUFFER_BYTES": "4096"}
    with serving(tmp_path, env=env) as server:
        port = int(server.url.rpartition(":")[2])
        head = "GET /v1/stores/demo/stream HTTP/1.1\r\nhost: x\r\n"
        head += f"authorization: Bearer {token('service')}\r\n\r\n"
        stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        try:
            for connection in stalled:
                connection.sendall(head.encode())
            line = {"product": "gimbap", "quantity": 1, "note": "x" * 400}
            for _ in range(5):
                assert ask(server.url, "/v1/stores/demo/create-order", json={"lines": [line] * 80}).is_success
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 5
        finally:
            for connection in stalled:
                connection.close()
    if not nodes.several():  # a log in Redis is not closed
        assert onda("verify", "--data", str(tmp_path)).stdout.rstrip().endswith("ended in order")


@slow
def test_open_serves_without_tokens_and_says_so(tmp_path: Path) -> None:
    """Everybody is the owner, and the log warns of it."""
    with serving(tmp_path, "--open") as server:
        answer = httpx.post(f"{server.url}/v1/stores/demo/pause-orders", json={"reason": "full"})
        assert answer.json()["events"][0]["by"] == "owner:open"
    assert any("without tokens" in line for line in server.said)


@pytest.mark.one_node("a token is revoked in the folder of one node; of several: test_two_nodes_ops.py")
@slow
def test_a_revoked_token_stops_working_within_a_second(tmp_path: Path) -> None:
    """`onda token` makes it, `onda token --revoke` ends it, while the server runs."""
    with serving(tmp_path) as server:
        made = onda("token", "--role", "owner", "--store", "demo", "--data", str(tmp_path)).stdout.strip()
        where = f"{server.url}/v1/stores/demo/sync"
        assert httpx.get(where, params={"token": made}).status_code == 200
        assert onda("token", "--revoke", made, "--data", str(tmp_path)).stdout.startswith(
            "revoked owner:owner"
        )
        deadline = time.monotonic() + 1
        while httpx.get(where, params={"token": made}).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        (["serve", "--db", "oracle://x"], {}, 3, "db: oracle is none of sqlite, postgresql, mysql, mariadb"),
        (["serve", "--db", "nonsense"], {}, 3, "db is no URL"),
        (["serve", "--plugin", "no_such"], {}, 3, "plugin no_such: ModuleNotFoundError"),
        (["serve", "--open", "--host", "0.0.0.0"], {}, 3, "loopback"),
        (["serve", "--port", "70000"], {}, 3, "port"),
        (["serve", "--host", "no.such.host.invalid"], {}, 3, "cannot be served"),
        (["serve"], {"ONDA_SECRET": "short"}, 3, "32 characters"),
        (["serve"], {"ONDA_PING_S": "often"}, 3, "ping_s"),
        (["serve", "--config", "/no/such.toml"], {}, 3, "/no/such.toml"),
        (["serve", "--data", "/proc/x"], {}, 6, "/proc/x"),
        (["serve", "--nonsense"], {}, 2, "--nonsense"),
        (["fly"], {}, 2, "fly"),
        (["token", "--role", "owner"], {}, 3, "role owner needs a store"),
        (["token", "--role", "user"], {}, 3, "--sub"),
        (["token", "--role", "king"], {}, 2, "king"),
        (["token", "--ttl", "soon"], {}, 3, "soon is no time"),
        (["token", "--revoke", "nonsense"], {}, 3, "not valid"),
        (["verify", "--data", "/no/such"], {}, 3, "there is no log"),
        (["tail", "--data", "/no/such"], {}, 3, "there is no log"),
        (["backup", "/no/such/copy", "--data", "/no/such"], {}, 3, "there is no log"),
        (["truncate", "7", "--data", "/no/such"], {}, 3, "--yes"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    env: dict[str, str],
    code: int,
    said: str,
) -> None:
    """An exit code that tells what kind of failure it is, and no trace."""
    for name, value in {"ONDA_SECRET": SECRET, **env}.items():
        monkeypatch.setenv(name, value)
    if arguments[0] in ("serve", "token") and "--data" not in arguments:
        arguments = [*arguments, "--data", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == code
    stderr = capfd.readouterr().err
    assert said in stderr
    last = stderr.rstrip().splitlines()[-1]
    assert last.startswith(("onda: ", "Error: "))


def test_a_log_in_redis_that_lost_keys_is_a_log_that_failed(capfd: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of its kind of failure."""
    with pytest.raises(SystemExit) as left:
        cli._fail(Gone(0, "meta"))
    assert left.value.code == 6
    assert "missing in Redis" in capfd.readouterr().err


@pytest.mark.one_node("files of the write-ahead log")
@slow
def test_a_folder_in_use_and_a_taken_port_are_said(tmp_path: Path) -> None:
    """4 for the folder, 3 for the port."""
    with serving(tmp_path / "one") as server:
        port = server.url.rpartition(":")[2]
        locked = onda("serve", "--port", "0", "--data", str(tmp_path / "one"))
        taken = onda("serve", "--port", port, "--data", str(tmp_path / "two"))
        links = onda("demo", "--port", port, "--data", str(tmp_path / "one"))
        assert httpx.get(re.findall(r"http\S+", links.stdout)[0]).status_code == 200
    assert locked.returncode == 4
    assert "is held by another process" in locked.stderr
    assert taken.returncode == 3
    assert taken.stderr.rstrip().endswith(f"127.0.0.1:{port} is taken by another program")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with the demo shop, closed in order."""
    data = tmp_path / "data"
    made = onda("demo", "--data", str(data))
    assert made.returncode == 0, made.stderr
    assert "http://127.0.0.1:8080/board/demo?token=" in made.stdout
    return data


@pytest.mark.one_node("files of the write-ahead log")
@slow
def test_a_damaged_log_is_refused_and_named(folder: Path) -> None:
    """The server does not start, `verify` says where; given up up to there it starts again."""
    (segment,) = (folder / "log").glob("*.seg")
    content = bytearray(segment.read_bytes())
    at = content.index("떡볶이".encode())
    content[at] ^= 1
    segment.write_bytes(content)
    started = onda("serve", "--port", "0", "--data", str(folder))
    assert started.returncode == 5
    assert str(segment) in started.stderr
    report = onda("verify", "--data", str(folder))
    assert report.returncode == 5
    assert "damaged" in report.stdout
    assert onda("truncate", "1", "--data", str(folder)).returncode == 3
    (folder / "checkpoint.db").unlink()
    cut = onda("truncate", "1", "--data", str(folder), "--yes")
    assert cut.returncode == 0, cut.stderr
    with serving(folder, "--no-demo") as server:
        assert ask(server.url, "/healthz").status_code == 200


@pytest.mark.one_node("files of the write-ahead log")
@slow
def test_tail_prints_envelopes(folder: Path) -> None:
    """One in a line; narrowed by stream and type."""
    data = ("--data", str(folder))
    last = [json.loads(line) for line in onda("tail", "-n", "3", *data).stdout.splitlines()]
    assert len(last) == 3
    whole = [json.loads(line) for line in onda("tail", "-n", "0", *data).stdout.splitlines()]
    assert whole[-3:] == last
    store = [event for event in whole if event["stream"] == "store:demo"]
    assert [event["version"] for event in store] == list(range(1, len(store) + 1))
    opened = onda("tail", "-n", "0", "--stream", "store:demo", "--type", "StoreOpened", *data).stdout
    assert [json.loads(line)["type"] for line in opened.splitlines()] == ["StoreOpened"]


@pytest.mark.one_node("files of the write-ahead log")
@slow
def test_tail_follows_a_running_server(tmp_path: Path) -> None:
    """What is ordered appears, each record once."""
    with serving(tmp_path) as server:
        command = [sys.executable, "-m", "web.cli", "tail", "-f", "-n", "1", "--data", str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["stream"]
            body = {"lines": [{"product": "gimbap", "quantity": 1}]}
            made = [
                ask(server.url, "/v1/stores/demo/create-order", json=body).json()["events"] for _ in range(2)
            ]
            seen = [json.loads(tail.stdout.readline()) for _ in range(4)]
            tail.terminate()
    assert seen == made[0] + made[1]


@pytest.mark.one_node("files of the write-ahead log")
@slow
def test_a_backup_of_a_running_server_is_restored_under_a_new_epoch(tmp_path: Path) -> None:
    """Everything that was answered before it began is in it; old cursors get a reset, tokens still work."""
    data, copy, fresh = (str(tmp_path / name) for name in ("data", "copy", "fresh"))
    with serving(tmp_path / "data") as server:
        body = {"lines": [{"product": "gimbap", "quantity": 1}]}
        done = ask(server.url, "/v1/stores/demo/create-order", json=body).json()
        copied = onda("backup", copy, "--data", data)
        assert copied.returncode == 0, copied.stderr
        assert onda("backup", copy, "--data", data).returncode == 3
    restored = onda("restore", copy, "--data", fresh)
    assert restored.returncode == 0, restored.stderr
    with serving(tmp_path / "fresh") as server:
        synced = ask(server.url, f"/v1/stores/demo/sync?after={done['cursor']}").json()
        assert synced["reset"] == {"reason": "epoch"}
        assert done["result"]["order"] in synced["state"]["orders"]


@pytest.mark.one_node("files of the write-ahead log")
def test_check_looks_at_the_machine(tmp_path: Path) -> None:
    """Disk, space and lock; too little space is an error."""
    good = onda("check", "--data", str(tmp_path / "data"))
    assert good.returncode == 0, good.stdout
    assert re.search(r"syncs of 4 KiB: median [\d.]+ ms", good.stdout)
    bad = onda("check", "--data", str(tmp_path / "data"), env={"ONDA_RESERVE_BYTES": str(1 << 60)})
    assert bad.returncode == 1
    assert "the log is read-only" in bad.stdout


def test_config_shows_each_setting_and_its_source_but_no_secret(tmp_path: Path) -> None:
    """Option over environment over file over default."""
    file = tmp_path / "onda.toml"
    file.write_text("ping_s = 5.0\nport = 1\n")
    shown = onda("config", "--config", str(file), "--data", "x", env={"ONDA_PORT": "9090"}).stdout
    lines = {line.split(" = ")[0]: line for line in shown.splitlines()}
    assert re.fullmatch(r'data = "x" +# option', lines["data"])
    assert re.fullmatch(r"port = 9090 +# environment ONDA_PORT", lines["port"])
    assert re.fullmatch(rf"ping_s = 5.0 +# file {file}", lines["ping_s"])
    assert re.fullmatch(r"rotate_s = 60.0 +# default", lines["rotate_s"])
    assert SECRET not in shown


def test_a_stop_that_hangs_ends_hard_with_a_line() -> None:
    """The watchdog needs nothing that may hang itself."""
    program = "import time; from web.cli_serve import start_watchdog; start_watchdog(0.1); time.sleep(30)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 70
    assert done.stderr == "onda: did not stop in time; ended hard, the next start recovers from the log\n"


@pytest.mark.one_node("files of the write-ahead log")
def test_a_disk_that_fails_ends_the_process(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot go on, says why in a line, and the next start reads the truth from the disk."""

    async def wait_failed(_log: Wal) -> LogFailed:
        await trio.sleep(0.3)
        return LogFailed("the disk does not answer")

    monkeypatch.setattr(Wal, "wait_failed", wait_failed)
    with pytest.raises(SystemExit) as left:
        cli.main(["serve", "--port", "0", "--data", str(tmp_path)])
    assert left.value.code == 6
    said = capfd.readouterr()
    assert "listening on" in said.out
    assert said.err.endswith("onda: the disk does not answer\n")


def test_every_command_has_a_text() -> None:
    """`--help` and `--version` work, and no command is without its line."""
    shown = onda("--help").stdout
    listed = re.findall(r"^  ([a-z]+) +(.+)$", shown.partition("Commands:")[2], re.MULTILINE)
    names = {name for name, _ in listed}
    assert {"serve", "demo", "token", "verify", "tail", "backup", "restore", "check", "config"} <= names
    assert onda("--version").stdout.startswith("onda, version")
