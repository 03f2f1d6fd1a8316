"""The comparison, the report and the command that writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from recsys.bundle import Description, Learnt, Model, save_model
from recsys.cli.evaluate import evaluate as command
from recsys.dataset import Dataset, write_dataset
from recsys.errors import BundleError, DatasetError, InputError, MissingInputError
from recsys.evaluation.comparison import Comparison, Lead, compare
from recsys.evaluation.item_knn import ItemKNN
from recsys.evaluation.oracle import Oracle
from recsys.evaluation.popularity import Popularity
from recsys.evaluation.protocol import evaluate
from recsys.evaluation.session_popularity import SessionPopularity
from recsys.generator.clicks import Rows, generate
from recsys.generator.files import sidecar, write
from recsys.generator.process import DAY, EVENT_TYPES, Parameters, Process
from recsys.manifest import Split
from recsys.published import Bundles, load_model
from recsys.scoring.scorer import Scorer
from recsys.sessions import SessionRule, Sessions, assemble
from recsys.settings import ModelSettings, SessionSettings
from recsys.vocabulary import Vocabulary
from tests.browser import opened
from tests.servers.presence import where_present

PARAMETERS = Parameters(events=8_000, users=400, items=120, days=4, seed=5)
UNITS = 8


def part(sessions: Sessions, begin: int, end: int) -> tuple[Sessions, list[str]]:
    first = sessions.times[sessions.starts[:-1]]
    chosen = sessions.keep_sessions((first >= begin) & (first < end))
    chosen = chosen.keep_events(chosen.times < end)
    chosen = chosen.keep_sessions(chosen.lengths >= 2)
    return chosen, [f"user-{number}" for number in range(len(chosen))]


def make_dataset(path: Path, with_test: bool = True) -> Dataset:
    process = Process(PARAMETERS)
    rows = Rows.join(list(generate(process)))
    rows = rows.take(rows.fault == 0)
    ids = sorted(process.item_ids)
    row = {item: number for number, item in enumerate(ids)}
    items = np.array([row[item] for item in process.item_ids], np.int32)[rows.item]
    sessions = assemble(rows.user, items, rows.time, rows.type.astype(np.int8), None, SessionRule()).sessions
    start = PARAMETERS.start_ms
    boundaries = start + 2 * DAY, start + 3 * DAY
    train, validation = part(sessions, start, boundaries[0]), part(sessions, *boundaries)
    test = part(sessions, boundaries[1], start + 4 * DAY if with_test else 0)
    counts = np.bincount(np.concatenate([train[0].items, validation[0].items]), minlength=len(ids))
    return write_dataset(
        path,
        Vocabulary(ids, counts),
        {"train": train, "validation": validation, "test": test},
        Split(validation_from=boundaries[0], test_from=boundaries[1]),
        event_types=EVENT_TYPES,
    )


def make_model(path: Path, vocabulary: Vocabulary, dataset: str, learnt: Learnt = "development") -> Path:
    random = np.random.default_rng(0)

    def weights(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.5, shape).astype(np.float32)

    path.mkdir(parents=True)
    values = {"embedding": weights(len(vocabulary), UNITS), "bias": np.log(vocabulary.counts + 1).astype(np.float32)}
    values |= {"gru.0.kernel": weights(UNITS, 3 * UNITS), "gru.0.recurrent": weights(UNITS, 3 * UNITS)}
    values["gru.0.bias"] = weights(3 * UNITS)
    values |= {"revisit": weights(1), "rise": weights(len(vocabulary)), "trend": weights(1)}
    description = Description(
        model=ModelSettings(units=UNITS, memory=0),
        sessions=SessionSettings(),
        event_types=EVENT_TYPES,
        dataset=dataset,
        learnt=learnt,
    )
    save_model(path, Model(values, vocabulary, description))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a model of it with the history of its training, and the description of the process."""
    folder = tmp_path_factory.mktemp("evaluation")
    data = make_dataset(folder / "dataset")
    make_model(folder / "run" / "model", data.vocabulary, data.manifest.content_hash)
    validation = {"recall@20": 0.5, "mrr@20": 0.2}
    first = {"phase": "search", "number": 1, "loss": 5.0, "events_per_second": 9.0, "validation": validation}
    epochs = [first, {**first, "number": 2, "share": 0.5}]
    (folder / "run" / "history.json").write_text(json.dumps(epochs))
    write(PARAMETERS, folder / "clicks.csv")
    return folder


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def report(folder: Path) -> tuple[Result, dict[str, Any], str]:
    process = sidecar(folder / "clicks.csv")
    result = run(folder / "run/model", folder / "dataset", "--process", process, "--out", folder / "report")
    assert result.exit_code == 0, result.exception
    figures = json.loads((folder / "report/evaluation.json").read_text())
    return result, figures, (folder / "report/report.html").read_text()


