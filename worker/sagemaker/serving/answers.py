"""The answer for one photo, as JSON: all that a record needs except the photo's key and ETag, which only S3 knows."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Self

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, model_validator

from binwatch.bundle import Version
from binwatch.counts import CLASSES
from binwatch.embedding import pack
from binwatch.errors import PhotoError
from binwatch.image import Photo
from binwatch.photo_stats import PhotoStats
from worker.engine import Engine
from worker.pipeline import Prediction

# Reasons in answers besides those of binwatch.errors.Reason. They are never recorded.
MALFORMED = "malformed_request"
"""The input is neither a photo nor a link to one."""
UNAVAILABLE = "unavailable"
"""S3 did not return the linked photo, because of an outage."""
INTERNAL_ERROR = "internal_error"
"""The service failed on this photo."""


@dataclass(frozen=True, slots=True)
class Received:
    """A photo that was sent or fetched, and decoded if possible."""

    bytes: int | None = None
    md5: str | None = None
    photo: Photo | None = None
    stats: PhotoStats | None = None


class Answer(BaseModel):
    """One photo's count (`predicted` and the fields that belong to it), or the `reason` why it has none."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    photo: str | None = None
    """The requested link; None if bytes were sent."""
    model: Version
    precision: str
    provider: str
    count: str | None = None
    """Name of the class."""
    predicted: int | None = Field(None, ge=0, lt=len(CLASSES))
    """Index of the class; 6 is "more than 5"."""
    confidence: float | None = None
    """Probability of the class."""
    probabilities: list[float] | None = Field(None, min_length=len(CLASSES), max_length=len(CLASSES))
    distribution: list[float] | None = Field(None, min_length=len(CLASSES) + 1)
    """Probabilities of 0, 1, … items and of more, if the model distinguishes more numbers than the classes do."""
    reason: str | None = None
    """binwatch.errors.Reason, or one of those above."""
    detail: str | None = None
    bytes: int | None = None
    md5: str | None = None
    """MD5 of the bytes, in hexadecimal: the ETag of an upload in one part, unless a KMS key encrypts it."""
    width: int | None = None
    height: int | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    embedding: Base64Bytes | None = None
    """As binwatch.embedding packs it; in JSON as base64."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        counted = [part is not None for part in (self.predicted, self.probabilities, self.embedding)]
        if not (all(counted) if self.reason is None else not any(counted)):
            raise ValueError("expected either a whole count or only a reason why there is none")
        return self

    def line(self) -> _Bytes:
        """The answer as one line of JSON, without unknown fields."""
        return self.model_dump_json(exclude_none=True).encode()


_Bytes = bytes
"""`bytes`, by a name that still means the type inside `Answer`, which has a field `bytes`."""


def answer(engine: Engine, received: Received, result: Prediction | PhotoError, link: str | None = None) -> Answer:
    """The answer for a photo that was counted or could not be.

    If the object behind a link is not a photo, the answer tells nothing about it, since the client may not have access
    to the object.
    """
    photo, stats = received.photo, received.stats
    about: dict[str, object] = {"photo": link}
    if link is None or photo is not None:
        about |= {"bytes": received.bytes, "md5": received.md5}
    if photo is not None:
        about |= {"width": photo.width, "height": photo.height}
    if stats is not None:
        about |= asdict(stats)
    if isinstance(result, Prediction):
        return Answer(**_model(engine), **about, **_count(result))
    detail = str(result) if link is None or photo is not None else _NO_PHOTO
    return Answer(**_model(engine), **about, reason=result.reason, detail=detail)


def no_count(engine: Engine, reason: str, detail: str, link: str | None = None) -> Answer:
    """The answer for an input without a photo."""
    return Answer(**_model(engine), photo=link, reason=reason, detail=detail)


_NO_PHOTO = "the object is not a photo that can be counted"


def _model(engine: Engine) -> dict[str, str]:
    return {"model": engine.card.version, "precision": engine.precision, "provider": engine.provider}


def _count(prediction: Prediction) -> dict[str, object]:
    return {
        "count": CLASSES[prediction.predicted],
        "predicted": prediction.predicted,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
        "distribution": prediction.distribution,
        "embedding": base64.b64encode(pack(prediction.embedding)),
    }
