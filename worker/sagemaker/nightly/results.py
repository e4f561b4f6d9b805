"""Turns SageMaker's answers into the records that a local worker would have written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from pydantic import ValidationError

from binwatch.errors import NOT_FETCHED, BinwatchError, Reason
from binwatch.objects import ListedObject, ObjectHead, ObjectRefused, Objects
from binwatch.records.store import NewCount
from worker.sagemaker.nightly.run_paths import RunPaths
from worker.sagemaker.serving.answers import Answer

logger = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 2**20
_MAX_CHECKED_KEYS = 100
_TEMPORARY_REASONS = NOT_FETCHED | {Reason.INFERENCE_FAILED}
"""Reasons that may be temporary, or the container's fault. A local worker counts such photos again."""


@dataclass(frozen=True, slots=True)
class CountedUpload:
    """The upload of a photo that was counted."""

    etag: str
    version_id: str | None
    modified: datetime


class Results:
    """SageMaker's answers for one part of a run."""

    def __init__(self, objects: Objects, paths: RunPaths, part: int, model: str) -> None:
        self._objects = objects
        self._paths = paths
        self._part = part
        self._model = model

    def read_count(self, photo: ListedObject) -> NewCount | None:
        """Return the record of a photo; None if a local worker must count it. Raises ObjectsError in an outage."""
        answer = self._read_answer(photo)
        if answer is None:
            return None
        upload = self._counted_upload(photo, answer)
        if upload is None:
            logger.info("nightly: %r changed while it was counted, or has a Content-Encoding", photo.key)
            return None
        return _new_count(self._paths.bucket, photo.key, upload, answer)

    def check_keys(self, photos: Sequence[ListedObject]) -> None:
        """Raise BinwatchError if none of the first answers has an expected key.

        Otherwise, all answers would be treated as missing.
        """
        expected = {self._paths.output(self._part, photo.key) for photo in photos}
        listing = self._objects.list(self._paths.bucket, self._paths.outputs(self._part))
        keys = [listed.key for listed in islice(listing, _MAX_CHECKED_KEYS)]
        if keys and expected.isdisjoint(keys):
            raise BinwatchError(
                f"SageMaker wrote {keys[0]!r}, but {self._paths.output(self._part, photos[0].key)!r} was expected:"
                " nothing was recorded, and the answers are kept; please report this"
            )

    def _read_answer(self, photo: ListedObject) -> Answer | None:
        """Return the answer for a photo; None if it is missing or not final."""
        key = self._paths.output(self._part, photo.key)
        try:
            data = self._objects.fetch(self._paths.bucket, key, max_bytes=_MAX_ANSWER_BYTES).data
            answer = Answer.model_validate_json(data)
        except ObjectRefused:
            return None
        except ValidationError as error:
            logger.warning("nightly: %s is not a complete answer (%s)", key, error.errors(include_url=False)[0]["msg"])
            return None
        return answer if self._is_final(answer, key) else None

    def _is_final(self, answer: Answer, key: str) -> bool:
        if answer.model != self._model:
            logger.warning("nightly: %s is by model %s instead of %s", key, answer.model, self._model)
            return False
        return answer.reason is None or (answer.reason in set(Reason) and answer.reason not in _TEMPORARY_REASONS)

    def _counted_upload(self, photo: ListedObject, answer: Answer) -> CountedUpload | None:
        """Return the upload that SageMaker has read, which its answer does not name; None if it cannot be determined.

        If the listed upload is still the present one, it was read. If it was replaced, the MD5 in the answer shows
        whether it was read, unless its ETag is not an MD5 (several parts, or encrypted with a KMS key).
        """
        try:
            head = self._objects.head(self._paths.bucket, photo.key)
        except ObjectRefused:
            head = None
        if head is not None and head.encoding:
            return None  # SageMaker sends the stored bytes to the container, without this header
        if head is not None and _is_same_upload(head, photo):
            return CountedUpload(head.etag, head.version_id, head.modified)
        if answer.md5 is not None and answer.md5 == photo.etag:
            return CountedUpload(photo.etag, None, photo.modified)
        return None


def _is_same_upload(head: ObjectHead, photo: ListedObject) -> bool:
    """Return whether the object is the listed one.

    Times are compared in whole seconds, since some stores list finer times than headers have.
    """
    same_second = int(head.modified.timestamp()) == int(photo.modified.timestamp())
    return head.etag == photo.etag and same_second


def _new_count(bucket: str, key: str, upload: CountedUpload, answer: Answer) -> NewCount:
    return NewCount(
        bucket=bucket,
        key=key,
        etag=upload.etag,
        version_id=upload.version_id,
        model_version=answer.model,
        precision=answer.precision,
        provider=answer.provider,
        reason=Reason(answer.reason) if answer.reason is not None else None,
        detail=answer.detail,
        predicted=answer.predicted,
        probabilities=answer.probabilities,
        distribution=answer.distribution,
        width=answer.width,
        height=answer.height,
        bytes=answer.bytes,
        brightness=answer.brightness,
        contrast=answer.contrast,
        sharpness=answer.sharpness,
        embedding=answer.embedding,
        modified_at=upload.modified,
    )
