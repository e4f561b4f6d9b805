"""Reports that are made periodically in the background, so that scrapes do not wait for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from monitor.records import RecordsDown

logger = logging.getLogger(__name__)

Report = TypeVar("Report")


class BackgroundReport(Generic[Report]):
    """Makes a report periodically once started, and keeps the latest."""

    def __init__(self, name: str, make: Callable[[], Report], interval_s: float = 60.0) -> None:
        """`name` is used in the log. `make` may raise RecordsDown."""
        self.make = make
        self._name = name
        self._interval_s = interval_s
        self._report: Report | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def report(self) -> Report | None:
        """The latest report. None before the first one and after a failed one, rather than a stale report."""
        return self._report

    def update(self) -> None:
        """Make a report now. Sets `report` to None if the records cannot be read."""
        try:
            self._report = self.make()
        except RecordsDown:
            self._report = None  # already logged

    def start(self) -> None:
        """Start a thread that updates the report now and at each interval, until `stop`."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end after the update in progress. Does not wait for it."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.update()
            except Exception:  # one failed report must not end all later ones
                logger.exception("the %s report could not be made; next attempt in %g s", self._name, self._interval_s)
                self._report = None
            self._stopping.wait(self._interval_s)
