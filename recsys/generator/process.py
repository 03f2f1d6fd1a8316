"""The process that generated shoppers follow.

The shop's items stand on shelves, one a category, each shelf a ring. Item popularity is Zipf. From an item, the next
one is, at random:

- *follow*: one of the next items along the shelf, the nearer and the more popular the likelier;
- *related*: one of a few items at the corresponding place of the shelf that goes with this one (a case for a phone);
- *explore*: a category by the taste of the hour, and in it an item by popularity.

The taste for categories drifts, each with its own period. So the next item depends on the current item and the time of
its click and on nothing else: a first-order Markov process whose transition probabilities are known.

On an item, a shopper may look again, put it in the cart, and purchase it. These are further events on the same item.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

VERSION = 1  # stands for the constants below: another value of any of them is another process

EVENT_TYPES = ("view", "cart", "purchase")
VIEW, CART, PURCHASE = range(3)

FOLLOW, RELATED, EXPLORE = 0.55, 0.20, 0.25
REACH, RELATED_REACH = 24, 6  # items ahead on the shelf, and on the related one
NEARNESS = 0.85  # each step further along the shelf is this much less likely
CONTINUE = 0.8  # chance of a further item after one is done with: 5 items a session on average
LOOK_AGAIN, TO_CART, TO_PURCHASE = 0.04, 0.10, 0.35
BOT_CLICKS = (150, 1500)  # of the bot that clicks least, and of the one that clicks most
SHELF, MAX_CATEGORIES = 80, 200  # items on a shelf, until there are too many shelves
TASTE_SWING, TASTE_PERIODS = 1.2, (2.0, 15.0)  # strength of the drift and its periods in days
HOUR = 3_600_000
DAY = 24 * HOUR


class Parameters(BaseModel):
    """All that a generated log depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(VERSION, ge=VERSION, le=VERSION)
    events: int = Field(200_000, ge=1, description="Rows in the log.")
    users: int = Field(5_000, ge=1, description="Shoppers; few of them come often.")
    items: int = Field(3_000, ge=10, description="Items in the shop.")
    seed: int = Field(1, ge=0, description="The same seed gives the same bytes.")
    days: int = Field(8, ge=1, le=3650, description="Days that the log spans.")
    start: date = Field(date(2025, 3, 3), description="First day, UTC.")
    zipf: float = Field(0.9, ge=0, le=3, description="Exponent of item popularity.")
    bad_share: float = Field(0.005, ge=0, le=0.5, description="Share of rows that are broken copies of good rows.")
    duplicate_share: float = Field(0.01, ge=0, le=0.5, description="Share of rows that repeat an earlier row.")
    late_share: float = Field(0.01, ge=0, le=0.5, description="Share of rows that stand in the file after their time.")
    bots: float = Field(0.0, ge=0, le=0.5, description="Crawlers that click too, as a share of the shoppers.")

    @model_validator(mode="after")
    def _some_rows_are_good(self) -> Parameters:
        if self.shopping <= 0:
            raise ValueError(f"bad_share, duplicate_share and bots leave no good row of {self.events}")
        return self

    @property
    def bad(self) -> int:
        """Rows that are broken."""
        return round(self.events * self.bad_share)

    @property
    def duplicates(self) -> int:
        """Rows that repeat another."""
        return round(self.events * self.duplicate_share)

    @property
    def late(self) -> int:
        """Rows that stand in the file after their time."""
        return round(self.events * self.late_share)

    @property
    def bot_clicks(self) -> NDArray[np.int64]:
        """How many rows each bot makes: int64 ``[bots]``."""
        return np.geomspace(*BOT_CLICKS, round(self.users * self.bots)).astype(np.int64)

    @property
    def shopping(self) -> int:
        """Good rows of shoppers, each counted once."""
        return self.events - self.duplicates - self.bad - int(self.bot_clicks.sum())

    @property
    def start_ms(self) -> int:
        """The first moment, in epoch milliseconds."""
        return int(datetime.combine(self.start, datetime.min.time(), UTC).timestamp()) * 1000