@pytest.mark.parametrize("width", [390, 1280], ids=["phone", "desk"])
def test_a_browser_shows_the_report_and_needs_nothing_else(
    report: tuple[Result, dict[str, Any], str], folder: Path, width: int
) -> None:
    with where_present(), opened(folder / "report/report.html", width) as (page, odd):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        pictures = [picture.bounding_box() for picture in page.locator("img, svg").all() if picture.is_visible()]
        assert len(pictures) >= 10
        assert all(box and box["width"] > 50 and box["height"] > 5 for box in pictures)
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")
        summary = page.locator("details summary").first
        before = page.locator("details").first.get_attribute("open")
        summary.click()
        assert page.locator("details").first.get_attribute("open") != before
        assert odd == []


def test_the_figures_are_those_of_the_protocol(report: tuple[Result, dict[str, Any], str], folder: Path) -> None:
    _, figures, _ = report
    data = Dataset.open(folder / "dataset")
    popularity = Popularity()
    popularity.fit(data.development(), len(data.vocabulary))
    expected = evaluate(popularity, data.test(), data.vocabulary.counts)
    names = [recommender["name"] for recommender in figures["recommenders"]]
    baselines = ["popularity", "recent popularity", "session popularity", "item-kNN", "VMIS-kNN", "V-SKNN"]
    assert names == ["GRU", "GRU, no live trend", *baselines, "best possible"]
    assert figures["recommenders"][2]["metrics"] == expected.as_dict()
    fixed = evaluate(Scorer(load_model(folder / "run/model").weights), data.test(), data.vocabulary.counts)
    assert figures["recommenders"][1]["metrics"] == fixed.as_dict()
    assert figures["predictions"] == data.test().events - len(data.test())
    assert figures["dataset"] == data.manifest.content_hash


def test_intervals_hold_their_figures(report: tuple[Result, dict[str, Any], str]) -> None:
    for recommender in report[1]["recommenders"]:
        for metric, (low, high) in recommender["intervals"].items():
            assert low <= recommender["metrics"][metric] <= high


def test_the_best_that_the_process_allows_is_stated(report: tuple[Result, dict[str, Any], str], folder: Path) -> None:
    result, figures, page = report
    data = Dataset.open(folder / "dataset")
    oracle = Oracle(Process(PARAMETERS), data.vocabulary, data.event_types, data.session_settings.collapse_repeats)
    expected = oracle.expected_recall(data.test())
    assert figures["best_possible_expected"] == {"recall@20": expected}
    assert re.search(rf"expected of the process\W+{expected:.4f}", result.output)
    assert f"expect {expected:.3f}" in page


def test_groups_add_up_to_the_whole(report: tuple[Result, dict[str, Any], str]) -> None:
    _, figures, _ = report
    for breakdown in ("by_position", "by_item_popularity", "by_session_length"):
        groups = figures[breakdown]
        assert sum(group["predictions"] for group in groups) == figures["predictions"]
        for recommender in figures["recommenders"]:
            hits = sum(group["predictions"] * group["recall@20"][recommender["name"]] for group in groups)
            assert hits / figures["predictions"] == pytest.approx(recommender["metrics"]["recall@20"])


def test_the_table_is_printed(report: tuple[Result, dict[str, Any], str]) -> None:
    output = report[0].output
    assert all(name in output for name in ("GRU", "VMIS-kNN", "V-SKNN", "best possible", "Recall@20", "coverage@20"))


def test_the_page_stands_by_itself(report: tuple[Result, dict[str, Any], str], folder: Path) -> None:
    page = report[2]
    assert page.count("<svg") == 13
    assert not re.search(r"<(script|link|img|iframe)\b", page)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    for title in ("Beside the baselines", "Learning curves", "Coverage and popularity bias", "Sample sessions"):
        assert title in page
    assert "the newest quarter" in page
    recall = report[1]["recommenders"][0]["metrics"]["recall@20"]
    assert f"<b>{recall:.3f}</b>" in page


