"""What follows what: on logs in which it is known how often."""

import numpy as np
import pytest

from recsys.model import followers as module
from recsys.model.asked import Asked
from recsys.model.followers import Followers, fit_followers, with_followers, without_followers
from recsys.model.network import Weights, initial_weights
from recsys.model.strengths import fit_strengths
from recsys.model.training import fit
from recsys.scoring.scorer import Scorer
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings

from .logs import recall, sessions_of

ITEMS, PLACES = 40, 4
RISE = np.zeros(ITEMS, np.float32)


def indifferent(items: int = ITEMS, memory: int = 0) -> Weights:
    """A network to which all items are the same, whatever came before."""
    weights = initial_weights(items, ModelSettings(units=4, memory=memory), 1)
    weights["embedding"][:] = 0
    return weights


def chain(chance: float, sessions: int, seed: int, items: int = ITEMS, step: int = 1) -> Sessions:
    """After each item comes the one ``step`` places on by this chance, else any."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, items, (sessions, 6))
    for click in range(1, 6):
        goes_on = random.random(sessions) < chance
        rows[goes_on, click] = (rows[goes_on, click - 1] + step) % items
    return sessions_of(rows.tolist())


PAIRS = sessions_of([[0, 1]] * 8 + [[0, 2]] * 2 + [[3, 4]])


def test_a_follower_has_the_log_of_its_clicks_over_those_expected() -> None:
    """By hand: 0 is left 10 times, 8 times for 1 and twice for 2; the network expects each of 40 items .25 times."""
    found = fit_followers(indifferent(), PAIRS, Followers.none(ITEMS, PLACES))
    assert found.items[0].tolist() == [2, 3, 0, 0]
    np.testing.assert_allclose(found.surplus[0], [np.log(9 / 1.25), np.log(3 / 1.25), 0, 0], rtol=1e-5)
    assert found.items[3].tolist() == [5, 0, 0, 0]
    np.testing.assert_allclose(found.surplus[3, 0], np.log(2 / (1 + 1 / 40)), rtol=1e-5)
    assert not found.items[1].any()


def test_what_the_network_expects_already_is_no_surplus() -> None:
    """A network that knows by its bias that item 1 has 9 in 10 of all clicks is not told so again."""
    weights = indifferent()
    weights["bias"][1] = np.log(9 * (ITEMS - 1))
    found = fit_followers(weights, sessions_of([[0, 1]] * 90 + [[0, 2]] * 10), Followers.none(ITEMS, PLACES))
    surplus = dict(zip(found.items[0].astype(int) - 1, found.surplus[0], strict=True))
    assert abs(surplus[1]) < 0.02
    assert surplus[2] == pytest.approx(np.log(11 / (1 + 10 / 39)), rel=1e-4)


def test_revisits_count_as_expected() -> None:
    """Where the network knows that the click before is likely to come again, that it does is no surplus."""
    weights = indifferent(memory=1)
    weights["revisit"][:] = 0, 100
    found = fit_followers(weights, sessions_of([[0, 1, 0]] * 50), Followers.none(ITEMS, PLACES))
    assert found.items[1, 0] == 1
    assert abs(found.surplus[1, 0]) < 1e-6


def test_where_clicks_are_few_what_was_known_counts() -> None:
    known = Followers.none(ITEMS, PLACES)
    known.items[[0, 1, 2], 0], known.surplus[[0, 1, 2], 0] = 8, 2.0
    log = sessions_of([[0, 5]] + [[1, 5]] * 400)
    found = fit_followers(indifferent(), log, known)
    of = [dict(zip(found.items[row], found.surplus[row], strict=True)) for row in range(3)]
    assert of[0][8] == pytest.approx(2.0, abs=0.05)
    assert of[1][8] == pytest.approx(np.log(np.exp(2) / 11), abs=1e-4)  # 10 clicks were expected, and none came
    assert of[2] == {8: 2.0, 0: 0.0}


def test_only_the_followers_that_say_most_are_kept() -> None:
    sessions = [[0, item] for item in range(1, 30) for _ in range(item)]
    found = fit_followers(indifferent(), sessions_of(sessions), Followers.none(ITEMS, PLACES))
    assert found.items[0].tolist() == [30, 29, 28, 27]


def test_what_was_known_stays_within_bounds_however_often_it_is_learnt_anew() -> None:
    """A follower that the network expects and nobody clicks any more; each time what was found is what is known."""
    weights, known = indifferent(), Followers.none(ITEMS, PLACES)
    weights["bias"][8] = 3
    known.items[1, 0], known.surplus[1, 0] = 9, 1.0
    for _ in range(200):
        known = fit_followers(weights, sessions_of([[1, 5]] * 400), known)
    of_one = dict(zip(known.items[1], known.surplus[1], strict=True))
    assert of_one[9] == -module.MOST
    assert of_one[6] == module.MOST


@pytest.mark.parametrize("places", [2, 6])
def test_another_number_of_followers_keeps_the_first_of_them(places: int) -> None:
    weights = with_followers(indifferent(), fit_followers(indifferent(), PAIRS, Followers.none(ITEMS, PLACES)), 0.5)
    kept = Followers.of(weights, places)
    assert kept.items.shape == (ITEMS, places)
    assert kept.items[0, :2].tolist() == weights["followers"][0, :2].tolist() == [2, 3]
    assert not kept.items[:, PLACES:].any()


@pytest.mark.parametrize("peaked", [0.3, 2.0])
def test_a_sample_of_the_catalogue_says_nearly_what_all_of_it_does(
    monkeypatch: pytest.MonkeyPatch, peaked: float
) -> None:
    """Popular items have higher biases and are clicked more, as where a network has learnt."""
    items, random = 3000, np.random.default_rng(2)
    popularity = random.permutation(items) + 1.0
    weights = initial_weights(items, ModelSettings(units=16, memory=2), 1)
    weights["embedding"] = random.normal(0, 0.5 * peaked, (items, 16)).astype(np.float32)
    weights["bias"] = -np.log(popularity).astype(np.float32)
    weights["revisit"] = np.array([-3, 1, 0.5], np.float32)
    clicks = random.choice(items, (2000, 6), p=popularity**-1 / (popularity**-1).sum())
    asked = Asked.of(weights, sessions_of(clicks.tolist()))
    followers = random.integers(0, items + 1, (len(asked), 5)).astype(np.int32)
    followers[:, 0] = asked.targets + 1
    monkeypatch.setattr(module, "SAMPLE", 500)
    sampled = np.concatenate([chances for _, chances in module._chances(weights, asked, followers)])
    monkeypatch.setattr(module, "SAMPLE", items)
    exact = np.concatenate([chances for _, chances in module._chances(weights, asked, followers)])
    scores = np.concatenate([scores for _, scores in asked.scores(weights)]).astype(float)
    for row, trail in enumerate(asked.trail):
        scores[row, trail[trail > 0] - 1] += weights["revisit"][trail > 0]
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    true = np.where(followers > 0, np.take_along_axis(chances, followers.astype(np.int64) - 1, 1), 0)
    np.testing.assert_allclose(exact, true, rtol=1e-3, atol=1e-12)
    assert np.median(np.abs(sampled[true > 0] / true[true > 0] - 1)) < 0.15
    assert sampled.sum() == pytest.approx(true.sum(), rel=0.08)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_surpluses_are_as_strong_as_later_clicks_say(strength: float) -> None:
    """Clicks drawn by exp(strength * surplus) are likeliest under just that strength."""
    found = fit_followers(indifferent(), chain(0.6, 4000, 1), Followers.none(ITEMS, 1))
    # With n items, one of which is worth e^x as much as each other one, it has the chance e^x / (e^x + n - 1).
    worth = np.exp(strength * found.surplus[:, 0].mean())
    even = 1 / (worth + ITEMS - 1)  # an item drawn evenly may be the follower too
    later = chain(float((worth - 1) * even), 4000, 4)
    assert fit_strengths(indifferent(), RISE, found, later).following == pytest.approx(strength, abs=0.05)


def test_a_trend_and_followers_are_fitted_together() -> None:
    """Clicks drawn by both at once: neither takes what is the other's."""
    random, weights = np.random.default_rng(1), indifferent()
    rise = random.normal(size=ITEMS).astype(np.float32)
    found = Followers.none(ITEMS, 1)
    found.items[:, 0], found.surplus[:, 0] = random.permutation(ITEMS) + 1, 2.0
    rows = np.zeros((12_000, 2), np.int64)
    rows[:, 0] = random.integers(0, ITEMS, len(rows))
    for row in rows:
        scores = 0.7 * rise.astype(float)
        scores[int(found.items[row[0], 0]) - 1] += 0.4 * 2.0
        row[1] = random.choice(ITEMS, p=np.exp(scores) / np.exp(scores).sum())
    strengths = fit_strengths(weights, rise, found, sessions_of(rows.tolist()))
    assert strengths == pytest.approx((0.7, 0.4), abs=0.08)


