"""Holds docker-compose.yml to the Compose schema and to our rules; each rule is shown to catch a stack that breaks it.

A rule takes a stack and yields one sentence for each offence. Nothing here needs Docker.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.listen.inbox import Inbox
from pipeline.settings import load_settings
from pipeline.store.lease import Leases

ROOT = Path(__file__).parents[1]
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
DONE = "service_completed_successfully"
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")  # ${NAME…}, not $${NAME}

# In a process of its own: to import MLflow takes seconds and gives other people's warnings, which are errors here.
LIST_VARIABLES = """
import json, re
import mlflow.environment_variables
from mlflow.cli import server
from prefect.settings import Settings
print(*re.findall(r"PREFECT_[A-Z0-9_]+", json.dumps(Settings.model_json_schema())))
print(*vars(mlflow.environment_variables), *(option.envvar for option in server.params))
"""

Stack = dict[str, Any]
Rule = Callable[[Stack], Iterator[str]]


def stack() -> Stack:
    """Return the parsed docker-compose.yml."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def example() -> dict[str, str]:
    """Return the variables of .env.example."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@cache
def schema() -> jsonschema.Draft7Validator:
    """Return the validator of the Compose Specification."""
    return jsonschema.Draft7Validator(json.loads((ROOT / "tests/data/compose-spec.json").read_text()))


@cache
def variables_of_the_servers() -> frozenset[str]:
    """Return every variable that the installed Prefect, MLflow and `mlflow server` read."""
    found = subprocess.run([sys.executable, "-c", LIST_VARIABLES], check=True, capture_output=True, text=True)
    return frozenset(found.stdout.split())


def follows_the_schema(compose: Stack) -> Iterator[str]:
    """The Compose Specification holds, without the obsolete `version:`."""
    yield from (f"{'/'.join(map(str, error.path))}: {error.message}" for error in schema().iter_errors(compose))
    yield from (f"{key}: is obsolete" for key in compose if key == "version")


def images_are_pinned(compose: Stack) -> Iterator[str]:
    """Every image has a tag with at least two numbers, and none is MinIO's, which are gone."""
    for name, service in compose["services"].items():
        image = service.get("image", "")
        if not re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image) or "minio" in image:
            yield f"{name} requires a pinned image; got {image!r}"


def services_are_health_checked(compose: Stack) -> Iterator[str]:
    """Every service that goes on has a complete check, without curl: not every image has it."""
    for name, service in compose["services"].items():
        if service["restart"] == "no":
            continue
        check = service.get("healthcheck", {})
        if not {"test", "interval", "timeout", "retries", "start_period"} <= check.keys() or "curl" in str(check["test"]):
            yield f"{name} requires a complete health check without curl; got {check}"


def dependencies_are_healthy_first(compose: Stack) -> Iterator[str]:
    """What a service waits for exists, and is waited for until it is healthy, or done where it runs once."""
    for name, service in compose["services"].items():
        for target, condition in service.get("depends_on", {}).items():
            is_done = compose["services"].get(target, {}).get("restart") == "no"
            if target not in compose["services"] or condition != {"condition": DONE if is_done else "service_healthy"}:
                yield f"{name} requires a service that is healthy, or done, first; got {target}"


def services_are_unprivileged(compose: Stack) -> Iterator[str]:
    """No root, no capabilities, nothing writable but volumes and memory, and an end to memory and logs."""
    required = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
    for name, service in compose["services"].items():
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", "")) or service.get("privileged") or service.get("cap_add"):
            yield f"{name} requires a numeric user that is not root, and no added rights; got {service.get('user')!r}"
        yield from (
            f"{name} requires {key}: {value}; got {service.get(key)}" for key, value in required.items() if service.get(key) != value
        )
        if "mem_limit" not in service or not {"max-size", "max-file"} <= service.get("logging", {}).get("options", {}).keys():
            yield f"{name} requires mem_limit and log rotation"


def ports_are_on_loopback(compose: Stack) -> Iterator[str]:
    """Nothing is published to other machines."""
    for name, service in compose["services"].items():
        published = [str(port) for port in service.get("ports", [])]
        yield from (f"{name} requires ports on 127.0.0.1; got {port}" for port in published if not port.startswith("127.0.0.1:"))


def secrets_come_from_the_environment(compose: Stack) -> Iterator[str]:
    """A secret is `${NAME:?…}` and nothing else, and no URI carries one."""
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value):
                yield f"{name} requires {key} as ${{NAME:?…}}; got {value!r}"
    yield from (f"a URI holds a password: {uri}" for uri in re.findall(r"\w+://[^/\s\"@]*:[^/\s\"@]+@", json.dumps(compose)))


