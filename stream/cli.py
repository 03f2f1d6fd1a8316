"""The commands of the stream: ``worker``, ``replay`` and ``services``."""

from __future__ import annotations

import click

from recsys.cli.options import with_settings
from recsys.settings import Settings


@click.command()
@with_settings("bundles", "worker", "kafka", "redis")
def worker(settings: Settings) -> None:
    """Advance users' states and lists, click by click, until stopped.

    \b
    Example:
      recsys worker --bundles bundles --kafka-bootstrap-servers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/0

    SIGTERM or Ctrl-C finishes the batch in hand and ends with code 0. When the broker or the store stays away for
    longer than --retry-seconds, the worker ends with code 69 and nothing is lost: let a supervisor start it again.
    """
    import logging
    import os

    os.environ.setdefault("FAUST_LOOP", "uvloop")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    for name in ("recsys", "stream"):
        logging.getLogger(name).setLevel(logging.INFO)

    import uvloop

    from stream.worker import run

    uvloop.run(run(settings))


@click.command()
@with_settings("kafka")
def services(settings: Settings) -> None:
    """Run an embedded broker and store on this machine, for development, until stopped.

    \b
    Example:
      recsys services
      # in another terminal, after pasting the two export lines it prints:
      recsys worker & recsys api

    Both speak the real protocols, and both forget everything when they stop.
    """
    import signal
    import sys

    from recsys.console import console, output
    from stream.embedded import embedded_broker, embedded_store

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    topics = (settings.kafka.topic, settings.kafka.dead_letter_topic)
    with embedded_broker(topics) as broker, embedded_store() as store:
        output.print(f"export KAFKA_BOOTSTRAP_SERVERS={broker}", soft_wrap=True)
        output.print(f"export REDIS_URL={store}", soft_wrap=True)
        sys.stdout.flush()
        console.print("services: up until Ctrl-C")
        signal.pause()
