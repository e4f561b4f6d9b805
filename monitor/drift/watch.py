"""Keeps a report at hand that a scrape can show at once: it is made in the background, at intervals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from binwatch.bundle import Reference
from monitor.drift.report import DriftReport, make_report
from monitor.records import Records, RecordsDown

logger = logging.getLogger(__name__)


class DriftWatch:
    """The latest report. Nothing runs until `start`; `update` makes a report at once."""

    def __init__(
        self, records: Records, reference_of: Callable[[str], Reference | None], interval_s: float = 60.0
    ) -> None:
        self._records = records
        self._reference_of = reference_of
        self._interval_s = interval_s
        self._report: DriftReport | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def report(self) -> DriftReport | None:
        """None until there is one, and while the records cannot be read: rather absent than stale."""
        return self._report

    def update(self) -> None:
        """Make a report now."""
        try:
            self._report = self.now()
        except RecordsDown:
            self._report = None  # the records have logged it

    def now(self) -> DriftReport:
        """A report of this moment. Raises RecordsDown."""
        return make_report(self._records, self._reference_of)

    def start(self) -> None:
        """Update in a thread, now and at intervals, until `stop`."""
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; an update that is under way is left behind."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.update()
            except Exception:  # whatever is odd about one report must not end all later ones
                logger.exception("the drift report could not be made; it is tried again in %g s", self._interval_s)
                self._report = None
            self._stopping.wait(self._interval_s)
