"""The Celery application, configured from the settings, and the worker with its background services."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any, Protocol

from celery import Celery, bootsteps
from celery.app.amqp import AMQP
from celery.apps.worker import Worker
from celery.schedules import maybe_schedule

from binwatch.settings import NightlyBackend, Settings
from binwatch.version import version
from worker.beat import SCHEDULER
from worker.brokers.base import BrokerUnreachable, EventQueue
from worker.brokers.choice import Queues, choose_queues
from worker.consumer import CONSUMER
from worker.counting import Counting
from worker.health import HealthChecks
from worker.intake.loop import IntakeLoop
from worker.metrics import WorkerMetrics
from worker.nightly.tasks import EXPIRES_S, NIGHTLY, NIGHTLY_POLL, PollNightly, StartNightly, nightly_crontab
from worker.publisher import Publisher
from worker.queue_depth import DepthPoller, queue_depths
from worker.status_server import StatusServer
from worker.tasks import RECONCILE, CountPhotos, ReadMetadata, Reconcile

logger = logging.getLogger(__name__)


class BackgroundService(Protocol):
    """A background service that runs as long as the worker does."""

    def start(self) -> object:
        """Start."""

    def stop(self) -> object:
        """Stop, within a few seconds."""


class TaskMessages(AMQP):  # type: ignore[misc]  # Celery has no types
    """Celery's messages, without a time to live at the broker.

    RabbitMQ moves expired messages to the dead-letter queue. After an hour without workers, every reconcile task of
    that hour would be there, and the alert BinwatchDeadLetters would fire. Instead, workers drop expired tasks, which
    they recognise by a header.
    """

    @cached_property
    def send_task_message(self) -> Any:
        send = super().send_task_message

        def send_without_expiration(*args: Any, expiration: float | None = None, **options: Any) -> Any:
            return send(*args, **options)

        return send_without_expiration


class WorkerApp(Celery):  # type: ignore[misc]  # Celery has no types
    """A Celery application, its queues, and the background services of its worker."""

    amqp_cls = TaskMessages
    queues: Queues
    services: Sequence[BackgroundService] = ()


class ServicesStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts and stops the background services with the worker."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        for service in parent.app.services:
            service.start()

    def stop(self, parent: Any) -> None:
        for service in reversed(parent.app.services):
            service.stop()


def make_app(settings: Settings, queues: Queues | None = None) -> WorkerApp:
    """Create a Celery application that can send tasks; `make_worker` makes it process them.

    `queues` replaces the queues that the settings name.
    """
    app = WorkerApp("binwatch", broker=settings.broker_url.get_secret_value(), set_as_current=False)
    app.queues = queues or choose_queues(settings)
    app.conf.update(
        task_default_queue=settings.task_queue,
        task_serializer="json",
        accept_content=["json"],  # nothing is ever unpickled
        task_ignore_result=True,
        result_expires=None,  # no results are kept, so beat need not schedule their cleanup
        worker_prefetch_multiplier=1,
        worker_consumer=CONSUMER,
        worker_enable_remote_control=False,  # on SQS it would create a queue for each worker
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_heartbeat=20,
        # After a reconnect, Celery would lower the prefetch count by the number of tasks in flight, perhaps for good.
        worker_enable_prefetch_count_reduction=False,
        broker_connection_max_retries=None,  # by default, Celery gives up and exits after 100 attempts
        beat_schedule=_beat_schedule(settings),
        beat_scheduler=SCHEDULER,
        beat_schedule_filename=str(settings.beat_file),
        **app.queues.tasks.celery_options(),
    )
    return app


def _beat_schedule(settings: Settings) -> dict[str, Any]:
    seconds = settings.reconcile_minutes * 60
    # A run that has not started by the time the next one is due is dropped.
    schedule: dict[str, Any] = {"reconcile": {"task": RECONCILE, "schedule": seconds, "options": {"expires": seconds}}}
    if settings.nightly_at is not None:
        crontab, options = nightly_crontab(settings), {"expires": EXPIRES_S}
        schedule["nightly"] = {"task": NIGHTLY, "schedule": crontab, "options": options}
        if settings.nightly_backend is NightlyBackend.SAGEMAKER:
            poll_s = settings.nightly_poll_s
            schedule["nightly-poll"] = {"task": NIGHTLY_POLL, "schedule": poll_s, "options": {"expires": poll_s}}
    return schedule


def _expect_periodic_tasks(metrics: WorkerMetrics, settings: Settings) -> None:
    """Set the deadlines of periodic tasks.

    Reconcile is late three intervals after its last run, and a nightly run half a day after it was due.
    """
    grace_s = {"reconcile": 2 * settings.reconcile_minutes * 60, "nightly": EXPIRES_S}
    for name, entry in _beat_schedule(settings).items():
        if name in grace_s:
            next_deadline = partial(_next_deadline, maybe_schedule(entry["schedule"]), grace_s[name])
            metrics.expect_periodic_task(entry["task"], next_deadline)


def _next_deadline(schedule: Any, grace_s: float) -> float:
    """Return the time by which a task that starts or succeeds now should run again, in seconds since 1970."""
    now = schedule.now()
    due: datetime = now + schedule.remaining_estimate(now)
    return due.timestamp() + grace_s


def open_publisher(settings: Settings) -> Publisher:
    """Prepare the task queue, and return a publisher for commands other than `run`. Raises QueueError."""
    app = make_app(settings)
    app.queues.tasks.prepare()
    return Publisher(app, settings.group_photos)


def make_beat(settings: Settings) -> Any:
    """Create Celery's beat, which retries by itself until the broker answers. Raises QueueError."""
    app = make_app(settings)
    try:
        app.queues.tasks.prepare()
    except BrokerUnreachable as error:  # beat itself would report this only when a task is due
        logger.warning("beat: %s; beat starts nevertheless and waits for the broker", error)
    app.queues.log_unchecked()
    return app.Beat(loglevel="INFO", quiet=True)


