"""A step of the pipeline: compares the model of a training job with the one in use."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from binwatch.bundle import CARD, Bundle
from binwatch.registry import Registry
from trainer.disk import make_folder, write_json
from trainer.display import Display
from trainer.errors import PromotionError
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.photo_store import PHOTOS
from trainer.publish.promote import promote
from trainer.sagemaker.errors import SagemakerError

ARCHIVE = "model.tar.gz"
ANSWER = "comparison.json"


class ComparisonResult(BaseModel):
    """The property file that the pipeline's condition reads."""

    better: bool
    version: str
    why: str


def compare(
    model: Path, data: Path, registry: Registry, initial: Path, display: Display, *, put_in_use: bool = False
) -> ComparisonResult:
    """Compare the bundle in `model` (or in its model.tar.gz) with the model in use, on its test photos in `data`.

    `bundled` is the model that workers use until one is promoted. With `put_in_use`, the bundle is promoted if it is
    better; if not, PromotionError is raised. Raises SagemakerError if there is no bundle.
    """
    with TemporaryDirectory(prefix="binwatch-") as name:
        bundle = _unpacked(model, Path(name))
        photos = {"photos": data / PHOTOS, "index": data / MANIFEST}
        version = Bundle(bundle).card.version
        try:
            done = promote(str(bundle), registry, photos, display, dry_run=not put_in_use, initial=initial)
        except PromotionError as error:
            if put_in_use:
                raise
            return ComparisonResult(better=False, version=version, why=str(error))
    verdict = done.comparison.verdict() if done.comparison else "no model is in use: the first one has nothing to beat"
    return ComparisonResult(better=True, version=version, why=verdict)


def write_answer(answer: ComparisonResult, folder: Path) -> None:
    """Write the step's property file."""
    make_folder(folder)
    write_json(folder / ANSWER, answer.model_dump())


def _unpacked(model: Path, work: Path) -> Path:
    """The folder of the bundle: `model`, or `work` with the content of its archive."""
    archive = model / ARCHIVE
    if archive.is_file():
        with tarfile.open(archive) as opened:
            for member in opened:
                content = opened.extractfile(member) if member.isfile() else None
                if content is not None:
                    # By its bare name, so that no file is outside the folder. Python 3.11.2 has no `filter` for this.
                    with (work / Path(member.name).name).open("wb") as file:
                        shutil.copyfileobj(content, file)
        model = work
    if not (model / CARD).is_file():
        raise SagemakerError(f"{model}: no {CARD} and no {ARCHIVE} with one; give the output of a training job")
    return model
