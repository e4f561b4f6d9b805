"""What is answered of one photo, as JSON: all that a record needs but the photo's key and ETag, which only S3 knows."""

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

MALFORMED = "malformed_request"
"""Reason of an answer to what is neither a photo nor a link to one. It is never in the records."""


@dataclass(frozen=True, slots=True)
class Received:
    """A photo as it was sent or fetched, and decoded as far as it could be."""

    bytes: int | None = None
    md5: str | None = None
    photo: Photo | None = None
    stats: PhotoStats | None = None


class Answer(BaseModel):
    """One photo as the model counted it (`predicted` and what goes with it), or the `reason` why it could not."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    photo: str | None = None
    """The link that was sent; None for bytes."""
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
    reason: str | None = None
    """binwatch.errors.Reason, or MALFORMED."""
    detail: str | None = None
    bytes: int | None = None
    md5: str | None = None
    """Of the bytes, in hexadecimal: the ETag of an upload in one part, unless a KMS key encrypts it."""
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
            raise ValueError("neither a whole count nor just a reason why there is none")
        return self

    def line(self) -> _Bytes:
        """As one line of JSON, without what is not known."""
        return self.model_dump_json(exclude_none=True).encode()


_Bytes = bytes
"""`bytes`, by a name that still means the type inside `Answer`, which has a field `bytes`."""


def answer(engine: Engine, received: Received, result: Prediction | PhotoError, link: str | None = None) -> Answer:
    """What is said of a photo that was counted, or could not be."""
    photo, stats = received.photo, received.stats
    about = {"photo": link, "bytes": received.bytes, "md5": received.md5}
    if photo is not None:
        about |= {"width": photo.width, "height": photo.height}
    if stats is not None:
        about |= asdict(stats)
    return Answer(**_model(engine), **about, **(_count(result) if isinstance(result, Prediction) else _failure(result)))


def malformed(engine: Engine, detail: str) -> Answer:
    """What is said of something that is neither a photo nor a link to one."""
    return Answer(**_model(engine), reason=MALFORMED, detail=detail)


def _model(engine: Engine) -> dict[str, str]:
    return {"model": engine.card.version, "precision": engine.precision, "provider": engine.provider}


def _count(prediction: Prediction) -> dict[str, object]:
    return {
        "count": CLASSES[prediction.predicted],
        "predicted": prediction.predicted,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
        "embedding": base64.b64encode(pack(prediction.embedding)),
    }


def _failure(error: PhotoError) -> dict[str, object]:
    return {"reason": error.reason, "detail": str(error)}
