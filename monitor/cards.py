"""Cards of the models: from the settings' bundle or the bucket, kept, since a published bundle never changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from binwatch.bundle import CARD_FILE, Bundle, Card, Reference
from binwatch.errors import BinwatchError, BundleError, OutageError
from binwatch.registry import CurrentModel, Registry

logger = logging.getLogger(__name__)

AGAIN_S = 60.0
"""Seconds until a card that could not be read is requested again, and until the promoted model is looked up again."""


class Cards:
    """Finds and keeps the cards of models, by version. Safe to share between threads."""

    def __init__(
        self, model_dir: Path, registry: Registry | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model_dir = model_dir
        self._registry = registry
        self._clock = clock
        self._found: dict[str, Card] = {}
        self._current: CurrentModel | None = None
        self._folder: tuple[int, str] | None = None
        self._asked: dict[str, float] = {}
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def of(self, version: str) -> Card | None:
        """The card of a model, fetched if necessary; None if there is none.

        Raises OutageError if it cannot be fetched for now.
        """
        if version not in self._found:
            try:
                self._found[version] = self._read(version)
            except BinwatchError as error:
                if version not in self._warned:
                    self._warned.add(version)
                    logger.warning("the card of model %s cannot be read: %s", version, error)
                if isinstance(error, OutageError):
                    raise
                return None
        return self._found[version]

    def at_hand(self, version: str) -> Card | None:
        """The card if it is loaded; else None, and it is fetched meanwhile: no page waits for the object store."""
        if version not in self._found:
            self._soon(version, lambda: self._fetch(version))
        return self._found.get(version)

    def reference(self, version: str) -> Reference | None:
        """The drift reference of a model; None if its bundle has none.

        Raises OutageError if the bundle cannot be fetched for now.
        """
        card = self.of(version)
        return card.reference if card else None

    def current(self) -> CurrentModel | None:
        """The model that was promoted last, as of the last look-up; None if there is none, or none is known yet."""
        self._soon("", self._look)
        return self._current

    def to_come(self) -> str | None:
        """Version of the model that workers count with next: the promoted one, or else that of the settings' folder."""
        current = self.current()
        if current is not None:
            return current.version
        # Read anew only when the card has changed: each scrape asks.
        try:
            changed = (self._model_dir / CARD_FILE).stat().st_mtime_ns
            if self._folder is None or self._folder[0] != changed:
                self._folder = changed, Bundle(self._model_dir).card.version
        except (OSError, BundleError):  # a monitor need not have a bundle
            return None
        return self._folder[1]

    def _soon(self, what: str, work: Callable[[], object]) -> None:
        now = self._clock()
        with self._lock:
            if now - self._asked.get(what, -AGAIN_S) < AGAIN_S:
                return
            self._asked[what] = now
        # A daemon: an object store that does not answer must not keep the monitor from ending.
        threading.Thread(target=work, name="cards", daemon=True).start()

    def _fetch(self, version: str) -> None:
        with suppress(OutageError):  # which is logged
            self.of(version)

    def _look(self) -> None:
        if self._registry is None:
            return
        try:
            self._current = self._registry.current()
        except BinwatchError as error:
            logger.info("the promoted model cannot be looked up now: %s", error)

    def _read(self, version: str) -> Card:
        try:
            card = Bundle(self._model_dir).card
        except BundleError:
            if self._registry is None:
                raise
        else:
            if card.version == version:
                return card
        if self._registry is None:
            raise BundleError(f"{self._model_dir} holds model {card.version!r}, the one in use is {version!r}")
        return self._registry.card(version)
