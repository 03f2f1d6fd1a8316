"""Dead letters: lines of logs that could not be used, written down, and tried again in the place of those lines."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import orjson

from recsys.columns import Clock
from recsys.errors import InputError
from recsys.logs.blocks import Block, Refused, read_blocks, text_block
from recsys.logs.files import LOCAL, Files
from recsys.logs.records import KEPT_BYTES, Oversized, Records
from recsys.logs.sources import Layout, Source, find_sources


class Letter(NamedTuple):
    """A line (from 1) of a file that was refused, and its text, which people may have mended since; None: withheld."""

    file: str
    line: int
    text: str | None


@dataclass(frozen=True)
class Retry:
    """A file of dead letters, and how the lines in it are to be read now."""

    name: str
    mapping: Mapping[str, str]
    layout: Layout
    clock: Clock


@dataclass(frozen=True)
class Letters:
    """The dead letters of one file of clicks: bytes ``start`` to ``end`` of the file ``name``.

    ``source`` and ``clock`` say how these lines are to be read now.
    """

    name: str
    start: int
    end: int
    source: Source
    clock: Clock

    def __iter__(self) -> Iterator[Letter]:
        """Each line once (one that holds several events may have several letters)."""
        line = 0
        with self.source.files.open(self.name) as stored:
            stored.seek(self.start)
            file = io.BufferedReader(stored)
            while file.tell() < self.end:
                letter = _letter(self.name, file.readline())
                if letter.line != line:
                    yield letter
                line = letter.line


def to_json(file: str, refused: Refused, *, nameless: bool = False) -> bytes:
    """A dead letter as a line of its file; one that is ``nameless`` quotes nothing, since the text may name a user."""
    place = {"file": file, "line": refused.line, "reason": refused.reason}
    quoted = {"detail": "", "text": None} if nameless else {"detail": refused.detail, "text": text_of(refused.text)}
    return orjson.dumps(place | quoted) + b"\n"


def find_letters(retry: Retry, sources: Sequence[Source], files: Files = LOCAL) -> dict[str, Letters]:
    """The dead letters of each file, by its name.

    Raises:
        InputError: some are no letters, are not in the order in which they were written, or of none of ``sources``.
    """
    places: dict[str, tuple[int, int]] = {}
    position, last = 0, Letter("", 0, "")
    with files.open(retry.name) as stored:
        for raw in io.BufferedReader(stored):
            letter = _letter(retry.name, raw)
            apart = letter.file != last.file and letter.file in places
            if apart or (letter.file == last.file and letter.line < last.line):
                where = f"{letter.file} line {letter.line}"
                raise InputError(f"{retry.name}: letters are not in the order in which they were written: {where}")
            if letter[:2] == last[:2] and letter != last:
                raise InputError(f"{retry.name}: {letter.file} line {letter.line} has letters with different texts")
            start = places[letter.file][0] if letter.file in places else position
            position += len(raw)
            places[letter.file] = start, position
            last = letter
    formats = {source.name: source.format for source in sources}
    for name in places:
        if formats.get(name) not in ("csv", "jsonl"):
            kind = f"is {formats[name].title()}, whose rows have no text" if name in formats else "is no input"
            raise InputError(f"{retry.name}: {name} {kind}: its letters cannot be tried again")
    return {
        name: Letters(retry.name, start, end, source, retry.clock)
        for name, (start, end) in places.items()
        for source in find_sources([name], retry.mapping, retry.layout, files)
    }


def read_mended(source: Source, clock: Clock, letters: Letters) -> Iterator[tuple[Block, Clock]]:
    """The file block by block, each with its clock; what stands in a letter is read from there, as the letter says.

    A letter that nobody mended may have but part of its line, or nothing, so the line itself is read then.

    Raises:
        InputError: the file is damaged, or is not the one that the letters came from.
    """
    waiting = iter(letters)
    letter = next(waiting, None)
    for block in read_blocks(source):
        records = _records(block)
        due: list[Letter] = []
        while letter is not None and letter.line <= records.lines[-1]:
            due.append(letter)
            letter = next(waiting, None)
        yield from _mend(source, clock, letters, block, records, due) if due else [(block, clock)]
    if letter is not None:
        raise _stranger(letter)


def _mend(
    source: Source, clock: Clock, letters: Letters, block: Block, records: Records, due: list[Letter]
) -> Iterator[tuple[Block, Clock]]:
    lines = np.array([letter.line for letter in due])
    places = np.searchsorted(records.lines, lines)
    if (strangers := np.flatnonzero(records.lines[places] != lines)).size:
        raise _stranger(due[int(strangers[0])])
    before = [records[place] for place in places.tolist()]
    same = [letter.text in (None, text_of(line)) for line, letter in zip(before, due, strict=True)]
    if block.records is None and all(same):  # too long to be held whole
        yield block, clock
        return
    rest = np.delete(np.arange(len(records)), places)
    if len(rest):
        others = Records.of([records[place] for place in rest.tolist()], records.lines[rest])
        yield text_block(source, others, block.position), clock
    after = [
        line if kept else (letter.text or "").encode() for line, kept, letter in zip(before, same, due, strict=True)
    ]
    yield text_block(letters.source, Records.of(after, lines), block.position), letters.clock


def _records(block: Block) -> Records:
    if block.records is not None:
        return block.records
    assert isinstance(block.parsed, Oversized)  # tables have no letters
    return Records.of([block.parsed.head], np.array([block.parsed.line]))


def text_of(line: bytes) -> str:
    """The text of a line as letters have it: of what is no UTF-8 too, and no more than so much."""
    return line[:KEPT_BYTES].decode(errors="backslashreplace").rstrip("\r")


def _letter(name: str, raw: bytes) -> Letter:
    try:
        value = orjson.loads(raw)
        letter = Letter(value["file"], value["line"], value["text"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise InputError(f"{name}: no dead letter: {text_of(raw)[:200]}") from None
    if tuple(map(type, letter)) not in ((str, int, str), (str, int, type(None))):
        raise InputError(f"{name}: no dead letter: {text_of(raw)[:200]}")
    return letter


def _stranger(letter: Letter) -> InputError:
    return InputError(f"{letter.file}: no record begins on line {letter.line}, of which there is a dead letter")
