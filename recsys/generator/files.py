"""Generated rows as CSV, JSON lines or Parquet, and the sidecar that lets the process be rebuilt.

A file is written aside and takes its name when it is whole.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from recsys.errors import InputError, MissingInputError, SettingsError
from recsys.files import write_atomically
from recsys.generator.bots import bot_numbers, with_bots
from recsys.generator.clicks import FAULTS, Rows, generate
from recsys.generator.process import EVENT_TYPES, Parameters, Process

FORMATS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
HEADER = b"user_id,item_id,timestamp,event_type,event_id,price,category\n"

Write = Callable[[Rows], None]
_NO_USER, _NO_ITEM, _NEGATIVE, _MICROSECONDS, _TEXT, _CUT_OFF = range(1, len(FAULTS))


def write(parameters: Parameters, out: Path, advance: Callable[[int], object] = lambda _: None) -> Path:
    """Generate the log into ``out`` and its process into the sidecar, whose path is returned.

    Args:
        parameters: what to generate.
        out: the format is told by the name: one of :data:`FORMATS`.
        advance: called with the number of rows in each chunk, to show progress.

    Raises:
        SettingsError: an unknown format, or parameters that cannot work.
    """
    beside = sidecar(out)
    process = Process(parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _staged(out) as staging, _writer(process, out.name, staging) as write_rows:
        for rows in with_bots(process, generate(process)):
            write_rows(rows)
            advance(len(rows))
    rows_of = {"bad": parameters.bad, "duplicate": parameters.duplicates, "late": parameters.late}
    names = user_ids(parameters)
    bots = [names[number] for number in bot_numbers(parameters)]
    description = {"parameters": parameters.model_dump(mode="json"), "rows": rows_of, "bots": bots}
    write_atomically(beside, orjson.dumps(description, option=orjson.OPT_INDENT_2))
    return beside


def sidecar(out: Path) -> Path:
    """Where the process of a log is described: ``clicks.csv.process.json`` for ``clicks.csv``.

    Raises:
        SettingsError: the name ends in no format that can be written.
    """
    if not any(out.name.endswith(suffix) and out.name != suffix for suffix in FORMATS):
        raise SettingsError(f"{out}: the name must end in one of {', '.join(FORMATS)}")
    return out.with_name(out.name + ".process.json")


def read_process(path: Path) -> Process:
    """The process that a sidecar describes.

    Raises:
        MissingInputError: no such file.
        InputError: the file is no sidecar, or of a process that this version does not know.
    """
    try:
        return Process(Parameters.model_validate(orjson.loads(path.read_bytes())["parameters"]))
    except FileNotFoundError:
        raise MissingInputError(f"{path}: no such file") from None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"{path}: not the description of a generated log: {error}") from None


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    staging = out.with_name(f".{out.name}.part")
    try:
        yield staging
        staging.replace(out)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def _writer(process: Process, name: str, path: Path) -> Iterator[Write]:
    """Writes rows to ``path`` in the format that ``name`` tells."""
    if name.endswith(".parquet"):
        with _parquet(process, path) as write_rows:
            yield write_rows
        return
    shop = _Names(process)
    lines = _json_lines if ".json" in name[-9:] else _csv_lines
    with path.open("wb") as raw, ExitStack() as stack:
        file: IO[bytes] = raw
        if name.endswith(".gz"):
            # No name and no time in the header: the same log gives the same bytes.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=5, mtime=0)
            file = cast(IO[bytes], stack.enter_context(packed))
        if lines is _csv_lines:
            file.write(HEADER)

        def write_rows(rows: Rows) -> None:
            file.write("".join(lines(rows, shop)).encode())

        yield write_rows


def user_ids(parameters: Parameters) -> list[str]:
    """The id of each user, shoppers and bots."""
    users = parameters.users + len(parameters.bot_clicks)
    width = max(5, len(str(users)))
    return [f"user-{number:0{width}d}" for number in range(1, users + 1)]


class _Names:
    """The shop's ids and prices as texts."""

    def __init__(self, process: Process) -> None:
        self.users = user_ids(process.parameters)
        self.items = process.item_ids
        self.categories = [f"category-{code:03d}" for code in process.category.tolist()]
        self.prices = [f"{price:.2f}" for price in process.prices.tolist()]


