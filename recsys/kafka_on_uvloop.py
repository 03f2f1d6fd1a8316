"""aiokafka on uvloop: a request on a connection that has just broken fails as aiokafka expects.

The transports of asyncio take such a write in silence. Those of uvloop raise a ``RuntimeError``, which aiokafka does
not catch (its issue 1038): its background tasks die of it, and the process lives on without them. A consumer is then no
longer a member of its group, and a producer sends nothing more.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def mend_connections() -> None:
    """Let each connection of this process raise ``KafkaConnectionError`` instead; may be called again."""
    send = AIOKafkaConnection.send
    if hasattr(send, "__wrapped__"):
        return

    @wraps(send)
    def mended(connection: AIOKafkaConnection, *args: Any, **kwargs: Any) -> Any:
        try:
            return send(connection, *args, **kwargs)
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} broken: {error}") from error

    AIOKafkaConnection.send = mended
