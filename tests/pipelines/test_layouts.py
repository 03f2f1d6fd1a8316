"""Public logs in the layout in which they are published, and logs laid out as options say."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import fastavro
import pytest

from recsys.columns import Clock
from recsys.errors import InputError, RecsysError
from recsys.logs.blocks import decode_block, read_blocks
from recsys.logs.sources import find_sources

from .conftest import Outcome, Run

START = 1_569_888_000_000  # 2019-10-01
SESSIONS = 12
ALL = ("--test-days", "0", "--validation-days", "0", "--min-item-support", "1")
# (user, session, item, time, type) of sessions of two clicks, ten minutes apart.
CLICKS = [
    (
        f"{100 + number // 2}",
        f"{number}",
        f"{2000 + (2 * number + click) % 5}",
        START + number * 600_000 + click * 60_250,
        kind,
    )
    for number in range(SESSIONS)
    for click, kind in enumerate(("view", "cart"))
]


def rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def yoochoose() -> str:
    return "".join(f"{session},{rfc3339(time)},{item},0\n" for _, session, item, time, _ in CLICKS)


def diginetica() -> str:
    lines = ["sessionId;userId;itemId;timeframe;eventdate"]
    lines += [f"{session};NA;{item};{time - START};2019-10-01" for _, session, item, time, _ in CLICKS]
    return "\n".join(lines)


def retailrocket() -> str:
    lines = ["timestamp,visitorid,event,itemid,transactionid"]
    return "\n".join([*lines, *(f"{time},{user},{kind},{item}," for user, _, item, time, kind in CLICKS)])


def otto() -> str:
    sessions: dict[str, list[dict[str, object]]] = {}
    for _, session, item, time, kind in CLICKS:
        sessions.setdefault(session, []).append({"aid": int(item), "ts": time, "type": f"{kind}s"})
    return "\n".join(json.dumps({"session": int(session), "events": events}) for session, events in sessions.items())


def rees46() -> str:
    lines = ["event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"]
    for user, session, item, time, kind in CLICKS:
        moment = datetime.fromtimestamp(time // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        lines.append(f"{moment},{kind},{item},2053013555631882655,electronics.smartphone,,489.07,{user},{session}")
    return "\n".join(lines)


def globo() -> str:
    lines = [
        "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
        "click_deviceGroup,click_os,click_country,click_region,click_referrer_type"
    ]
    lines += [f"{user},{session},{time},2,{item},{time},4,3,20,1,20,2" for user, session, item, time, _ in CLICKS]
    return "\n".join(lines)


def clicks_of(outcome: Outcome) -> list[tuple[str, int, str]]:
    """(item, time, type) of all clicks, session after session."""
    assert outcome.code == 0, outcome.stderr
    dataset = outcome.dataset
    sessions = dataset.development()
    return [
        (dataset.vocabulary.ids[row], time, dataset.event_types[kind])
        for row, time, kind in zip(*(c.tolist() for c in (sessions.items, sessions.times, sessions.types)), strict=True)
    ]


@pytest.mark.parametrize(
    ("preset", "text", "kinds", "resolution", "by_user"),
    [
        ("yoochoose", yoochoose(), ("view", "view"), 1, False),
        ("diginetica", diginetica(), ("view", "view"), 1, False),
        ("retailrocket", retailrocket(), ("view", "cart"), 1, True),
        ("otto", otto(), ("views", "carts"), 1, False),
        ("rees46", rees46(), ("view", "cart"), 1000, False),
        ("globo", globo(), ("view", "view"), 1, False),
    ],
)
def test_a_public_log_is_read_as_it_is_published(
    run: Run, tmp_path: Path, preset: str, text: str, kinds: tuple[str, str], resolution: int, by_user: bool
) -> None:
    path = tmp_path / f"log{'.jsonl' if preset == 'otto' else '.csv'}.gz"
    path.write_bytes(gzip.compress(text.encode()))
    outcome = run(path, "--preset", preset, *ALL)
    named = dict(zip(("view", "cart"), kinds, strict=True))
    assert clicks_of(outcome) == [
        (item, time // resolution * resolution, named[kind]) for _, _, item, time, kind in CLICKS
    ]
    assert outcome.dead_letters == []
    # Two sessions of a user lie ten minutes apart: the gap rule joins them, sessions of the log stay apart.
    assert outcome.dataset.manifest.sizes["train"].sessions == (SESSIONS // 2 if by_user else SESSIONS)


BAD = [
    ("yoochoose", f"1,{rfc3339(START)[:-1]},2001,0\n", "timestamp.format"),
    ("diginetica", "1;NA;2001;-5;2019-10-01\n", "timestamp.format"),
    ("diginetica", "1;NA;2001;5;2019-13-01\n", "timestamp.format"),
    ("diginetica", f"1;NA;{'x' * 257};5;2019-10-01\n", "item_id.too_long"),
    ("otto", '{"session": 1, "events": [3]}\n', "no_events"),
    ("otto", '{"session": 1, "events": {"aid": 1}}\n', "no_events"),
    ("otto", '{"session": 1, "events": [{"aid": 1, "ts": "x", "type": "clicks"}]}\n', "timestamp.format"),
    ("rees46", "2019-10-01 00:00:00,view,1,2,,,1.0,3,s\n", "timestamp.format"),
]


@pytest.mark.parametrize(("preset", "line", "reason"), BAD)
def test_a_bad_line_of_a_public_log_is_a_dead_letter(
    run: Run, tmp_path: Path, preset: str, line: str, reason: str
) -> None:
    good = {"yoochoose": yoochoose, "diginetica": diginetica, "otto": otto, "rees46": rees46}[preset]().rstrip("\n")
    path = tmp_path / ("log.jsonl" if preset == "otto" else "log.csv")
    path.write_text(f"{good}\n{line}")
    outcome = run(path, "--preset", preset, *ALL)
    assert len(clicks_of(outcome)) == len(CLICKS)
    (letter,) = outcome.dead_letters
    assert (letter["reason"], letter["line"]) == (reason, len(good.splitlines()) + 1)


def test_options_go_before_the_preset(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(retailrocket().replace("itemid", "sku").replace(",transactionid", ",t"))
    assert "no column 'itemid'" in run(path, "--preset", "retailrocket", *ALL).stderr
    assert len(clicks_of(run(path, "--preset", "retailrocket", "--column", "item=sku", *ALL))) == len(CLICKS)


@pytest.mark.parametrize(("given", "delimiter"), [("\\t", "\t"), ("^", "^"), ("|", "|"), (None, ";")])
def test_columns_and_delimiters_are_what_options_say(
    run: Run, tmp_path: Path, given: str | None, delimiter: str
) -> None:
    path = tmp_path / "log.txt"
    rows = [[f"{time / 1000:.3f}", f'"{item}"', user, "1,2,3"] for user, _, item, time, _ in CLICKS]
    path.write_text("\n".join(delimiter.join(row) for row in rows))
    options = ["--header", "at, item_id, user_id, note", "--column", "timestamp=at", "--time-unit", "s"]
    options += ["--delimiter", given] if given else []
    assert clicks_of(run(path, *options, *ALL)) == [(item, time, "view") for _, _, item, time, _ in CLICKS]


def test_times_are_of_the_form_that_an_option_says(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    moments = [datetime.fromtimestamp(time / 1000, UTC).strftime("%d.%m.%Y %H:%M:%S") for *_, time, _ in CLICKS]
    rows = [f"{click[0]},{click[2]},{moment}" for click, moment in zip(CLICKS, moments, strict=True)]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows, "u,i,2019-10-01"]))
    outcome = run(path, "--time-format", "%d.%m.%Y %H:%M:%S", *ALL)
    assert [time for _, time, _ in clicks_of(outcome)] == [time // 1000 * 1000 for *_, time, _ in CLICKS]
    assert [letter["reason"] for letter in outcome.dead_letters] == ["timestamp.format"]
    assert outcome.dataset.manifest.parameters["logs"][0]["time_format"] == "%d.%m.%Y %H:%M:%S"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "movielens"], "yoochoose, diginetica"),
        (["--delimiter", "::"], "no single ASCII character"),
        (["--time-unit", "s", "--time-format", "%Y"], "exclude each other"),
    ],
)
def test_options_that_cannot_be_are_refused(run: Run, tmp_path: Path, options: list[str], words: str) -> None:
    outcome = run(tmp_path / "none.csv", *options)
    assert outcome.code == 2
    assert words in outcome.stderr.replace("\n", " ")


def avro(path: Path, codec: str, kind: object, values: list[object]) -> Path:
    fields = [("user_id", "string"), ("item_id", ["null", "string"]), ("timestamp", kind), ("event_type", "string")]
    schema = {"type": "record", "name": "click", "fields": [{"name": name, "type": of} for name, of in fields]}
    rows = [
        {"user_id": user, "item_id": item, "timestamp": value, "event_type": kind}
        for (user, _, item, _, kind), value in zip(CLICKS, values, strict=True)
    ]
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows, codec)
    return path


@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("typed", [True, False])
def test_avro_is_read(run: Run, tmp_path: Path, codec: str, typed: bool) -> None:
    times = [time for *_, time, _ in CLICKS]
    if typed:
        kind = {"type": "long", "logicalType": "timestamp-micros"}
        values: list[object] = [datetime.fromtimestamp(time / 1000, UTC) for time in times]
        options = ("--time-unit", "s")  # which is for numbers
    else:
        kind, values, options = "long", list(times), ()  # type: ignore[assignment]
    outcome = run(avro(tmp_path / "log.avro", codec, kind, values), *options, *ALL)
    assert clicks_of(outcome) == [(item, time, kind) for _, _, item, time, kind in CLICKS]


def test_bad_avro_rows_are_dead_letters_with_their_row(run: Run, tmp_path: Path) -> None:
    outcome = run(avro(tmp_path / "log.avro", "null", "long", [*(time for *_, time, _ in CLICKS[:-1]), -1]), *ALL)
    (letter,) = outcome.dead_letters
    assert (letter["line"], letter["reason"]) == (len(CLICKS), "timestamp.negative")


def test_damaged_avro_is_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    path = avro(tmp_path / "log.avro", "deflate", "long", [time for *_, time, _ in CLICKS])
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        for damaged in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            path.write_bytes(damaged)
            with suppress(RecsysError):
                for source in find_sources([str(path)], {}):
                    for block in read_blocks(source):
                        decode_block(block, Clock())
    path.write_bytes(whole[:-20])
    with pytest.raises(InputError, match="is damaged"):
        list(read_blocks(*find_sources([str(path)], {})))


def test_usual_names_are_found_in_any_case_and_with_any_signs(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("User ID,itemId,TIMESTAMP,user\nu,i,1,other\n")
    (source,) = find_sources([str(tmp_path / "clicks.csv")], {})
    assert source.columns == {"user_id": "user", "item_id": "itemId", "timestamp": "TIMESTAMP"}
    (tmp_path / "clicks.csv").write_text("User ID,itemId,TIMESTAMP\nu,i,1\n")
    (source,) = find_sources([str(tmp_path / "clicks.csv")], {})
    assert source.columns["user_id"] == "User ID"


def test_a_first_line_that_is_a_click_leads_to_the_header_option(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("u,i,1704067200000\n")
    with pytest.raises(InputError, match="--header, if the first line is a click"):
        find_sources([str(tmp_path / "clicks.csv")], {})
    (tmp_path / "clicks.csv").write_text("who,what,when\nu,i,1704067200000\n")
    with pytest.raises(InputError, match=r"--column user=COLUMN$"):
        find_sources([str(tmp_path / "clicks.csv")], {})
