"""The commands `setup` and `migrate`: queues, the tables of the records, the bucket and its notifications."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import SettingsError
from binwatch.objects import Objects
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.problems import database_outage
from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.brokers.choice import choose_queues


def migrate_records(settings: Settings) -> str:
    """Upgrade the schema of the records; return a message for the user, with the URL of the database.

    Raises BinwatchError if the database cannot be reached.
    """
    database = connect(settings.database_url.get_secret_value())
    try:
        return f"{database.url.render_as_string(hide_password=True)}: {migrate(database)}"
    except SQLAlchemyError as error:
        raise database_outage(error, database) from error
    finally:
        database.dispose()


def make_queues(settings: Settings) -> str:
    """Create the missing queues; return a message for the user. Raises QueueError."""
    created = choose_queues(settings).create()
    if not created:
        return "all queues exist already: created none"
    return f"created {count_noun(len(created), 'queue')}: {', '.join(created)}"


def make_bucket(settings: Settings) -> str:
    """Create the bucket unless it exists; return a message for the user."""
    created = Objects(settings).make_bucket(settings.bucket)
    return f"created the bucket {settings.bucket!r}" if created else f"the bucket {settings.bucket!r} exists already"


def enable_event_notifications(settings: Settings) -> str:
    """Have the bucket send its events to the event queue; return a message for the user.

    Raises SettingsError if the bucket's events cannot be configured with S3's API.
    """
    events = choose_queues(settings).events
    if events is None:
        raise SettingsError("--events is for BINWATCH_EVENT_SOURCE=sqs; without an event source, leave it out")
    arn = events.allow_bucket(settings.bucket)  # first, since S3 sends a test message when the bucket is set up
    changed = Objects(settings).enable_event_notifications(settings.bucket, arn)
    when = "now" if changed else "already"
    return f"bucket {settings.bucket!r} {when} sends its events to queue {settings.event_queue!r}"
