"""A report that is made in the background at intervals, so that a scrape need not wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from monitor.records import RecordsDown

logger = logging.getLogger(__name__)

Report = TypeVar("Report")


class BackgroundReport(Generic[Report]):
    """The latest report. Nothing runs until `start`; `update` makes a report at once."""

    def __init__(self, name: str, make: Callable[[], Report], interval_s: float = 60.0) -> None:
        """`name` is for the log; `make` may raise RecordsDown."""
        self.now = make
        """A report of this moment. Raises RecordsDown."""
        self._name = name
        self._interval_s = interval_s
        self._report: Report | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def report(self) -> Report | None:
        """None until there is one, and while the records cannot be read: rather absent than stale."""
        return self._report

    def update(self) -> None:
        """Make a report now."""
        try:
            self._report = self.now()
        except RecordsDown:
            self._report = None  # the records have logged it

    def start(self) -> None:
        """Update in a thread, now and at intervals, until `stop`."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the update in progress, without waiting for it."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.update()
            except Exception:  # one failed report must not end all later ones
                logger.exception(
                    "the %s report could not be made; it is tried again in %g s", self._name, self._interval_s
                )
                self._report = None
            self._stopping.wait(self._interval_s)
