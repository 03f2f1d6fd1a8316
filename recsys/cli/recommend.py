"""The command ``recommend``: sessions in, ranked items out, as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from recsys.cli.options import InputFile

if TYPE_CHECKING:
    from recsys.bundle import Model

BATCH = 256


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("sessions", type=InputFile("rb"), default="-")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Items in each answer.")
@click.option("--exclude-seen", is_flag=True, help="Leave out the items of the session.")
def recommend(model: Path, sessions: IO[bytes], limit: int, exclude_seen: bool) -> None:
    """Recommend items after sessions, offline.

    MODEL is a model directory, a bundle, or a directory of bundles. SESSIONS is a file, by default standard input.
    JSON lines come in, and JSON lines go out.

    \b
    Example:
      echo '{"id": 1, "session": ["sku-00001", "sku-00002"]}' | recsys recommend bundles --limit 5
      {"id":1,"items":[{"item_id":"sku-00042","score":7.1}, ...],"source":"session"}

    A click of a session is an item id, or {"item_id": ..., "timestamp": ...}; with timestamps, the last session counts.
    Of a long session the newest clicks count, as many as the setting api.max_session_items says (200 by default).
    Other fields of a line come back in its answer. A session of which the model knows no item gets popular items.
    """
    import sys

    from threadpoolctl import threadpool_limits

    from recsys.published import load_model
    from recsys.settings_in_force import load_settings

    threadpool_limits(1)
    most = load_settings().api.max_session_items
    for line in answers(load_model(model), sessions, limit, exclude_seen, most):
        sys.stdout.buffer.write(line + b"\n")


def answers(model: Model, lines: IO[bytes], limit: int, exclude_seen: bool, most: int) -> Iterator[bytes]:
    """The answer to each line; of a session the newest ``most`` clicks count.

    Raises:
        InputError: names the line that holds no session.
    """
    import numpy as np
    import orjson

    from recsys.scoring.scorer import Scorer
    from recsys.state import session_at_once

    scorer, ids, rule = Scorer(model.weights), model.vocabulary.ids, model.description.sessions.rule
    popular = np.argsort(-model.vocabulary.counts, kind="stable")[:limit]
    for batch in _batches(_read(model, lines, most)):
        rows = [session_at_once(clicks, rule) for _, clicks in batch]
        hidden = scorer.advance(scorer.start(len(rows)), rows)
        tops = scorer.top_k(hidden, limit, [np.array(seen if exclude_seen else [], np.int32) for seen in rows])
        for (fields, _), known, (best, scores) in zip(batch, rows, tops, strict=True):
            items: list[dict[str, Any]] = (
                [
                    {"item_id": ids[row], "score": round(float(score), 4)}
                    for row, score in zip(best, scores, strict=True)
                ]
                if known
                else [{"item_id": ids[row]} for row in popular]
            )
            yield orjson.dumps({**fields, "items": items, "source": "session" if known else "popular"})


Session = tuple[dict[str, Any], list[tuple[int | None, int]]]


def _read(model: Model, lines: IO[bytes], most: int) -> Iterator[Session]:
    """Each line's other fields and the newest of its clicks as (time, row)."""
    import orjson

    from recsys.errors import EventError, InputError
    from recsys.events import identifier, parse_timestamp

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = orjson.loads(line)
            session = fields.pop("session")
            if not isinstance(session, list):
                raise TypeError
            clicks = [each if isinstance(each, dict) else {"item_id": each} for each in session]
            times = [None if each.get("timestamp") is None else parse_timestamp(each["timestamp"]) for each in clicks]
            rows = [model.vocabulary.row(identifier("item_id", each.get("item_id"))) for each in clicks]
        except orjson.JSONDecodeError as error:
            raise InputError(f"{lines.name}: line {number}: not a JSON value: {error}") from None
        except EventError as error:
            raise InputError(f"{lines.name}: line {number}: {error}") from None
        except (AttributeError, KeyError, TypeError):
            raise InputError(
                f'{lines.name}: line {number}: must be like {{"session": ["item", {{"item_id": "item"}}]}}'
            ) from None
        places = [index if time is None else time for index, time in enumerate(times)]
        order = sorted(range(len(rows)), key=places.__getitem__)
        yield fields, [(times[index], rows[index]) for index in order[-most:]]


def _batches(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    batch: list[Session] = []
    for session in sessions:
        batch.append(session)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
