"""The training run: epochs, early stopping, the refit on all data, checkpoints, logs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from recsys.errors import SettingsError
from recsys.model.averaging import TailAverage
from recsys.model.batches import Batches, batches_of
from recsys.model.checkpoints import fingerprint, load_checkpoint, save_checkpoint
from recsys.model.followers import Followers, fit_followers, with_followers, without_followers
from recsys.model.history import CLEARLY, Epoch, Phase, Progress, best_epoch, worth
from recsys.model.learner import Learner
from recsys.model.narrowing import best_whole_epoch, newest_share, next_share
from recsys.model.network import FOLLOWING, REVISIT, TREND, Weights, initial_weights
from recsys.model.revisits import fit_revisits
from recsys.model.strengths import Strengths, fit_strengths
from recsys.model.trend import rise_of, with_trend
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings
from recsys.trail import MOST_ITEMS

# Tensors of a checkpoint that are the best epoch's weights, those from which a search narrows down, and a tail average
BEST, WHOLE, SUM = "best.", "whole.", "sum."
REPORT_WINDOWS = 32  # windows between two calls of the progress callback

# What TensorBoard's own package, which only looking at logs needs, would mark a scalar with.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
)


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came to be.

    ``learnt`` says which sessions its weights come from, ``learnt_until`` the time of the newest event among them
    (epoch ms).
    """

    weights: Weights
    history: list[Epoch]
    learnt: Literal["training", "development"]
    learnt_until: int


Validate = Callable[[Weights], Mapping[str, float]]
Report = Callable[[Progress | Epoch], None]


def fit(
    training: Sessions,
    development: Sessions,
    items: int,
    model: ModelSettings,
    settings: TrainingSettings,
    *,
    start: Weights | None = None,
    validate: Validate | None = None,
    later: Sessions | None = None,
    checkpoint: Path | None = None,
    logs: Path | None = None,
    report: Report = lambda _: None,
) -> Fitted:
    """Train a model.

    With ``validate``, first learn from ``training`` until no better epoch has come for ``patience`` epochs, and narrow
    down to its newest sessions (:mod:`recsys.model.narrowing`); then, if ``refit`` is set, do what led to the best of
    these weights anew with ``development``, else keep them. Without ``validate``, learn from ``development`` for
    ``epochs``.

    Args:
        training: sessions before the validation boundary, in the order they are learnt.
        development: sessions before the test boundary.
        items: rows of the vocabulary.
        start: weights to begin from instead of random ones.
        validate: metrics of weights on the validation sessions, ``recall@20`` and ``mrr@20`` among them.
        later: the validation sessions, which also say how far what was counted holds; without, ``start`` says it.
        checkpoint: file to save the run in; where it exists already, the run goes on from it and gives what an unbroken
            run would have given.
        logs: directory of TensorBoard logs.
        report: called often with a :class:`Progress`, and with each :class:`Epoch` once it is saved; a run that goes
            on from a checkpoint begins with the epochs it has done, since it may have been killed between the two.

    Raises:
        SettingsError: settings or sessions that leave nothing to learn from, or a checkpoint of another run.
        InputError: a damaged checkpoint.
    """
    if items >= MOST_ITEMS:
        raise SettingsError(f"{items} items are more than a state can name ({MOST_ITEMS}): raise min_item_support")
    identity = fingerprint(model, settings, items, start or {}, training, development)
    run = _Run(identity, items, start, later, model, settings, checkpoint, logs, report)
    for epoch in run.history:
        report(epoch)
    until = int(development.times.max(initial=0))
    if validate is not None:
        if run.phase == "search":
            run.learn("search", training, validate)
        if not settings.refit:
            return Fitted(run.best_weights, run.history, "training", int(training.times.max(initial=0)))
    return Fitted(run.finish(development), run.history, "development", until)


def refuse_nothing_to_learn(sessions: Sessions) -> None:
    """A next click is learnt from the one before it.

    Raises:
        SettingsError: no session has two clicks.
    """
    if not (sessions.lengths > 1).any():
        raise SettingsError(
            f"there is nothing to learn: none of the {len(sessions)} sessions to learn from has two clicks; build the "
            "dataset from more clicks, or hold out later ones"
        )


