"""Grey photos whose brightness encodes the number of items, and models of varying quality that count them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

from binwatch.bundle import Card, Precision, make_variant, write_card
from binwatch.counts import CLASSES
from testing.brightness import brightness_of, write_brightness_model
from tests.trainer.drawn import Data, write_index

PHOTOS = 140


def write_grey_data(folder: Path) -> Data:
    """Write 140 photos of different bins; 10 of them are test photos."""
    data_set = Data(folder)
    data_set.photos.mkdir()
    rows: list[tuple[str, object, str]] = []
    for number in range(PHOTOS):
        label = number % len(CLASSES)
        Image.new("RGB", (8, 8), (brightness_of(label),) * 3).save(data_set.photos / f"{number:05}.png")
        rows.append((f"{number:05}", label, f"g{number}"))
    write_index(data_set.index, rows)
    return data_set


def write_grey_bundle(folder: Path, version: str, *, brightness: float = 1.0) -> Path:
    """Write a model that counts as if photos were `brightness` times as bright; with 1 it is always right."""
    folder = folder / version
    folder.mkdir()
    file = folder / "model-int8.onnx"
    write_brightness_model(file)
    model = onnx.load(file)
    scale = next(initializer for initializer in model.graph.initializer if initializer.name == "to_classes")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(brightness), "to_classes"))
    onnx.save(model, file)
    card = Card(
        version=version, architecture="brightness", created=datetime(2026, 1, 1, tzinfo=UTC), embedding_size=1,
        temperature=1.0, variants={Precision.INT8: make_variant(file)},
    )  # fmt: skip
    write_card(folder, card)
    return folder
