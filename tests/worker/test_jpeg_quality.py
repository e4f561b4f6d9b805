"""Photos are re-encoded like the model's training photos in every way of counting."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import select

from binwatch.bundle import Bundle
from binwatch.events import ObjectCreated
from binwatch.image import INPUT_SIZE, load_photo
from binwatch.records.tables import Count
from binwatch.settings import DEFAULT_MODEL
from worker.counting import Counting
from worker.engine import Engine

ROOT = Path(__file__).parent.parent.parent
PHOTO = ROOT / "samples" / "bin-images" / "00382.jpg"


def stored(pixels: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("in_the_system", [True, False])
def test_photo_is_reencoded_in_the_jpeg_quality_of_the_card(monkeypatch, in_the_system):
    """Also on systems without in-memory files."""
    if not in_the_system:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    plain = load_photo(PHOTO.read_bytes()).pixels
    pixels = load_photo(PHOTO.read_bytes(), jpeg_quality=82).pixels
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(stored(plain, 82)))))
    assert mean_difference(pixels, plain) > 0.5


def test_reencoding_in_the_same_quality_hardly_changes_a_photo():
    before = stored(load_photo(PHOTO.read_bytes()).pixels, 82)
    assert mean_difference(load_photo(before, jpeg_quality=82).pixels, load_photo(before).pixels) < 0.1


def test_photo_metadata_is_not_stored():
    """The comment is longer than a JPEG can hold."""
    comment, file = PngInfo(), io.BytesIO()
    comment.add_text("comment", "long" * 50_000)
    with Image.open(PHOTO) as photo:
        photo.save(file, "PNG", pnginfo=comment)
        expected = stored(np.asarray(photo.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR)), 82)
    result = load_photo(file.getvalue(), jpeg_quality=82).pixels
    assert np.array_equal(result, np.asarray(Image.open(io.BytesIO(expected))))


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """Return the starter model's probabilities after the JPEG step of its card; without the step they differ."""
    engine = Engine(Bundle(DEFAULT_MODEL))
    assert engine.card.jpeg_quality == 82
    size = engine.card.input_size
    photos = [load_photo(PHOTO.read_bytes(), size=size, jpeg_quality=quality).pixels[None] for quality in (82, None)]
    with_step, without_step = (engine.infer(photo).probabilities[0] for photo in photos)
    assert np.abs(with_step - without_step).max() > 0.01
    return [round(float(value), 6) for value in with_step]


def test_count_command_reencodes(expected):
    done = subprocess.run(
        [sys.executable, "-m", "worker", "count", str(PHOTO), "--json"], cwd=ROOT, capture_output=True, check=True
    )
    (line,) = json.loads(done.stdout)
    assert line["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_worker_reencodes(expected, settings, s3):
    s3.put("bin-images/a.jpg", PHOTO.read_bytes())
    counting = Counting(settings.model_copy(update={"model_dir": DEFAULT_MODEL}))
    counting.count([ObjectCreated(s3.bucket, "bin-images/a.jpg")])
    with counting.database.connect() as connection:
        assert connection.scalars(select(Count.probabilities)).one() == pytest.approx(expected, abs=1e-5)
    counting.close()
