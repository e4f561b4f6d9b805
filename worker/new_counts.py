"""Build the record of a photo from the model's prediction."""

from __future__ import annotations

from datetime import datetime

from binwatch.embedding import pack
from binwatch.errors import PhotoError
from binwatch.image import Photo
from binwatch.photo_stats import PhotoStats
from binwatch.records.store import NewCount
from worker.engine import Engine
from worker.pipeline import Prediction


def new_count(
    engine: Engine,
    result: Prediction | PhotoError | None,
    *,
    bucket: str,
    key: str,
    etag: str,
    modified_at: datetime,
    version_id: str | None = None,
    photo: Photo | None = None,
    stats: PhotoStats | None = None,
    size: int | None = None,
) -> NewCount:
    """Build the record of a photo. `result`: its prediction or error, None if neither; `size`: file size in bytes."""
    error = result if isinstance(result, PhotoError) else None
    prediction = result if isinstance(result, Prediction) else None
    return NewCount(
        bucket=bucket,
        key=key,
        etag=etag,
        version_id=version_id,
        model_version=engine.card.version,
        precision=engine.precision,
        provider=engine.provider,
        reason=error.reason if error else None,
        detail=str(error) if error else None,
        predicted=prediction.predicted if prediction else None,
        probabilities=prediction.probabilities if prediction else None,
        distribution=prediction.distribution if prediction else None,
        width=photo.width if photo else None,
        height=photo.height if photo else None,
        bytes=size,
        brightness=stats.brightness if stats else None,
        contrast=stats.contrast if stats else None,
        sharpness=stats.sharpness if stats else None,
        embedding=pack(prediction.embedding) if prediction else None,
        modified_at=modified_at,
    )
