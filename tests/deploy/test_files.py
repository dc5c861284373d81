"""What is in deploy/ without an engine to run it: structure, settings, metrics and limits that must agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import Config
from tests.deploy.cluster import DEPLOY, redis_options
from tests.relays.redis_server import find_server, redis_server
from tests.web.site import running
from web.cli_check_redis import check_redis
from web.cli_serve import STOP_S

ROOT = DEPLOY.parent
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
KEYS = {f"ONDA_{name.upper()}" for name in Config.__struct_fields__}
ALIVE = "http://127.0.0.1:8080/healthz"


def load(name: str) -> Any:
    """A YAML file of one document."""
    return yaml.safe_load((DEPLOY / name).read_text())


def manifests() -> list[dict[str, Any]]:
    """Every object in kubernetes/."""
    return [
        each
        for path in sorted(DEPLOY.glob("kubernetes/*.yaml"))
        for each in yaml.safe_load_all(path.read_text())
    ]


def manifest(kind: str, name: str) -> dict[str, Any]:
    """One object."""
    [found] = [each for each in manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_settings_are_ours_and_secrets_are_elsewhere(path: Path) -> None:
    """Each `ONDA_…` is a setting (or compose's own port), and nothing looks like a key."""
    text = path.read_text()
    assert set(re.findall(r"ONDA_[A-Z_0-9]+", text)) <= KEYS | {"ONDA_HTTP_PORT", "ONDA_NAME"}
    assert not re.search(r"\b[0-9a-fA-F]{32,}\b", text)
    assert "BEGIN" not in text


def test_compose() -> None:
    """Two nodes with one log that start after Redis, each with its name and volume; only nginx is reached
    from outside. A node whose Redis is away is healthy, as it feeds its screens.
    """
    compose = load("compose.yaml")
    services = compose["services"]
    assert set(services) == {"onda-1", "onda-2", "redis", "nginx", "prometheus"}
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), f"{name} has no version"
        assert service["healthcheck"]["test"]
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
    nodes = [services["onda-1"], services["onda-2"]]
    for name, node in zip(("onda-1", "onda-2"), nodes, strict=True):
        assert ALIVE in " ".join(node["healthcheck"]["test"])
        assert node["environment"]["ONDA_LOG_URL"] == "redis://redis:6379"
        assert node["environment"]["ONDA_NODE_ID"] == name
        assert node["environment"]["ONDA_SECRET"].startswith("${ONDA_SECRET:?")
        assert node["depends_on"]["redis"]["condition"] == "service_healthy"
        assert "ports" not in node
        assert int(node["stop_grace_period"].rstrip("s")) > STOP_S
    assert {volume for node in nodes for volume in node["volumes"]} == {
        "onda-1:/var/lib/onda",
        "onda-2:/var/lib/onda",
    }
    assert "ports" not in services["redis"]
    assert compose["networks"]["inside"]["internal"]
    lines = compose["configs"]["nodes"]["content"]
    assert re.findall(r"^server (\S+):8080 resolve max_fails", lines, re.MULTILINE) == ["onda-1", "onda-2"]
    written = (DEPLOY / "nginx" / "onda.conf").read_text()
    included = set(re.findall(r"include (\S+);", written))
    assert included == {config["target"] for config in services["nginx"]["configs"]}


@pytest.mark.skipif(find_server() is None, reason="no redis-server")
def test_redis_keeps_what_it_took(tmp_path: Path) -> None:
    """AOF with a sync per write, and no eviction: `onda check` finds no loss. Compose has the same file."""
    service = load("compose.yaml")["services"]["redis"]
    program, file, *options = service["command"]
    assert (program, options) == ("redis-server", ["--dir", "/data"])
    assert f"./redis/onda.conf:{file}:ro" in service["volumes"]
    with redis_server(tmp_path, *redis_options()) as server:
        assert check_redis(server.url, accept_loss=False) == 0


