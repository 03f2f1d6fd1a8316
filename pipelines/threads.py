"""Work side by side inside one element, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result]:
    """``function`` of each item, in the order of the items, of which ``threads`` + 1 are held at a time.

    It is for work that NumPy and Arrow do, which leaves the other threads free. Where ``items`` end with an error, all
    results come before it.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        failure: Exception | None = None
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
        except Exception as error:
            failure = error
        while waiting:
            yield waiting.popleft().result()
        if failure:
            raise failure
