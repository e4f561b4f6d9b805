"""Simulated photos and a model bundle whose reference they match."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sqlalchemy import Engine

from binwatch.bundle import Card, Precision, Variant, write_card
from binwatch.embedding import pack
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.reference import ReferenceData, Signal, make_reference
from binwatch.settings import load_settings

BUCKET = "bins"
MODEL = "model-1"
DAY = datetime(2026, 1, 1, tzinfo=UTC)
EMBEDDING_SIZE = 8


def simulated_photos(count: int, seed: int = 0, *, brighter: float = 0.0) -> ReferenceData:
    """Return simulated model outputs and photo properties; `brighter` shifts the mean brightness."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(7), count)
    return ReferenceData(
        probabilities=probabilities,
        labels=np.array([random.choice(7, p=row) for row in probabilities]),
        embeddings=random.normal(1, 2, (count, EMBEDDING_SIZE)),
        properties={
            Signal.BRIGHTNESS: random.normal(0.4 + brighter, 0.1, count),
            Signal.CONTRAST: random.normal(0.2, 0.05, count),
            Signal.SHARPNESS: random.gamma(2, 0.1, count),
            Signal.SHAPE: random.choice([0.9, 1.0, 1.1], count),
            Signal.BYTES: random.integers(10_000, 90_000, count).astype(float),
        },
    )


REFERENCE = make_reference(simulated_photos(1000))


def record_photos(engine: Engine, photos: ReferenceData, *, model: str = MODEL, prefix: str = "") -> None:
    """Record photos as a worker does, each of its own bin, with the expected quantities."""
    numbers = itertools.count()
    counts, expectations = [], []
    columns = zip(*(photos.properties[signal] for signal in photos.properties), strict=True)
    for row, label, embedding, values in zip(
        photos.probabilities, photos.labels, photos.embeddings, columns, strict=True
    ):
        bin_id = f"{prefix}{next(numbers)}"
        brightness, contrast, sharpness, shape, size = values
        counts.append(
            NewCount(
                bucket=BUCKET,
                key=f"bin-images/{bin_id}.jpg",
                etag="e",
                model_version=model,
                precision="int8",
                provider="CPUExecutionProvider",
                modified_at=DAY,
                predicted=int(row.argmax()),
                probabilities=[float(value) for value in row],
                width=round(1000 * shape),
                height=1000,
                bytes=int(size),
                brightness=float(brightness),
                contrast=float(contrast),
                sharpness=float(sharpness),
                embedding=pack(embedding.astype(np.float32)),
            )
        )
        expectations.append(
            NewExpectation(
                bucket=BUCKET, bin_id=bin_id, source="stock.csv", etag="s", modified_at=DAY, quantity=int(label)
            )
        )
    store = Store(engine, slicing=load_settings().slicing)
    for start in range(0, len(counts), 500):
        store.add_counts(counts[start : start + 500])
        store.add_expectations(expectations[start : start + 500])


def write_bundle(folder: Path) -> None:
    """Write a card of MODEL with the reference, without an ONNX file."""
    variant = Variant(file="model.onnx", sha256="0" * 64, bytes=1)
    card = Card(
        version=MODEL,
        architecture="test",
        created=DAY,
        embedding_size=EMBEDDING_SIZE,
        temperature=1,
        variants={Precision.INT8: variant},
        reference=REFERENCE,
    )
    write_card(folder, card)
