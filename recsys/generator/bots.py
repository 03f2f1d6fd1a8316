"""Crawlers among the shoppers: each goes through the shop once, item after item, at a steady pace.

They come at any time of the day and are no part of the process: what is known of the best recommender holds for the
shoppers. Memory holds the clicks of the crawlers that are under way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recsys.generator.clicks import Rows
from recsys.generator.process import DAY, VIEW, Parameters, Process

PACE = (500, 15_000)  # milliseconds from click to click, of the fastest crawler and of the slowest
JITTER = 0.2  # how much a pause differs from the pace, at most


def bot_numbers(parameters: Parameters) -> range:
    """The user numbers of the bots: they come after those of the shoppers."""
    return range(parameters.users, parameters.users + len(parameters.bot_clicks))


def with_bots(process: Process, shoppers: Iterator[Rows]) -> Iterator[Rows]:
    """The log: the rows of ``shoppers`` and of bots in chunks, ordered by arrival."""
    bots = _Bots(process)
    waiting: list[Rows] = []
    for rows in shoppers:
        if len(rows):
            newest = int(rows.arrival[-1])
            come = Rows.join([rows, *waiting, *bots.until(newest)])
            come = come.take(np.argsort(come.arrival, kind="stable"))
            cut = int(np.searchsorted(come.arrival, newest, side="right"))
            waiting = [come.take(slice(cut, None))]
            yield come.take(slice(0, cut))
    rest = Rows.join([*waiting, *bots.until(np.iinfo(np.int64).max)])
    if len(rest):
        yield rest.take(np.argsort(rest.arrival, kind="stable"))


class _Bots:
    """Hands out the rows of the bots, a bot a part, in the order in which they begin."""

    def __init__(self, process: Process) -> None:
        parameters = process.parameters
        self.random = random = np.random.default_rng([parameters.seed, 2])
        clicks = random.permutation(parameters.bot_clicks)
        pace = PACE[0] * (PACE[1] / PACE[0]) ** random.random(len(clicks))
        idle = np.maximum(parameters.days * DAY - clicks * pace * (1 + JITTER), 0)
        begins = parameters.start_ms + (random.random(len(clicks)) * idle).astype(np.int64)
        order = np.argsort(begins, kind="stable")
        self.begins, self.clicks, self.pace = begins[order], clicks[order], pace[order]
        self.users, self.items = bot_numbers(parameters), len(process.item_ids)
        self.gone, self.number = 0, parameters.shopping

    def until(self, time: int) -> Iterator[Rows]:
        """All rows of those that begin until ``time`` (epoch milliseconds) and were not handed out before."""
        while self.gone < len(self.begins) and self.begins[self.gone] <= time:
            yield self._crawl(self.gone)
            self.gone += 1

    def _crawl(self, bot: int) -> Rows:
        clicks = int(self.clicks[bot])
        pauses = self.pace[bot] * self.random.uniform(1 - JITTER, 1 + JITTER, clicks)
        times = self.begins[bot] + np.cumsum(pauses).astype(np.int64)
        items = (self.random.integers(self.items) + np.arange(clicks)) % self.items
        numbers = np.arange(self.number, self.number + clicks)
        self.number += clicks
        nothing = np.zeros(clicks, np.int64)
        return Rows(np.full(clicks, self.users[bot]), items, times, nothing + VIEW, numbers, nothing, times)
