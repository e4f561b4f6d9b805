"""Opens the queue of event messages that the settings name."""

from __future__ import annotations

from binwatch.settings import EventSource, Settings
from worker.intake.loop import Events
from worker.intake.rabbitmq import RabbitEvents, rabbitmq_url
from worker.intake.sqs import SqsEvents
from worker.queues import check_queues, sqs_client

_GROUPS_AHEAD = 4
"""Event messages that RabbitMQ may push ahead of their deletion, in groups."""


def open_events(settings: Settings) -> Events | None:
    """The queue, checked and ready; None if there is no event source. Raises QueueError if it would lose messages."""
    if settings.event_source is EventSource.SQS:
        client = sqs_client(settings)
        return SqsEvents(client, *check_queues(client, settings))
    if settings.event_source is EventSource.RABBITMQ:
        events = RabbitEvents(
            rabbitmq_url(settings),
            settings.event_queue,
            settings.event_dead_letter_queue,
            prefetch=_GROUPS_AHEAD * settings.group_photos,
            timeout_s=settings.s3_timeout_s,
        )
        events.declare()
        events.check_permissions()
        return events
    return None
