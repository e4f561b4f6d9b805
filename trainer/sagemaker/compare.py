"""A step of the pipeline: is the model that a training job left better than the one in use?"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from binwatch.bundle import CARD
from binwatch.registry import Registry
from trainer.disk import write_whole
from trainer.display import Display
from trainer.errors import PromotionError
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.place import PHOTOS
from trainer.publish.promote import promote
from trainer.sagemaker.errors import SagemakerError

ARCHIVE = "model.tar.gz"
ANSWER = "comparison.json"


class ComparisonResult(BaseModel):
    """What the condition reads."""

    better: bool
    version: str
    why: str


def compare(
    model: Path, data: Path, registry: Registry, bundled: Path, display: Display, *, put_in_use: bool = False
) -> ComparisonResult:
    """Compare the bundle in `model` (or in its model.tar.gz) with the model in use, on its test photos in `data`.

    `bundled` is what workers use until a model is promoted.

    `put_in_use` promotes it if it is better, and then raises PromotionError if it is not. Raises SagemakerError if
    there is no bundle.
    """
    with TemporaryDirectory(prefix="binwatch-") as name:
        bundle = _unpacked(model, Path(name))
        photos = {"photos": data / PHOTOS, "index": data / MANIFEST}
        version = bundle_version(bundle)
        try:
            done = promote(str(bundle), registry, photos, display, dry_run=not put_in_use, bundled=bundled)
        except PromotionError as error:
            if put_in_use:
                raise
            return ComparisonResult(better=False, version=version, why=str(error))
    verdict = done.comparison.verdict() if done.comparison else "no model is in use: the first one has nothing to beat"
    return ComparisonResult(better=True, version=version, why=verdict)


def bundle_version(folder: Path) -> str:
    """The version of the bundle in `folder`."""
    from binwatch.bundle import Bundle

    return Bundle(folder).card.version


def write_answer(answer: ComparisonResult, folder: Path) -> None:
    """The property file of the step."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / ANSWER, (answer.model_dump_json(indent=2) + "\n").encode())


def _unpack(archive: Path, folder: Path) -> None:
    """Files alone, each by its bare name: none leads out of the folder. Python 3.11.2 has no `filter` for that."""
    with tarfile.open(archive) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() else None
            if content is not None:
                with (folder / Path(member.name).name).open("wb") as file:
                    shutil.copyfileobj(content, file)


def _unpacked(model: Path, work: Path) -> Path:
    archive = model / ARCHIVE
    if archive.is_file():
        _unpack(archive, work)
        model = work
    if not (model / CARD).is_file():
        raise SagemakerError(f"{model}: no {CARD} and no {ARCHIVE} with one; give the output of a training job")
    return model
