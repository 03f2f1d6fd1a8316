"""Which files hold the clicks, in which format, and which of their columns mean what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import InputError, MissingInputError
from recsys.logs import avro
from recsys.logs.delimited import header_of
from recsys.logs.files import LOCAL, Files, Found
from recsys.pseudonyms import KEY_METADATA

Format = Literal["csv", "jsonl", "parquet", "avro"]

FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "timestamp": "timestamp",
    "event_type": "event_type",
    "event_id": "event_id",
    "session": "session_id",
}
# Names that mean a field when no option says otherwise, best first. A session column is never assumed.
USUAL_NAMES = {
    "user_id": ("user_id", "visitor_id", "visitorid", "user", "session_id"),
    "item_id": ("item_id", "itemid", "product_id", "item"),
    "timestamp": ("timestamp", "event_time", "time", "ts"),
    "event_type": ("event_type", "event"),
    "event_id": ("event_id",),
}
OPTIONAL = ("event_type", "event_id")
_HEAD_BYTES = 1 << 16
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET = b"PAR1"


@dataclass(frozen=True)
class OpenFile:
    """A file being read: ``stream`` gives its bytes decompressed."""

    raw: pa.NativeFile
    stream: pa.NativeFile

    @property
    def position(self) -> int:
        """How many bytes of the file itself have been read."""
        position: int = self.raw.tell()
        return position


@dataclass(frozen=True)
class Layout:
    """What files do not say themselves, as far as it is known.

    Attributes:
        header: the names of the columns of CSV files without a first line that says so.
        delimiter: between the fields of CSV files.
        events: the key under which each JSON object holds a list of events; fields beside it are those of all of them.
    """

    header: tuple[str, ...] = ()
    delimiter: str = ""
    events: str = ""


@dataclass(frozen=True)
class Source:
    """One file of clicks.

    Attributes:
        name: the path as the user will read it.
        size: bytes on disk.
        compression: of the whole file: ``gzip``, ``zstd`` or none.
        columns: the file's column for each event field that it has.
        header: all columns, in order (CSV only).
        headless: no line of the file says so.
        events: as in :class:`Layout` (JSON lines only).
        key: what the key is called by which the user ids are hashed already (Parquet that says so).
        files: opens it.
    """

    name: str
    size: int
    format: Format
    compression: str | None
    columns: Mapping[str, str]
    header: tuple[str, ...] = ()
    delimiter: str = ","
    headless: bool = False
    events: str = ""
    key: str | None = None
    files: Files = LOCAL

    @contextmanager
    def open(self) -> Iterator[OpenFile]:
        """The file as a stream of decompressed bytes."""
        with self.files.open(self.name) as raw:
            yield OpenFile(raw, pa.CompressedInputStream(raw, self.compression) if self.compression else raw)


def find_sources(
    inputs: Sequence[str], mapping: Mapping[str, str], layout: Layout | None = None, files: Files = LOCAL
) -> list[Source]:
    """The files that ``inputs`` (files, globs, directories) name; ``mapping`` gives columns for event fields.

    Empty files are left out.

    Raises:
        MissingInputError: an input names no file, or all files are empty.
        InputError: a file is binary, damaged, or lacks a column that is needed.
    """
    found = dict(file for name in inputs for file in _files(name, files))
    layout = layout or Layout()
    inspected = [_inspect(name, size, mapping, layout, files) for name, size in found.items() if size]
    sources = [source for source in inspected if source is not None]
    if not sources:
        raise MissingInputError(f"no clicks: {', '.join(inputs)}: every file is empty")
    return sources


def parse_mapping(options: Sequence[str]) -> dict[str, str]:
    """``field=column`` options as a mapping from event fields to columns.

    Raises:
        ValueError: says which option is wrong and which fields there are.
    """
    mapping = {}
    for option in options:
        field, equals, column = option.partition("=")
        if field not in FIELDS or not equals or not column:
            raise ValueError(f"{option!r} is not FIELD=COLUMN with FIELD one of {', '.join(FIELDS)}")
        mapping[FIELDS[field]] = column
    return mapping


def _files(name: str, files: Files) -> list[Found]:
    found = files.find(name)
    if not found:
        raise MissingInputError(f"{name}: no such file, directory or glob, or nothing in it")
    return found


def _inspect(name: str, size: int, mapping: Mapping[str, str], layout: Layout, files: Files) -> Source | None:
    """The source that a file is; ``None`` when nothing is left of it after decompression."""
    suffixes = PurePath(name).suffixes
    with files.open(name) as file:
        start = file.read(4)
        file.seek(0)
        if start == _PARQUET or suffixes[-1:] in ([".parquet"], [".pq"]):
            names, key = _parquet_columns(name, file)
            return Source(name, size, "parquet", None, _resolve(name, names, mapping), key=key, files=files)
        if start == avro.MAGIC:
            return Source(name, size, "avro", None, _resolve(name, avro.names(name, file), mapping), files=files)
        compression = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
        head = _head(name, file, compression)
    if not head.strip():
        return None
    if head.lstrip().startswith(b"{") or ".json" in "".join(suffixes[-2:]):
        columns = _json_columns(name, _json_keys(head, layout.events), mapping)
        return Source(name, size, "jsonl", compression, columns, events=layout.events, files=files)
    header, delimiter = header_of(name, head, layout.header, layout.delimiter)
    columns = _resolve(name, header, mapping)
    headless = bool(layout.header)
    return Source(name, size, "csv", compression, columns, header, delimiter, headless=headless, files=files)


def _head(name: str, file: pa.NativeFile, compression: str | None) -> bytes:
    """The first bytes of a text, decompressed."""
    try:
        stream = pa.CompressedInputStream(file, compression) if compression else file
        head: bytes = stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error}") from None
    return head


def _parquet_columns(name: str, file: pa.NativeFile) -> tuple[list[str], str | None]:
    """The names of the columns, and what the key is called by which user ids are hashed."""
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name}: not a Parquet file, or damaged: {error}") from None
    names = list(schema.names)
    if len(set(names)) != len(names):
        raise InputError(f"{name}: the schema names a column twice: {', '.join(names)}")
    return names, key_in(schema)


def key_in(schema: pa.Schema) -> str | None:
    """What the key is called by which the user ids of a Parquet file are hashed; None: they are in clear."""
    key = (schema.metadata or {}).get(KEY_METADATA)
    return None if key is None else str(key.decode())


def _json_keys(head: bytes, events: str) -> list[str]:
    """The keys of the objects among the first lines, and of the events in them."""
    keys: dict[str, None] = {}
    for line in head.splitlines():
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            keys |= dict.fromkeys(value)
            inner = value.get(events, []) if events else []
            for event in inner if isinstance(inner, list) else []:
                keys |= dict.fromkeys(event) if isinstance(event, dict) else {}
    return list(keys)


def _json_columns(file: str, names: list[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The key for each event field. Objects need not have what is optional, so that the first ones may lack it."""
    if not names:
        return _with_unseen(mapping, USUAL_NAMES)
    later = [mapping[field] for field in OPTIONAL if field in mapping]
    return _with_unseen(_resolve(file, [*names, *later], mapping), OPTIONAL)


