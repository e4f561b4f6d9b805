"""Sort the objects in an event message into photos, metadata files, skipped objects and invalid records."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from binwatch.errors import EventError
from binwatch.events import MAX_LISTED_MALFORMED, Dialect, ObjectCreated, parse_message
from binwatch.keys import ObjectKind, SkipReason, kind_of, skip_reason
from binwatch.text import truncate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoutedMessage:
    """The objects of one message. `rejected` is the reason if the message is invalid in whole or in part."""

    photos: list[ObjectCreated] = field(default_factory=list)
    metadata: list[ObjectCreated] = field(default_factory=list)
    rejected: str | None = None
    skipped: list[tuple[SkipReason, str]] = field(default_factory=list)
    """Other objects and events: the reason for skipping each, and its key or name."""


def route(body: bytes | str, bucket: str, models_prefix: str, *ignored_prefixes: str) -> RoutedMessage:
    """Sort the objects that a message announces. Never raises: the result of an invalid message has `rejected` set.

    `ignored_prefixes` are key prefixes of Binwatch's own objects, which are ignored and not listed as skipped.
    """
    try:
        message = parse_message(body)
    except EventError as error:
        return RoutedMessage(rejected=str(error))
    if message.dialect is Dialect.TEST:
        logger.info("event notifications are set up: received s3:TestEvent")
    kinds = [(kind_of(item.key, models_prefix), item) for item in message.created if item.bucket == bucket]
    # Objects of another bucket could not be fetched, and would be retried forever.
    other_buckets = sorted({item.bucket for item in message.created} - {bucket})[:MAX_LISTED_MALFORMED]
    foreign = [f"bucket {truncate(name, 63)!r} is not BINWATCH_BUCKET, {bucket!r}" for name in other_buckets]
    other_keys = [item.key for kind, item in kinds if kind is ObjectKind.OTHER]
    reasons = [(skip_reason(key, models_prefix, *ignored_prefixes), key) for key in other_keys]
    return RoutedMessage(
        photos=[item for kind, item in kinds if kind is ObjectKind.PHOTO],
        metadata=[item for kind, item in kinds if kind is ObjectKind.METADATA],
        rejected="; ".join([*message.malformed, *foreign]) or None,
        skipped=[
            *((reason, key) for reason, key in reasons if reason is not None),
            *((SkipReason.OTHER_EVENT, name) for name in message.ignored),
        ],
    )