def variables_are_known(compose: Stack) -> Iterator[str]:
    """A misspelt variable of Prefect or MLflow would be ignored in silence."""
    for name, service in compose["services"].items():
        ours = [key for key in service.get("environment", {}) if key.startswith(("PREFECT_", "MLFLOW_"))]
        databases = {"PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD"}  # read by docker/postgres/databases.sh
        yield from (f"{name}: nothing reads {key}" for key in ours if key not in variables_of_the_servers() | databases)


def nothing_phones_home(compose: Stack) -> Iterator[str]:
    """Every service of ours sets the three switches: no single one stops every sender."""
    switches = {"DO_NOT_TRACK": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for name, service in compose["services"].items():
        environment = service.get("environment", {})
        if "build" in service and {key: environment.get(key) for key in switches} != switches:
            yield f"{name} requires {switches}"


def mlflow_answers_to_its_name(compose: Stack) -> Iterator[str]:
    """The host in the worker's tracking URI is one that MLflow allows; otherwise it answers 403 while /health stays green."""
    uri = compose["services"]["worker"]["environment"]["TIDECAST_TRACKING__URI"]
    allowed = compose["services"]["mlflow"]["environment"].get("MLFLOW_SERVER_ALLOWED_HOSTS", "").split(",")
    if uri.removeprefix("http://") not in allowed:
        yield f"mlflow requires {uri} among its allowed hosts; got {allowed}"


def mounts_exist(compose: Stack) -> Iterator[str]:
    """Named volumes are declared, and files of ours that are mounted exist; PostgreSQL is of a version that takes this mount."""
    for name, service in compose["services"].items():
        for source, target in (volume.replace(":-", "=").split(":")[:2] for volume in service.get("volumes", [])):
            if not (source in compose["volumes"] or source.startswith("${") or (ROOT / source).exists()):
                yield f"{name} requires a volume or a file of the repository; got {source}"
            if target == "/var/lib/postgresql/data" and int(re.findall(r":(\d+)", service["image"])[0]) >= 18:
                yield f"{name} requires postgres before 18, or the mount /var/lib/postgresql"


def variables_have_an_example(compose: Stack) -> Iterator[str]:
    """.env.example names each variable that is read, and none besides."""
    read = set(VARIABLE.findall(json.dumps(compose)))
    yield from (f".env.example and docker-compose.yml disagree about {name}" for name in read ^ example().keys())


RULES: tuple[Rule, ...] = (
    follows_the_schema,
    images_are_pinned,
    services_are_health_checked,
    dependencies_are_healthy_first,
    services_are_unprivileged,
    ports_are_on_loopback,
    secrets_come_from_the_environment,
    variables_are_known,
    nothing_phones_home,
    mlflow_answers_to_its_name,
    mounts_exist,
    variables_have_an_example,
)

BREAKAGES: tuple[tuple[Rule, str, object], ...] = (
    (follows_the_schema, "version", "3.9"),
    (follows_the_schema, "services/mlflow/comand", ["mlflow"]),
    (images_are_pinned, "services/postgres/image", "postgres"),
    (images_are_pinned, "services/postgres/image", "postgres:latest"),
    (images_are_pinned, "services/postgres/image", "postgres:17"),
    (images_are_pinned, "services/s3/image", "minio/minio:2025.1.1"),
    (services_are_health_checked, "services/worker/healthcheck", {}),
    (services_are_health_checked, "services/mlflow/healthcheck/test", ["CMD", "curl", "-f", "http://127.0.0.1:5000/health"]),
    (dependencies_are_healthy_first, "services/worker/depends_on/prefect", {"condition": "service_healthy"}),
    (dependencies_are_healthy_first, "services/worker/depends_on/mlflow/condition", "service_started"),
    (dependencies_are_healthy_first, "services/worker/depends_on/mlflow/condition", DONE),
    (dependencies_are_healthy_first, "services/mosquitto/depends_on/certificates/condition", "service_started"),
    (services_are_unprivileged, "services/mlflow/user", "0:0"),
    (services_are_unprivileged, "services/mlflow/user", "root"),
    (services_are_unprivileged, "services/mlflow/cap_add", ["NET_ADMIN"]),
    (services_are_unprivileged, "services/mlflow/read_only", False),
    (services_are_unprivileged, "services/mlflow/logging", {"driver": "json-file"}),
    (ports_are_on_loopback, "services/mosquitto/ports", ["1883:1883"]),
    (ports_are_on_loopback, "services/mosquitto/ports", [{"target": 1883, "published": "1883"}]),
    (secrets_come_from_the_environment, "services/postgres/environment/POSTGRES_PASSWORD", "postgres"),
    (secrets_come_from_the_environment, "services/mosquitto/environment/MQTT_PASSWORD", "${MQTT_PASSWORD:-tidecast}"),
    (
        secrets_come_from_the_environment,
        "services/mlflow/environment/MLFLOW_BACKEND_STORE_URI",
        "postgresql://mlflow:mlflow@postgres/mlflow",
    ),
    (variables_are_known, "services/prefect-server/environment/PREFECT_SERVER_DB_HOST", "postgres"),
    (variables_are_known, "services/mlflow/environment/MLFLOW_ALLOWED_HOSTS", "mlflow:5000"),
    (nothing_phones_home, "services/worker/environment/DO_NOT_TRACK", "1"),
    (mlflow_answers_to_its_name, "services/mlflow/environment/MLFLOW_SERVER_ALLOWED_HOSTS", "mlflow,localhost:*"),
    (mounts_exist, "services/postgres/volumes", ["./docker/postgres/init.sql:/docker-entrypoint-initdb.d/init.sql"]),
    (mounts_exist, "services/postgres/image", "postgres:18.1-bookworm"),
    (variables_have_an_example, "services/worker/mem_limit", "${WORKER_MEMORY:-8g}"),
)


def broken(path: str, value: object) -> Stack:
    """Return our stack with one value, named by its path, replaced."""
    compose = stack()
    *parents, last = path.split("/")
    place = compose
    for key in parents:
        place = place[key]
    place[last] = value
    return compose


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_stack_keeps_every_rule(rule):
    assert list(rule(stack())) == []


@pytest.mark.parametrize(("rule", "path", "value"), BREAKAGES)
def test_a_rule_catches_a_stack_that_breaks_it(rule, path, value):
    assert list(rule(broken(path, value))) != []


def test_every_rule_is_shown_to_catch_something():
    assert {rule for rule, _, _ in BREAKAGES} == set(RULES)


def test_the_example_holds_no_secret():
    secrets = {name: value for name, value in example().items() if SECRET.search(name) or name.endswith("_KEY")}
    assert len(secrets) == 6
    assert set(secrets.values()) == {""}


@pytest.mark.parametrize("service", ["worker", "listener", "follower"])
def test_each_process_of_ours_is_given_settings_that_exist(service, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environment = stack()["services"][service]["environment"] | {"TIDECAST_LAKE": "/lake"}
    for name in (name for name in environment if name.startswith("TIDECAST_")):
        monkeypatch.setenv(name, environment[name])
    settings = load_settings()
    assert (settings.lake, str(settings.state_dir), settings.tracking_uri) == ("/lake", "/state", "http://mlflow:5000")


def is_healthy(service: str, state_dir: Path) -> bool:
    """Return what the check of a service says of a state folder; it waits for half a second in place of seven."""
    *_, script = stack()["services"][service]["healthcheck"]["test"]
    here = script.replace("/state", str(state_dir)).replace("sleep(7)", "sleep(0.5)")
    return subprocess.run([sys.executable, "-c", here], capture_output=True, check=False).returncode == 0


def test_the_listener_is_healthy_when_its_inbox_can_be_read(tmp_path):
    assert not is_healthy("listener", tmp_path)
    Inbox(tmp_path).close()
    assert is_healthy("listener", tmp_path)


def test_the_follower_is_healthy_while_its_lease_is_renewed(tmp_path):
    leases, ended = Leases(tmp_path), threading.Event()
    assert not is_healthy("follower", tmp_path)
    token = leases.take("forecast/tidecast/lease", "me")
    assert not is_healthy("follower", tmp_path)  # it was taken, and nobody renews it

    def renew() -> None:
        while not ended.wait(0.05):
            leases.renew("forecast/tidecast/lease", token)

    renewing = threading.Thread(target=renew)
    renewing.start()
    assert is_healthy("follower", tmp_path)
    ended.set()
    renewing.join()
    leases.release("forecast/tidecast/lease", token)
    assert not is_healthy("follower", tmp_path)


@pytest.mark.parametrize("name", ["servers", "worker"])
def test_an_image_of_ours_is_pinned_and_not_root(name):
    lines = (ROOT / f"docker/{name}.Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM python:3.11.14-slim-bookworm"]
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert any("--require-hashes" in line for line in lines)
