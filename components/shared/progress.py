"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 5.0


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and reports the progress of `what`, e.g. `ingest: volumes`."""
    return _bar(items, total, what) if sys.stderr.isatty() else _lines(items, total, what)


def _bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())

    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True)
    ) as progress:  # stdout is for results
        yield from progress.track(items, total=total, description=what)


def _lines(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    started = logged = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - logged >= _SECONDS_BETWEEN_LINES and done < total:
            logged = now
            logger.info("%s: %d of %d (%.0f s)", what, done, total, now - started)
    logger.info("%s: all %d in %.1f s", what, total, time.monotonic() - started)
