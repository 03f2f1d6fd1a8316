"""A request on a connection that has just broken is a connection error, on uvloop too."""

from __future__ import annotations

import asyncio

import uvloop
from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from recsys.kafka_on_uvloop import mend_connections


def test_a_request_on_a_connection_that_has_just_broken(broker: str) -> None:
    async def send() -> object:
        client = AIOKafkaClient(bootstrap_servers=broker)
        await client.bootstrap()
        connection = await client._get_conn(client.get_random_node())
        connection._writer.transport.abort()
        await asyncio.sleep(0)  # it is closed, and aiokafka has not noticed yet
        try:
            return connection.send(MetadataRequest([]))
        except Exception as error:
            return error
        finally:
            await client.close()

    mend_connections()
    mend_connections()
    assert isinstance(uvloop.run(send()), KafkaConnectionError)
