"""The whole streaming job: from the click topic to the directory of closed sessions."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import orjson
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.live.arrivals import Intake
from pipelines.live.closed_files import read_counts
from pipelines.live.pipeline import Streaming, close_sessions
from pipelines.live.topic import ReadClicks, read_until_now
from pipelines.runner import LOCAL_RUNNER, names_a_runner, options_of, run_pipeline
from recsys.errors import RecsysError, SettingsError
from recsys.files import write_atomically
from recsys.pseudonyms import Pseudonyms
from recsys.reading import read_ends
from recsys.settings import Settings

BEGUN = "_begun.json"
HOUR_MS, MINUTE_MS = 3_600_000, 60_000
FOREVER_MS = 1 << 42  # a tick that comes once
# Flink else holds back at a checkpoint what was read, and the end of the list of partitions, as a watermark, may
# overtake it: time would be over, and no session ever closed.
ENDLESS = ("--streaming", "--finish_bundle_before_checkpointing")


@dataclass(frozen=True)
class StreamRequest:
    """What to close: the topic that ``settings`` name goes to ``out``, until stopped or ``until_now``.

    ``resume`` goes on in a directory that is there, from the state that the runner has kept.
    """

    out: Path
    settings: Settings
    until_now: bool = False
    resume: bool = False
    beam_flags: Sequence[str] = ()


def stream_sessions(request: StreamRequest) -> dict[str, int]:
    """Run the job; what became of all records comes back.

    Raises:
        RecsysError: ``out`` holds something, and nothing is to be resumed.
        UnavailableError: the broker does not answer, or has no such topic; or the cluster does not do its work.
        SettingsError: the broker's certificates cannot be read, ``out`` was begun with other settings, or Beam has no
            such runner or flag.
    """
    settings = request.settings
    held = request.out.iterdir() if request.out.is_dir() else ()
    if not request.resume and any(each.name != BEGUN for each in held):
        raise RecsysError(f"{request.out} holds something: choose another directory, or pass --resume")
    ends = read_ends(settings.kafka, settings.kafka.topic)
    request.out.mkdir(parents=True, exist_ok=True)
    pseudonyms = Pseudonyms.of_settings(settings.privacy)
    intake = Intake(settings.streaming.shards, round(settings.worker.max_future_seconds * 1000), pseudonyms)
    closing = _closing(request, pseudonyms)
    _agree(request, closing)

    def build(pipeline: beam.Pipeline) -> None:
        parts = pipeline | "Partitions" >> beam.Create(
            [(partition, *place) for partition, place in ends.items()], reshuffle=False
        )
        if request.until_now:
            arrivals = parts | "Read" >> beam.FlatMap(read_until_now, settings.kafka, intake)
        else:
            arrivals = parts | "Read" >> beam.ParDo(ReadClicks(settings.kafka, intake))
        close_sessions(arrivals, closing)

    run_pipeline(_options(request), build)
    return read_counts(request.out)


def _closing(request: StreamRequest, pseudonyms: Pseudonyms | None) -> Streaming:
    """How sessions are closed, by the settings."""
    streaming = request.settings.streaming
    return Streaming(
        out=request.out.absolute(),
        run=f"{time.time_ns() // 1_000_000:013x}",
        gap_ms=request.settings.sessions.rule.gap_ms,
        lateness_ms=round(streaming.allowed_lateness_minutes * MINUTE_MS),
        remember_ms=round(streaming.remember_ids_hours * HOUR_MS),
        # What ends is closed at its end, all at once.
        tick_ms=FOREVER_MS if request.until_now else round(streaming.close_every_minutes * MINUTE_MS),
        key=pseudonyms.key if pseudonyms else None,
    )


def _agree(request: StreamRequest, closing: Streaming) -> None:
    """Note by which settings ``out`` is begun, or refuse others: the state that a runner has kept would not fit them.

    Raises:
        SettingsError: names the setting.
    """
    settings, path = request.settings, request.out / BEGUN
    now = {
        "kafka.topic": settings.kafka.topic,
        "sessions.gap_minutes": settings.sessions.gap_minutes,
        "streaming.shards": settings.streaming.shards,
        "privacy.key": closing.key,
    }
    if request.resume and path.exists():
        for name, before in orjson.loads(path.read_bytes()).items():
            if now[name] != before:
                raise SettingsError(f"settings: {name}: is {now[name]}, but {request.out} was begun with {before}")
    write_atomically(path, orjson.dumps(now))


def _options(request: StreamRequest) -> PipelineOptions:
    """Beam's options: what ends may run in this process."""
    if names_a_runner(request.beam_flags):
        return options_of([*(() if request.until_now else ENDLESS), *request.beam_flags])
    return options_of([f"--runner={LOCAL_RUNNER}", *request.beam_flags])
