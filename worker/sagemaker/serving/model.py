"""The model that a container is to serve: found in its folder, loaded while the server answers already."""

from __future__ import annotations

import logging

from binwatch.bundle import CARD, Bundle
from binwatch.errors import BundleError
from binwatch.sagemaker.settings import TransformEnvironment
from binwatch.settings import Settings
from worker.engine import Engine

logger = logging.getLogger(__name__)


def load_engine(settings: Settings) -> Engine:
    """The engine, ready to count. Raises BundleError if there is no model that can be used."""
    bundle = find_bundle(settings)
    engine = Engine.of(bundle, settings)
    engine.warm()
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
    """Whether this is a container that SageMaker runs: it gives each a folder."""
    return environment.batch or settings.sagemaker.folder.exists()


def find_bundle(settings: Settings) -> Bundle:
    """The bundle that SageMaker unpacked from model.tar.gz; outside of SageMaker the one of the settings.

    An archive of a folder, instead of the folder's files, is as good. Raises BundleError if SageMaker gave none: the
    image's own model would count, too, but it is not the one that was asked for.
    """
    given = settings.sagemaker.folder / "model"
    if not given.exists():
        return Bundle(settings.model_dir)
    for folder in (given, *sorted(path for path in given.iterdir() if path.is_dir())):
        if (folder / CARD).is_file():
            return Bundle(folder)
    raise BundleError(f"{given}: no {CARD} here or in a folder below; archive the files of a model bundle")
