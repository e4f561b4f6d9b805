"""The errors that Binwatch raises deliberately. Each message names the object at fault and says what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

_MAX_QUOTED_CHARS = 60
"""Maximum number of characters of an external value in a message."""


class BinwatchError(Exception):
    """Base class of all errors that Binwatch raises deliberately. The message can be shown to an operator."""

    exit_status: ClassVar[int] = 2
    """Exit status of a command that fails with the error: 2 if the caller can correct it, 3 for an outage."""


def quote_value(value: object) -> str:
    """Return an external value for a message: quoted, without control characters, and truncated."""
    text = repr(value if not isinstance(value, str) else value[: _MAX_QUOTED_CHARS + 1])
    return text if len(text) <= _MAX_QUOTED_CHARS + 2 else f"{text[:_MAX_QUOTED_CHARS]}…"


def describe_error(error: BaseException | None) -> str:
    """Return the class and the text of an error, for log lines and messages."""
    return f"{type(error).__name__}: {error}"


class SettingsError(BinwatchError):
    """A setting is unknown, missing or out of range. The message names the variable."""


class BundleError(BinwatchError):
    """A model bundle is missing, damaged, or its ONNX file does not match its card."""


class PromotionConflictError(BinwatchError):
    """Someone else has promoted another model in the meantime. Check which one, and decide again."""


class OutageError(BinwatchError):
    """A service that Binwatch needs does not answer or is broken. A retry may succeed."""

    exit_status = 3


class ObjectsError(OutageError):
    """The object store refused a request or could not be reached. A retry may succeed."""


class EventError(BinwatchError):
    """A queue message is not an S3 event in any supported dialect."""


class Reason(StrEnum):
    """Why a photo was not counted. Stored with the record and used as a metric label, so the set is closed."""

    MISSING = "missing"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    FORBIDDEN = "forbidden"
    ARCHIVED = "archived"
    FETCH_FAILED = "fetch_failed"
    BAD_ENCODING = "bad_encoding"
    INFERENCE_FAILED = "inference_failed"
    CRASHED = "crashed"


REMEDIES = {
    Reason.MISSING: "check where the link points, and whether its disk is mounted",
    Reason.EMPTY: "copy the file again",
    Reason.TOO_LARGE: "reduce its file size, or raise BINWATCH_MAX_PHOTO_BYTES",
    Reason.TOO_MANY_PIXELS: "reduce its resolution",
    Reason.NOT_AN_IMAGE: "if it is a photo, copy the file again; else remove it",
    Reason.UNSUPPORTED_FORMAT: "replace it with a JPEG or PNG file",
    Reason.TRUNCATED: "copy the file again, or take the photo again",
    Reason.CORRUPT: "copy the file again, or take the photo again",
    Reason.FORBIDDEN: "give yourself permission to read the file",
    Reason.INFERENCE_FAILED: "keep the photo, and report it to the model's maintainer",
    Reason.ARCHIVED: "restore the object, or store it in a class that can be read at once",
    Reason.FETCH_FAILED: "see the detail; reconcile retries it",
    Reason.BAD_ENCODING: "upload it again without Content-Encoding",
    Reason.CRASHED: "keep the photo, and report it to the model's maintainer",
}
"""Reason → what an operator can do about a photo that was not counted."""


class PhotoError(BinwatchError):
    """One photo cannot be counted, which does not affect others. `reason` is for machines, the message for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MetadataReason(StrEnum):
    """Why a metadata file has no usable expected quantity. Stored with the record and used as a metric label."""

    MISSING = "missing"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    NO_QUANTITY = "no_expected_quantity"
    BAD_QUANTITY = "bad_expected_quantity"
    FORBIDDEN = "forbidden"
    ARCHIVED = "archived"
    FETCH_FAILED = "fetch_failed"
    BAD_ENCODING = "bad_encoding"
    CRASHED = "crashed"


NOT_FETCHED = frozenset({Reason.MISSING, Reason.FORBIDDEN, Reason.ARCHIVED, Reason.FETCH_FAILED})
"""Reasons why an object could not be fetched; MetadataReason has the same values. Such an object is retried, and says
nothing about its bin."""


class MetadataError(BinwatchError):
    """One metadata file has no usable expected quantity. `reason` is for machines, the message for people."""

    def __init__(self, reason: MetadataReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
