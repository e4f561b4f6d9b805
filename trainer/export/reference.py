"""The drift reference, with which the monitor compares later photos. It is made from photos not used for training."""

from __future__ import annotations

import numpy as np

from binwatch.bundle import Reference
from binwatch.photo_stats import photo_stats
from binwatch.reference import MIN_REFERENCE_BINS, ReferenceData, Signal, effective_sample_size, make_reference
from binwatch.text import count_noun
from trainer.evaluation.onnx_model import decoded_batches
from trainer.export.model_outputs import ModelOutputs


def reference_of(outputs: ModelOutputs) -> Reference:
    """Make the drift reference from a model's outputs and its photos.

    It leaves out image shape and file size, because training photos are often squashed copies. For copies
    (PhotoSet.jpeg_quality), it has no sharpness either: when 122 originals were squashed and stored in the same way,
    brightness, contrast and embedding stayed the same, but sharpness did not (KS distance 0.28).
    """
    photos = outputs.photos
    stats = [photo_stats(pixels) for batch in decoded_batches(photos) for pixels in batch]
    signals = [Signal.BRIGHTNESS, Signal.CONTRAST, *([Signal.SHARPNESS] if photos.jpeg_quality is None else [])]
    observed = ReferenceData(
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
    bins = effective_sample_size(reference)
    if bins >= MIN_REFERENCE_BINS:
        return []
    return [f"The drift reference is of {count_noun(bins, 'bin')}: drift is judged with {MIN_REFERENCE_BINS} or more."]
