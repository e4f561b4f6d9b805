"""`promote` and `rollback`: change the model that workers use, if the new one is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from binwatch.bundle import CARD_FILE, Bundle
from binwatch.counts import column_names
from binwatch.registry import CurrentModel, Registry
from trainer.display import Display
from trainer.errors import PromotionError
from trainer.evaluation.compare import VARIANT_PREFERENCE, ModelComparison, compare, open_current


@dataclass(frozen=True)
class Decision:
    """What `promote` did, or with `dry_run` would do."""

    version: str
    replaced: str | None
    comparison: ModelComparison | None
    forced: bool


def promote(
    model: str,
    registry: Registry,
    changes: dict[str, Any],
    display: Display,
    *,
    force: bool = False,
    dry_run: bool = False,
    bundled: Path | None = None,
    show: Callable[[ModelComparison], None] = lambda _: None,
) -> Decision:
    """Promote `model` (a bundle's folder, or a published version) if it is better than the model in use.

    `bundled` is the model that workers use until one is promoted. The first model that is promoted must beat it, and it
    is published then, so that `rollback` can return to it. Without `bundled`, the first model has nothing to beat.
    `force` promotes in any case, with a note in the card. Raises PromotionError if the model is not better,
    PromotionConflictError if another one was promoted meanwhile.
    """
    with TemporaryDirectory(prefix="binwatch-models-") as name:
        candidate = _bundle(model, registry, Path(name))
        version = candidate.card.version
        before = registry.current()
        if before and before.version == version:
            raise PromotionError(f"{version} is in use already")
        comparison = None
        first = None if before or bundled is None else _bundled(bundled, display)
        current = registry.fetch(before.version, list(VARIANT_PREFERENCE), Path(name)) if before else first
        if current and current.card.version != version:
            # If the current model was trained on some of these photos, it only becomes harder to beat.
            comparison = compare(
                open_current(candidate, changes, display), open_current(current, changes, display), display
            )
            show(comparison)
        if candidate.card.unlearned_classes:
            display.warn(f"{version} cannot predict {column_names(candidate.card.unlearned_classes)}")
        forced = comparison is not None and not comparison.better
        if forced and not force:
            assert comparison is not None
            raise PromotionError(
                f"{comparison.verdict()}; {comparison.current} stays in use (--force promotes in any case)"
            )
        decision = Decision(version, current.card.version if comparison and current else None, comparison, forced)
        if not dry_run:
            if first:
                registry.publish(first.folder)
            _put_in_use(candidate, registry, before, decision)
        return decision


def rollback(registry: Registry, to: str | None = None) -> CurrentModel:
    """Promote the previous model, or the version `to`, again.

    It then has no previous one: a rollback that runs twice must not bring the bad model back.
    """
    before = registry.current()
    if before is None:
        raise PromotionError("no model was ever promoted; there is nothing to roll back")
    version = to or before.previous
    if version is None:
        raise PromotionError(
            f"{before.version} replaced no other model; choose one with --to (see: python -m trainer models)"
        )
    if version == before.version:
        raise PromotionError(f"{version} is in use already")
    current = CurrentModel(version=version, promoted=_now())
    registry.set_current(current, before)
    return current


def _bundled(folder: Path, display: Display) -> Bundle | None:
    if (folder / CARD_FILE).is_file():
        return Bundle(folder)
    display.warn(f"{folder}: no model here (BINWATCH_MODEL_DIR), so the first promoted model has nothing to beat")
    return None


def _bundle(model: str, registry: Registry, cache: Path) -> Bundle:
    folder = Path(model)
    if (folder / CARD_FILE).is_file():
        return Bundle(folder)
    if model not in registry.versions():
        raise PromotionError(
            f"{model}: neither a folder with a {CARD_FILE} nor a published version (see: python -m trainer models)"
        )
    return registry.fetch(model, list(VARIANT_PREFERENCE), cache)


def _put_in_use(candidate: Bundle, registry: Registry, before: CurrentModel | None, decision: Decision) -> None:
    registry.publish(candidate.folder)
    current = CurrentModel(
        version=decision.version, promoted=_now(), previous=decision.replaced, forced=decision.forced
    )
    registry.set_current(current, before)
    if decision.forced and decision.comparison:  # after the promotion, or the note might be wrong
        registry.annotate(
            decision.version, f"Promoted by --force on {_now():%Y-%m-%d}: {decision.comparison.verdict()}."
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