class _Run:
    """A run and where it stands; what it does next follows from its history and the learner's variables alone."""

    def __init__(
        self,
        identity: str,
        items: int,
        start: Weights | None,
        later: Sessions | None,
        model: ModelSettings,
        settings: TrainingSettings,
        checkpoint: Path | None,
        logs: Path | None,
        report: Report,
    ) -> None:
        self._identity, self._checkpoint, self._logs, self._report = identity, checkpoint, logs, report
        self._items, self._start, self._later, self._model, self._settings = items, start, later, model, settings
        self._saved_at = time.monotonic()
        self.phase: Phase = "search"
        self.history: list[Epoch] = []
        self.best_weights: Weights = {}
        self._whole: Weights = {}  # after the best epoch over all sessions
        self._restored: tuple[int, int, Mapping[str, NDArray[Any]]] | None = None
        saved = load_checkpoint(checkpoint, identity) if checkpoint else None
        if saved is not None:
            progress, tensors = saved
            self.phase = progress["phase"]
            self.history = [Epoch(**epoch) for epoch in progress["history"]]
            self.best_weights, self._whole = _with_prefix(BEST, tensors), _with_prefix(WHOLE, tensors)
            self._restored = progress["steps"], progress["window"], tensors

    def finish(self, sessions: Sessions) -> Weights:
        """The weights after the final training on ``sessions``, as they serve."""
        learner = self.learn("final", sessions)
        return self._serving(self._tail.take_mean() if self._averages else learner.weights, sessions)

    def learn(self, phase: Phase, sessions: Sessions, validate: Validate | None = None) -> Learner:
        """All epochs of a phase, or what is left of them where the run was restored in it."""
        refuse_nothing_to_learn(sessions)
        batches = batches_of(sessions, self._settings)
        gc.collect()  # the learner of the search, large and in a cycle with its own functions
        learner = Learner(self._initial_weights(), batches, self._settings)
        restored = self._restored if self.phase == phase else None
        self.phase, self._restored = phase, None
        steps, window, tensors = restored or (0, 0, {})
        for name, variable in learner.state.items() if tensors else ():
            variable.assign(tensors[name])
        at = next((epoch.share for epoch in reversed(self.history) if epoch.phase == phase), 1.0)
        if at < 1:
            batches = _narrowed(learner, sessions, at, self._settings)
        sums, tensors = _with_prefix(SUM, tensors), {}
        self._tail = TailAverage(len(batches), sums)  # of the epoch that was saved last
        while (share := next_share(self.history, phase, self._settings)) is not None:
            if share != at:
                batches, at = _narrowed(learner, sessions, share, self._settings), share
            if share < 1 and window == 0:
                learner.start_over(self._whole)
                self._whole = {}
            self._tail, sums = TailAverage(len(batches), sums if window else None), {}
            epoch = self._epoch(learner, batches, share, steps, window)
            steps, window = steps + len(batches), 0
            if validate:
                epoch, weights = self._validated(epoch, learner, sessions, validate)
            self.history.append(epoch)
            if validate and not self._settings.refit and best_epoch(self.history) is epoch:
                self.best_weights = weights
            if validate and share == 1 and best_whole_epoch(self.history) is epoch:
                self._whole = learner.learnt
            learner.begin_epoch()
            self._log(epoch)  # before it is saved: rather twice than never
            self._save(learner, steps, window)
            self._report(epoch)
        self._whole = {}
        return learner

    @property
    def _averages(self) -> bool:
        """Whether averaged weights serve."""
        return any(epoch.validation for epoch in self.history) and best_epoch(self.history).averaged

    def _validated(
        self, epoch: Epoch, learner: Learner, sessions: Sessions, validate: Validate
    ) -> tuple[Epoch, Weights]:
        """The epoch with what validation says of its weights, and these: the mean over its end, or the last."""
        tries = []
        for averaged in (False, True):
            weights = self._serving(self._tail.take_mean() if averaged else learner.weights, sessions)
            metrics = {name: float(value) for name, value in validate(weights).items()}
            held = _strengths_of(weights)._asdict()
            tries.append((replace(epoch, validation=metrics, averaged=averaged, **held), weights))
        last, mean = tries
        return last if worth(last[0]) > CLEARLY * worth(mean[0]) else mean

    def _serving(self, weights: Weights, sessions: Sessions) -> Weights:
        """The weights as they serve: with what is fitted when they have learnt ``sessions``."""
        weights[REVISIT] = fit_revisits(weights, sessions)
        rise = rise_of(weights, sessions)
        followers = Followers.of(self._start or weights, self._model.followers)
        later = self._later if self.phase == "search" else None
        if self._model.followers and (later is not None or self._held.following):
            followers = fit_followers(weights, sessions, followers)
        held = self._held if later is None else fit_strengths(weights, rise, followers, later)
        return with_followers(with_trend(weights, rise, held.trend), followers, held.following)

    @property
    def _held(self) -> Strengths:
        """How far counts held in later sessions, as the best epoch says; or the start, where none was validated."""
        if any(epoch.validation for epoch in self.history):
            best = best_epoch(self.history)
            return Strengths(best.trend, best.following)
        return _strengths_of(self._start or {})

    def _initial_weights(self) -> Weights:
        return without_followers(self._start or initial_weights(self._items, self._model, self._settings.seed))

    def _epoch(self, learner: Learner, batches: Batches, share: float, steps: int, window: int) -> Epoch:
        """The rest of an epoch, from ``window`` on; so many ``steps`` came before it in this phase."""
        events = np.concatenate(([0], np.cumsum(batches.events)))
        began, first = time.monotonic(), window
        number = 1 + sum(epoch.phase == self.phase for epoch in self.history)
        epochs = max(number, self._settings.epochs)
        averages = self.phase == "search" or self._averages
        for learnt in learner.learn(range(first, len(batches)), steps + first):
            window = learnt + 1
            if averages and self._tail.due(window):
                self._tail.add(learner.weights)
            if window % REPORT_WINDOWS == 0 or window == len(batches):
                rate = float(events[window] - events[first]) / (time.monotonic() - began)
                loss = learner.loss_sum / max(int(events[window]), 1)
                self._report(Progress(self.phase, number, epochs, window, len(batches), loss, rate))
                if time.monotonic() - self._saved_at >= self._settings.checkpoint_seconds and window < len(batches):
                    self._save(learner, steps, window)
        return Epoch(self.phase, number, loss, rate, share=share)

    def _save(self, learner: Learner, steps: int, window: int) -> None:
        if self._checkpoint is None:
            return
        history = [asdict(epoch) for epoch in self.history]
        progress = {"phase": self.phase, "steps": steps, "window": window, "history": history}
        tensors = {name: variable.numpy() for name, variable in learner.state.items()}
        tensors |= {f"{BEST}{name}": value for name, value in self.best_weights.items()}
        tensors |= {f"{WHOLE}{name}": value for name, value in self._whole.items()}
        tensors |= {f"{SUM}{name}": value for name, value in self._tail.sums.items()}
        save_checkpoint(self._checkpoint, self._identity, progress, tensors)
        self._saved_at = time.monotonic()

    def _log(self, epoch: Epoch) -> None:
        if self._logs is None:
            return
        writer = tf.summary.create_file_writer(str(self._logs / epoch.phase))
        values = {"loss": epoch.loss, "events_per_second": epoch.events_per_second}
        values |= {f"validation/{name}": value for name, value in epoch.validation.items()}
        with writer.as_default(step=epoch.number):
            for name, value in values.items():
                tf.summary.write(name, np.float32(value), metadata=_SCALAR)
        writer.close()


def _narrowed(learner: Learner, sessions: Sessions, share: float, settings: TrainingSettings) -> Batches:
    """Batches of the newest sessions, from which the learner learns from now on."""
    batches = batches_of(newest_share(sessions, share), settings)
    learner.turn_to(batches)
    return batches


def _with_prefix(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Weights:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _strengths_of(weights: Mapping[str, NDArray[np.float32]]) -> Strengths:
    """Those that weights hold."""
    return Strengths(*(float(weights[name][0]) if name in weights else 0.0 for name in (TREND, FOLLOWING)))
