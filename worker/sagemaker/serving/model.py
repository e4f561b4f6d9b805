"""Finds and loads the model that a container serves."""

from __future__ import annotations

import logging

from binwatch.bundle import CARD_FILE, Bundle
from binwatch.errors import BundleError
from binwatch.sagemaker.settings import TransformEnvironment
from binwatch.settings import Settings
from worker.engine import Engine

logger = logging.getLogger(__name__)


def load_engine(settings: Settings) -> Engine:
    """Load and warm up the engine. Raises BundleError if there is no usable model."""
    bundle = find_bundle(settings)
    engine = Engine.from_settings(bundle, settings)
    engine.warm_up()
    logger.info(
        "model: %s (%s, %s, self-check %s) from %s",
        engine.card.version,
        engine.precision,
        engine.provider,
        engine.self_check,
        bundle.folder,
    )
    return engine


def in_sagemaker(settings: Settings, environment: TransformEnvironment) -> bool:
    """Return whether SageMaker runs this container, in which case SageMaker's folder exists."""
    return environment.batch or settings.sagemaker.folder.exists()


def find_bundle(settings: Settings) -> Bundle:
    """Return the bundle that SageMaker unpacked from model.tar.gz, or the settings' bundle outside of SageMaker.

    The archive may contain the bundle's files, or a folder with them. Raises BundleError if it has no bundle, since the
    image's own model is not the requested one.
    """
    unpacked = settings.sagemaker.folder / "model"
    if not unpacked.exists():
        return Bundle(settings.model_dir)
    for folder in (unpacked, *sorted(path for path in unpacked.iterdir() if path.is_dir())):
        if (folder / CARD_FILE).is_file():
            return Bundle(folder)
    raise BundleError(f"{unpacked}: no {CARD_FILE} here or in a folder below; archive the files of a model bundle")