def _with_unseen(columns: Mapping[str, str], fields: Iterable[str]) -> dict[str, str]:
    """The mapping with the usual names of ``fields`` that the first objects lack: later ones may have them."""
    taken = set(columns.values())
    return {field: USUAL_NAMES[field][0] for field in fields if USUAL_NAMES[field][0] not in taken} | dict(columns)


def _resolve(file: str, names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The file's column for each event field."""
    for field, column in mapping.items():
        if column not in names:
            raise InputError(f"{file}: no column '{column}' for {field}; the columns are: {', '.join(names)}")
    columns = dict(mapping)
    taken = set(mapping.values())
    for field, usual in USUAL_NAMES.items():
        if field not in columns and (found := _usual(usual, [name for name in names if name not in taken])):
            columns[field] = found
    for option, field in FIELDS.items():
        missing = field not in columns and field in ("user_id", "item_id", "timestamp")
        if missing and not (field == "user_id" and "session_id" in columns):
            clicks = any(name.replace(".", "").isdecimal() for name in names)
            raise InputError(
                f"{file}: no column for {field} (looked for {', '.join(USUAL_NAMES[field])}); the columns are: "
                f"{', '.join(names)}; name it with --column {option}=COLUMN"
                + (", or all of them with --header, if the first line is a click" if clicks else "")
            )
    return columns


def _usual(usual: Sequence[str], names: Sequence[str]) -> str:
    """The first usual name among ``names``, else one that differs in case and signs alone (``User ID``)."""
    exact = next((name for name in usual if name in names), "")
    plain = {_plain(name): name for name in reversed(names)}
    return exact or next((plain[_plain(name)] for name in usual if _plain(name) in plain), "")


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
