"""Creates what workers need beside the queues: the tables of the records, the bucket and its notifications."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import SettingsError
from binwatch.objects import Objects
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.problems import database_outage
from binwatch.settings import Settings
from binwatch.text import many
from worker.brokers.choice import choose_queues


def migrate_records(settings: Settings) -> str:
    """Bring the schema of the records up to date; returns what to tell a person, and of which database.

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
    """Create the queues that are not there; returns what to tell a person. Raises QueueError."""
    new = choose_queues(settings).create()
    if not new:
        return "all queues exist already: created none"
    return f"created {many(len(new), 'queue')}: {', '.join(new)}"


def make_bucket(settings: Settings) -> str:
    """Create the bucket unless it is there; returns what to tell a person."""
    made = Objects(settings).make_bucket(settings.bucket)
    return f"created the bucket {settings.bucket!r}" if made else f"the bucket {settings.bucket!r} exists already"


def send_events(settings: Settings) -> str:
    """Have the bucket send its events to the event queue; returns what to tell a person.

    Raises SettingsError where the bucket cannot be told by S3's API.
    """
    events = choose_queues(settings).events
    if events is None:
        raise SettingsError("--events is for BINWATCH_EVENT_SOURCE=sqs; without an event source, leave it out")
    arn = events.allow_bucket(settings.bucket)  # S3 tries the queue when it is told
    told = Objects(settings).send_events(settings.bucket, arn)
    return (
        f"bucket {settings.bucket!r} {'now' if told else 'already'} sends its events to queue {settings.event_queue!r}"
    )