def test_dockerfile() -> None:
    """Slim, by version, not as root, with a volume where the data is; what is copied is there."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    said = [line.split(maxsplit=1) for line in lines if line[:1].isupper()]
    images = [rest.split()[0] for word, rest in said if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", image) for image in images)
    assert ["USER", "onda"] in said
    assert ALIVE in "\n".join(lines)
    assert ["VOLUME", "/var/lib/onda"] in said
    assert "ONDA_DATA=/var/lib/onda" in "\n".join(lines)
    assert ["ENTRYPOINT", '["onda"]'] in said
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    for word, rest in said:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored


def test_kubernetes_objects() -> None:
    """What is there, and that selectors, Services, nodes.conf and budgets name what is there."""
    found = {(each["kind"], each["metadata"]["name"]) for each in manifests()}
    assert found >= {
        ("StatefulSet", "onda"),
        ("Deployment", "onda-nginx"),
        ("ConfigMap", "onda-settings"),
        ("PodDisruptionBudget", "onda"),
        ("PodDisruptionBudget", "onda-nginx"),
        ("Service", "onda-nginx"),
    }
    assert not any(each["kind"] == "Secret" for each in manifests())
    nodes = manifest("StatefulSet", "onda")["spec"]
    names = [f"onda-{number}" for number in range(nodes["replicas"])]
    conf = (DEPLOY / "kubernetes" / "nodes.conf").read_text()
    assert re.findall(r"^server (\S+):8080 ", conf, re.MULTILINE) == names
    for name in names:  # nginx asks them also while Redis is away, and none is ready
        service = manifest("Service", name)["spec"]
        assert service["selector"] == {"statefulset.kubernetes.io/pod-name": name}
        assert service["publishNotReadyAddresses"] is True
    assert manifest("Service", nodes["serviceName"])["spec"]["clusterIP"] == "None"
    for kind, name in (("StatefulSet", "onda"), ("Deployment", "onda-nginx")):
        labels = manifest(kind, name)["spec"]["template"]["metadata"]["labels"]
        assert manifest(kind, name)["spec"]["selector"]["matchLabels"] == labels
        assert manifest("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"] == labels
    listed = load("kustomization.yaml")
    sources = [entry.rpartition("=")[2] for entry in listed["configMapGenerator"][0]["files"]]
    assert all((DEPLOY / name).is_file() for name in [*listed["resources"], *sources])
    assert set(listed["resources"]) == {
        f"kubernetes/{path.name}" for path in DEPLOY.glob("kubernetes/*.yaml")
    }


def test_kubernetes_nodes() -> None:
    """Probes, secrets by reference, a name of its own, time to end, and no rights."""
    pod = manifest("StatefulSet", "onda")["spec"]["template"]["spec"]
    [node] = pod["containers"]
    paths = {kind: node[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    sources = {each["name"]: each["valueFrom"] for each in node["env"]}
    assert set(sources["ONDA_SECRET"]) == set(sources["ONDA_LOG_URL"]) == {"secretKeyRef"}
    secrets = {each["secretKeyRef"]["key"] for each in sources.values() if "secretKeyRef" in each}
    made = re.findall(r"--from-literal=([\w-]+)=", (DEPLOY / "kustomization.yaml").read_text())
    assert set(made) == secrets
    assert sources["ONDA_NODE_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert pod["terminationGracePeriodSeconds"] > STOP_S
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    user = re.search(r"--uid (\d+)", (DEPLOY / "Dockerfile").read_text())
    assert user is not None
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    settings = manifest("ConfigMap", "onda-settings")["data"]
    assert all(isinstance(value, str) for value in settings.values())
    mounted = {mount["mountPath"] for mount in node["volumeMounts"]}
    assert settings["ONDA_DATA"] in mounted


def test_settings_in_kubernetes_and_docker_make_a_config() -> None:
    """The values are taken as they stand."""
    from engine.config import load as load_config

    settings = manifest("ConfigMap", "onda-settings")["data"]
    config, _ = load_config(environ=settings)
    assert (config.host, config.port, config.demo) == ("0.0.0.0", 8080, False)
    given = re.findall(r"\b(ONDA_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text())
    config, _ = load_config(environ=dict(given))
    assert (config.host, config.data, config.demo) == ("0.0.0.0", "/var/lib/onda", False)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kustomize_takes_its_files() -> None:
    """Its own program puts them together, and nginx's files into the ConfigMap that the pods mount."""
    command = ["kubectl", "kustomize", str(DEPLOY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    pod = made["Deployment", "onda-nginx"]["spec"]["template"]["spec"]
    files = made["ConfigMap", pod["volumes"][0]["configMap"]["name"]]["data"]
    assert {mount["subPath"] for mount in pod["containers"][0]["volumeMounts"]} == set(files)
    assert files["onda.conf"] == (DEPLOY / "nginx" / "onda.conf").read_text()


async def test_alerts_name_metrics_that_there_are() -> None:
    """Each metric in a rule, with its suffix, and each label that it asks for, is served at /metrics."""
    async with running() as site, site.client() as http:
        served = (await http.get("/metrics")).text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)", served, re.MULTILINE))
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
    names = {name + end for name, kind in kinds.items() for end in suffixes[kind]} | {"up"}
    [group] = load("prometheus/alerts.yml")["groups"]
    alerts = group["rules"]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 10
    used = set()
    for rule in alerts:
        found = set(re.findall(r"\b(?:onda_\w+|up)\b", rule["expr"]))
        assert found, rule["alert"]
        assert found <= names, found - names
        used |= found
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "action"}
        told = re.findall(r"\bonda_\w+", rule["annotations"]["action"])
        assert set(told) <= names, told
    assert used & {"onda_log_writable", "onda_parked", "onda_commands_total"}
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name in used - {"up"}:
        assert re.sub("_(total|bucket)$", "", name) in text, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool")
