"""The whole system on a broker and a store that want passwords and encryption, and secrets that stay secret."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis.crc import key_slot

from recsys.cli.settings import show_settings
from recsys.demo.commands import Commands, get_json
from recsys.errors import RecsysError, SettingsError, UnavailableError
from recsys.kafka import aiokafka_options, librdkafka_options
from recsys.settings import KafkaSettings, RedisSettings
from recsys.settings_in_force import load_settings
from recsys.store import Store, Write
from tests.servers.kafka import Kafka, Login
from tests.servers.presence import where_present
from tests.servers.process import find_program
from tests.servers.redis import Redis, Tls
from tests.servers.redis_cluster import RedisCluster
from tests.stream.world import START

PASSWORD = "s3cret/#?"
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WORKER, API = re.findall(r"`(~recsys:\*[^`]*)`", README)  # what README says they need
ON_A_CLUSTER = re.findall(r"`(\+cluster[^`]*)`", README)


def acl(*more: str) -> str:
    """Users of the store."""
    worker, api = (" ".join(" ".join(words).split()) for words in zip((WORKER, API), more or ("", ""), strict=True))
    return f"user default off\nuser worker on >{PASSWORD} {worker}\nuser api on >{PASSWORD} {api}\n"


@dataclass(frozen=True)
class Secured:
    """Commands in an environment that names servers which know and trust nobody else."""

    commands: Commands
    tls: Tls


def make_certificate(directory: Path) -> Tls:
    """An authority, and a certificate of 127.0.0.1 that it signed."""
    openssl = find_program("openssl")
    files = Tls(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    ca_key, request, names = directory / "ca.key", directory / "server.csr", directory / "names"
    names.write_text("subjectAltName=IP:127.0.0.1")
    new = [openssl, "req", "-newkey", "rsa:2048", "-nodes"]
    sign = [openssl, "x509", "-req", "-in", request, "-CA", files.authority, "-CAkey", ca_key]
    for command in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", ca_key, "-out", files.authority],
        [*new, "-subj", "/CN=server", "-keyout", files.key, "-out", request],
        [*sign, "-CAcreateserial", "-days", "2", "-extfile", names, "-out", files.certificate],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    with where_present():
        return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def redis(tls: Tls, tmp_path: Path) -> Iterator[Redis]:
    users = tmp_path / "users.acl"
    users.write_text(acl())
    with where_present():
        redis = Redis(tmp_path / "redis", tls=tls, acl_file=users)
    with redis:
        yield redis


@pytest.fixture
def secured(tls: Tls, redis: Redis, tmp_path: Path) -> Iterator[Secured]:
    with where_present():
        kafka = Kafka(tmp_path / "kafka", Login("recsys", PASSWORD, tls))
    with kafka:
        for topic in (KafkaSettings().topic, KafkaSettings().dead_letter_topic):
            kafka.create_topic(topic)
        environment = dict(os.environ) | {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "RECSYS_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "RECSYS_KAFKA__SASL_USERNAME": "recsys",
            "RECSYS_KAFKA__SASL_PASSWORD": PASSWORD,
            "RECSYS_KAFKA__SSL_CA": str(tls.authority),
            "REDIS_URL": redis.url,
            "RECSYS_REDIS__USERNAME": "worker",
            "RECSYS_REDIS__PASSWORD": PASSWORD,
            "RECSYS_REDIS__SSL_CA": str(tls.authority),
        }
        yield Secured(Commands(tmp_path, environment), tls)


def test_every_door_knows_the_passwords(secured: Secured, bundles: Path) -> None:
    commands = secured.commands
    log = commands.directory / "clicks.jsonl"
    clicks = [{"user_id": "u-1", "item_id": item, "timestamp": START} for item in ("item-001", "stranger")]
    log.write_text("".join(json.dumps(click) + "\n" for click in clicks))
    commands.environment["RECSYS_LOG__FORMAT"] = "json"
    with commands.service("worker", "--bundles", str(bundles), "--metrics-port", "0") as worker:
        commands.read("replay", str(log))
        commands.environment["RECSYS_REDIS__USERNAME"] = "api"
        with commands.service("api", "--bundles", str(bundles), "--port", "0") as api:
            url = address_of(api.log, "api: listening on ")
            event = json.dumps({"user_id": "u-2", "item_id": "item-002"}).encode()
            request = urllib.request.Request(f"{url}/v1/events", event, {"content-type": "application/json"})
            deadline = time.monotonic() + 60
            for user in ("u-1", "u-2"):
                while get_json(f"{url}/v1/recommendations?user_id={user}")["source"] != "user":
                    assert time.monotonic() < deadline, worker.log.read_text()
                    if user == "u-2":
                        with urllib.request.urlopen(request, timeout=10) as answer:
                            assert answer.status == 202
                    time.sleep(0.2)
    (letter,) = map(json.loads, commands.read("dead-letter", "list", "--json").splitlines())
    assert letter["reason"] == "unknown_item"
    assert json.loads(commands.read("dead-letter", "replay", "--yes"))["replayed"] == {"unknown_item": 1}
    kept = json.loads(commands.read("archive", "--out", str(commands.directory / "archive"), "--until-now"))
    assert kept["clicks"] > 2
    words = worker.log.read_text() + api.log.read_text()
    assert PASSWORD not in words
    assert {"time", "level", "logger", "message"} <= json.loads(words.splitlines()[0]).keys()


def address_of(log: Path, beginning: str) -> str:
    """What a service says after these words, in JSON."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (words := str(json.loads(line)["message"])).startswith(beginning):
                return words.removeprefix(beginning)
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_readme_grants_every_command_of_the_scripts() -> None:
    called = re.findall(r"redis\.call\('(\w+)'", (ROOT / "recsys" / "store_servers.py").read_text())
    assert {f"+{command.lower()}" for command in called} <= set(WORKER.split())


