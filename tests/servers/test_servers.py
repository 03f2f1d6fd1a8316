"""The servers keep what was written through a kill, and what is absent is named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.servers.jars import java
from tests.servers.kafka import Kafka
from tests.servers.presence import where_present
from tests.servers.process import AbsentError, find_program
from tests.servers.redis import EmbeddedRedis, Redis, Tls


@pytest.mark.parametrize("kind", [Redis, EmbeddedRedis])
def test_a_durable_store_outlives_a_kill(kind: type[Redis], tmp_path: Path) -> None:
    with where_present():
        made = kind(tmp_path, durable=True)
    with made as server:
        redis.Redis.from_url(server.url).set("key", "value")
        url = server.url
        server.kill()
        assert not server.answers()
        server.start()
        assert server.url == url
        assert redis.Redis.from_url(url).get("key") == b"value"


def test_redis_speaks_tls_knows_users_and_has_a_bound(tmp_path: Path) -> None:
    with where_present():
        openssl = find_program("openssl")
        find_program("redis-server")
    certificate, key, users = tmp_path / "certificate.pem", tmp_path / "key.pem", tmp_path / "users.acl"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
    subprocess.run(request, check=True, capture_output=True)
    users.write_text("user default off\nuser worker on >secret ~recsys:* +@all\n")
    tls = Tls(certificate, key, certificate)
    with Redis(tmp_path / "redis", tls=tls, acl_file=users, maxmemory="50mb") as server:
        url = server.url.replace("//", "//worker:secret@")
        client = redis.Redis.from_url(url, ssl_ca_certs=str(certificate))
        assert client.set("recsys:key", "value")
        assert client.info("memory")["maxmemory"] == 50 * 2**20
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.set("other", "value")
        with pytest.raises(redis.exceptions.AuthenticationError):
            redis.Redis.from_url(server.url, ssl_ca_certs=str(certificate)).ping()
        with pytest.raises(redis.exceptions.ConnectionError):
            redis.Redis.from_url(url.replace("rediss:", "redis:"), socket_timeout=5).ping()


def test_kafka_keeps_topics_records_and_address_through_a_kill(tmp_path: Path) -> None:
    with where_present():
        made = Kafka(tmp_path)
    with made as kafka:
        kafka.create_topic("clicks", 3)
        producer = Producer({"bootstrap.servers": kafka.address, "acks": "all"})
        producer.produce("clicks", value=b"before", partition=2)
        assert producer.flush(20) == 0
        kafka.kill()
        assert not kafka.answers()
        kafka.start()
        kafka.grow_topic("clicks", 5)
        reader = Consumer({"bootstrap.servers": kafka.address, "group.id": "reader"})
        reader.assign([TopicPartition("clicks", 2, 0)])
        message = reader.poll(20)
        assert message is not None
        assert message.value() == b"before"
        assert len(reader.list_topics("clicks", timeout=20).topics["clicks"].partitions) == 5
        reader.close()


def test_the_command_runs_a_broker_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with where_present():
        Kafka(tmp_path)
    command = [sys.executable, "-m", "tests.servers.kafka"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip().removeprefix("export KAFKA_BOOTSTRAP_SERVERS=")
            reader = Consumer({"bootstrap.servers": address, "group.id": "reader"})
            deadline = time.monotonic() + 30
            while not {"clicks", "clicks.dead-letter"} <= set(reader.list_topics(timeout=20).topics):
                assert time.monotonic() < deadline  # a topic is told of some time after it is made
                time.sleep(0.1)
            reader.close()
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_a_program_that_is_absent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AbsentError, match="redis-server is not installed"):
        Redis(tmp_path / "redis")
    with pytest.raises(AbsentError, match="java is not installed"):
        Kafka(tmp_path / "kafka")


@pytest.mark.parametrize(("word", "outcome"), [("require", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_absence_skips_a_test_or_fails_it(
    word: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_REAL", word)
    with pytest.raises(outcome, match="nothing is not installed"), where_present():
        find_program("nothing")


def test_a_java_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AbsentError, match="needs Java 17 or later"):
        java()
