"""Finds and loads the model that a container serves, while the server already answers."""

from __future__ import annotations

import logging

from binwatch.bundle import CARD_FILE, Bundle
from binwatch.errors import BundleError
from binwatch.sagemaker.settings import TransformEnvironment
from binwatch.settings import Settings
from worker.engine import Engine

logger = logging.getLogger(__name__)


def load_engine(settings: Settings) -> Engine:
    """The engine, ready to count. Raises BundleError if there is no usable model."""
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
    """Whether SageMaker runs this container: then SageMaker's folder exists."""
    return environment.batch or settings.sagemaker.folder.exists()


def find_bundle(settings: Settings) -> Bundle:
    """The bundle that SageMaker unpacked from model.tar.gz; outside of SageMaker, the settings' bundle.

    The archive may contain the bundle's files, or a folder with them. Raises BundleError if it has no bundle: the
    image's own model is not the requested one.
    """
    given = settings.sagemaker.folder / "model"
    if not given.exists():
        return Bundle(settings.model_dir)
    for folder in (given, *sorted(path for path in given.iterdir() if path.is_dir())):
        if (folder / CARD_FILE).is_file():
            return Bundle(folder)
    raise BundleError(f"{given}: no {CARD_FILE} here or in a folder below; archive the files of a model bundle")
