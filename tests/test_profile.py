"""The profile of a dataset: what it counts, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipelines.cli import sessions as sessions_command
from recsys.cli.profile import profile as command
from recsys.dataset import Dataset, write_dataset
from recsys.errors import DatasetError
from recsys.manifest import Counts, Split
from recsys.profile.measures import GAP_BINS, HOUR_MS, binned, measure
from recsys.sessions import Sessions
from recsys.vocabulary import Vocabulary
from tests.browser import opened
from tests.servers.presence import where_present

MINUTE = 60_000
MIDNIGHT = 1_704_067_200_000  # 2024-01-01, UTC
LONG = "<script>" + "x" * 240  # an item id of nearly the greatest length


def sessions(*times: list[int]) -> Sessions:
    starts = np.cumsum([0, *map(len, times)]).astype(np.int64)
    events = int(starts[-1])
    moments = np.array([MIDNIGHT + minute * MINUTE for part in times for minute in part], np.int64)
    return Sessions(np.zeros(events, np.int32), moments, np.zeros(events, np.int8), starts)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two users; one of them comes back in the test period, on another day."""
    train, test = sessions([0, 2], [30, 31, 33], [100, 101]), sessions([1500, 1501])
    return write_dataset(
        tmp_path / "dataset",
        Vocabulary(["a"], np.array([7])),
        {"train": (train, ["u1", "u2", "u1"]), "test": (test, ["u1"])},
        Split(test_from=MIDNIGHT + 1440 * MINUTE),
    )


def test_clicks_sessions_and_gaps_are_counted_over_all_files(dataset: Dataset) -> None:
    found = measure(dataset)
    midnight = MIDNIGHT // HOUR_MS
    assert found.hours == {midnight: 5, midnight + 1: 2, midnight + 25: 2}
    assert found.by_hour_of_day.tolist() == [5, 4, *[0] * 22]
    assert found.lengths == {2: 3, 3: 1}
    assert (found.users, found.sessions, found.events, found.median_length) == (2, 4, 9, 2)
    assert (found.first_ms, found.last_ms) == (MIDNIGHT, MIDNIGHT + 1501 * MINUTE)
    assert found.gaps_within.tolist() == binned(MINUTE * np.array([2, 1, 2, 1, 1])).tolist()
    assert found.gaps_between.tolist() == binned(MINUTE * np.array([98, 1399])).tolist(), "of u1 alone"


def test_every_gap_is_in_a_bin() -> None:
    counts = binned(np.array([0, 1000, int(GAP_BINS[1]) + 1, 1 << 50]))
    assert counts.tolist() == [2, 1, *[0] * (len(GAP_BINS) - 4), 1]


def test_an_empty_dataset_has_no_profile(tmp_path: Path) -> None:
    empty = write_dataset(tmp_path / "dataset", Vocabulary([], np.zeros(0, np.int64)), {}, Split())
    result = profile(empty.path, tmp_path / "profile.html")
    assert isinstance(result.exception, DatasetError)
    assert not (tmp_path / "profile.html").exists()


def test_fates_add_up_to_what_was_read() -> None:
    counts = Counts(read=21, kept=1, duplicates=2, repeats=3, rejected={"a": 4}, filtered={"a": 5}, cut={"a": 6})
    read, *others = counts.fates().values()
    assert read == sum(others) == 21


def test_a_click_long_before_the_others_is_no_burden(tmp_path: Path) -> None:
    """A time of zero is a usual mistake: fifty years of hours are not drawn one by one."""
    split = {"train": (sessions([0, 1], [-MIDNIGHT // MINUTE, 1 - MIDNIGHT // MINUTE]), ["u1", "u2"])}
    data = write_dataset(tmp_path / "dataset", Vocabulary(["a"], np.array([4])), split, Split())
    assert profile(data.path, tmp_path / "profile.html").exit_code == 0
    assert (tmp_path / "profile.html").stat().st_size < 200_000


def profile(dataset: Path, out: Path) -> Result:
    return CliRunner().invoke(command, [str(dataset), "--out", str(out)])


def build(folder: Path, *options: str) -> Path:
    """A page of a log with bad lines, by way of the two commands."""
    rows = [
        f"u{user},{f'i{click}' if click else LONG},{MIDNIGHT + (97 * user + 16 * click) * MINUTE},{user}"
        for user in range(60)
        for click in range(7)
    ]
    log = folder / "clicks.csv"
    log.write_text("\n".join(["user_id,item_id,timestamp,visit", *rows, "u1,i1,soon,1", "u1,,1,1", "u2,,1,1"]) + "\n")
    arguments: list[Any] = [log, "--out", folder / "dataset", "--now", "2024-02-01", *options]
    built = CliRunner().invoke(sessions_command, [str(argument) for argument in arguments])
    assert built.exit_code == 0, built.exception
    shown = profile(folder / "dataset", folder / "profile.html")
    assert shown.exit_code == 0, shown.exception
    return folder / "profile.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("profile"))


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desk"])
def test_a_browser_shows_the_page_and_needs_nothing_else(page: Path, width: int) -> None:
    with where_present(), opened(page, width) as (shown, odd):
        assert shown.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        pictures = [picture.bounding_box() for picture in shown.locator("svg").all()]
        assert len(pictures) == 6
        assert all(box and box["width"] > 50 and box["height"] > 5 for box in pictures)
        assert odd == []


def test_the_page_shows_reasons_the_gap_and_the_splits(page: Path) -> None:
    text = page.read_text()
    reasons = ("item id: empty", "timestamp: in no form that is known", "rejected, item id: empty")
    for words in (*reasons, "session gap, 30 min", "validation"):
        assert f">{words}<" in text, words
    data = Dataset.open(page.parent / "dataset")
    assert data.manifest.counts.rejected == {"item_id.empty": 2, "timestamp.format": 1}
    assert f"<b>{data.manifest.counts.kept:,}</b>" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_no_gap_is_marked_where_sessions_are_the_logs_own(tmp_path: Path) -> None:
    text = build(tmp_path, "--column", "session=visit").read_text()
    assert "session gap" not in text
    assert "no gap rule has cut them" in text


def test_the_page_stands_by_itself_and_names_its_colours(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"<(script|link|img|iframe)\b", text)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", text)
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= set(re.findall(r"(--[\w-]+):", text))
    for plot in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", plot)) <= {"#ffffff"}


def test_the_same_dataset_gives_the_same_page(page: Path, tmp_path: Path) -> None:
    assert profile(page.parent / "dataset", tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
