"""The commands of the stream: ``worker``, ``replay`` and ``services``."""

from __future__ import annotations

import click

from recsys.cli.ctrl_c import ends_at_ctrl_c
from recsys.cli.logs import LogFlags, with_log_flags
from recsys.cli.options import MOMENT, FiniteRange, with_settings
from recsys.events import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from recsys.settings import Settings


@click.command()
@with_settings("bundles", "worker", "trend", "kafka", "redis", "log")
def worker(settings: Settings) -> None:
    """Advance users' states and lists, click by click.

    \b
    Example:
      recsys worker --bundles bundles --kafka-bootstrap-servers 127.0.0.1:9092 --redis-url redis://127.0.0.1:6379/0

    SIGTERM or Ctrl-C finishes the batch in hand and ends with code 0. When the broker or the store stays away for
    longer than --retry-seconds, the worker ends with code 69 and nothing is lost: let a supervisor start it again.
    """
    import logging
    import os

    from recsys.service_log import start_logging

    os.environ.setdefault("FAUST_LOOP", "uvloop")
    start_logging(settings.log)
    logging.getLogger("stream.transport").setLevel(logging.WARNING)  # Faust tells each start and stop there

    with ends_at_ctrl_c():
        import uvloop

        from stream.worker import run

    uvloop.run(run(settings))


@click.command()
@with_settings("kafka")
def services(settings: Settings) -> None:
    """Run an embedded broker and store, for development.

    \b
    Example:
      recsys services
      # in another terminal, after pasting the two export lines it prints:
      recsys worker & recsys api

    Both speak the real protocols, and both forget everything when they stop. When one is gone, so is the other, and
    the command ends with code 69.
    """
    import signal
    import sys
    from urllib.parse import urlsplit

    from recsys.console import console, output
    from stream.embedded import embedded_broker, embedded_store, stay_up

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    topics = (settings.kafka.topic, settings.kafka.dead_letter_topic)
    with embedded_broker(topics) as broker, embedded_store() as store:
        output.print(f"export KAFKA_BOOTSTRAP_SERVERS={broker}", soft_wrap=True)
        output.print(f"export REDIS_URL={store}", soft_wrap=True)
        sys.stdout.flush()
        console.print("services: up until Ctrl-C")
        stay_up(broker, urlsplit(store).netloc)


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@with_log_flags
@click.option(
    "--since",
    type=MOMENT,
    default=MIN_TIMESTAMP_MS,
    help="Begin with clicks of this time (date, RFC 3339 or epoch ms).",
)
@click.option("--until", type=MOMENT, default=MAX_TIMESTAMP_MS, help="End before clicks of this time.")
@click.option("--rate", type=FiniteRange(min=0, min_open=True), help="Clicks a second.")
@click.option("--speed", type=FiniteRange(min=0, min_open=True), help="Or: times as fast as they came.")
@click.option("--seconds", type=FiniteRange(min=0, min_open=True), help="Stop after this long.")
@with_settings("kafka")
def replay(
    settings: Settings,
    inputs: tuple[str, ...],
    log: LogFlags,
    since: int,
    until: int,
    rate: float | None,
    speed: float | None,
    seconds: float | None,
) -> None:
    """Send a click log into Kafka, as if it came now.

    \b
    Example:
      recsys replay clicks.csv.gz --since 2025-03-10 --rate 200
      recsys replay clicks.csv.gz --speed 1 --seconds 60

    Clicks go in the order of their times; without --rate and --speed, as fast as the broker takes them. Files,
    columns and times are as for recsys sessions. Prints one JSON object: how many clicks were sent, and the time
    from which a further replay would go on.
    """
    import time
    from dataclasses import asdict

    import orjson

    from recsys.console import console, progress
    from recsys.logs.sources import find_sources
    from stream.replay import ClickLog, Pace
    from stream.replay import replay as send

    if rate is not None and speed is not None:
        raise click.UsageError("--rate and --speed exclude each other")
    reading = log.reading(time.time_ns() // 1_000_000, round(settings.worker.max_future_seconds * 1000))
    sources = find_sources(inputs, reading.mapping, reading.layout)
    with console.status("reading clicks"):
        clicks = ClickLog(sources, reading.clock, since, until)
    if clicks.unusable:
        console.print(f"{clicks.unusable:,} lines are no clicks and were left out (recsys sessions says why)")
    with progress() as display:
        task = display.add_task("sending clicks", total=len(clicks), note="")
        sent = send(clicks, settings.kafka, Pace(rate, speed, seconds), lambda: display.advance(task))
    if sent.left_out:
        console.print(f"{sent.left_out:,} clicks nest too deep to be written as JSON and were left out")
    click.echo(orjson.dumps(asdict(sent)))
