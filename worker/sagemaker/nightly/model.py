"""The model of a run on SageMaker: an archive in the bucket, and a SageMaker model that refers to it."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import tempfile
from pathlib import Path

from binwatch.bundle import CARD_FILE, Bundle, Card, Precision
from binwatch.objects import ObjectRefused, Objects
from binwatch.registry import Registry
from binwatch.settings import Settings
from worker.sagemaker.nightly.jobs import TransformJobs, role_and_image

_COMPRESSION = 1  # a higher level hardly makes weights smaller


def card_of(objects: Objects, settings: Settings, version: str) -> Card:
    """The card of a version that is published in the bucket; else the card of the settings' bundle."""
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    return registry.card(version) if version in registry.versions() else Bundle(settings.model_dir).card


def model_name(settings: Settings, version: str) -> str:
    """SageMaker's name for a version: the same for the same bucket, image, role and limits."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", version)[:30].strip("-")
    same = [settings.bucket, settings.nightly_prefix, version, *role_and_image(settings), environment(settings)]
    return f"binwatch-{readable}-{hashlib.sha256(repr(same).encode()).hexdigest()[:12]}"


def environment(settings: Settings) -> dict[str, str]:
    """The container's settings, with which it counts and refuses photos as a local worker does."""
    return {
        "BINWATCH_MAX_PHOTO_BYTES": str(settings.max_photo_bytes),
        "BINWATCH_MAX_PHOTO_PIXELS": str(settings.max_photo_pixels),
        "BINWATCH_PRECISION": settings.precision.value,
        "BINWATCH_BATCH_SIZE": str(settings.batch_size),
        "BINWATCH_LOG_FORMAT": settings.log_format.value,
        "BINWATCH_LOG_LEVEL": settings.log_level.value,
    }


def archive_key(settings: Settings, name: str) -> str:
    """Key of a model's archive."""
    return f"{settings.nightly_prefix}models/{name}.tar.gz"


def make_model(objects: Objects, settings: Settings, jobs: TransformJobs, name: str, version: str) -> None:
    """Upload the archive and create the model, unless they exist."""
    key = archive_key(settings, name)
    try:
        objects.head(settings.bucket, key)
    except ObjectRefused:
        objects.put(settings.bucket, key, archive(_bundle(objects, settings, version)))
    jobs.make_model(name, f"s3://{settings.bucket}/{key}", environment(settings))


def archive(bundle: Bundle) -> bytes:
    """The checked files of a bundle as model.tar.gz; the same bytes for the same bundle."""
    with tempfile.TemporaryFile() as file:
        with (
            gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for path in (bundle.folder / CARD_FILE, *_models(bundle)):
                tar.add(path, path.name, filter=_anonymous)
        file.seek(0)
        return file.read()


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove owner, time and mode, so that equal files give equal archives."""
    # Not with `info.replace`, which Debian 12's Python 3.11.2 lacks.
    info.mtime, info.mode, info.uid, info.gid, info.uname, info.gname = 0, 0o644, 0, 0, "", ""
    return info


def _models(bundle: Bundle) -> list[Path]:
    """ONNX files of the variants in the folder: a cache may hold only those that this machine uses."""
    here = [name for name, variant in bundle.card.variants.items() if (bundle.folder / variant.file).exists()]
    return [bundle.model_path(name) for name in here or bundle.card.variants]


def _bundle(objects: Objects, settings: Settings, version: str) -> Bundle:
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    if version in registry.versions():
        return registry.fetch(version, list(Precision), settings.model_cache)
    return Bundle(settings.model_dir)
