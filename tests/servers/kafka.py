"""Apache Kafka 4 on this machine: one KRaft node, broker and controller in one process.

``python -m tests.servers.kafka`` runs one until Ctrl-C and prints its address.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from recsys.settings import KafkaSettings
from stream.embedded import free_port
from tests.servers.jars import jars_of, java
from tests.servers.process import Server, run_until_stopped
from tests.servers.redis import Tls

KAFKA = "4.1.0"  # as in deploy/compose.yaml
SLF4J = "1.7.36"  # what Kafka brings of the interface
PARTITIONS = 8
REQUEST_SECONDS = 20
# Sessions are shorter than by default: tests wait for one to end after each kill of a worker or of the broker.
_PROPERTIES = """
node.id=1
process.roles=broker,controller
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:{protocol},CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""
_SECURED = """
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.broker.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  username="{user}" password="{password}" user_{user}="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
"""
_CLUSTER = "4L6g3nShT-eMCtK--X86sw"  # any UUID
_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts sooner, and leaves the cores to what is tested
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


@dataclass(frozen=True)
class Login:
    """The one user of a broker that speaks SASL_SSL with the mechanism PLAIN, and the broker's own files."""

    user: str
    password: str
    tls: Tls


class Kafka(Server):
    """A broker with a data directory of its own, which outlives ``stop`` and ``kill``; with ``login`` it wants one.

    Raises:
        AbsentError: Java 17 or Kafka's jars are not to be had here.
    """

    def __init__(self, directory: Path, login: Login | None = None) -> None:
        self._java = java()
        self._jars = jars_of(
            f"kafka-{KAFKA}", f"org.apache.kafka:kafka_2.13:{KAFKA}", f"org.slf4j:slf4j-simple:{SLF4J}"
        )
        super().__init__(directory)
        self.address = f"127.0.0.1:{self.port}"
        options = {"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 100}
        self.admin = AdminClient({**options, **(_client(login) if login else {})})
        self._properties = directory / "server.properties"
        protocol = "SASL_SSL" if login else "PLAINTEXT"
        ports = {"port": self.port, "controller": free_port()}
        properties = _PROPERTIES.format(**ports, protocol=protocol, data=directory / "data")
        self._properties.write_text(properties + (_secured(login, directory) if login else ""))
        format_storage = ["kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER, "--config"]
        subprocess.run(self._run(*format_storage, str(self._properties)), check=True, capture_output=True)

    def command(self) -> list[str]:
        """Java with Kafka's main class."""
        return self._run("kafka.Kafka", str(self._properties))

    def answers(self) -> bool:
        """Whether the broker names itself."""
        try:
            return bool(self.admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def create_topic(self, name: str, partitions: int = PARTITIONS) -> None:
        """Create a topic; it is there on return."""
        self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result(REQUEST_SECONDS)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and all its records."""
        self.admin.delete_topics([name])[name].result(REQUEST_SECONDS)

    def grow_topic(self, name: str, partitions: int) -> None:
        """Raise a topic's number of partitions."""
        self.admin.create_partitions([NewPartitions(name, partitions)])[name].result(REQUEST_SECONDS)

    def _run(self, *arguments: str) -> list[str]:
        return [self._java, *_JVM, "-cp", f"{self._jars}/*", *arguments]


def _secured(login: Login, directory: Path) -> str:
    """Properties of a broker that wants a login."""
    keystore = directory / "keystore.pem"
    keystore.write_text(login.tls.key.read_text() + login.tls.certificate.read_text())
    return _SECURED.format(user=login.user, password=login.password, keystore=keystore, authority=login.tls.authority)


def _client(login: Login) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": login.user,
        "sasl.password": login.password,
        "ssl.ca.location": str(login.tls.authority),
    }


def _with_topics(kafka: Kafka) -> str:
    """Create the worker's topics; the setting by which it finds the broker comes back."""
    for topic in (KafkaSettings().topic, KafkaSettings().dead_letter_topic):
        kafka.create_topic(topic)
    return f"export KAFKA_BOOTSTRAP_SERVERS={kafka.address}"


if __name__ == "__main__":
    run_until_stopped(Kafka, _with_topics)
