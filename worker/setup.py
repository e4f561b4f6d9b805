"""Makes what the settings name and workers need: the records' tables, queues with dead-letter queues, the bucket."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import OutageError, SettingsError
from binwatch.objects import Objects
from binwatch.records.engine import cause, connect
from binwatch.records.migrate import Migrated, migrate
from binwatch.settings import EventSource, Settings
from worker.app import is_sqs, make_app, prepare_task_queue
from worker.intake.rabbitmq import RabbitEvents, rabbitmq_url
from worker.queues import allow_bucket, create_queues, sqs_client


def migrate_records(settings: Settings) -> Migrated:
    """Bring the schema of the records up to date. Raises BinwatchError if the database cannot be reached."""
    database = connect(settings.database_url.get_secret_value())
    try:
        return migrate(database)
    except SQLAlchemyError as error:
        raise OutageError(f"the database cannot be used ({cause(error)}); check BINWATCH_DATABASE_URL") from error
    finally:
        database.dispose()


def make_queues(settings: Settings) -> None:
    """Make the event queue and the task queue, each with its dead-letter queue; those that are there stay as they are.

    S3 must find its queue: versitygw drops events for one that is not there. Raises QueueError.
    """
    if settings.event_source is EventSource.RABBITMQ:
        _declare_events(settings)
    elif settings.event_source is EventSource.SQS or is_sqs(settings):
        create_queues(sqs_client(settings), settings)
    prepare_task_queue(make_app(settings), settings)


def _declare_events(settings: Settings) -> None:
    names = (settings.event_queue, settings.event_dead_letter_queue)
    events = RabbitEvents(rabbitmq_url(settings), *names, prefetch=1, timeout_s=settings.s3_timeout_s)
    try:
        events.declare()
    finally:
        events.close()


def make_bucket(settings: Settings) -> str:
    """Make the bucket unless it is there; returns what to tell a person."""
    made = Objects(settings).make_bucket(settings.bucket)
    return f"bucket {settings.bucket!r} " + ("made" if made else "is there")


def send_events(settings: Settings) -> str:
    """Have the bucket send its events to the event queue; returns what to tell a person.

    Raises SettingsError where the bucket cannot be told by S3's API.
    """
    if settings.event_source is not EventSource.SQS:
        raise SettingsError(
            "--events is for BINWATCH_EVENT_SOURCE=sqs: an object store that sends its events to RabbitMQ is told in"
            " a way of its own, see docs/servers.md"
        )
    arn = allow_bucket(
        sqs_client(settings), settings.event_queue, settings.bucket
    )  # S3 tries the queue when it is told
    told = Objects(settings).send_events(settings.bucket, arn)
    return (
        f"bucket {settings.bucket!r} {'now' if told else 'already'} sends its events to queue {settings.event_queue!r}"
    )
