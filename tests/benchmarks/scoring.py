"""How long it takes to find the best items, one core, by each way of finding them.

    python -m tests.benchmarks.scoring --items 50000 --units 100 --length 100
    python -m tests.benchmarks.scoring --model run/model --dataset dataset --length 20

``plain`` is one float32 product of all states with all items, ``argpartition`` and a sort; ``floats`` and ``bytes`` are
the scorer's tables, whose lists are the same to the bit, and ``leading`` is what ``worker.index=approximate`` switches
on. They take turns, the best of some rounds counts. Weights are
random, or those of a model, with the states of a dataset's test sessions. Beside them stands what the core could do at
best: by its float32 throughput, and for a lone state by the memory's bandwidth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from recsys.bundle import Weights
from recsys.dataset import Dataset
from recsys.published import load_model
from recsys.scoring.byte_table import ByteTable, multiplies_bytes
from recsys.scoring.leading_table import LeadingTable
from recsys.scoring.scorer import Hidden, Rows, Scorer
from recsys.scoring.tables import FloatTable, TableOf
from tests.benchmarks.lookup import model_of
from tests.benchmarks.stream import bounds

List = tuple[Rows, np.ndarray]


def plain(scorer: Scorer, hidden: Hidden, count: int) -> list[List]:
    """The best of all scores at once."""
    scores = scorer.scores(hidden)
    lists = []
    for row, best in zip(scores, np.argpartition(scores, -count, axis=1)[:, -count:], strict=True):
        items = best[np.lexsort((best, -row[best]))]
        lists.append((items.astype(np.int32), row[items]))
    return lists


def ways_of(weights: Weights, count: int) -> dict[str, Callable[[Hidden], list[List]]]:
    """The ways of finding lists of ``count`` items."""
    ways: dict[str, Callable[[Hidden], list[List]]] = {"plain": partial(plain, Scorer(weights), count=count)}
    kinds: dict[str, TableOf] = {"floats": FloatTable, "leading": LeadingTable}
    if multiplies_bytes():
        kinds["bytes"] = ByteTable
    for name, kind in kinds.items():
        scorer = Scorer(weights, kind)
        start = time.perf_counter()
        scorer.prepare()
        print(json.dumps({"way": name, "made_in_s": round(time.perf_counter() - start, 2)}), flush=True)
        ways[name] = partial(scorer.top_k, count=count)
    return ways


def overlap(lists: list[List], others: list[List]) -> float:
    """The share of items that lists have in common, in the mean."""
    shares = [
        len(np.intersect1d(mine[0], theirs[0])) / len(mine[0]) for mine, theirs in zip(lists, others, strict=True)
    ]
    return float(np.mean(shares))


def compare(ways: dict[str, Callable[[Hidden], list[List]]], hidden: Hidden, rounds: int) -> dict[str, object]:
    """Microseconds a list of each way, by turns, and how many times as fast as the plain one it is."""
    best = dict.fromkeys(ways, np.inf)
    found = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way(hidden)
            best[name] = min(best[name], time.perf_counter() - start)
    return {
        "batch": len(hidden),
        "us_a_list": {name: round(seconds / len(hidden) * 1e6, 1) for name, seconds in best.items()},
        "times_as_fast": {name: round(best["plain"] / seconds, 2) for name, seconds in best.items()},
        "overlap": {name: round(overlap(lists, found["plain"]), 5) for name, lists in found.items()},
    }


def states_of(scorer: Scorer, dataset: str | None, count: int) -> Hidden:
    """States in the midst of test sessions; without a dataset, after clicks at random."""
    if dataset is None:
        clicks = np.random.default_rng(0).integers(0, scorer.items, (count, 5)).tolist()
        return scorer.advance(scorer.start(count), clicks)
    sessions = Dataset.open(Path(dataset)).test()
    chosen = np.random.default_rng(0).choice(sessions.events, count, replace=False)
    return scorer.hidden_states(sessions)[chosen]


def main() -> None:
    """Run the benchmark and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--model", help="model directory, instead of random weights")
    parser.add_argument("--dataset", help="dataset with the model's test sessions")
    parser.add_argument("--length", type=int, default=100, help="items in a list")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    weights = (load_model(Path(given.model)) if given.model else model_of(given.items, given.units)).weights
    with threadpool_limits(1):
        items, units = weights["output" if "output" in weights else "embedding"].shape
        print(json.dumps({"items": items, "units": units, "bounds": bounds(items, units)}), flush=True)
        ways = ways_of(weights, given.length)
        hidden = states_of(Scorer(weights), given.dataset, max(given.batches))
        for batch in given.batches:
            print(json.dumps(compare(ways, hidden[:batch], given.rounds)), flush=True)


if __name__ == "__main__":
    main()