def test_a_cluster_wants_passwords_and_encryption_of_every_node(tls: Tls, tmp_path: Path) -> None:
    users = tmp_path / "users.acl"
    users.write_text(acl(*ON_A_CLUSTER) + f"user root on >{PASSWORD} ~* +@all\n")
    with where_present():
        cluster = RedisCluster(tmp_path / "cluster", tls=tls, acl_file=users, login=("root", PASSWORD))

    async def use() -> None:
        options = {"url": cluster.url, "password": PASSWORD, "ssl_ca": str(tls.authority)}
        worker, api = (Store(RedisSettings.model_validate(options | {"username": user})) for user in ("worker", "api"))
        names = [f"u{number}" for number in range(20)]
        await worker.ping()
        assert await worker.save([Write(user, None, b"state", b"list") for user in names]) == set()
        assert await worker.topic_number("topic") == 0
        assert sorted([user async for users in worker.users(5) for user in users]) == sorted(names)
        await api.ping()
        assert await api.lists(names) == [b"list"] * 20
        cluster.begin_to_move(key_slot(b"new"))
        assert [await store.lists(["new"]) for store in (worker, api)] == [[None], [None]]
        with pytest.raises(UnavailableError, match="refuses"):
            await api.forget(names)
        assert await worker.forget(names) == 40
        for store in (worker, api):
            await store.close()

    with cluster:
        asyncio.run(use())


def test_a_wrong_password_is_refused_and_not_repeated(redis: Redis, tls: Tls) -> None:
    async def ping(**options: str) -> None:
        store = Store(RedisSettings.model_validate({"url": redis.url, **options}))
        try:
            await store.ping()
        finally:
            await store.close()

    known = {"username": "worker", "password": PASSWORD, "ssl_ca": str(tls.authority)}
    asyncio.run(ping(**known))
    for wrong in ({"password": "guess-17"}, {"username": "stranger"}, {"ssl_ca": ""}):
        with pytest.raises(RecsysError) as caught:
            asyncio.run(ping(**known | wrong))
        assert "guess-17" not in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECSYS_KAFKA__SASL_PASSWORD", "RECSYS_REDIS__PASSWORD", "RECSYS_LOG__KEY", "RECSYS_PRIVACY__KEY"):
        monkeypatch.setenv(name, "hidden-word, long enough")
    monkeypatch.setenv("REDIS_URL", "redis://u:hidden-word@127.0.0.1:6379/0")
    shown = CliRunner().invoke(show_settings, env={"COLUMNS": "200"}).output
    assert "sasl_password" in shown
    assert "hidden-word" not in shown
    assert "hidden-word" not in repr([load_settings().kafka, load_settings().log, load_settings().privacy])


@pytest.mark.parametrize("url", ["redis://:hid/den@127.0.0.1:6379/0", "redis://:hid#den@127.0.0.1:6379/0"])
def test_an_address_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="%2F") as caught:
        Store(RedisSettings(url=url))
    assert "hid" not in str(caught.value).replace("in a password", "")


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("kafka", {"security_protocol": "SASL_SSL"}, "needs sasl_username"),
        ("redis", {"ssl_ca": "ca.pem"}, "rediss://"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(section: str, values: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings({section: values})


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    settings = KafkaSettings(security_protocol="SSL", ssl_ca=str(tmp_path / "absent.pem"))
    for options in (aiokafka_options, librdkafka_options):
        with pytest.raises(SettingsError, match=r"kafka\.ssl_ca: .*absent\.pem: no such file"):
            options(settings)
    with pytest.raises(SettingsError, match=r"redis\.ssl_ca: .*absent\.pem: no such file"):
        Store(RedisSettings(url="rediss://127.0.0.1:6379", ssl_ca=str(tmp_path / "absent.pem")))
    (tmp_path / "absent.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match="not PEM files that fit"):
        librdkafka_options(settings)