def test_prometheus_takes_its_files() -> None:
    """Prometheus' own checker, where it is there."""
    command = ["promtool", "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


NODES = """
rule_files: [{rules}]
evaluation_interval: 5s
tests:
  - interval: 5s
    input_series:
      - series: 'onda_partition_away{{job="onda", instance="a", partition="0"}}'
        values: '0x10 1x20'
      - series: 'onda_partition_away{{job="onda", instance="b", partition="0"}}'
        values: '0x30'
      - series: 'onda_partition_on_duty{{job="onda", instance="a", partition="0"}}'
        values: '1x30'
      - series: 'onda_partition_on_duty{{job="onda", instance="b", partition="0"}}'
        values: '0x30'
      - series: 'onda_partition_on_duty{{job="onda", instance="a", partition="1"}}'
        values: '1x5 0x25'
      - series: 'onda_partition_on_duty{{job="onda", instance="b", partition="1"}}'
        values: '0x30'
      - series: 'onda_partition_epochs_total{{job="onda", instance="b", partition="7"}}'
        values: '0x10 1x20'
      - series: 'onda_history_lost{{job="onda", instance="a"}}'
        values: '3x10 5x20'
    alert_rule_test:
      - {{eval_time: 30s, alertname: OndaHistoryLost}}
      - {{eval_time: 30s, alertname: OndaRedisAway}}
      - {{eval_time: 30s, alertname: OndaNobodyOnDuty}}
      - {{eval_time: 30s, alertname: OndaEpochBegan}}
      - eval_time: 80s
        alertname: OndaRedisAway
        exp_alerts: [{{exp_labels: {{severity: page, instance: a}}}}]
      - eval_time: 80s
        alertname: OndaNobodyOnDuty
        exp_alerts: [{{exp_labels: {{severity: page, job: onda, partition: "1"}}}}]
      - eval_time: 80s
        alertname: OndaEpochBegan
        exp_alerts: [{{exp_labels: {{severity: page, job: onda, instance: b, partition: "7"}}}}]
      - eval_time: 80s
        alertname: OndaHistoryLost
        exp_alerts: [{{exp_labels: {{severity: ticket, job: onda, instance: a}}}}]
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool")
def test_alerts_of_several_nodes_fire_when_they_should(tmp_path: Path) -> None:
    """One node without Redis, a partition with nobody on duty, a new epoch, and events that the history
    had and the log lost; nothing before.
    """
    rules = load("prometheus/alerts.yml")
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]  # their words are no affair of this test
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "test.yml").write_text(NODES.format(rules=tmp_path / "alerts.yml"))
    command = ["promtool", "test", "rules", str(tmp_path / "test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_asks_the_nodes_of_compose() -> None:
    """By the names and the port that they have there, with the job that the rules name."""
    [job] = load("prometheus/prometheus.yml")["scrape_configs"]
    assert job["job_name"] == "onda"
    assert job["static_configs"][0]["targets"] == ["onda-1:8080", "onda-2:8080"]
    assert load("prometheus/prometheus.yml")["rule_files"] == ["alerts.yml"]


def test_systemd_unit() -> None:
    """It comes back always, has time to end, enough files, and no rights to speak of."""
    lines = (DEPLOY / "systemd" / "onda.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert settings["Restart"] == "always"
    assert settings["StartLimitIntervalSec"] == "0"
    assert int(settings["TimeoutStopSec"]) > STOP_S
    assert int(settings["LimitNOFILE"]) > 2 * Config().connections_max
    assert settings["User"] != "root"
    assert settings["ProtectSystem"] == "strict"
    assert settings["NoNewPrivileges"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("name", ["onda.service", "onda@8081.service"])
def test_systemd_takes_its_units(tmp_path: Path, name: str) -> None:
    """systemd's own checker finds nothing, and little exposure, in the only node and in one of several."""
    text = (DEPLOY / "systemd" / "onda.service").read_text()
    more = (DEPLOY / "systemd" / "onda@.service.d" / "node.conf").read_text()
    program = f"{Path(sys.executable).parent}/onda"
    for each in (text, more):
        assert "ExecStart=/opt/onda/bin/onda serve " in each
    (tmp_path / name.replace("8081", "")).write_text(text.replace("/opt/onda/bin/onda", program))
    (tmp_path / "onda@.service.d").mkdir()
    (tmp_path / "onda@.service.d" / "node.conf").write_text(more.replace("/opt/onda/bin/onda", program))
    unit = str(tmp_path / name)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"exposure level for onda\S*.service: ([\d.]+)", rated.stdout)
    assert exposure is not None, rated.stderr
    assert float(exposure[1]) < 2.0


def test_systemd_nodes_differ() -> None:
    """Each has its own port, folder and name, and none is started as the only node would be."""
    lines = (DEPLOY / "systemd" / "onda@.service.d" / "node.conf").read_text().splitlines()
    said = [line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#")]
    settings = dict(said)
    assert [value for name, value in said if name == "ExecStart"] == ["", settings["ExecStart"]]
    assert "--port %i" in settings["ExecStart"]
    assert f"--data /var/lib/{settings['StateDirectory']} " in settings["ExecStart"]
    assert settings["Environment"] == "ONDA_NODE_ID=%l-%i"
