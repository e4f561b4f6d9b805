"""Fixtures of the SageMaker tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testing.services.aws_shapes import check_every_request
from tests.trainer.drawn import Data
from tests.trainer.sagemaker.player import Container
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.photo_store import PHOTOS

CliError = Callable[..., str]
ROLE = "arn:aws:iam::123456789012:role/binwatch"
OPTIONS = {
    "model.architecture": "resnet18", "model.weights": "none", "model.freeze": "layer4",
    "augment.views": "1", "train.threads": "1", "train.batch_size": "32", "train.epochs": "1",
    "export.variants": "fp32",
}  # fmt: skip
"""Hyperparameters of a job that takes seconds."""
ROWS = 60
"""Photos of it: enough for three splits."""


@pytest.fixture(autouse=True)
def _as_strict_as_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    check_every_request(monkeypatch)


@pytest.fixture
def prepared(data: Data, tmp_path: Path) -> Path:
    """Write a folder like that of `prepare`: manifest.csv and photos."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / PHOTOS).symlink_to(data.photos)
    rows = data.index.read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / MANIFEST).write_text("".join(rows[: ROWS + 1]), encoding="utf-8")
    return folder


@pytest.fixture
def container(prepared: Path, tmp_path: Path) -> Container:
    """Return a machine whose data channel holds the drawn photos."""
    root = tmp_path / "ml"
    (root / "input" / "data").mkdir(parents=True)
    (root / "input" / "data" / "data").symlink_to(prepared)
    return Container(root)


@pytest.fixture
def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Direct every AWS client to moto."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return moto_url
