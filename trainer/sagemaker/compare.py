"""A step of the pipeline: compares a training job's model with the model in use."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from binwatch.bundle import CARD_FILE, Bundle
from binwatch.registry import Registry
from trainer.disk import make_folder, write_json
from trainer.display import Display
from trainer.errors import PromotionError
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.photo_store import PHOTOS
from trainer.publish.promote import promote
from trainer.sagemaker.errors import SagemakerError

ARCHIVE = "model.tar.gz"
RESULT_FILE = "comparison.json"


class ComparisonResult(BaseModel):
    """The content of the property file that the pipeline's condition reads."""

    better: bool
    version: str
    why: str


def compare(
    model: Path, data: Path, registry: Registry, initial: Path, display: Display, *, promote_better: bool = False
) -> ComparisonResult:
    """Compare the bundle in `model` (or in its model.tar.gz) with the model in use, on the test photos in `data`.

    `initial` is the folder of the model that workers use until one is promoted. With `promote_better`, promote the
    bundle if it is better, and raise PromotionError if it is not. Raises SagemakerError if there is no bundle.
    """
    with TemporaryDirectory(prefix="binwatch-") as temporary:
        bundle = _unpack(model, Path(temporary))
        photos = {"photos": data / PHOTOS, "index": data / MANIFEST}
        version = Bundle(bundle).card.version
        try:
            decision = promote(str(bundle), registry, photos, display, dry_run=not promote_better, initial=initial)
        except PromotionError as error:
            if promote_better:
                raise
            return ComparisonResult(better=False, version=version, why=str(error))
    verdict = "no model is in use: the first one has nothing to beat"
    if decision.comparison:
        verdict = decision.comparison.verdict()
    return ComparisonResult(better=True, version=version, why=verdict)


def write_result(result: ComparisonResult, folder: Path) -> None:
    """Write the step's property file."""
    make_folder(folder)
    write_json(folder / RESULT_FILE, result.model_dump())


def _unpack(model: Path, work: Path) -> Path:
    """Return the bundle's folder: `model`, or `work` after unpacking the archive in `model` into it."""
    archive = model / ARCHIVE
    if archive.is_file():
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is not None:
                    # Only the base name, so that no file lands outside `work`: Python 3.11.2 has no `filter` for this.
                    with (work / Path(member.name).name).open("wb") as file:
                        shutil.copyfileobj(content, file)
        model = work
    if not (model / CARD_FILE).is_file():
        raise SagemakerError(f"{model}: no {CARD_FILE} and no {ARCHIVE} with one; give the output of a training job")
    return model
