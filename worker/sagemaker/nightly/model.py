"""Creates a run's model on SageMaker: an archive in the bucket, and a SageMaker model that refers to it."""

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

_GZIP_LEVEL = 1  # higher levels hardly compress weights further


def card_of(objects: Objects, settings: Settings, version: str) -> Card:
    """Return the card of a version if it is published in the bucket, else the card of the settings' bundle."""
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    return registry.card(version) if version in registry.versions() else Bundle(settings.model_dir).card


def model_name(settings: Settings, version: str) -> str:
    """Return SageMaker's name for a version. It also depends on the bucket, the role, the image and `environment`."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", version)[:30].strip("-")
    identity = [settings.bucket, settings.nightly_prefix, version, *role_and_image(settings), environment(settings)]
    return f"binwatch-{readable}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:12]}"


def environment(settings: Settings) -> dict[str, str]:
    """Return the container's settings, with which it counts and refuses photos as a local worker does."""
    return {
        "BINWATCH_MAX_PHOTO_BYTES": str(settings.max_photo_bytes),
        "BINWATCH_MAX_PHOTO_PIXELS": str(settings.max_photo_pixels),
        "BINWATCH_PRECISION": settings.precision.value,
        "BINWATCH_BATCH_SIZE": str(settings.batch_size),
        "BINWATCH_LOG_FORMAT": settings.log_format.value,
        "BINWATCH_LOG_LEVEL": settings.log_level.value,
    }


def archive_key(settings: Settings, name: str) -> str:
    """Return the key of a model's archive."""
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
    """Return the checked files of a bundle as model.tar.gz, with equal bytes for equal bundles."""
    with tempfile.TemporaryFile() as file:
        with (
            gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for path in (bundle.folder / CARD_FILE, *_model_files(bundle)):
                tar.add(path, path.name, filter=_without_owner)
        file.seek(0)
        return file.read()


def _without_owner(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Reset owner, time and mode, so that equal files give equal archives."""
    # `info.replace` is not used, since Debian 12's Python 3.11.2 lacks it.
    info.mtime, info.mode, info.uid, info.gid, info.uname, info.gname = 0, 0o644, 0, 0, "", ""
    return info


def _model_files(bundle: Bundle) -> list[Path]:
    """Return the ONNX files in the folder. A cache may lack the variants that this machine does not use."""
    present = [name for name, variant in bundle.card.variants.items() if (bundle.folder / variant.file).exists()]
    return [bundle.model_path(name) for name in present or bundle.card.variants]


def _bundle(objects: Objects, settings: Settings, version: str) -> Bundle:
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    if version in registry.versions():
        return registry.fetch(version, list(Precision), settings.model_cache)
    return Bundle(settings.model_dir)
