"""`promote` puts a model into use if it is better than the current one; `rollback` returns to the previous model."""

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
    """What `promote` has done, or would do without `dry_run`."""

    version: str
    replaced: str | None
    """Version of the model that was in use; None if there was none to compare with."""
    comparison: ModelComparison | None
    forced: bool
    """Whether the model was promoted although it is not better."""


def promote(
    model: str,
    registry: Registry,
    changes: dict[str, Any],
    display: Display,
    *,
    force: bool = False,
    dry_run: bool = False,
    initial: Path | None = None,
    show: Callable[[ModelComparison], None] = lambda _: None,
) -> Decision:
    """Promote `model` (a bundle's folder, or a published version) if it is better than the model in use.

    `initial` is the folder of the model that workers use until one is promoted. The first promoted model must beat
    that model, which is then published, too, so that `rollback` can return to it. Without `initial`, the first promoted
    model has nothing to beat. `force` promotes even a model that is not better, with a note in its card. `show` is
    called with the comparison. Raises PromotionError if the model is not better or cannot be promoted, and
    PromotionConflictError if another model was promoted in the meantime.
    """
    with TemporaryDirectory(prefix="binwatch-models-") as temporary:
        cache = Path(temporary)
        candidate = _open_candidate(model, registry, cache)
        version = candidate.card.version
        before = registry.current()
        if before and before.version == version:
            raise PromotionError(f"{version} is in use already")
        comparison = None
        first = None if before or initial is None else _open_initial(initial, display)
        current = registry.fetch(before.version, list(VARIANT_PREFERENCE), cache) if before else first
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

    The result has no previous model, so that a second rollback does not bring the bad model back.
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


def _open_initial(folder: Path, display: Display) -> Bundle | None:
    if (folder / CARD_FILE).is_file():
        return Bundle(folder)
    display.warn(f"{folder}: no model here (BINWATCH_MODEL_DIR), so the first promoted model has nothing to beat")
    return None


def _open_candidate(model: str, registry: Registry, cache: Path) -> Bundle:
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
    if decision.forced and decision.comparison:  # noted only after the promotion, which may fail
        registry.annotate(
            decision.version, f"Promoted by --force on {_now():%Y-%m-%d}: {decision.comparison.verdict()}."
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
