"""A week in the warehouse, for the screenshots: what takes days, in a minute.

Each sample photo comes once a day, re-encoded so that it is another upload. In the middle of the week another model is
promoted (the same one under another name), and on the last day the lamps are brighter.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from PIL import Image, ImageEnhance

from binwatch.bundle import CARD_FILE
from binwatch.settings import DEFAULT_MODEL
from testing.services.s3 import S3
from tests.monitor.browser.warehouse import Warehouse, contents, counting, settings_of, upload

DAYS = 7
PROMOTED = 4
"""Day on which the sample model is promoted; before, the same model counts under the name EARLIER."""
EARLIER = "starter-0"


def count_week(s3: S3, records: Path, folder: Path) -> Warehouse:
    """Count a week of photos into the empty, migrated `records`; the earlier model is written to `folder`."""
    earlier = _renamed(folder)
    settings = settings_of(s3, records)
    today = datetime.now(UTC).replace(minute=20, second=0, microsecond=0)
    for day in range(1, DAYS + 1):
        model = DEFAULT_MODEL if day >= PROMOTED else earlier
        now = min(today - timedelta(days=DAYS - day), datetime.now(UTC))
        with _clock(now), counting(settings.model_copy(update={"model_dir": model})) as one:
            if day == 1:
                assert one.read_metadata(upload(s3, contents("metadata"))) == []
            photos = {key: _as_of(data, day) for key, data in contents("bin-images").items()}
            assert one.count(upload(s3, photos)) == []
    return Warehouse(records, settings)


def _renamed(folder: Path) -> Path:
    """Copy the sample model under the name of an earlier one."""
    bundle = folder / EARLIER
    shutil.copytree(DEFAULT_MODEL, bundle)
    card = json.loads((bundle / CARD_FILE).read_text(encoding="utf-8"))
    (bundle / CARD_FILE).write_text(json.dumps(card | {"version": EARLIER}), encoding="utf-8")
    return bundle


def _as_of(photo: bytes, day: int) -> bytes:
    """Return another upload of a photo: mirrored on every other day, brighter on the last."""
    with Image.open(io.BytesIO(photo)) as image:
        shown = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if (DAYS - day) % 2 else image.copy()
    if day == DAYS:
        shown = ImageEnhance.Brightness(shown).enhance(1.15)
    jpeg = io.BytesIO()
    shown.save(jpeg, "JPEG", quality=90 - day % 3)
    return jpeg.getvalue()


@contextmanager
def _clock(now: datetime) -> Iterator[None]:
    """Set the clock of the bucket and the records."""
    clock = mock.Mock(wraps=datetime)
    clock.now = lambda zone: now.astimezone(zone)
    bucket = mock.patch("moto.s3.models.utcnow", return_value=now.replace(tzinfo=None))
    with mock.patch("binwatch.records.store.datetime", clock), bucket:
        yield
