"""Model cards, from the settings' bundle or the bucket. They are cached, since a published bundle never changes."""

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

RETRY_INTERVAL_S = 60.0
"""Minimum time between two background fetches of a card, and between two look-ups of the promoted model."""


class Cards:
    """Cache of model cards by version. Safe to share between threads."""

    def __init__(
        self, model_dir: Path, registry: Registry | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model_dir = model_dir
        self._registry = registry
        self._clock = clock
        self._cards: dict[str, Card] = {}
        self._current: CurrentModel | None = None
        self._folder_version: tuple[int, str] | None = None
        """Modification time of the card in `model_dir`, and its version."""
        self._attempted_at: dict[str, float] = {}
        """Background task (the version of a card, or "" for the promoted model) → when it was last started."""
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def get(self, version: str) -> Card | None:
        """Return a model's card, fetching it if necessary; None if there is no readable one.

        Raises OutageError if it cannot be fetched at the moment.
        """
        if version not in self._cards:
            try:
                self._cards[version] = self._read(version)
            except BinwatchError as error:
                if version not in self._warned:
                    self._warned.add(version)
                    logger.warning("the card of model %s cannot be read: %s", version, error)
                if isinstance(error, OutageError):
                    raise
                return None
        return self._cards[version]

    def get_cached(self, version: str) -> Card | None:
        """Return the card if it is cached; else fetch it in the background, so that no page waits, and return None."""
        if version not in self._cards:
            self._run_in_background(version, lambda: self._fetch(version))
        return self._cards.get(version)

    def reference(self, version: str) -> Reference | None:
        """Return a model's drift reference; None without a readable card, or if it has none.

        Raises OutageError if the bundle cannot be fetched at the moment.
        """
        card = self.get(version)
        return card.reference if card else None

    def current(self) -> CurrentModel | None:
        """Return the promoted model as of the last look-up; None if there is none, or it is not known yet."""
        self._run_in_background("", self._look_up_current)
        return self._current

    def next_version(self) -> str | None:
        """Return the version of the model that workers load next: the promoted one, or that of the settings' folder."""
        current = self.current()
        if current is not None:
            return current.version
        # Read again only if the card has changed, because every scrape calls this.
        try:
            modified = (self._model_dir / CARD_FILE).stat().st_mtime_ns
            if self._folder_version is None or self._folder_version[0] != modified:
                self._folder_version = modified, Bundle(self._model_dir).card.version
        except (OSError, BundleError):  # a monitor need not have a bundle
            return None
        return self._folder_version[1]

    def _run_in_background(self, name: str, task: Callable[[], object]) -> None:
        """Run a task in a thread, unless one of this name was started less than RETRY_INTERVAL_S ago."""
        now = self._clock()
        with self._lock:
            if now - self._attempted_at.get(name, -RETRY_INTERVAL_S) < RETRY_INTERVAL_S:
                return
            self._attempted_at[name] = now
        # A daemon, so that an object store that does not answer cannot keep the monitor from exiting.
        threading.Thread(target=task, name="cards", daemon=True).start()

    def _fetch(self, version: str) -> None:
        with suppress(OutageError):  # already logged
            self.get(version)

    def _look_up_current(self) -> None:
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
