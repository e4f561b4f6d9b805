"""The model that a run counts with, as SageMaker wants it: an archive in the bucket, and a model that names it."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import tempfile
from pathlib import Path

from binwatch.bundle import CARD, Bundle, Card, Precision
from binwatch.objects import ObjectRefused, Objects
from binwatch.registry import Registry
from binwatch.settings import Settings
from worker.sagemaker.nightly.jobs import TransformJobs, role_and_image

_COMPRESSION = 1  # weights hardly get smaller, whatever is spent on it


def card_of(objects: Objects, settings: Settings, version: str) -> Card:
    """The card of a version: published in the bucket, or that of the settings."""
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    return registry.card(version) if version in registry.versions() else Bundle(settings.model_dir).card


def model_name(settings: Settings, version: str) -> str:
    """SageMaker's name for a version with this bucket, image, role and limits: always the same for the same."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", version)[:30].strip("-")
    same = [settings.bucket, settings.nightly_prefix, version, *role_and_image(settings), environment(settings)]
    return f"binwatch-{readable}-{hashlib.sha256(repr(same).encode()).hexdigest()[:12]}"


def environment(settings: Settings) -> dict[str, str]:
    """What the container must be told, so that it counts and refuses as a local worker does."""
    return {
        "BINWATCH_MAX_PHOTO_BYTES": str(settings.max_photo_bytes),
        "BINWATCH_MAX_PHOTO_PIXELS": str(settings.max_photo_pixels),
        "BINWATCH_PRECISION": settings.precision.value,
        "BINWATCH_BATCH_SIZE": str(settings.batch_size),
        "BINWATCH_LOG_FORMAT": settings.log_format.value,
        "BINWATCH_LOG_LEVEL": settings.log_level.value,
    }


def archive_key(settings: Settings, name: str) -> str:
    """Where the archive of a model is."""
    return f"{settings.nightly_prefix}models/{name}.tar.gz"


def make_model(objects: Objects, settings: Settings, jobs: TransformJobs, name: str, version: str) -> None:
    """Upload the archive, unless it is there, and make the model, unless it is there."""
    key = archive_key(settings, name)
    try:
        objects.head(settings.bucket, key)
    except ObjectRefused:
        objects.put(settings.bucket, key, archive(_bundle(objects, settings, version)))
    jobs.make_model(name, f"s3://{settings.bucket}/{key}", environment(settings))


def archive(bundle: Bundle) -> bytes:
    """The files of a bundle as model.tar.gz, each checked before; the same bytes for the same bundle."""
    with tempfile.TemporaryFile() as file:
        with (
            gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for path in (bundle.folder / CARD, *_models(bundle)):
                tar.add(path, path.name, filter=_anonymous)
        file.seek(0)
        return file.read()


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose file it was and when."""
    # Not `replace`, which Debian 12's Python 3.11.2 does not have.
    info.mtime, info.mode, info.uid, info.gid, info.uname, info.gname = 0, 0o644, 0, 0, "", ""
    return info


def _models(bundle: Bundle) -> list[Path]:
    """Those variants that are here: a cache may hold just the ones that this machine uses."""
    here = [name for name, variant in bundle.card.variants.items() if (bundle.folder / variant.file).exists()]
    return [bundle.model(name) for name in here or bundle.card.variants]


def _bundle(objects: Objects, settings: Settings, version: str) -> Bundle:
    registry = Registry(objects, settings.bucket, settings.models_prefix)
    if version in registry.versions():
        return registry.fetch(version, list(Precision), settings.model_cache)
    return Bundle(settings.model_dir)