def test_what_was_counted_counts_once_at_most_and_never_against_itself() -> None:
    """Clicks drawn by twice a surplus, and by less of what has risen."""
    random = np.random.default_rng(1)
    rise = random.normal(size=ITEMS).astype(np.float32)
    found = Followers.none(ITEMS, 1)
    found.items[:, 0], found.surplus[:, 0] = np.roll(np.arange(ITEMS), 1) + 1, 1.0
    last = random.integers(0, ITEMS, 8000)
    scores = np.tile(-0.5 * rise.astype(float), (len(last), 1))
    scores[np.arange(len(last)), found.items[last, 0].astype(int) - 1] += 2
    drawn = (scores + random.gumbel(size=scores.shape)).argmax(axis=1)
    strengths = fit_strengths(indifferent(), rise, found, sessions_of(np.stack([last, drawn], axis=1).tolist()))
    assert strengths == (0, 1)


def test_followers_serve_where_they_count_and_not_else() -> None:
    weights = indifferent()
    found = fit_followers(weights, sessions_of([[0, 1]] * 8), Followers.none(ITEMS, PLACES))
    served = with_followers(weights, found, 0.5)
    scorer = Scorer(served)
    scores = scorer.scores(scorer.step(scorer.start(1), np.zeros(1, np.int32)))[0]
    assert scores.argmax() == 1
    assert scores[1] == pytest.approx(0.5 * np.log(9 / 1.2), rel=1e-5)
    assert with_followers(weights, found, 0.0).keys() == weights.keys() == without_followers(served).keys()


def test_followers_are_learnt_from_validation_and_served_after_the_refit() -> None:
    """A network of two numbers cannot remember forty pairs; what was counted in all sessions serves."""
    training, validation, test = chain(0.7, 800, 1), chain(0.7, 100, 2), chain(0.7, 400, 3)
    both = chain(0.7, 900, 1)
    settings = TrainingSettings(epochs=1, halvings=0, samples=64, learning_rate=0.02, seed=3, clicks_per_step=4)
    validate = lambda weights: {"recall@20": 0.5, "mrr@20": 0.5}  # noqa: E731
    recalls = []
    for places in (0, 2):
        model = ModelSettings(units=2, followers=places)
        fitted = fit(training, both, ITEMS, model, settings, validate=validate, later=validation)
        recalls.append(recall(fitted.weights, test, 1))
        assert ("followers" in fitted.weights) == (places > 0)
    assert fitted.weights["following"] == np.float32(fitted.history[0].following) > 0.5
    assert recalls[0] < 0.2
    assert recalls[1] > 0.6
