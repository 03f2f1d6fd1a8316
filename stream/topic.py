"""Which topic it is that bears the name: one deleted and created anew begins its offsets again.

Kafka gives every topic an id of its own, and the store numbers the ids in the order in which workers have met them. The
number goes into the epoch of positions, so that old offsets hide no new click, and into the consumer group, so that
what a worker of the old topic may still commit skips none.
"""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from recsys.errors import UnavailableError
from recsys.kafka import librdkafka_options
from recsys.settings import KafkaSettings, Settings
from recsys.store import Store

REQUEST_SECONDS = 2.0  # a worker that is asked to stop waits for the request under way
START_SECONDS = 10.0
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # what brokers older than ids say


class Topic:
    """The click topic, as the broker knows it."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._name = kafka.topic
        self._address = kafka.bootstrap_servers
        self._admin = AdminClient(librdkafka_options(kafka))

    async def identity(self, seconds: float = REQUEST_SECONDS) -> str | None:
        """The topic's id; None where there is no such topic, or no ids, as with the embedded broker.

        Raises:
            UnavailableError: the broker does not answer.
        """
        return await asyncio.to_thread(self.ask_identity, seconds)

    def ask_identity(self, seconds: float = REQUEST_SECONDS) -> str | None:
        """The same, where there is no loop to wait in."""
        try:
            cluster = self._admin.list_topics(self._name, timeout=seconds)
            if cluster.controller_id not in cluster.brokers:  # which would be asked: the embedded broker has none
                return None
            asked = self._admin.describe_topics(TopicCollection([self._name]), request_timeout=seconds)
            identity = str(asked[self._name].result(2 * seconds).topic_id)
            return None if identity == _NO_ID else identity
        except TimeoutError:
            raise UnavailableError(f"the broker at {self._address} does not describe {self._name} in time") from None
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise UnavailableError(f"the broker at {self._address} does not answer: {reason.str()}") from None


async def number_of(topic: Topic, store: Store, seconds: float = REQUEST_SECONDS) -> int | None:
    """How many topics of this name came before, as far as workers have met them; None where it has no id.

    Raises:
        UnavailableError: the broker or the store does not answer.
    """
    identity = await topic.identity(seconds)
    return None if identity is None else await store.topic_number(identity)


def settle(settings: Settings, number: int) -> Settings:
    """The settings of a worker that reads the topic of this number: it is in the epoch and in the group's name."""
    if not number:
        return settings
    worker = settings.worker.model_copy(update={"epoch": settings.worker.epoch + number})
    kafka = settings.kafka.model_copy(update={"group": f"{settings.kafka.group}.{number}"})
    return settings.model_copy(update={"worker": worker, "kafka": kafka})
