"""Retraining that begins from a model trained before: what it knows is kept, and what is new is learnt.

Rows of the items that the model knows take their places in the new vocabulary, rows of items that are gone are
dropped, and the GRU stays as it is. A new item begins among its company: at the mean of the rows of the known items
that it shares sessions with. A row drawn at random would say that it is like nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from recsys.errors import SettingsError
from recsys.model.network import FOLLOWERS, RISE, SURPLUS, Weights, input_table, output_table
from recsys.model.trend import without_trend
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, SessionSettings, TrainingSettings
from recsys.vocabulary import UNKNOWN, Vocabulary

NOISE = 0.1  # in new rows, in standard deviations of the known ones: items that begin alike must not stay alike


@dataclass(frozen=True)
class WarmStart:
    """Where a run begins: ``weights`` with the rows of the new vocabulary, and the ``sessions`` left to learn."""

    weights: Weights
    sessions: Sessions


def refuse_misfits(
    model: ModelSettings, sessions: SessionSettings, wanted_model: ModelSettings, wanted_sessions: SessionSettings
) -> None:
    """Weights of one shape do not start a network of another; nor do sessions cut in another way continue the old ones.

    Raises:
        SettingsError: names the settings in which the trained model and what is wanted differ.
    """
    shape = tuple(name for name in ModelSettings.model_fields if name != "followers")  # which are counted anew
    cut = ("gap_minutes", "collapse_repeats")
    differ = [
        f"{section}.{name} is {getattr(old, name)} there and {getattr(new, name)} here"
        for section, old, new, names in (
            ("model", model, wanted_model, shape),
            ("sessions", sessions, wanted_sessions, cut),
        )
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
    if differ:
        raise SettingsError(f"the model to start from does not fit: {'; '.join(differ)}")


def refuse_leaks(learnt_until: int | None, held_out_from: int | None) -> int:
    """When learning goes on: the time of the newest event that the trained model has learnt, epoch ms.

    Raises:
        SettingsError: the model has learnt from what the dataset holds out to evaluate on, or does not say whether.
    """
    if learnt_until is None:
        raise SettingsError("the model to start from does not say until when it has learnt: train anew once")
    if held_out_from is not None and learnt_until >= held_out_from:
        raise SettingsError(
            f"the model to start from has learnt until {_said(learnt_until)}, but sessions from "
            f"{_said(held_out_from)} on are held out to evaluate on: take an older model, or hold out later sessions"
        )
    return learnt_until


def warm_start(
    weights: Mapping[str, NDArray[np.float32]],
    known: Vocabulary,
    vocabulary: Vocabulary,
    sessions: Sessions,
    since: int,
    settings: TrainingSettings,
) -> WarmStart:
    """Begin from trained weights.

    Args:
        weights: of the trained model, with the rows of its vocabulary ``known``.
        vocabulary: of the dataset.
        sessions: of the dataset, those learnt before among them.
        since: time of the newest event that the model has learnt, epoch ms.
        settings: ``replay`` and ``seed`` count.

    Raises:
        SettingsError: nothing is newer than what the model has learnt, or the model knows no item of the dataset.
    """
    newest = np.maximum.reduceat(sessions.times, sessions.starts[:-1]) if len(sessions) else np.empty(0, np.int64)
    is_new = newest > since
    if not is_new.any():
        raise SettingsError(f"no session is newer than {_said(since)}, until when the model to start from has learnt")
    random = np.random.default_rng(settings.seed)
    carried = _carry_over(weights, known, vocabulary, sessions.keep_sessions(is_new), random)
    older = random.permutation(np.flatnonzero(~is_new))
    wanted = round(np.count_nonzero(is_new) * settings.replay / (1 - settings.replay))
    is_new[older[:wanted]] = True
    return WarmStart(carried, sessions.keep_sessions(is_new))


def _carry_over(
    weights: Mapping[str, NDArray[np.float32]],
    known: Vocabulary,
    vocabulary: Vocabulary,
    sessions: Sessions,
    random: np.random.Generator,
) -> Weights:
    """The weights with the rows of ``vocabulary``; ``sessions`` say what company new items keep."""
    rows = vocabulary.rows_from(known)
    stays = rows != UNKNOWN
    if not stays.any():
        raise SettingsError("the model to start from knows no item of the dataset: is it of another shop?")
    is_known = np.zeros(len(vocabulary), np.bool_)
    is_known[rows[stays]] = True
    weights = without_trend(weights)
    carried = dict(weights)
    for name in dict.fromkeys((input_table(weights), output_table(weights))):
        table = np.zeros((len(vocabulary), weights[name].shape[1]), np.float32)
        table[rows[stays]] = weights[name][stays]
        noise = NOISE * table[is_known].std() * random.standard_normal(table.shape, np.float32)
        carried[name] = np.where(is_known[:, None], table, _company(table, is_known, sessions) + noise)
    carried["bias"] = _expected_biases(weights["bias"][stays], known.counts[stays], vocabulary.counts)
    carried["bias"][rows[stays]] = weights["bias"][stays]
    carried[RISE] = np.zeros(len(vocabulary), np.float32)
    if FOLLOWERS in weights:
        carried |= _moved(weights, rows, len(vocabulary))
    return carried


def _moved(weights: Mapping[str, NDArray[np.float32]], rows: NDArray[np.int32], items: int) -> Weights:
    """Followers of items that stay, among so many ``items``; ``rows`` are their new ones, UNKNOWN for items gone."""
    stays = rows != UNKNOWN
    new_number = np.concatenate([[0], np.where(stays, rows + 1, 0)])
    followers = new_number[weights[FOLLOWERS][stays].astype(np.int64)]
    moved = {name: np.zeros((items, followers.shape[1]), np.float32) for name in (FOLLOWERS, SURPLUS)}
    moved[FOLLOWERS][rows[stays]] = followers
    moved[SURPLUS][rows[stays]] = np.where(followers > 0, weights[SURPLUS][stays], 0)
    return moved


def _company(table: NDArray[np.float32], is_known: NDArray[np.bool_], sessions: Sessions) -> NDArray[np.float32]:
    """``[items, width]``: for each item the mean row of the known items in its sessions, an event a time.

    An item that meets no known one gets the mean row of all known ones. Column by column, so that memory stays within
    a few times that of the sessions.
    """
    owner, items = sessions.owner, sessions.items
    familiar = is_known[items]
    met = np.bincount(owner[familiar], minlength=len(sessions))
    meetings = np.bincount(items, met[owner], len(table))
    company = np.empty_like(table)
    for number, column in enumerate(table.T):
        of_session = np.bincount(owner[familiar], column[items[familiar]], len(sessions))
        of_item = np.bincount(items, of_session[owner], len(table))
        company[:, number] = np.where(meetings > 0, of_item / np.maximum(meetings, 1), column[is_known].mean())
    return company


def _expected_biases(
    bias: NDArray[np.float32], counts: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float32]:
    """``[len(wanted)]``: the bias of an item with so many events, by the line through known biases over log counts.

    The bias of a softmax is what an item scores whatever came before it: the logarithm of how popular it is, but for
    what the states account for already. (The slope of the line says how much that leaves.)
    """
    logs = np.log(np.maximum(counts, 1))
    spread = logs - logs.mean()
    slope = (spread @ bias) / max(spread @ spread, 1e-9)
    expected: NDArray[np.float32] = bias.mean() + slope * (np.log(np.maximum(wanted, 1)) - logs.mean())
    return expected.astype(np.float32)


def _said(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
