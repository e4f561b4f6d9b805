"""Who counts in the nightly run: decided here, once."""

from __future__ import annotations

import logging
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import BinwatchError
from binwatch.settings import NightlyBackend, Settings
from binwatch.text import many
from worker.counting import Counting
from worker.nightly.selection import current_version
from worker.publisher import Publisher
from worker.reconcile import send_unrecorded

OUTAGES = (BinwatchError, SQLAlchemyError)
"""What a run ends with that may go on later: of S3, of AWS, or of the records."""

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Counts the photos of a night. No method waits for the end of a run; each may raise one of OUTAGES.

    Each returns whether a run has come to its end by it.
    """

    def start(self) -> bool:
        """Start the run of this night, or continue one that has not ended. One without a photo ends at once."""

    def poll(self) -> bool:
        """Continue a run that waits, if there is one."""


class WorkersBackend:
    """The running workers: once they have been sent the photos, there is nothing to wait for."""

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._publisher = publisher
        self._settings = settings

    def start(self) -> bool:
        """Send the workers what the model in use has no record of."""
        counting = self._counting
        version = current_version(counting.objects, self._settings)
        sent = send_unrecorded(counting.objects, counting.database, self._settings, self._publisher, model=version)
        logger.info("nightly: sent %s that %s has no record of", many(sent.objects, "photo"), version)
        return True

    def poll(self) -> bool:
        """Nothing waits."""
        return False


def choose_backend(counting: Counting, publisher: Publisher, settings: Settings) -> Backend:
    """The backend that the settings name."""
    if settings.nightly_backend is NightlyBackend.LOCAL:
        return WorkersBackend(counting, publisher, settings)
    from worker.sagemaker.nightly.backend import TransformBackend

    return TransformBackend(counting, publisher, settings)
