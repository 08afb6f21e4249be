"""docker-compose.yml: made from the table of processes, of the shape Compose takes, and complete."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from helmctl.supervisor.bus import Bus
from helmctl.supervisor.compose import PLAN, document, text
from helmctl.supervisor.plan import Plan
from helmctl.supervisor.processes import COMPILED_ONCE, services
from helmctl.supervisor.state import StateFolder
from tests.deploy.composition import ROOT, VARIABLE, MissingVariableError, interpolate

FILE = ROOT / "docker-compose.yml"
ENV_EXAMPLE = ROOT / "deploy/env.example"
SECRETS = {"POSTGRES_PASSWORD": "p", "REDIS_PASSWORD": "r", "HELM_SECRET_KEY": "k"}
WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
DURATION = {"type": "string", "pattern": "^[0-9]+s$"}

# The part of the Compose specification that this file uses; a key outside of it is a slip.
SHAPE: dict[str, Any] = {
    "type": "object",
    "required": ["services", "volumes"],
    "additionalProperties": False,
    "properties": {
        "volumes": {"type": "object", "additionalProperties": {"type": "object", "maxProperties": 0}},
        "services": {
            "type": "object",
            "patternProperties": {"^[a-z][a-z0-9-]*$": {"$ref": "#/$defs/service"}},
            "additionalProperties": False,
        },
    },
    "$defs": {
        "service": {
            "type": "object",
            "required": ["image", "restart", "stop_grace_period"],
            "additionalProperties": False,
            "properties": {
                "image": {"type": "string", "pattern": "^[a-z][a-z0-9-]*:.+$"},
                "build": {
                    "type": "object",
                    "required": ["context", "dockerfile", "target"],
                    "additionalProperties": False,
                    "properties": {name: {"type": "string"} for name in ("context", "dockerfile", "target")},
                },
                "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "environment": {
                    "type": "object",
                    "patternProperties": {"^[A-Z][A-Z0-9_]*$": {"type": "string"}},
                    "additionalProperties": False,
                },
                "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+:/[a-z/]+$"}},
                "ports": {"type": "array", "items": {"type": "string", "pattern": r"^[0-9.]+:[0-9]+:[0-9]+$"}},
                "init": {"type": "boolean"},
                "restart": {"enum": ["no", "unless-stopped"]},
                "stop_grace_period": DURATION,
                "profiles": WORDS,
                "healthcheck": {
                    "type": "object",
                    "required": ["test"],
                    "additionalProperties": False,
                    "properties": {
                        "test": {**WORDS, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}], "minItems": 2},
                        "interval": DURATION,
                        "timeout": DURATION,
                        "start_period": DURATION,
                        "retries": {"type": "integer", "minimum": 1},
                    },
                },
                "depends_on": {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "required": ["condition"],
                        "additionalProperties": False,
                        "properties": {"condition": {"enum": ["service_healthy", "service_completed_successfully"]}},
                    },
                },
            },
        }
    },
}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return found


def test_the_committed_file_is_what_the_table_makes() -> None:
    made = subprocess.run([sys.executable, "-m", "helmctl.supervisor.compose"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert FILE.read_text("utf-8") == made == text(document())


def test_it_has_the_shape_that_compose_takes_before_and_after_variables_are_filled_in(written: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SHAPE)
    jsonschema.Draft202012Validator(SHAPE).validate(interpolate(written, SECRETS))


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        ("web", "comand", ["python"]),
        ("web", "command", []),
        ("web", "environment", {"HELM_PORT": 8700}),
        ("web", "healthcheck", {"test": ["python"]}),
        ("web", "depends_on", {"redis": {"condition": "service_started_somehow"}}),
        ("web", "restart", False),
        ("load", "ports", ["8700"]),
    ],
)
def test_a_slip_would_be_noticed(written: dict[str, Any], service: str, key: str, value: Any) -> None:
    made = interpolate(written, SECRETS)
    made["services"][service][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SHAPE).validate(made)


def test_compose_itself_accepts_it_where_there_is_one(tmp_path: Path) -> None:
    plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    command = ["docker", "compose"] if plugin else [found] if (found := shutil.which("docker-compose")) else None
    if command is None:
        return  # no Compose here: the shape above is what checks the file
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    done = subprocess.run(
        [*command, "--env-file", str(env_file), "-f", str(FILE), "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_has_every_part(written: dict[str, Any]) -> None:
    stores, once = {"postgres", "redis"}, {"migrate", "seed", "fleet-file"}
    assert set(written["services"]) == stores | once | {"web", "worker", "beat", "router", "node-0", "node-1", "load"}
    assert set(written["volumes"]) == {"state", "postgres", "redis"}
    assert {name for name, service in written["services"].items() if service["restart"] == "no"} == once
    assert {name for name, service in written["services"].items() if "profiles" in service} == {"load"}


def test_what_keeps_running_has_a_health_check(written: dict[str, Any]) -> None:
    unchecked = {name for name, service in written["services"].items() if service["restart"] != "no" and "healthcheck" not in service}
    assert unchecked == {"load"}  # asks, and is asked by nobody


def test_what_a_service_waits_for_exists_and_can_come_true(written: dict[str, Any]) -> None:
    for service in written["services"].values():
        for name, wanted in service.get("depends_on", {}).items():
            other = written["services"][name]
            assert (wanted["condition"] == "service_completed_successfully") == (other["restart"] == "no")
            assert other["restart"] == "no" or "healthcheck" in other


def test_only_console_and_router_are_published_and_on_the_loopback_unless_asked(written: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in interpolate(written["services"], SECRETS).items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8700:8700"], "router": ["127.0.0.1:8780:8780"]}


# --- one table for both targets


def test_containers_run_the_commands_of_up_but_for_paths_and_addresses(written: dict[str, Any]) -> None:
    here = Plan(nodes=2, profile=PLAN.profile, workload=PLAN.workload)
    table = services(here, StateFolder(Path("/var/lib/helm")), "up", Bus(url="redis://elsewhere"), "python")
    contained = {name: service["command"] for name, service in written["services"].items() if name in {row.name for row in table}}
    assert len(contained) == len(table) == 7
    addresses = {"0.0.0.0": "127.0.0.1", "ws://web:8700/agents/v1/link": "ws://127.0.0.1:8700/agents/v1/link"}
    for row in table:
        assert tuple(addresses.get(word, word) for word in contained[row.name]) == row.command, row.name


def test_containers_get_the_environment_of_up_and_addresses_of_their_own(written: dict[str, Any]) -> None:
    state = StateFolder(Path("/var/lib/helm"))
    own = {"DATABASE_URL", "HELM_SECRET_KEY", "HELM_PUBLIC_URL", "HELM_ALLOWED_HOSTS"}
    for row in services(Plan(nodes=2), state, "up", Bus(url="redis://elsewhere"), "python"):
        contained = written["services"][row.name]["environment"]
        assert set(contained) - own == set(row.env) - set(state.cache_env()) - set(COMPILED_ONCE), row.name
        same = set(contained) & set(row.env) - {"REDIS_URL", "HELM_HOST"}
        assert {name: contained[name] for name in same} == {name: row.env[name] for name in same}


def test_more_nodes_are_more_services_and_are_in_the_fleet_file() -> None:
    made = document(Plan(nodes=3, host="0.0.0.0"))["services"]
    assert {"node-0", "node-1", "node-2"} <= set(made)
    assert "node-2=node-2:8792" in made["fleet-file"]["command"]
    assert made["seed"]["command"][-1] == "node-0,node-1,node-2"


# --- secrets


def test_a_missing_secret_is_named_instead_of_being_empty(written: dict[str, Any]) -> None:
    for name in SECRETS:
        with pytest.raises(MissingVariableError, match=rf"^{name}: set it in \.env, see deploy/env\.example$"):
            interpolate(written, {other: value for other, value in SECRETS.items() if other != name})


def test_the_example_names_every_variable_and_holds_no_secret() -> None:
    asked = {found[0]: found[2] for found in VARIABLE.findall(FILE.read_text("utf-8"))}
    lines = re.findall(r"^(#?)([A-Z_]+)=(.*)$", ENV_EXAMPLE.read_text("utf-8"), re.MULTILINE)
    assert {name for _, name, _ in lines} == set(asked)
    for commented, name, value in lines:
        assert (commented, value) == (("", "") if name in SECRETS else ("#", asked[name])), name


def test_secrets_stay_out_of_the_repository_and_out_of_the_image() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"  # nothing goes to the builder but what is named after it
    named = {line[1:] for line in lines if line.startswith("!")}
    assert named == {"agents", "apps", "frontend", "helmctl", "manage.py", "requirements-*.txt"}