class Process:
    """The shop and its transition probabilities, rebuilt from the parameters alone.

    Items are numbered in shelf order here; ``item_ids`` gives them names that tell nothing about it.

    Attributes:
        item_ids: ``[items]``.
        category: int64 ``[items]``.
        prices: float64 ``[items]``.
        popularity: float64 ``[items]``, sums to 1 within a category.
        near: int32 ``[items, reach]``, items that *follow* and *related* lead to.
        near_chance: float64 ``[items, reach]``, their probabilities; each row sums to ``FOLLOW + RELATED``.
        taste: float64 ``[hours, categories]``, the chance of each category in each hour; rows sum to 1.
    """

    def __init__(self, parameters: Parameters) -> None:
        random = np.random.default_rng([parameters.seed, 0])
        items = parameters.items
        categories = max(2, min(items // SHELF, MAX_CATEGORIES))
        self.parameters = parameters
        width = max(5, len(str(items)))
        self.item_ids = [f"sku-{number:0{width}d}" for number in random.permutation(items) + 1]
        self.first = np.arange(categories + 1) * items // categories
        self.category = np.repeat(np.arange(categories), np.diff(self.first))
        base = np.exp(random.normal(3.0, 0.8, categories))
        self.prices = np.round(base[self.category] * np.exp(random.normal(0, 0.5, items)), 2) + 0.99

        zipf = np.power(random.permutation(items) + 1.0, -parameters.zipf, dtype=np.float64)
        mass = np.add.reduceat(zipf, self.first[:-1])
        self.popularity = zipf / mass[self.category]
        self.near, self.near_chance = self._neighbourhoods(zipf, 1 + int(random.integers(categories - 1)))
        self.taste = self._tastes(mass, random)

        self._cumulative = np.concatenate(([0.0], np.cumsum(zipf)))
        self._near_edges = np.cumsum(self.near_chance, axis=1)
        self._taste_edges = np.cumsum(self.taste, axis=1)

    def hour(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The hour of the log, a row of ``taste``, of each time in epoch milliseconds."""
        hours: NDArray[np.int64] = np.clip((times - self.parameters.start_ms) // HOUR, 0, len(self.taste) - 1)
        return hours

    def explore(self, times: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """Draw an item for each time, by the taste of the hour and popularity: how a session begins."""
        edges = self._taste_edges[self.hour(times)]
        chosen = np.count_nonzero(random.random(len(times))[:, None] >= edges[:, :-1], axis=1)
        low, high = self._cumulative[self.first[chosen]], self._cumulative[self.first[chosen + 1]]
        drawn = np.searchsorted(self._cumulative, low + random.random(len(times)) * (high - low), side="right") - 1
        items: NDArray[np.int64] = np.clip(drawn, self.first[chosen], self.first[chosen + 1] - 1)
        return items

    def next(
        self, current: NDArray[np.int64], times: NDArray[np.int64], random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw the item after each ``current`` one, whose click was at ``times``."""
        draw = random.random(len(current))
        place = np.count_nonzero(draw[:, None] >= self._near_edges[current], axis=1)
        explores = place == self.near.shape[1]
        items: NDArray[np.int64] = self.near[current, np.minimum(place, self.near.shape[1] - 1)].astype(np.int64)
        items[explores] = self.explore(times[explores], random)
        return items

    def _neighbourhoods(
        self, zipf: NDArray[np.float64], related_shelf: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        sizes = np.diff(self.first)
        reach, related_reach = min(REACH, int(sizes.min()) - 1), min(RELATED_REACH, int(sizes.min()))
        size, first = sizes[self.category], self.first[self.category]
        place = np.arange(len(zipf)) - first
        ahead = first[:, None] + (place[:, None] + np.arange(1, reach + 1)) % size[:, None]
        other = (self.category + related_shelf) % len(sizes)
        beside = place * sizes[other] // size
        related = self.first[other][:, None] + (beside[:, None] + np.arange(related_reach)) % sizes[other][:, None]
        follow_chance = NEARNESS ** np.arange(reach) * zipf[ahead]
        related_chance = zipf[related]
        follow_chance *= FOLLOW / follow_chance.sum(axis=1, keepdims=True)
        related_chance *= RELATED / related_chance.sum(axis=1, keepdims=True)
        chances = np.concatenate((follow_chance, related_chance), axis=1)
        return np.concatenate((ahead, related), axis=1).astype(np.int32), chances

    def _tastes(self, mass: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        days = np.arange((self.parameters.days + 1) * 24)[:, None] / 24
        period, phase = random.uniform(*TASTE_PERIODS, len(mass)), random.uniform(0, 2 * np.pi, len(mass))
        taste = mass * np.exp(TASTE_SWING * np.sin(2 * np.pi * days / period + phase))
        shares: NDArray[np.float64] = taste / taste.sum(axis=1, keepdims=True)
        return shares
