"""Retraining from a trained model: what is kept, where new items begin, what is learnt, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from recsys.bundle import Model, save_model
from recsys.cli.train import train
from recsys.dataset import Dataset, write_dataset
from recsys.errors import BundleError, SettingsError
from recsys.manifest import Split
from recsys.model.followers import Followers, with_followers
from recsys.model.network import Weights, initial_weights
from recsys.model.training import Epoch, Progress, fit
from recsys.model.trend import with_trend
from recsys.model.warm_start import refuse_leaks, refuse_misfits, warm_start
from recsys.published import load_model
from recsys.scoring.scorer import Scorer
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, SessionSettings, TrainingSettings
from recsys.vocabulary import Vocabulary

from .logs import markov_chain, markov_log, sessions_of

DAY = 86_400_000
KNOWN = Vocabulary(["b", "d", "gone"], np.array([8, 2, 4]))
VOCABULARY = Vocabulary(["a", "b", "c", "d"], np.array([1, 8, 4, 2]))
A, B, C, D = range(4)
QUICK = TrainingSettings(samples=32, batch_size=8, clicks_per_step=4)


def at(sessions: Sessions, time: int) -> Sessions:
    """The same sessions from ``time`` on."""
    return Sessions(sessions.items, sessions.times + time, sessions.types, sessions.starts)


def joined(first: Sessions, second: Sessions) -> Sessions:
    """One day's sessions after another's."""
    columns = (np.concatenate(pair) for pair in zip(_columns(first), _columns(second), strict=True))
    return Sessions(*columns, np.concatenate((first.starts, second.starts[1:] + first.events)))


def _columns(sessions: Sessions) -> tuple[np.ndarray, ...]:
    return sessions.items, sessions.times, sessions.types


def weights(embedding: str = "tied", items: int = 3) -> Weights:
    random = initial_weights(items, ModelSettings.model_validate({"units": 4, "embedding": embedding}), 1)
    return {**random, "bias": np.arange(1, items + 1, dtype=np.float32)}


TODAY = sessions_of([[D, C, B, B], [D, D, A]])


@pytest.mark.parametrize("embedding", ["tied", "separate", "one-hot"])
def test_what_is_known_is_kept_to_the_bit(embedding: str) -> None:
    old = weights(embedding)
    new = warm_start(old, KNOWN, VOCABULARY, TODAY, -1, QUICK).weights
    assert new.keys() == old.keys()
    for name, value in old.items():
        if value.shape[0] == len(KNOWN) and name in {"embedding", "output", "bias", "gru.0.kernel"}:
            assert new[name].shape == (len(VOCABULARY), *value.shape[1:])
            assert np.array_equal(new[name][[B, D]], value[[0, 1]])
            assert new[name].dtype == np.float32
        elif name != "rise":
            assert np.array_equal(new[name], value)


def test_new_items_begin_among_their_company() -> None:
    """C shares its session with D once and B twice, A with D twice; what is off is the noise, a tenth of the spread."""
    old = weights()
    b, d = old["embedding"][:2]
    new = warm_start(old, KNOWN, VOCABULARY, TODAY, -1, QUICK).weights["embedding"]
    noise = 0.5 * np.std([b, d])
    assert np.abs(new[C] - (2 * b + d) / 3).max() < noise
    assert np.abs(new[A] - d).max() < noise
    alone = warm_start(old, KNOWN, VOCABULARY, sessions_of([[A, C], [B, D]]), -1, QUICK).weights["embedding"]
    assert np.abs(alone[[A, C]] - (b + d) / 2).max() < noise
    assert (alone[A] != alone[C]).all(), "items that begin alike must not stay alike"


def test_new_biases_lie_on_the_line_through_the_known_ones() -> None:
    """Known: bias 1 at 8 events, 2 at 2. So a doubling of events takes half a unit: 1.5 at 4 and 2.5 at 1."""
    bias = warm_start(weights(), KNOWN, VOCABULARY, TODAY, -1, QUICK).weights["bias"]
    assert bias.tolist() == pytest.approx([2.5, 1, 1.5, 2])


def test_a_trend_is_learnt_from_new_clicks_and_its_strength_is_kept() -> None:
    risen = with_trend(weights(), np.array([1, 0, -1], np.float32), 0.5)
    new = warm_start(risen, KNOWN, VOCABULARY, TODAY, -1, QUICK).weights
    assert new["bias"].tolist() == pytest.approx([2.5, 1, 1.5, 2]), "what had risen then is not learnt for good"
    assert new["trend"] == 0.5
    assert not new["rise"].any()


def test_followers_that_stay_are_known_by_their_new_rows() -> None:
    """b was followed by d and by what is gone, d by b; what is gone was followed by d."""
    found = Followers(np.array([[2, 3], [1, 0], [2, 0]], np.float32), np.array([[1, 2], [3, 0], [4, 0]], np.float32))
    new = warm_start(with_followers(weights(), found, 0.5), KNOWN, VOCABULARY, TODAY, -1, QUICK).weights
    assert new["followers"].tolist() == [[0, 0], [D + 1, 0], [0, 0], [B + 1, 0]]
    assert new["surplus"].tolist() == [[0, 0], [1, 0], [0, 0], [3, 0]]
    assert new["following"] == 0.5


def test_followers_go_on_from_what_was_known() -> None:
    """Today b was left once, for b itself, when d was expected a little; c was left for b, and d for d, c and a."""
    found = Followers(np.array([[2, 3], [1, 0], [2, 0]], np.float32), np.array([[1, 2], [3, 0], [4, 0]], np.float32))
    start = warm_start(with_followers(weights(), found, 0.5), KNOWN, VOCABULARY, TODAY, -1, QUICK)
    model = ModelSettings(units=4, followers=2)
    fitted = fit(start.sessions, start.sessions, len(VOCABULARY), model, QUICK, start=start.weights).weights
    assert fitted["following"] == 0.5
    assert (fitted["followers"][B, 0], fitted["followers"][C, 0]) == (D + 1, B + 1)
    assert 0.7 < fitted["surplus"][B, 0] < 1
    assert fitted["surplus"][C, 0] == pytest.approx(np.log(2 / 1.3), abs=0.3)
    after_d = dict(zip(fitted["followers"][D], fitted["surplus"][D], strict=True))
    assert 2 < after_d[B + 1] < 3


def test_chance_is_a_function_of_the_seed() -> None:
    one, again, other = (
        warm_start(weights(), KNOWN, VOCABULARY, TODAY, -1, QUICK.model_copy(update={"seed": seed})).weights
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["embedding"], other["embedding"])


def test_only_sessions_with_something_new_are_learnt() -> None:
    """The second session goes on past the boundary: it is learnt whole, for what came before what is new."""
    sessions = sessions_of([[A, B], [C, D, A], [B, C]])
    begins = sessions.times[sessions.starts[:-1]]
    start = warm_start(weights(), KNOWN, VOCABULARY, sessions, int(begins[1]) + 500, QUICK)
    assert [row.tolist() for row in start.sessions] == [[C, D, A], [B, C]]


@pytest.mark.parametrize(("replay", "older"), [(0.0, 0), (0.2, 5), (0.5, 20), (0.9, 60)])
def test_older_sessions_are_mixed_in_by_the_share_asked_for(replay: float, older: int) -> None:
    """Of 80 sessions 20 are new; nine times as many older ones are not to be had."""
    sessions = sessions_of([[B, D]] * 80)
    settings = QUICK.model_copy(update={"replay": replay})
    mixed = warm_start(weights(), KNOWN, VOCABULARY, sessions, int(sessions.times[119]), settings).sessions
    assert len(mixed) == 20 + older
    assert (np.diff(mixed.times) > 0).all(), "in the order of time, each once"


def test_nothing_new_and_another_shop_are_refused() -> None:
    with pytest.raises(SettingsError, match="no session is newer than 1970-01-01 00:00:06 UTC"):
        warm_start(weights(), KNOWN, VOCABULARY, TODAY, 6000, QUICK)
    with pytest.raises(SettingsError, match="knows no item of the dataset"):
        warm_start(weights(), Vocabulary(["x", "y", "z"], KNOWN.counts), VOCABULARY, TODAY, -1, QUICK)


def test_what_does_not_fit_is_refused_by_name() -> None:
    model, sessions = ModelSettings(), SessionSettings()
    refuse_misfits(model, sessions, model, SessionSettings(min_item_support=1))
    with pytest.raises(SettingsError, match=r"model\.units is 100 there and 50 here; model\.layers is 1 there and 2"):
        refuse_misfits(model, sessions, ModelSettings(units=50, layers=2), sessions)
    with pytest.raises(SettingsError, match=r"model\.embedding is tied there and separate here"):
        refuse_misfits(model, sessions, ModelSettings(embedding="separate"), sessions)
    with pytest.raises(SettingsError, match=r"sessions\.gap_minutes is 30\.0 there and 60\.0 here"):
        refuse_misfits(model, sessions, model, SessionSettings(gap_minutes=60))


def test_a_model_that_has_seen_what_is_held_out_is_refused() -> None:
    assert refuse_leaks(10, None) == refuse_leaks(10, 11) == 10
    with pytest.raises(SettingsError, match=r"learnt until 1970-01-02 .* held out"):
        refuse_leaks(DAY, DAY)
    with pytest.raises(SettingsError, match="until when"):
        refuse_leaks(None, None)


class KilledError(Exception):
    pass


def test_a_run_that_is_resumed_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    log = markov_log(markov_chain(50, 10, 1), 600, 6, 1)
    trained = initial_weights(50, ModelSettings(units=8), 7)
    settings = QUICK.model_copy(update={"epochs": 2, "checkpoint_seconds": 1e-9})
    unbroken = fit(log, log, 50, ModelSettings(units=8), settings, start=trained)

    def die(event: Progress | Epoch) -> None:
        if isinstance(event, Progress) and event.epoch == 2 and event.window > 32:
            raise KilledError

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        fit(log, log, 50, ModelSettings(units=8), settings, start=trained, checkpoint=checkpoint, report=die)
    other = initial_weights(50, ModelSettings(units=8), 8)
    with pytest.raises(SettingsError, match="another dataset or start"):
        fit(log, log, 50, ModelSettings(units=8), settings, start=other, checkpoint=checkpoint)
    resumed = fit(log, log, 50, ModelSettings(units=8), settings, start=trained, checkpoint=checkpoint)
    assert all(np.array_equal(resumed.weights[name], unbroken.weights[name]) for name in trained)


IDS = [f"i{number:02}" for number in range(41)]
NEW = 40
OPTIONS = "--epochs 3 --warm-epochs 3 --units 16 --samples 32 --batch-size 8 --clicks-per-step 4 --hidden-dropout 0"


def dataset_of(path: Path, sessions: Sessions, held_out_from: int | None = None) -> Dataset:
    """A dataset of all these sessions, with the items that occur in them."""
    counts = np.bincount(sessions.items, minlength=len(IDS))
    items = np.flatnonzero(counts)
    vocabulary = Vocabulary([IDS[item] for item in items], counts[items])
    users = [f"u{number:05}" for number in range(len(sessions))]
    return write_dataset(path, vocabulary, {"train": (sessions, users)}, Split(test_from=held_out_from))


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of a day and of two, the second with a new item that follows item 3; the first day's model."""
    path = tmp_path_factory.mktemp("days")
    chances = markov_chain(NEW, 4, 1)
    first = markov_log(chances, 1500, 5, 1)
    second = at(markov_log(chances, 400, 5, 2), DAY)
    second = joined(second, at(sessions_of([[number % NEW, 3, NEW] for number in range(80)]), DAY + DAY // 2))
    dataset_of(path / "monday", first)
    dataset_of(path / "tuesday", joined(first, second))
    assert run(path / "monday", path / "first").exit_code == 0
    return path


def run(dataset: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(train, [str(dataset), "--out", str(out), *OPTIONS.split(), *options])


def top(model: Model, *session: str) -> list[str]:
    """The five best items after a session."""
    scorer = Scorer(model.weights)
    hidden = scorer.advance(scorer.start(1), [model.vocabulary.rows(session).tolist()])
    return [model.vocabulary.ids[row] for row in scorer.top_k(hidden, 5)[0][0]]


def test_a_new_item_is_recommended_after_a_warm_start(two_days: Path) -> None:
    first = load_model(two_days / "first/model")
    assert first.description.learnt_until == Dataset.open(two_days / "monday").development().times.max()
    done = run(two_days / "tuesday", two_days / "second", "--warm-start", str(two_days / "first/model"))
    assert done.exit_code == 0, done.output
    second = load_model(two_days / "second/model")
    assert second.description.learnt_until == Dataset.open(two_days / "tuesday").development().times.max()
    assert second.description.learnt == "development"
    assert IDS[NEW] not in first.vocabulary.ids
    assert IDS[NEW] in top(second, IDS[8], IDS[3])
    after = markov_chain(NEW, 4, 1)
    likeliest = {item: IDS[int(np.argmax(after[item]))] for item in range(NEW) if item != 3}
    kept = np.mean([following in top(second, IDS[item]) for item, following in likeliest.items()])
    assert kept > 0.8, "what the first day taught is not forgotten"


def test_refusals_leave_the_run_in_place(two_days: Path) -> None:
    first = str(two_days / "first/model")
    shutil.copytree(two_days / "first", two_days / "kept")
    refused = {
        "no session is newer": run(two_days / "monday", two_days / "kept", "--overwrite", "--warm-start", first),
        "model.units is 16 there and 8 here": run(
            two_days / "tuesday", two_days / "kept", "--overwrite", "--warm-start", first, "--units", "8"
        ),
    }
    for words, result in refused.items():
        assert isinstance(result.exception, SettingsError)
        assert words in str(result.exception)
    assert (two_days / "kept/model").is_dir()


def test_a_dataset_that_holds_out_what_the_model_has_learnt_is_refused(two_days: Path) -> None:
    sessions = Dataset.open(two_days / "monday").development()
    dataset_of(two_days / "leaking", sessions.keep_sessions(np.arange(len(sessions)) < 1000), held_out_from=5_000_000)
    result = run(two_days / "leaking", two_days / "leak", "--warm-start", str(two_days / "first/model"))
    assert isinstance(result.exception, SettingsError)
    assert "held out" in str(result.exception)


def test_older_bundles_load_but_do_not_say_until_when(two_days: Path) -> None:
    model = load_model(two_days / "first/model")
    older = two_days / "older"
    older.mkdir()
    save_model(
        older, Model(model.weights, model.vocabulary, model.description.model_copy(update={"learnt_until": None}))
    )
    text = (older / "model.json").read_text()
    (older / "model.json").write_text(text.replace(',\n "learnt_until": null', ""))
    assert load_model(older).description.learnt_until is None
    result = run(two_days / "tuesday", two_days / "from-older", "--warm-start", str(older))
    assert isinstance(result.exception, SettingsError)
    result = run(two_days / "tuesday", two_days / "from-nothing", "--warm-start", str(two_days / "monday"))
    assert isinstance(result.exception, BundleError)
