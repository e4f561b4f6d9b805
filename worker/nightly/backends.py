"""The backends of the nightly run, and the choice between them."""

from __future__ import annotations

import logging
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import BinwatchError
from binwatch.settings import NightlyBackend, Settings
from binwatch.text import count_noun
from worker.counting import Counting
from worker.nightly.selection import current_version
from worker.publisher import Publisher
from worker.reconcile import send_unrecorded

OUTAGES = (BinwatchError, SQLAlchemyError)
"""Errors after which a run can continue later: outages of S3, AWS or the records."""

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Counts the photos of a nightly run. No method waits for the end of the run; each may raise one of OUTAGES.

    Each method returns whether it has finished a run.
    """

    def start(self) -> bool:
        """Start this night's run, or continue an unfinished one. A run without photos is finished immediately."""

    def poll(self) -> bool:
        """Continue an unfinished run, if there is one."""


class WorkersBackend:
    """Has the running workers count. The run is finished once the photos are in the task queue."""

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._publisher = publisher
        self._settings = settings

    def start(self) -> bool:
        """Send all photos without a record of the model in use to the workers."""
        counting = self._counting
        version = current_version(counting.objects, self._settings)
        sent = send_unrecorded(counting.objects, counting.database, self._settings, self._publisher, model=version)
        logger.info("nightly: sent %s that %s has no record of", count_noun(sent.objects, "photo"), version)
        return True

    def poll(self) -> bool:
        """Do nothing: `start` finishes each run."""
        return False


def choose_backend(counting: Counting, publisher: Publisher, settings: Settings) -> Backend:
    """Create the backend that the settings name."""
    if settings.nightly_backend is NightlyBackend.LOCAL:
        return WorkersBackend(counting, publisher, settings)
    from worker.sagemaker.nightly.backend import TransformBackend

    return TransformBackend(counting, publisher, settings)
