"""`publish`, `promote`, `rollback`: which model the workers use, and why a new one may take its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from binwatch.bundle import CARD, Bundle, Estimate, Metrics, Precision
from binwatch.counts import names_of
from binwatch.registry import Current, Registry
from trainer.data.split import Split
from trainer.display import Display
from trainer.errors import PromotionError
from trainer.evaluate import bundle_data, bundle_probabilities, majorities
from trainer.fit import read_data
from trainer.metrics import Counts, counts_of, measure, paired

PREFERRED = (Precision.INT8, Precision.FP32, Precision.FP16)
"""Which variant is compared: the one that workers use on a CPU, which is what this command runs on."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same test photos; `difference` is the candidate's figure less the current one's."""

    candidate: str
    current: str
    metrics: dict[str, Metrics]
    difference: dict[str, Estimate]
    untested: tuple[int, ...] = ()
    """Classes that only the current model can answer and that no test photo shows: what the candidate would lose."""

    @property
    def better(self) -> bool:
        """More exact counts, and by more than chance; and errors that are not larger by more than chance.

        A model that is right a little more often and far off where it is wrong is no progress. One that cannot answer
        what the current one can must be measured on photos that show it: without them its answers are fewer, and so
        easier, and at work it would count each such photo wrong.
        """
        return self.difference["accuracy"].low > 0 and self.difference["rmse"].low <= 0 and not self.untested

    def verdict(self) -> str:
        """In one sentence, or two."""
        gain, error = self.difference["accuracy"], self.difference["rmse"]
        lost = (
            f"; it never answers {names_of(self.untested)}, as {self.current} does, and no test photo shows that:"
            " compare on photos of every quantity (--photos, --index)"
        )
        return (
            f"{self.candidate} is {'better' if self.better else 'not found to be better'} than {self.current} on"
            f" {self.metrics[self.candidate].photos:,} test photos: exact counts {100 * gain.value:+.1f} points"
            f" ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), RMSE {error.value:+.2f}"
            f" ({error.low:+.2f} to {error.high:+.2f}){lost if self.untested else ''}"
        )


@dataclass(frozen=True)
class Decision:
    """What `promote` did, or with `dry_run` would do."""

    version: str
    replaced: str | None
    comparison: Comparison | None
    forced: bool


def compare(candidate: Bundle, current: Bundle, changes: dict[str, Any], display: Display) -> Comparison:
    """Both models on the candidate's test photos. `changes` replace options of its data set ("photos", …).

    If the current model has learned from some of these photos that only makes it harder to beat.
    """
    data = read_data(bundle_data(candidate, changes), display)
    photos, majority = data[Split.TEST], majorities(data).overall

    def counts(bundle: Bundle) -> Counts:
        card = bundle.card  # each sees photos as it does at work
        seen = replace(photos, size=card.input_size, jpeg_quality=card.jpeg_quality)
        precision = next(each for each in PREFERRED if each in bundle.card.variants)
        return counts_of(bundle_probabilities(bundle, precision, seen, display), photos.labels, photos.groups)

    new, old = counts(candidate), counts(current)
    names = candidate.card.version, current.card.version
    figures = {name: measure(found, majority) for name, found in zip(names, (new, old), strict=True)}
    untested = set(current.card.answers) - set(candidate.card.answers) - set(photos.labels.tolist())
    return Comparison(*names, figures, paired(new, old), tuple(sorted(untested)))


def promote(
    model: str,
    registry: Registry,
    changes: dict[str, Any],
    display: Display,
    *,
    force: bool = False,
    dry_run: bool = False,
    show: Callable[[Comparison], None] = lambda _: None,
) -> Decision:
    """Put `model` (a bundle's folder, or a published version) in use if it is better than the one that is.

    The first model has nothing to beat. `force` promotes in any case, and the card's notes then say so. Raises
    PromotionError if the model is not better, OvertakenError if another was promoted meanwhile.
    """
    with TemporaryDirectory(prefix="binwatch-models-") as name:
        candidate = _bundle(model, registry, Path(name))
        version = candidate.card.version
        before = registry.current()
        if before and before.version == version:
            raise PromotionError(f"{version} is in use already")
        comparison = None
        if before:
            current = registry.fetch(before.version, list(PREFERRED), Path(name))
            comparison = compare(candidate, current, changes, display)
            show(comparison)
        if candidate.card.never:
            display.say(f"warning: {version} never answers {names_of(candidate.card.never)}, whatever a photo shows")
        forced = comparison is not None and not comparison.better
        if forced and not force:
            assert comparison is not None
            raise PromotionError(
                f"{comparison.verdict()}; {comparison.current} stays in use (--force promotes in any case)"
            )
        decision = Decision(version, before.version if before else None, comparison, forced)
        if not dry_run:
            _put_in_use(candidate, registry, before, decision)
        return decision


def rollback(registry: Registry, to: str | None = None) -> Current:
    """Put the previous model, or the version `to`, back in use.

    What comes back has no previous one: a rollback that runs twice must not bring the bad model back.
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
    current = Current(version=version, promoted=_now())
    registry.set_current(current, before)
    return current


def _bundle(model: str, registry: Registry, cache: Path) -> Bundle:
    folder = Path(model)
    if (folder / CARD).is_file():
        return Bundle(folder)
    if model not in registry.versions():
        raise PromotionError(
            f"{model}: neither a folder with a {CARD} nor a published version (see: python -m trainer models)"
        )
    return registry.fetch(model, list(PREFERRED), cache)


def _put_in_use(candidate: Bundle, registry: Registry, before: Current | None, decision: Decision) -> None:
    registry.publish(candidate.folder)
    current = Current(version=decision.version, promoted=_now(), previous=decision.replaced, forced=decision.forced)
    registry.set_current(current, before)
    if decision.forced and decision.comparison:  # now that it is true; current.json says it, too
        registry.annotate(
            decision.version, f"Promoted by --force on {_now():%Y-%m-%d}: {decision.comparison.verdict()}."
        )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
