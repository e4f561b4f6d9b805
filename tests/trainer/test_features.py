"""The feature cache on a full disk, and after a killed run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.drawn import QUICK, Data
from trainer.config import Config, parse_assignment, read_config
from trainer.data.dataset import PhotoSet, load_photos
from trainer.data.loader import Batch
from trainer.errors import DiskError
from trainer.models import build
from trainer.train import features
from trainer.train.features import FeatureCache


@pytest.fixture
def config(data: Data) -> Config:
    options = dict(parse_assignment(text) for text in QUICK if text != "--set")
    return read_config(None, options | {"data.photos": data.photos, "data.index": data.index, "model.freeze": "layer4"})


@pytest.fixture
def photos(config: Config) -> PhotoSet:
    """Return eight photos, with 200 kB of features per view."""
    all_photos, _, _ = load_photos(config.data)
    return all_photos.filter(lambda row: row.key < "00008")


def unseen(batches: Iterator[Batch], _: int, __: str) -> Iterator[Batch]:
    return batches


def cache(folder: Path, config: Config) -> FeatureCache:
    return FeatureCache(folder, config.augment, config.train, unseen)


def test_disk_space_is_checked_before_photos_are_read(
    config: Config, photos: PhotoSet, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoSet, "decode", lambda *_: pytest.fail("a photo was decoded"))
    with pytest.raises(DiskError) as caught:
        cache(small_disk, config).frozen_features(build(config.model), photos, 2)
    assert str(caught.value) == (
        f"{small_disk}: features of 8 photos in 2 views need about 0.4 MB and 0.2 MB are free; make room (features of"
        " earlier runs may be deleted), or store them elsewhere with --cache"
    )


def test_a_disk_that_fills_up_is_an_error(
    config: Config, photos: PhotoSet, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory-mapped file would crash the process instead. The complete first view is reused."""
    monkeypatch.setattr(features, "check_free_space", lambda *_: None)
    model = build(config.model)
    with pytest.raises(DiskError, match=r"disk: features of 8 photos in 2 views cannot be written \(No space left"):
        cache(small_disk, config).frozen_features(model, photos, 2)
    (complete_view,) = small_disk.glob("*.npy")
    assert not list(small_disk.glob("*.partial"))
    written = complete_view.stat().st_mtime_ns
    result = [(view.shape, view.dtype) for view in cache(small_disk, config).frozen_features(model, photos, 1)]
    assert result == [((8, 7, 7, 256), np.float16)]
    assert complete_view.stat().st_mtime_ns == written


def test_partial_files_of_killed_runs_are_deleted(config: Config, photos: PhotoSet, tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef-0.partial").write_bytes(b"half of other features")
    cache(tmp_path, config).frozen_features(build(config.model), photos, 1)
    assert not list(tmp_path.glob("*.partial"))


def test_the_command_reports_a_full_disk_in_one_line(
    data: Data, small_disk: Path, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    flags = [*data.flags, "--out", tmp_path / "run", "--cache", small_disk, *QUICK, "--freeze", "layer1"]
    assert f"error: {small_disk}: features of 132 photos in 2 views need about 53.0 MB" in cli_error("fit", *flags)