def test_the_same_evaluation_gives_the_same_report(folder: Path, report: tuple[Result, dict[str, Any], str]) -> None:
    process = sidecar(folder / "clicks.csv")
    again = folder / "again"
    run(folder / "run/model", folder / "dataset", "--process", process, "--out", again)
    assert (again / "report.html").read_text() == report[2]
    assert json.loads((again / "evaluation.json").read_text()) == report[1]


def test_item_ids_cannot_break_the_page(tmp_path: Path, folder: Path) -> None:
    data = Dataset.open(folder / "dataset")
    evil = Vocabulary([f"<script>{number:05d}" for number in range(len(data.vocabulary))], data.vocabulary.counts)
    sessions = {
        "train": (data.development(), ["u"] * len(data.development())),
        "test": (data.test(), data.test_users()),
    }
    other = write_dataset(tmp_path / "dataset", evil, sessions, Split(test_from=data.manifest.split.test_from))
    model = make_model(tmp_path / "model", evil, other.manifest.content_hash)
    result = run(model, tmp_path / "dataset", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.exception
    page = (tmp_path / "report/report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;00" in page


def test_validation_sessions_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    data = Dataset.open(folder / "dataset")
    model = make_model(tmp_path / "model", data.vocabulary, data.manifest.content_hash, "training")
    result = run(model, folder / "dataset", "--split", "validation", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.exception
    figures = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert figures["predictions"] == data.validation().events - len(data.validation())
    popularity = Popularity()
    popularity.fit(data.training(), len(data.vocabulary))
    expected = evaluate(popularity, data.validation(), data.vocabulary.counts)
    assert figures["recommenders"][2]["metrics"] == expected.as_dict()


def test_without_a_live_trend_all_know_what_was_learnt_alone(folder: Path, tmp_path: Path) -> None:
    result = run(folder / "run/model", folder / "dataset", "--trend-seconds", "0", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.exception
    figures = json.loads((tmp_path / "report/evaluation.json").read_text())
    names = [recommender["name"] for recommender in figures["recommenders"]]
    assert names == ["GRU", "popularity", "session popularity", "item-kNN", "VMIS-kNN", "V-SKNN"]
    assert figures["trend_seconds"] == 0
    assert "no live trend" not in (tmp_path / "report/report.html").read_text()


def test_a_model_that_has_learnt_from_validation_is_not_validated(folder: Path, tmp_path: Path) -> None:
    """Wherever its files have gone: what it learnt from is written in the model, not beside it."""
    data = Dataset.open(folder / "dataset")
    model = make_model(tmp_path / "model", data.vocabulary, data.manifest.content_hash)
    Bundles(tmp_path / "bundles").publish(model)
    for place in (model, tmp_path / "bundles"):
        result = run(place, folder / "dataset", "--split", "validation", "--out", tmp_path / "report")
        assert isinstance(result.exception, InputError)
        assert "learnt from the validation sessions" in str(result.exception)
        assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("learnt", ["training", "development"])
def test_baselines_learn_from_what_the_model_learnt_from(folder: Path, tmp_path: Path, learnt: Learnt) -> None:
    data = Dataset.open(folder / "dataset")
    model = make_model(tmp_path / "model", data.vocabulary, data.manifest.content_hash, learnt)
    result = run(model, folder / "dataset", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.exception
    figures = json.loads((tmp_path / "report/evaluation.json").read_text())
    neighbours = ItemKNN()
    neighbours.fit({"training": data.training, "development": data.development}[learnt](), len(data.vocabulary))
    found = {recommender["name"]: recommender["metrics"] for recommender in figures["recommenders"]}
    assert found["item-kNN"] == evaluate(neighbours, data.test(), data.vocabulary.counts).as_dict()


def test_a_model_with_other_items_is_refused(folder: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", Vocabulary(["a", "b"], np.ones(2, np.int64)), "0")
    result = run(model, folder / "dataset", "--out", tmp_path / "report")
    assert isinstance(result.exception, InputError)
    assert "its items are not those of" in str(result.exception)


def test_a_model_of_another_dataset_is_refused(folder: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", Dataset.open(folder / "dataset").vocabulary, "another")
    result = run(model, folder / "dataset", "--out", tmp_path / "report")
    assert isinstance(result.exception, InputError)
    assert "another dataset" in str(result.exception)
    assert not (tmp_path / "report").exists()


def test_an_empty_test_split_is_refused(tmp_path: Path, folder: Path) -> None:
    data = make_dataset(tmp_path / "dataset", with_test=False)
    model = make_model(tmp_path / "model", data.vocabulary, data.manifest.content_hash)
    result = run(model, tmp_path / "dataset", "--out", tmp_path / "report")
    assert isinstance(result.exception, DatasetError)
    assert "the test split has no session" in str(result.exception)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    missing_model = run(tmp_path / "no-model", folder / "dataset", "--out", tmp_path / "report")
    assert isinstance(missing_model.exception, BundleError | MissingInputError)
    assert "no-model" in str(missing_model.exception)
    missing_data = run(folder / "run/model", tmp_path / "no-data", "--out", tmp_path / "report")
    assert isinstance(missing_data.exception, MissingInputError)
    process = tmp_path / "no-process.json"
    arguments = (folder / "run/model", folder / "dataset", "--process", process, "--out", tmp_path / "report")
    assert isinstance(run(*arguments).exception, MissingInputError)


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    data = Dataset.open(folder / "dataset")
    model = Scorer(load_model(folder / "run/model").weights)
    baselines = [Popularity(), SessionPopularity()]
    for baseline in baselines:
        baseline.fit(data.development(), len(data.vocabulary))
    return compare(model, baselines, None, data.test(), data.vocabulary.counts)


def test_concentration_of_popularity_is_all_in_twenty_items(comparison: Comparison) -> None:
    shares = comparison.concentration(comparison.baselines[0])
    assert shares[0] == 0
    assert shares[20] == shares[-1] == pytest.approx(1)
    assert shares[10] == pytest.approx(0.5)


def test_demand_is_where_the_targets_are(comparison: Comparison) -> None:
    most_popular = int(np.argmax(comparison.counts))
    share = np.mean(comparison.predictions.target == most_popular)
    assert comparison.demand[1] == pytest.approx(share)


def test_predictable_items_have_their_recall(comparison: Comparison) -> None:
    best, worst = comparison.predictable(5)
    assert best[0].recall >= best[-1].recall >= worst[-1].recall >= worst[0].recall
    of_item = comparison.predictions.target == best[0].row
    assert best[0].predictions == of_item.sum() >= 10
    assert best[0].recall == pytest.approx(np.mean(comparison.model.ranks[of_item] <= 20))


def test_the_lead_is_over_the_best_baseline_first(comparison: Comparison) -> None:
    leads = comparison.leads("recall@20")
    bases = {baseline.name: baseline.recall(20) for baseline in comparison.baselines}
    assert [lead.base for lead in leads] == sorted(bases.values(), reverse=True)
    for lead in leads:
        assert lead.difference == pytest.approx(comparison.model.recall(20) - bases[lead.baseline])
        assert lead.low <= lead.difference <= lead.high


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.03, "ahead"), (-0.01, 0.03, "level"), (0.0, 0.1, "level"), (-0.2, -0.1, "behind")],
)
def test_a_lead_is_one_where_its_interval_is_clear_of_nothing(low: float, high: float, verdict: str) -> None:
    lead = Lead("baseline", base=0.4, difference=0.02, low=low, high=high)
    assert lead.verdict == verdict
    assert lead.relative(lead.difference) == pytest.approx(5)


def test_the_verdict_is_said_in_words(report: tuple[Result, dict[str, Any], str]) -> None:
    """A model with random weights is no match for the baselines."""
    _, figures, page = report
    assert figures["ahead_of_best_baseline"]["recall@20"]["verdict"] == "behind"
    best = figures["ahead_of_best_baseline"]["recall@20"]["baseline"]
    assert re.search(rf"The model <b>is behind {best}</b>, the best of 6 baselines,\s+by <b>\d+\.\d%</b>", page)


def test_colours_are_names_that_the_page_defines(report: tuple[Result, dict[str, Any], str]) -> None:
    """So that a dark screen can have others."""
    page = report[2]
    used, defined = set(re.findall(r"var\((--[\w-]+)\)", page)), set(re.findall(r"(--[\w-]+):", page))
    assert used <= defined
    for plot in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "var(--" in plot
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", plot)) <= {"#ffffff"}
