"""Puts the photos in and watches until each is accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from binwatch.records.engine import connect
from demo.camera import Roll, put
from demo.deployment import Deployment
from demo.report import DemoReport, make_report, unaccounted

_POLL_S = 0.1


def run(deployment: Deployment, roll: Roll, patience_s: float, console: Console) -> DemoReport:
    """Upload `roll` and wait for its records. Gives up after `patience_s` seconds in which nothing more is recorded."""
    engine = connect(deployment.settings.database_url.get_secret_value())
    bucket = deployment.settings.bucket
    photos, metadata = [upload.key for upload in roll.photos], [upload.key for upload in roll.metadata]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, console=console) as progress, _camera(deployment, roll, progress) as camera:
        bar = progress.add_task("recorded", total=len(photos) + len(metadata))
        left, last_change = len(photos) + len(metadata), started
        while left and time.monotonic() - last_change < patience_s:
            deployment.check()
            time.sleep(_POLL_S)
            now_left = len(unaccounted(engine, bucket, photos, metadata))
            if now_left != left or not camera.done():
                left, last_change = now_left, time.monotonic()
            progress.update(bar, completed=len(photos) + len(metadata) - left)
        camera.result()  # raises what kept it from uploading
    return make_report(engine, bucket, photos, metadata, last_change - started)


@contextmanager
def _camera(deployment: Deployment, roll: Roll, progress: Progress) -> Iterator[Future[None]]:
    """A thread that uploads `roll`; it stops on leaving, so that it never outlives the bucket."""
    bar = progress.add_task("uploaded", total=len(roll.photos) + len(roll.metadata))
    stopping = Event()
    with ThreadPoolExecutor(1, thread_name_prefix="camera") as pool:
        try:
            yield pool.submit(
                put,
                deployment.objects,
                deployment.settings.bucket,
                roll,
                done=lambda: progress.advance(bar),
                stopping=stopping,
            )
        finally:
            stopping.set()