def _csv_lines(rows: Rows, shop: _Names) -> list[str]:
    return [_csv_line(*row, shop) for row in _tuples(rows)]


def _csv_line(user: int, item: int, time: int, kind: int, number: int, fault: int, shop: _Names) -> str:
    if fault == _CUT_OFF:
        return f"{shop.users[user]},{shop.items[item][:-2]}\n"
    user_id, item_id, timestamp = _fields(user, item, time, fault, shop)
    rest = f"{EVENT_TYPES[kind]},e{number:09d},{shop.prices[item]},{shop.categories[item]}"
    return f"{user_id},{item_id},{timestamp},{rest}\n"


def _json_lines(rows: Rows, shop: _Names) -> list[str]:
    return [_json_line(*row, shop) for row in _tuples(rows)]


def _json_line(user: int, item: int, time: int, kind: int, number: int, fault: int, shop: _Names) -> str:
    if fault == _CUT_OFF:
        return f'{{"user_id":"{shop.users[user]}","item_id":"{shop.items[item][:-2]}\n'
    user_id, item_id, timestamp = _fields(user, item, time, fault, shop)
    quoted = f'"{timestamp}"' if fault == _TEXT else timestamp
    context = f'{{"price":{shop.prices[item]},"category":"{shop.categories[item]}"}}'
    return (
        f'{{"user_id":"{user_id}","item_id":"{item_id}","timestamp":{quoted},'
        f'"event_type":"{EVENT_TYPES[kind]}","event_id":"e{number:09d}","context":{context}}}\n'
    )


def _fields(user: int, item: int, time: int, fault: int, shop: _Names) -> tuple[str, str, int | str]:
    """User id, item id and timestamp as they stand in the file."""
    if not fault:
        return shop.users[user], shop.items[item], time
    wrong: dict[int, int | str] = {_NEGATIVE: -time, _MICROSECONDS: time * 1000, _TEXT: "yesterday"}
    user_id, item_id = "" if fault == _NO_USER else shop.users[user], "" if fault == _NO_ITEM else shop.items[item]
    return user_id, item_id, wrong.get(fault, time)


def _tuples(rows: Rows) -> Iterator[tuple[int, int, int, int, int, int]]:
    columns = (rows.user, rows.item, rows.time, rows.type, rows.number, rows.fault)
    return zip(*(column.tolist() for column in columns), strict=True)


@contextmanager
def _parquet(process: Process, path: Path) -> Iterator[Write]:
    """As Parquet, whose typed columns hold nulls where text would hold a word or end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shop = _Names(process)
    users, items, types = pa.array(shop.users), pa.array(shop.items), pa.array(EVENT_TYPES)
    categories, prices = pa.array(shop.categories), pa.array(process.prices)
    text = pa.string()
    names = ["user_id", "item_id", "timestamp", "event_type", "event_id", "price", "category"]
    schema = pa.schema(list(zip(names, [text, text, pa.int64(), text, text, pa.float64(), text], strict=True)))

    def column(values: Any, of: NDArray[np.int64], missing: NDArray[np.bool_]) -> Any:
        return values.take(pa.array(of, mask=missing))

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def write_rows(rows: Rows) -> None:
            fault, whole = rows.fault, np.zeros(len(rows), np.bool_)
            times = np.where(
                fault == _NEGATIVE, -rows.time, np.where(fault == _MICROSECONDS, rows.time * 1000, rows.time)
            )
            columns = [
                column(users, rows.user, fault == _NO_USER),
                column(items, rows.item, (fault == _NO_ITEM) | (fault == _CUT_OFF)),
                pa.array(times, mask=(fault == _TEXT) | (fault == _CUT_OFF)),
                column(types, rows.type, whole),
                pa.array([f"e{number:09d}" for number in rows.number.tolist()], text),
                column(prices, rows.item, whole),
                column(categories, rows.item, whole),
            ]
            writer.write_table(pa.table(columns, schema))

        yield write_rows
