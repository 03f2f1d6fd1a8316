"""What deploy/ says is true of the product: commands, flags, settings, ports, extras and paths."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.cli.commands import cli
from recsys.settings import Settings
from recsys.settings_in_force import load_settings
from tests.servers.kafka import KAFKA

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ").splitlines()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def said(word: str) -> list[str]:
    """What the Dockerfile says after each ``word``."""
    return [line.removeprefix(word).strip() for line in DOCKERFILE if line.startswith(f"{word} ")]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Paths of volumes by name."""
    return dict(volume.split(":")[:2] for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_a_command_with_flags_that_it_has(name: str) -> None:
    command, *arguments = SERVICES[name]["command"]
    found = cli.get_command(None, command)  # type: ignore[arg-type]
    assert found is not None
    found.make_context(command, arguments)


@pytest.mark.parametrize("name", OURS)
def test_the_environment_of_a_service_is_of_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    settings = load_settings()
    assert settings.kafka.bootstrap_servers.split(":")[0] in SERVICES
    assert re.fullmatch(r"redis://(\w+):.*", settings.redis.url)[1] in SERVICES  # type: ignore[index]
    assert settings.api.host == settings.worker.metrics_host == "0.0.0.0"


@pytest.mark.parametrize("name", OURS)
def test_an_image_has_the_extras_that_its_command_needs(name: str) -> None:
    extras = SERVICES[name]["build"]["args"]["EXTRAS"].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    module = PROJECT["entry-points"]["recsys.commands"][SERVICES[name]["command"][0]]
    package = module.split(".")[0]
    assert (package if package != "recsys" else name) in extras


def test_volumes_and_services_that_are_named_are_there() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", [])) <= set(SERVICES)
        assert set(mounts(service)) <= set(COMPOSE["volumes"])
    assert {volume for service in SERVICES.values() for volume in mounts(service)} == set(COMPOSE["volumes"])


def test_the_user_of_the_image_may_write_to_its_volumes() -> None:
    (run,) = said("RUN")
    (owned,) = re.findall(r"chown recsys ([^&]+)", run)
    (made,) = re.findall(r"mkdir ([^&]+)", run)
    paths = {path for name in OURS for path in mounts(SERVICES[name]).values()}
    assert paths <= set(owned.split()) & set(made.split())


def test_published_ports_are_those_that_the_services_listen_on() -> None:
    defaults = Settings()
    ports = {int(port.split(":")[-1]) for name in OURS for port in SERVICES[name].get("ports", [])}
    assert ports == {defaults.api.port, defaults.worker.metrics_port}


def test_the_dockerfile_copies_what_is_there_and_sets_what_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in said("COPY"):
        assert all((ROOT / source).exists() for source in line.split()[:-1])
    packages = {line.split()[0] for line in said("COPY")}
    assert {"recsys", "pipelines", "stream"} <= packages
    for line in said("ENV"):
        for variable, value in (pair.split("=", 1) for pair in shlex.split(line)):
            monkeypatch.setenv(variable, value)
    assert load_settings().bundles == Path("/bundles")
    assert said("ENTRYPOINT") == ['["recsys"]']
    assert "recsys" in PROJECT["scripts"]


def test_kafka_is_the_one_that_tests_run_on() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA}"
