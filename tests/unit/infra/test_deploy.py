"""What deploys the platform names things that exist, and is of the form that its readers take.

No engine for containers is needed, and none is asked: docs/deploy.md says what was not run.
"""

import importlib.resources
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from typer.main import get_command

import marquee
from infra.settings import PROCESSES, Settings
from tests.conftest import ROOT

DEPLOY = ROOT / "infra/deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
COMMANDS = get_command(marquee.app).commands  # type: ignore[attr-defined]
PORTS = {
    "ingest": "ingest_port",
    "serve": "serving_port",
    "operate": "operator_port",
    "land": "lander_metrics_port",
    "nearline": "nearline_metrics_port",
    "train": "trainer_metrics_port",
}
"""Command → setting of the port that it listens on."""
APIS = {"ingest", "serve", "operate"}
TARGETS = {
    "ingest": {"ingest", "land"},
    "training": {"train", "operate"},
    "serving": {"serve"},
    "nearline": {"nearline"},
}


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield f"{path.name}: {document['kind']} {document['metadata']['name']}", document


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in manifests():
        if document["kind"] == "Deployment":
            yield name, document["spec"]["template"]["spec"]["containers"][0]
        if document["kind"] == "CronJob":
            yield name, document["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]


def is_a_command(words: list[str]) -> bool:
    """Whether `marquee` takes these words."""
    command = COMMANDS.get(words[0])
    options = {option for parameter in command.params for option in parameter.opts} if command else set()
    return command is not None and set(words[1:]) <= options


# --- the images ------------------------------------------------------------------------------------------------------


def test_the_dockerfile_copies_what_is_there_and_installs_extras_that_are_defined() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    assert all((ROOT / source).exists() for words in sources for source in words)
    wanted = re.findall(r'"\.\[([a-z,]+)\]"', DOCKERFILE)
    assert len(wanted) == len(TARGETS)
    assert {extra for words in wanted for extra in words.split(",")} <= extras.keys()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(f"!{source}" in ignored for words in sources for source in words)


def test_images_run_as_nobody_in_particular_and_each_target_runs_a_command() -> None:
    runtime = DOCKERFILE.partition(" AS runtime\n")[2]
    assert "USER 10001" in runtime.partition("FROM ")[0]
    assert "USER root" not in runtime
    for target, commands in TARGETS.items():
        stage = runtime.partition(f"FROM runtime AS {target}\n")[2].partition("FROM ")[0]
        words = json.loads(stage.partition("CMD ")[2].partition("\n")[0])
        assert words[0] in commands
        assert is_a_command(words)


# --- compose ---------------------------------------------------------------------------------------------------------


def test_compose_is_of_the_form_that_compose_takes() -> None:
    schema = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


def test_compose_runs_every_process_with_commands_that_exist() -> None:
    assert {service["command"][0] for service in OURS.values()} == PORTS.keys()
    for service in OURS.values():
        assert is_a_command(service["command"])
        assert service["command"][0] in TARGETS[service["build"]["target"]]
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_compose_probes_what_the_processes_listen_on() -> None:
    for service in OURS.values():
        command = service["command"][0]
        port = Settings.model_fields[PORTS[command]].default
        path = "/readyz" if command in APIS else "/metrics"
        assert f"http://127.0.0.1:{port}{path}" in service["healthcheck"]["test"][-1]


def test_compose_opens_ports_on_this_machine_only_and_has_no_default_password() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert all(
        port.startswith("127.0.0.1:") for service in COMPOSE["services"].values() for port in service.get("ports", ())
    )
    wanted = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert "${" not in re.sub(r"\$\{[A-Z_]+(:\?[^}:-]*)?\}", "", text), "a default for a variable"
    example = dict(line.split("=") for line in (DEPLOY / "compose.env.example").read_text().splitlines() if "=" in line)
    assert example.keys() == wanted
    assert not any(example.values())
    mounted = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", ())]
    assert all((DEPLOY / mount.split(":")[0]).exists() for mount in mounted if mount.startswith("./"))


# --- Kubernetes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "document"), [pytest.param(*each, id=each[0]) for each in manifests()])
def test_a_manifest_is_of_the_form_that_kubernetes_takes(name: str, document: dict[str, Any]) -> None:
    if document["apiVersion"].startswith("keda.sh/"):  # Its schema is not Kubernetes' own.
        scaled = {each["metadata"]["name"] for _, each in manifests() if each["kind"] == "Deployment"}
        assert document["spec"]["scaleTargetRef"]["name"] in scaled
        return
    kubernetes_validate.validate(document, "1.34", strict=True)


def test_manifests_are_all_listed_and_run_every_process_with_commands_that_exist() -> None:
    listed = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed["resources"]) == files
    assert {container["args"][0] for _, container in containers()} == PORTS.keys()
    for name, container in containers():
        assert is_a_command(container["args"]), name
        image = container["image"].removeprefix("marquee-").removesuffix(":latest")
        assert container["args"][0] in TARGETS[image], name
        assert f"marquee-{image}" in {each["name"] for each in listed["images"]}


