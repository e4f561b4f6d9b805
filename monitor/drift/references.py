"""The reference of the model in use: from its bundle, wherever that is."""

from __future__ import annotations

import logging
from pathlib import Path

from binwatch.bundle import Bundle, Reference
from binwatch.errors import BundleError, ObjectsError
from binwatch.registry import Registry

logger = logging.getLogger(__name__)


class References:
    """Finds and keeps the references of models, by version. A bundle never changes once it is published."""

    def __init__(self, model_dir: Path, registry: Registry | None = None) -> None:
        self._model_dir = model_dir
        self._registry = registry
        self._found: dict[str, Reference | None] = {}
        self._warned: set[str] = set()

    def of(self, version: str) -> Reference | None:
        """The reference of a model; None if its bundle has none, or cannot be had for now."""
        if version not in self._found:
            try:
                self._found[version] = self._read(version)
            except (BundleError, ObjectsError) as error:
                if version not in self._warned:
                    self._warned.add(version)
                    logger.warning("no reference for drift: %s", error)
                return None
        return self._found[version]

    def _read(self, version: str) -> Reference | None:
        try:
            card = Bundle(self._model_dir).card
        except BundleError:
            if self._registry is None:
                raise
        else:
            if card.version == version:
                return card.reference
        if self._registry is None:
            raise BundleError(f"{self._model_dir} holds model {card.version!r}, the one in use is {version!r}")
        return self._registry.card(version).reference
