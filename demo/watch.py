"""Uploads the photos and metadata files, and waits until each has a record."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from binwatch.records.engine import connect
from demo.camera import UploadPlan, upload_all
from demo.deployment import Deployment
from demo.report import DemoReport, find_unaccounted, make_report

_POLL_S = 0.1


def upload_and_wait(deployment: Deployment, plan: UploadPlan, patience_s: float, console: Console) -> DemoReport:
    """Upload the files of `plan` and wait for their records, until there is no new record for `patience_s` seconds."""
    engine = connect(deployment.settings.database_url.get_secret_value())
    bucket = deployment.settings.bucket
    photos, metadata = [upload.key for upload in plan.photos], [upload.key for upload in plan.metadata]
    total = unrecorded = len(photos) + len(metadata)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stopping = Event()
    started = last_change = time.monotonic()
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(1, thread_name_prefix="camera") as pool:
        uploaded, recorded = progress.add_task("uploaded", total=total), progress.add_task("recorded", total=total)
        advance = partial(progress.advance, uploaded)
        camera = pool.submit(upload_all, deployment.objects, bucket, plan, on_uploaded=advance, stopping=stopping)
        try:
            while unrecorded and time.monotonic() - last_change < patience_s:
                deployment.check()
                time.sleep(_POLL_S)
                remaining = len(find_unaccounted(engine, bucket, photos, metadata))
                if remaining != unrecorded or not camera.done():
                    unrecorded, last_change = remaining, time.monotonic()
                progress.update(recorded, completed=total - unrecorded)
            camera.result()  # raises the error of a failed upload
        finally:
            stopping.set()  # the upload must not outlive the bucket
    return make_report(engine, bucket, photos, metadata, last_change - started)
