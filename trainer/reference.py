"""What the monitor compares later photos with to see drift: made from photos that the model did not learn from.

    python -m trainer.reference BUNDLE --photos FOLDER_OR_TAR --index CSV [--split validation | --every]

writes it into the card of a bundle that is there already: one from before, or one that should know another set of
photos, since a new kind of photo is here to stay. The model stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer

from binwatch import command_line
from binwatch.bundle import Reference
from binwatch.console import remark
from binwatch.photo_stats import PhotoStats, photo_stats
from binwatch.reference import ENOUGH, Observed, Signal, independent, make_reference
from trainer.data.split import Split
from trainer.renew import Answers, Every, Floats, Folder, Index, Photos, renew
from trainer.runtime import chunks

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def reference_of(found: Answers) -> Reference:
    """The reference of photos as the model answered them.

    Shape and bytes of a file are left out: training photos are often squashed copies, of which both are made up. Of
    copies (PhotoSet.jpeg_quality) sharpness is left out, too: 122 originals, squashed and stored as the copies were,
    were no different in brightness, contrast and embedding, but in sharpness they were (KS distance 0.28).
    """
    photos = found.photos
    stats = [photo_stats(pixels) for batch in chunks(photos) for pixels in batch]
    observed = Observed(
        probabilities=found.probabilities,
        labels=photos.labels,
        embeddings=found.embeddings,
        properties=dict(_properties(stats, are_copies=photos.jpeg_quality is not None)),
        groups=len(set(photos.groups)),
    )
    return make_reference(observed)


def small_reference(reference: Reference) -> list[str]:
    """A sentence for people, if drift cannot be judged by this reference."""
    bins = independent(reference)
    if bins >= ENOUGH:
        return []
    return [f"The drift reference is of {bins} bins: drift is judged with {ENOUGH} or more."]


def _properties(stats: list[PhotoStats], *, are_copies: bool) -> Iterator[tuple[Signal, Floats]]:
    sharpness = () if are_copies else (Signal.SHARPNESS,)
    for signal in (Signal.BRIGHTNESS, Signal.CONTRAST, *sharpness):
        yield signal, np.array([getattr(found, signal.value) for found in stats])


@app.command()
def main(
    bundle: Folder,
    photos: Photos,
    index: Index = None,
    split: Annotated[Split, typer.Option(help="Split of the data set that the model was not trained on.")] = (
        Split.VALIDATION
    ),
    every: Every = False,
) -> None:
    """Write a new reference into a bundle's card."""
    made = renew(bundle, photos, index, None if every else split, "reference", reference_of)
    remark(" ".join([f"{bundle}: reference of {made.photos} photos of {made.groups} bins.", *small_reference(made)]))


if __name__ == "__main__":
    command_line.run(app, "trainer")
