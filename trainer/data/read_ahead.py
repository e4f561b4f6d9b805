"""Prefetching by threads. This module does not need torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MIN_READ_AHEAD = 3
"""Minimum number of batches that are read before they are needed. With more threads, it is one batch per thread."""


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int = MIN_READ_AHEAD
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, with up to `ahead` results computed in advance by threads."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
