"""Bad input: each kind ends in a dead letter, or in a clear message and an exit code; nothing crashes or vanishes."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import HEADER, NOW_MS, Run, good_rows

Log = Callable[..., Path]
GOOD = 160


def one_dead_letter(run: Run, path: Path, reason: str, line: int = 5) -> dict[str, object]:
    outcome = run(path)
    assert outcome.code == 0, outcome.stderr
    (letter,) = outcome.dead_letters
    assert (letter["reason"], letter["line"], letter["file"]) == (reason, line, str(path))
    counts = outcome.dataset.manifest.counts
    assert counts.read == GOOD + 1
    assert counts.rejected == {reason: 1}
    assert outcome.dataset.manifest.sizes["train"].events > 0
    return letter


BAD_LINES: list[tuple[str | bytes, str]] = [
    ("u1,i1", "wrong_fields"),
    ("u1,i1,1704067200000,x", "wrong_fields"),
    ("just words", "wrong_fields"),
    (",i1,1704067200000", "user_id.empty"),
    ("u1,,1704067200000", "item_id.empty"),
    ("u1,i1,", "timestamp.missing"),
    ("u1,i1,yesterday", "timestamp.format"),
    ("u1,i1,1704067200.5", "timestamp.format"),
    ("u1,i1,-5", "timestamp.negative"),
    (f"u1,i1,{NOW_MS + 86_400_001}", "timestamp.future"),
    ("u1,i1,99999999999999", "timestamp.out_of_range"),
    ("u1,i1,9" + "9" * 30, "timestamp.format"),
    ("u1,i1,0x10", "timestamp.format"),
    ("u1,i\x07,1704067200000", "item_id.control_character"),
    ("u1," + "i" * 257 + ",1704067200000", "item_id.too_long"),
    (b"u1,caf\xe9,1704067200000", "not_utf8"),
    (b"\xff\xfe\x00\x01", "not_utf8"),
    (b"u1,i1,17040\x0067200000", "timestamp.format"),
]


def test_seconds_taken_for_milliseconds_are_refused_with_words_that_help(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "seconds.csv"
    rows = [f"u{number % 5},i{number % 3},{1_700_000_000 + 60 * number}" for number in range(60)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    done = run(path)
    assert done.code == 65
    assert "line 2: timestamp: is before March 1973 (seconds?): 1700000000" in done.stderr.replace("\n", " ")
    assert run(path, "--time-unit", "s", "--test-days", "0", "--validation-days", "0").code == 0


def test_each_bad_csv_line_is_a_dead_letter_with_file_line_reason_and_text(run: Run, log: Log) -> None:
    path = log(*(line for line, _ in BAD_LINES))
    outcome = run(path, "--max-bad", "0.2")
    assert outcome.code == 0, outcome.stderr
    assert [(letter["file"], letter["line"], letter["reason"], letter["text"]) for letter in outcome.dead_letters] == [
        (str(path), number, reason, line if isinstance(line, str) else line.decode(errors="backslashreplace"))
        for number, (line, reason) in enumerate(BAD_LINES, 5)
    ]
    assert outcome.dataset.manifest.counts.read == GOOD + len(BAD_LINES)
    assert outcome.dataset.manifest.counts.rejected == Counter(reason for _, reason in BAD_LINES)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('u1,"i1,1704067200000', "bad_quotes"),
        ('u1,i1,"1704067200000', "bad_quotes"),
        ('u1,"i1\ni2",1704067200000', "item_id.control_character"),
    ],
)
def test_a_bad_quote_is_one_dead_letter(run: Run, log: Log, line: str, reason: str) -> None:
    assert one_dead_letter(run, log(line), reason)["text"] == line


def test_unusual_but_right_lines_are_taken(run: Run, log: Log) -> None:
    lines = [
        '"u1","i1","1704067200000"',
        "u2,i1,2024-01-01T00:00:00Z",
        "u3,i1,2024-01-01 02:00:00.5+02:00",
        'u4,"say ""hi"", you",1704067200000',
        'u5,5" disk,1704067200000',
        "u6,i1,1704067200000\r",
        f"u7,i1,{NOW_MS + 86_400_000}",
        "ü,日本,1704067200000",
    ]
    outcome = run(
        log(*lines), "--test-days", "0", "--validation-days", "0", "--min-item-support", "1", "--min-length", "1"
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.dead_letters == []
    assert outcome.dataset.manifest.counts.read == GOOD + len(lines)
    assert outcome.dataset.manifest.counts.cut == {"too_short": len(lines)}


def test_a_newline_inside_a_quoted_field_that_is_not_used_is_no_fault(run: Run, tmp_path: Path) -> None:
    rows = [f'{row},"first\nsecond, ""line"""' for row in good_rows()]
    path = tmp_path / "notes.csv"
    path.write_text("\n".join([f"{HEADER},note", *rows]))
    outcome = run(path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.dataset.manifest.counts.read == GOOD
    assert outcome.dead_letters == []


def test_line_numbers_count_the_lines_of_multi_line_records(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(
        "\n".join([f"{HEADER},note", 'u1,i1,1704067200000,"a\nb\nc"', "", "bad", *(f"{r}," for r in good_rows())])
    )
    (letter,) = run(path).dead_letters
    assert letter["line"] == 6


def test_a_line_of_ten_megabytes_is_one_dead_letter(run: Run, log: Log) -> None:
    letter = one_dead_letter(run, log(b"u1," + b"x" * 10_000_000 + b",1704067200000"), "too_large")
    assert len(str(letter["text"])) == 4096


def test_a_last_line_of_twenty_megabytes_without_an_end_is_one_dead_letter(run: Run, log: Log) -> None:
    path = log()
    with path.open("ab") as file:
        file.write(b"y" * 20_000_000)
    one_dead_letter(run, path, "too_large", line=GOOD + 2)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", HEADER, f"{HEADER}\n\n\n"])
def test_a_log_without_a_click_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(text)
    outcome = run(path)
    assert outcome.code == 66
    assert "no clicks" in outcome.stderr
    assert not outcome.out.exists()


@pytest.mark.parametrize("name", ["missing.csv", "none/*.csv"])
def test_a_missing_file_is_named(run: Run, tmp_path: Path, name: str) -> None:
    outcome = run(tmp_path / name)
    assert outcome.code == 66
    assert str(tmp_path / name) in outcome.stderr


def test_no_name_is_not_all_files_that_are_here(run: Run, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable is that a script has not set."""
    monkeypatch.chdir(log().parent)
    outcome = run("")
    assert outcome.code == 66
    assert "no such file" in outcome.stderr


def test_wrong_columns_are_named_with_those_found_and_the_way_out(run: Run, log: Log) -> None:
    path = log(header="who,product,when")
    outcome = run(path)
    assert outcome.code == 65
    for part in (str(path), "user_id", "who, product, when", "--column user=COLUMN"):
        assert part in outcome.stderr
    outcome = run(path, "--column", "user=who", "--column", "item=article")
    assert outcome.code == 65
    assert "no column 'article'" in outcome.stderr
    assert run(path, "--column", "user=who", "--column", "item=product", "--column", "timestamp=when").code == 0


def test_a_column_option_that_is_none_is_a_wrong_command_line(run: Run, log: Log) -> None:
    outcome = run(log(), "--column", "price=cost")
    assert outcome.code == 2
    assert "user, item, timestamp" in outcome.stderr


@pytest.mark.parametrize("data", [bytes(range(256)) * 9, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "u,i,t\n".encode("utf-16")])
def test_a_binary_file_is_refused(run: Run, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "clicks.csv"
    path.write_bytes(data)
    outcome = run(path)
    assert outcome.code == 65
    assert f"{path}: is binary" in outcome.stderr


@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_a_truncated_gzip_is_refused(run: Run, tmp_path: Path, kept: float) -> None:
    whole = gzip.compress("\n".join([HEADER, *good_rows(5000)]).encode(), mtime=0)
    path = tmp_path / "clicks.csv.gz"
    path.write_bytes(whole[: int(len(whole) * kept)])
    outcome = run(path)
    assert outcome.code == 65
    assert str(path) in outcome.stderr
    assert "runcated" in outcome.stderr
    assert not outcome.out.exists()


def test_a_gzip_with_a_flipped_bit_is_refused(run: Run, tmp_path: Path) -> None:
    data = bytearray(gzip.compress("\n".join([HEADER, *good_rows(5000)]).encode(), mtime=0))
    data[len(data) // 2] ^= 4
    path = tmp_path / "clicks.csv.gz"
    path.write_bytes(data)
    outcome = run(path)
    assert outcome.code == 65
    assert str(path) in outcome.stderr


def parquet(path: Path, rows: list[str]) -> None:
    users, items, times = zip(*(row.split(",") for row in rows), strict=True)
    table = pa.table({"user_id": users, "item_id": items, "timestamp": [int(time) for time in times]})
    pq.write_table(table, path, write_page_checksum=True)


@pytest.mark.parametrize("where", [0.3, 0.999])
def test_a_parquet_file_with_flipped_bytes_is_refused(run: Run, tmp_path: Path, where: float) -> None:
    path = tmp_path / "clicks.parquet"
    parquet(path, good_rows(5000))
    data = bytearray(path.read_bytes())
    position = min(int(len(data) * where), len(data) - 6)
    data[position : position + 4] = bytes(byte ^ 0xFF for byte in data[position : position + 4])
    path.write_bytes(data)
    outcome = run(path)
    assert outcome.code == 65
    assert str(path) in outcome.stderr
    assert not outcome.out.exists()


def test_bad_parquet_rows_are_dead_letters_with_their_row(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    parquet(path, [*good_rows(), "u1,,1704067200000"])
    (letter,) = run(path).dead_letters
    assert (letter["line"], letter["reason"]) == (GOOD + 1, "item_id.empty")
    assert '"user_id":"u1"' in str(letter["text"])


def test_parquet_text_that_is_no_unicode_is_a_dead_letter(run: Run, tmp_path: Path) -> None:
    users, items, times = zip(*(row.split(",") for row in good_rows()), strict=True)
    ids = [user.encode() for user in users] + [b"caf\xe9"]
    columns = [pa.array(ids), pa.array([*items, "i1"]), pa.array([int(time) for time in [*times, times[0]]])]
    path = tmp_path / "clicks.parquet"
    pq.write_table(pa.table(columns, HEADER.split(",")), path)
    letter = one_dead_letter(run, path, "user_id.not_unicode", line=GOOD + 1)
    assert '"item_id":"i1"' in str(letter["text"])


def test_a_parquet_column_that_stands_twice_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "clicks.parquet"
    pq.write_table(pa.table([pa.array(["u"])] * 4, [*HEADER.split(","), "item_id"]), path)
    outcome = run(path)
    assert outcome.code == 65
    assert f"{path}: the schema names a column twice" in outcome.stderr


def test_a_time_unit_scales_whole_floats_but_not_typed_timestamps(run: Run, tmp_path: Path) -> None:
    users, items, times = zip(*(row.split(",") for row in good_rows()), strict=True)
    milliseconds = pa.array([int(time) for time in times])
    path = tmp_path / "clicks.parquet"
    for unit, column in (
        ("ms", milliseconds),
        ("s", pa.array([int(time) / 1000 for time in times])),
        ("us", milliseconds.cast(pa.timestamp("ms"))),
        ("s", milliseconds.cast(pa.timestamp("ms", "Europe/Rome")).cast(pa.timestamp("ns", "Europe/Rome"))),
    ):
        pq.write_table(pa.table([pa.array(users), pa.array(items), column], HEADER.split(",")), path)
        outcome = run(path, "--time-unit", unit, "--overwrite")
        assert outcome.code == 0, outcome.stderr
        assert outcome.dataset.training().times[0] == int(times[0])


def test_each_bad_json_line_is_a_dead_letter(run: Run, tmp_path: Path) -> None:
    bad: list[tuple[bytes, str]] = [
        (b"{", "not_json"),
        (b"[1]", "not_an_object"),
        (b"{}", "user_id.missing"),
        (b'{"user_id": true, "item_id": "i", "timestamp": 1}', "user_id.type"),
        (b'{"user_id": "u", "item_id": 1.0, "timestamp": 1}', "item_id.type"),
        (b'{"user_id": "u", "item_id": "i", "timestamp": 1.5}', "timestamp.type"),
        (b'{"user_id": "u", "item_id": "i", "timestamp": 1, "context": 3}', "context.type"),
        (b'{"user_id": "\xe9", "item_id": "i", "timestamp": 1}', "not_json"),
        (b'{"user_id": "' + b"u" * 70_000 + b'"}', "too_large"),
    ]
    good = [
        '{{"user_id": "{}", "item_id": "{}", "timestamp": {}, "context": {{}}}}'.format(*row.split(",")).encode()
        for row in good_rows()
    ]
    path = tmp_path / "clicks.jsonl"
    path.write_bytes(b"\n".join([good[0], b"", *(line for line, _ in bad), *good[1:]]))
    outcome = run(path, "--max-bad", "0.2")
    assert outcome.code == 0, outcome.stderr
    found = [(letter["line"], letter["reason"]) for letter in outcome.dead_letters]
    assert found == [(line, reason) for line, (_, reason) in enumerate(bad, 3)]
    assert outcome.dataset.manifest.counts.read == GOOD + len(bad)


def json_rows(rows: list[str]) -> list[str]:
    return ['{{"user_id": "{}", "item_id": "{}", "timestamp": {}}}'.format(*row.split(",")) for row in rows]


def test_json_lines_that_begin_with_no_object_are_dead_letters_like_any_other(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_text("\n".join(["x" * 70_000, *json_rows(good_rows())]))
    outcome = run(path)
    assert outcome.code == 0, outcome.stderr
    assert [(letter["line"], letter["reason"]) for letter in outcome.dead_letters] == [(1, "too_large")]
    assert outcome.dataset.manifest.counts.read == GOOD + 1
    path.write_text("garbage\nmore\n")
    outcome = run(path, "--overwrite")
    assert outcome.code == 65
    assert "2 not_json" in outcome.stderr


def test_json_lines_of_sessions_without_users_are_taken(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    path.write_text("\n".join(row.replace("user_id", "visit") for row in json_rows(good_rows())))
    outcome = run(path, "--column", "session=visit")
    assert outcome.code == 0, outcome.stderr
    assert outcome.dead_letters == []


def test_a_json_field_that_first_comes_late_is_read(run: Run, tmp_path: Path) -> None:
    rows = json_rows(good_rows(users=400))
    late = [row.replace("}", ', "event_type": "cart", "event_id": "same"}') for row in rows[-2:]]
    path = tmp_path / "clicks.jsonl"
    path.write_text("\n".join([*rows[:-2], *late]))
    assert path.stat().st_size > 1 << 16
    outcome = run(path)
    assert outcome.code == 0, outcome.stderr
    assert outcome.dataset.event_types == ["cart", "view"]
    assert outcome.dataset.manifest.counts.duplicates == 1


def test_a_json_field_named_by_option_that_first_comes_late_is_read(run: Run, tmp_path: Path) -> None:
    rows = json_rows(good_rows(users=400))
    path = tmp_path / "clicks.jsonl"
    path.write_text("\n".join([*rows[:-1], rows[-1].replace("}", ', "kind": "cart"}')]))
    assert path.stat().st_size > 1 << 16
    outcome = run(path, "--column", "event_type=kind")
    assert outcome.code == 0, outcome.stderr
    assert outcome.dataset.event_types == ["cart", "view"]
    outcome = run(path, "--column", "item=kind", "--overwrite")
    assert outcome.code == 65
    assert "no column 'kind' for item_id" in outcome.stderr


def test_too_many_bad_lines_stop_the_run_and_are_kept_beside(run: Run, log: Log) -> None:
    bad = ["u1,i1,never"] * 15 + ["u1"] * 5
    path = log(*bad)
    outcome = run(path)
    assert outcome.code == 65
    for part in ("20 of 180", "11.1%", "--max-bad 5.0%", "15 timestamp.format, 5 wrong_fields", ".dead-letter.jsonl"):
        assert part in outcome.stderr
    assert not outcome.out.exists()
    assert [letter["line"] for letter in outcome.dead_letters] == list(range(5, 25))
    kept = outcome.out.with_name("dataset.dead-letter.jsonl")
    assert kept.exists()
    assert run(path, "--max-bad", "0.12").code == 0
    assert not kept.exists()


@pytest.mark.parametrize("shards", [1, 8])
def test_a_column_that_cannot_be_the_event_type_is_refused(run: Run, tmp_path: Path, shards: int) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join([f"{HEADER},event_type", *(f"{row},type-{n}" for n, row in enumerate(good_rows()))]))
    outcome = run(path, "--shards", str(shards))
    assert outcome.code == 65
    assert "event types, at most 127" in outcome.stderr


def test_a_place_that_cannot_be_written_is_named(run: Run, log: Log, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = run(log(), out=tmp_path / "file" / "dataset")
    assert outcome.code == 74
    assert str(tmp_path / "file") in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_one_stray_quote_costs_one_line(run: Run, log: Log) -> None:
    outcome = run(log('u1,"i1,1704067200000', *good_rows(3), 'u2,"i1,1704067200000'))
    assert outcome.code == 0, outcome.stderr
    assert [letter["line"] for letter in outcome.dead_letters] == [5, 18]


def test_the_installed_command_ends_with_the_same_message_and_code(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("recsys")
    ended = subprocess.run(
        [command, "sessions", tmp_path / "none.csv", "--out", tmp_path / "dataset"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 66
    assert "none.csv: no such file" in ended.stderr
    assert "Traceback" not in ended.stderr