def make_worker(app: WorkerApp, settings: Settings) -> Worker:
    """Create a worker that counts photos and, with an event source, receives event messages.

    If a part that the worker needs cannot be used, this raises before any message is received.
    """
    metrics = WorkerMetrics()
    counting = Counting(settings, metrics)
    logger.info("binwatch %s: %s", version(), counting.models.engine)
    counting.note_model()
    _expect_periodic_tasks(metrics, settings)
    publisher = Publisher(app, settings.group_photos)
    for objects_task in (CountPhotos, ReadMetadata):
        app.register_task(objects_task(counting, publisher, settings.retry_wait_s))
    for periodic_task in (Reconcile, StartNightly, PollNightly):
        app.register_task(periodic_task(counting, publisher, settings))
    tasks, events = app.queues
    if events is not None:
        events.open()
    tasks.prepare(to_consume=True)
    app.queues.log_unchecked()
    probes = {**counting.probes(), "task queue": publisher.check, "tasks": counting.starvation.check, **tasks.probes()}
    services: list[BackgroundService] = [
        counting.models,
        DepthPoller(partial(queue_depths, app.queues), metrics.set_queue_depths, counting.starvation.observe),
    ]
    if events is not None:
        intake = _make_intake(publisher, settings, events, metrics)
        services.append(intake)
        probes["event queue"] = intake.check
    services.append(StatusServer(settings.worker_host, settings.worker_port, metrics.registry, HealthChecks(probes)))
    app.services = services
    app.steps["worker"].add(ServicesStep)
    # Threads of one process share one model, and NumPy, Pillow and ONNX Runtime release the GIL.
    return app.Worker(
        pool="threads",
        concurrency=settings.worker_concurrency,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="INFO",
        quiet=True,  # no banner, since it is not a log line; Celery still logs its broker and that it is ready
    )


def _make_intake(publisher: Publisher, settings: Settings, events: EventQueue, metrics: WorkerMetrics) -> IntakeLoop:
    return IntakeLoop(
        events,
        count=publisher.count,
        read_metadata=publisher.read_metadata,
        group_photos=settings.group_photos,
        group_wait_s=settings.group_wait_ms / 1000,
        bucket=settings.bucket,
        models_prefix=settings.models_prefix,
        ignored_prefixes=[settings.nightly_prefix],
        metrics=metrics,
    )
