"""The drift reference, with which the monitor compares later photos. It is made of photos not used for training."""

from __future__ import annotations

import numpy as np

from binwatch.bundle import Reference
from binwatch.photo_stats import photo_stats
from binwatch.reference import ENOUGH, Observed, Signal, independent, make_reference
from binwatch.text import many
from trainer.evaluation.onnx_model import chunks
from trainer.export.model_outputs import ModelOutputs


def reference_of(outputs: ModelOutputs) -> Reference:
    """Make the drift reference from a model's outputs and its photos.

    It has no shapes and sizes of files, because training photos are often squashed copies. For copies
    (PhotoSet.jpeg_quality), it has no sharpness either: when 122 originals were squashed and stored in the same way,
    brightness, contrast and embedding stayed the same, but sharpness did not (KS distance 0.28).
    """
    photos = outputs.photos
    stats = [photo_stats(pixels) for batch in chunks(photos) for pixels in batch]
    signals = [Signal.BRIGHTNESS, Signal.CONTRAST, *([Signal.SHARPNESS] if photos.jpeg_quality is None else [])]
    observed = Observed(
        probabilities=outputs.probabilities,
        labels=photos.labels,
        embeddings=outputs.embeddings,
        properties={signal: np.array([getattr(each, signal.value) for each in stats]) for signal in signals},
        groups=len(set(photos.groups)),
        rule=outputs.rule,
    )
    return make_reference(observed)


def small_reference_notes(reference: Reference) -> list[str]:
    """Return a note for the card if the reference has too few bins to judge drift."""
    bins = independent(reference)
    if bins >= ENOUGH:
        return []
    return [f"The drift reference is of {many(bins, 'bin')}: drift is judged with {ENOUGH} or more."]
