"""What to do with one event message: which photos and metadata files it announces, and what in it is no good."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from binwatch.errors import EventError
from binwatch.events import MAX_NAMED, Dialect, ObjectCreated, parse
from binwatch.keys import ObjectKind, Skipped, kind_of, skipped
from binwatch.text import shortened

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Routed:
    """One message, sorted. `rejected` says why (part of) it cannot be handled, for the dead-letter queue."""

    photos: list[ObjectCreated] = field(default_factory=list)
    metadata: list[ObjectCreated] = field(default_factory=list)
    rejected: str | None = None
    skipped: list[tuple[Skipped, str]] = field(default_factory=list)
    """Why other objects and events are not looked at, and their keys or names."""


def route(body: bytes | str, bucket: str, models_prefix: str, *own_prefixes: str) -> Routed:
    """Sort the objects that a message announces. Never raises: what no one can handle is `rejected`.

    `own_prefixes` are of other objects that Binwatch itself writes, which nobody expects to be looked at.
    """
    try:
        message = parse(body)
    except EventError as error:
        return Routed(rejected=str(error))
    if message.dialect is Dialect.TEST:
        logger.info("event notifications are set up: received s3:TestEvent")
    kinds = [(kind_of(item.key, models_prefix), item) for item in message.created if item.bucket == bucket]
    # An object of a bucket that is not ours would look like an outage for ever.
    foreign = sorted({item.bucket for item in message.created} - {bucket})
    strangers = [f"bucket {shortened(name, 63)!r} is not BINWATCH_BUCKET, {bucket!r}" for name in foreign[:MAX_NAMED]]
    problems = [*message.malformed, *strangers]
    others = [item.key for kind, item in kinds if kind is ObjectKind.OTHER]
    reasons = [(skipped(key, models_prefix, *own_prefixes), key) for key in others]
    return Routed(
        photos=[item for kind, item in kinds if kind is ObjectKind.PHOTO],
        metadata=[item for kind, item in kinds if kind is ObjectKind.METADATA],
        rejected="; ".join(problems) or None,
        skipped=[
            *((reason, key) for reason, key in reasons if reason is not None),
            *((Skipped.OTHER_EVENT, name) for name in message.ignored),
        ],
    )