def test_probes_ask_what_the_processes_answer() -> None:
    for name, container in containers():
        command = container["args"][0]
        if "ports" not in container:
            assert command == "train"
            continue
        assert container["ports"][0]["containerPort"] == Settings.model_fields[PORTS[command]].default, name
        paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
        assert paths == (["/healthz", "/healthz", "/readyz"] if command in APIS else ["/metrics"] * 3), name


def test_containers_may_do_little() -> None:
    for name, container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"].keys() == {"requests", "limits"}, name


# --- settings, metrics -----------------------------------------------------------------------------------------------


def test_every_setting_that_is_named_exists() -> None:
    known = {f"MARQUEE_{name.upper()}" for name in Settings.model_fields}
    for path in (path for path in DEPLOY.rglob("*") if path.is_file() and "var" not in path.parts):
        named = set(re.findall(r"\bMARQUEE_[A-Z_]*[A-Z]\b", path.read_text()))
        assert named <= known, path
    urls = dict(part.split("=", 1) for part in COMPOSE["x-settings"]["MARQUEE_PROCESS_URLS"].split(","))
    assert urls.keys() == PROCESSES.keys()
    assert all(
        Settings.model_fields[PROCESSES[name]].default == int(url.rpartition(":")[2]) for name, url in urls.items()
    )


def metrics() -> dict[str, str]:
    """Expression → where it stands: of each panel and each alert."""
    found = {}
    for path in (DEPLOY / "grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            found |= {target["expr"]: f"{path.name}: {panel['title']}" for target in panel["targets"]}
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return found | {rule["expr"]: rule["alert"] for group in groups for rule in group["rules"]}


@pytest.mark.parametrize(("expression", "place"), [pytest.param(*each, id=each[1]) for each in metrics().items()])
def test_what_is_drawn_and_warned_of_is_measured(expression: str, place: str) -> None:
    promql_parser.parse(expression)
    code = "".join(
        path.read_text()
        for stage in ("ingest", "serving", "training", "infra")
        for path in (ROOT / stage).rglob("*.py")
    )
    for name in re.findall(r"\bmarquee_[a-z_]+", expression):
        written = re.sub(r"_(total|bucket|count|sum)$", "", name)
        assert f'"{written}"' in code, (place, name)


def test_dashboards_are_provisioned() -> None:
    names = {path.stem for path in (DEPLOY / "grafana/dashboards").glob("*.json")}
    assert names == {"loop", "serving", "training"}
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/marquee.yaml").read_text())["providers"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]
    [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    boards = [json.loads(path.read_text()) for path in (DEPLOY / "grafana/dashboards").glob("*.json")]
    assert {panel["datasource"]["uid"] for board in boards for panel in board["panels"]} == {source["uid"]}
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    for job in jobs:
        name, port = job["targets"][0].split(":")
        assert int(port) == Settings.model_fields[PORTS[COMPOSE["services"][name]["command"][0]]].default
