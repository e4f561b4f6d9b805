"""The drift reference: what the monitor compares later photos with. From photos that the model did not learn from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from binwatch.bundle import Reference
from binwatch.photo_stats import PhotoStats, photo_stats
from binwatch.reference import ENOUGH, Observed, Signal, independent, make_reference
from binwatch.text import many
from trainer.evaluation.onnx_model import chunks
from trainer.export.model_outputs import Floats, ModelOutputs


def reference_of(found: ModelOutputs) -> Reference:
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
        rule=found.rule,
    )
    return make_reference(observed)


def small_reference(reference: Reference) -> list[str]:
    """A sentence for people, if drift cannot be judged by this reference."""
    bins = independent(reference)
    if bins >= ENOUGH:
        return []
    return [f"The drift reference is of {many(bins, 'bin')}: drift is judged with {ENOUGH} or more."]


def _properties(stats: list[PhotoStats], *, are_copies: bool) -> Iterator[tuple[Signal, Floats]]:
    sharpness = () if are_copies else (Signal.SHARPNESS,)
    for signal in (Signal.BRIGHTNESS, Signal.CONTRAST, *sharpness):
        yield signal, np.array([getattr(found, signal.value) for found in stats])
