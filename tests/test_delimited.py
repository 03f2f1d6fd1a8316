"""CSV records in blocks are read as each would be alone."""

from __future__ import annotations

import csv

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys.logs import delimited
from recsys.logs.records import Records, read_records

HEADER = ("user_id", "item_id", "timestamp")
COLUMNS = {name: name for name in HEADER}


def blocks(data: bytes) -> list[Records]:
    read = read_records(pa.BufferReader(data), delimited.joiner(len(HEADER), ","))
    return [records for records in read if isinstance(records, Records) and len(records)]


def outcomes(data: bytes) -> list[tuple[str, list[str] | str]]:
    """Each record and what became of it."""
    found: list[tuple[str, list[str] | str]] = []
    for records in blocks(data):
        parsed = delimited.parse(records, COLUMNS, HEADER, ",")
        fates: list[tuple[int, list[str] | str]] = [(item.record, item.reason) for item in parsed.bad]
        for row, record in enumerate(parsed.records.tolist()):
            fates.append((record, [parsed.columns[name][row].as_py() for name in HEADER]))
        fates.sort(key=lambda fate: fate[0])
        assert [record for record, _ in fates] == list(range(len(records)))
        found += [(records[record].decode(), fate) for record, fate in fates]
    return found


def alone(record: str) -> list[str] | str:
    try:
        rows = list(csv.reader([record.rstrip("\r")], strict=True))
    except csv.Error:
        return "bad_quotes"
    return rows[0] if len(rows[0]) == len(HEADER) else "wrong_fields"


pieces = st.sampled_from(["a", "b c", ",", ",", ",", '"', '""', "\n", "\r", "\r\n", '5" x', '"q"', '"q,r"', '"a""b"'])
some_lines = ["u,i,1", '"u","i","3"', 'u,5" disk,"17', '"u",i,17', "u,i\r,7", "u9\ru,1,2", "u,i,1\r", 'u,""x",1']
more_lines = ['u,"x"y,1', 'u,"x\ny",1', ' "u",i,1', '"""u""",",",""', "few"]
lines = st.sampled_from([*some_lines, *more_lines])
texts = st.lists(pieces, max_size=40).map("".join) | st.lists(lines, max_size=8).map("\n".join)


@given(texts)
def test_every_record_is_read_as_if_it_stood_alone(text: str) -> None:
    found = outcomes(text.encode())
    assert found == [(record, alone(record)) for record, _ in found]


def test_lines_whose_faults_cancel_out_are_told_apart() -> None:
    assert outcomes(b'u0,i0,1\nu1,5" d,"17\n"u2",i2,17\nu9\ru,1,2\nu3,i3,3\n') == [
        ("u0,i0,1", ["u0", "i0", "1"]),
        ('u1,5" d,"17', "bad_quotes"),
        ('"u2",i2,17', ["u2", "i2", "17"]),
        ("u9\ru,1,2", "bad_quotes"),
        ("u3,i3,3", ["u3", "i3", "3"]),
    ]


def test_the_byte_that_is_no_utf8_is_counted_from_the_start_of_its_line() -> None:
    (records,) = blocks(b"u,i,1\nu,caf\xe9,2\nu,i,3\n\xffu,i,4\n")
    details = [item.detail for item in delimited.parse(records, COLUMNS, HEADER, ",").bad]
    assert [detail.split(" is")[0] for detail in details] == ["byte 6", "byte 1"]
