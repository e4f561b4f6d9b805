"""A new part for the card of a bundle that is there already, made from photos that its model did not learn from.

What `python -m trainer.reference` and `python -m trainer.conformal` have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import typer

from binwatch.bundle import Bundle, write_card
from binwatch.counts import EVERY, in_classes
from trainer.data.dataset import PhotoSet
from trainer.data.split import ALL, Split
from trainer.display import Display
from trainer.errors import DataError
from trainer.evaluate import bundle_data, read_photos
from trainer.runtime import OnnxModel, run

Part = TypeVar("Part")
Floats = npt.NDArray[np.floating[Any]]

Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
Photos = Annotated[Path, typer.Option(help="Folder or tar of photos, named by their key.")]
Index = Annotated[
    Path | None,
    typer.Option(
        help="CSV with the columns that the model was trained with: key, label, …; none: folders named after quantities"
    ),
]
Every = Annotated[
    bool, typer.Option("--every", help="All photos of the index; the model must not have been trained on any.")
]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of photos."""

    photos: PhotoSet
    name: str
    """Of the photos: a split, or "all"."""
    distribution: Floats
    """Shape (photos, quantities), in their order."""
    embeddings: Floats
    """Shape (photos, embedding)."""
    classes: tuple[int, ...] = EVERY
    """Indexes of the classes that the model can answer."""

    @property
    def probabilities(self) -> Floats:
        """Of the classes, shape (photos, classes)."""
        return in_classes(self.distribution)


def answers(bundle: Bundle, photos: Path, index: Path | None, split: Split | None, display: Display) -> Answers:
    """Of the bundle's first variant to the photos of a split, by the rule that it was trained with, or (None) to all.

    Raises DataError if there are none.
    """
    config = bundle_data(bundle, {"photos": photos} | ({"index": index} if index else {}))
    if split is None:
        config = config.model_copy(update={"split_column": ""})
    every, _, _ = read_photos(config, display)
    chosen = every.where(lambda row: split is None or row.split is split)
    if not chosen:
        raise DataError(
            f"{config.labels}: no photo of the {split} split; name another with --split, or take all with --every"
        )
    model = OnnxModel.of(bundle, next(iter(bundle.card.variants)))
    what = f"counting by {bundle.card.version}"
    found = run(model, chosen, lambda each: display.follow(each, len(chosen), what, len))
    return Answers(chosen, split or ALL, *found, bundle.card.answers)


def renew(
    folder: Path, photos: Path, index: Path | None, split: Split | None, part: str, make: Callable[[Answers], Part]
) -> Part:
    """Give the card of the bundle in `folder` the `part` that `make` makes of the model's answers."""
    bundle = Bundle(folder)
    made = make(answers(bundle, photos, index, split, Display()))
    write_card(folder, bundle.card.model_copy(update={part: made}))
    return made
