"""The answer for one photo as JSON: all fields of a record except those that only S3 knows, such as the ETag."""

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

# Reasons of answers that are not in binwatch.errors.Reason, since they are never recorded.
MALFORMED = "malformed_request"
"""The input is neither a photo nor a link to one."""
UNAVAILABLE = "unavailable"
"""S3 did not return the linked photo, because of an outage."""
INTERNAL_ERROR = "internal_error"
"""The service failed on this photo."""


@dataclass(frozen=True, slots=True)
class Received:
    """A received photo: the size and MD5 of its file, and the decoded photo with its statistics, as far as known."""

    bytes: int | None = None
    md5: str | None = None
    photo: Photo | None = None
    stats: PhotoStats | None = None


class Answer(BaseModel):
    """The count of one photo (`predicted` and related fields), or the `reason` why there is none."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    photo: str | None = None
    """The requested link; None if the photo itself was sent."""
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
    """A binwatch.errors.Reason, or one of the reasons in this module."""
    detail: str | None = None
    bytes: int | None = None
    md5: str | None = None
    """MD5 of the bytes in hexadecimal. It equals the ETag of an upload in one part that no KMS key encrypts."""
    width: int | None = None
    height: int | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    embedding: Base64Bytes | None = None
    """The embedding as packed by binwatch.embedding, in JSON as base64."""

    @model_validator(mode="after")
    def _check_count_or_reason(self) -> Self:
        is_present = [value is not None for value in (self.predicted, self.probabilities, self.embedding)]
        if not (all(is_present) if self.reason is None else not any(is_present)):
            raise ValueError("expected either a whole count or only a reason why there is none")
        return self

    def to_json(self) -> _Bytes:
        """Return the answer as one line of JSON, without unset fields."""
        return self.model_dump_json(exclude_none=True).encode()


_Bytes = bytes
"""Alias of the type `bytes` for use inside `Answer`, which has a field of that name."""


def photo_answer(
    engine: Engine, received: Received, result: Prediction | PhotoError, link: str | None = None
) -> Answer:
    """Return the answer for a photo that was counted, or that could not be counted.

    If the object behind a link is not a photo, the answer does not describe it, since the client may have no access to
    the object.
    """
    photo, stats = received.photo, received.stats
    may_describe = link is None or photo is not None
    fields: dict[str, object] = {"photo": link}
    if may_describe:
        fields |= {"bytes": received.bytes, "md5": received.md5}
    if photo is not None:
        fields |= {"width": photo.width, "height": photo.height}
    if stats is not None:
        fields |= asdict(stats)
    if isinstance(result, Prediction):
        return Answer(**_model_fields(engine), **fields, **_count_fields(result))
    detail = str(result) if may_describe else "the object is not a photo that can be counted"
    return Answer(**_model_fields(engine), **fields, reason=result.reason, detail=detail)


def error_answer(engine: Engine, reason: str, detail: str, link: str | None = None) -> Answer:
    """Return the answer for an input without a photo."""
    return Answer(**_model_fields(engine), photo=link, reason=reason, detail=detail)


def _model_fields(engine: Engine) -> dict[str, str]:
    return {"model": engine.card.version, "precision": engine.precision, "provider": engine.provider}


def _count_fields(prediction: Prediction) -> dict[str, object]:
    return {
        "count": CLASSES[prediction.predicted],
        "predicted": prediction.predicted,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
        "distribution": prediction.distribution,
        "embedding": base64.b64encode(pack(prediction.embedding)),
    }
