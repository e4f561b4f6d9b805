"""Promotion and rollback of models on moto's S3, and a worker that loads the promoted model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, select

from binwatch.errors import BundleError, PromotionConflictError
from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.tables import Count
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from testing.services.s3 import S3
from tests.trainer.drawn import Data, run_cli
from tests.trainer.grey import write_grey_bundle
from trainer.display import silent_display
from trainer.evaluation.compare import ModelComparison
from trainer.evaluation.metrics import Counts, paired_difference
from trainer.publish.promote import promote
from worker.counting import Counting


@pytest.fixture
def registry(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    monkeypatch.setenv("BINWATCH_MODEL_DIR", "none")  # no initial model to beat
    return Registry(Objects(Settings()), s3.bucket, "models/")


def test_only_a_better_model_is_promoted(
    registry: Registry, grey: Data, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    run_cli(
        "promote", write_grey_bundle(tmp_path, "v1", brightness=0.5)
    )  # the first model is not compared, so no photos are needed
    assert registry.current().version == "v1"

    message = cli_error("promote", write_grey_bundle(tmp_path, "v2", brightness=0.4), *grey.flags)
    assert "v2 is not found to be better than v1 on" in message
    assert "v1 stays in use (--force promotes in any case)" in message
    assert registry.versions() == ["v1"]

    better = write_grey_bundle(tmp_path, "v3")
    run_cli("promote", better, *grey.flags, "--dry-run")
    assert registry.current().version == "v1"
    run_cli("promote", better, *grey.flags)
    current = registry.current()
    assert (current.version, current.previous, current.forced) == ("v3", "v1", False)
    assert registry.card("v3").notes == []


def test_first_model_must_beat_the_initial_one(
    registry: Registry, grey: Data, tmp_path: Path, cli_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback restores the initial model."""
    monkeypatch.setenv("BINWATCH_MODEL_DIR", str(write_grey_bundle(tmp_path, "v0", brightness=0.5)))
    message = cli_error("promote", write_grey_bundle(tmp_path, "v1", brightness=0.4), *grey.flags)
    assert "v1 is not found to be better than v0 on" in message
    assert registry.versions() == []
    run_cli("promote", write_grey_bundle(tmp_path, "v2"), *grey.flags)
    assert (registry.current().version, registry.current().previous) == ("v2", "v0")
    assert registry.versions() == ["v0", "v2"]
    run_cli("rollback")
    assert registry.current().version == "v0"


def test_model_with_equal_counts_is_not_better(
    registry: Registry, grey: Data, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    run_cli("promote", write_grey_bundle(tmp_path, "v1"))
    message = cli_error("promote", write_grey_bundle(tmp_path, "v2"), *grey.flags)
    assert message.startswith("error: v2 and v1 are the same model: each of 8 test photos gets the same probabilities")
    assert message.endswith("; v1 stays in use (--force promotes in any case)")


def test_forced_promotion_is_noted_in_the_card(registry: Registry, grey: Data, tmp_path: Path) -> None:
    run_cli("promote", write_grey_bundle(tmp_path, "v1"))
    worse = write_grey_bundle(tmp_path, "v2", brightness=0.5)
    run_cli("publish", worse)
    run_cli("promote", "v2", *grey.flags, "--force")
    assert registry.current().forced
    (note,) = registry.card("v2").notes
    assert note.startswith("Promoted by --force on ")
    assert "v2 is not found to be better than v1" in note
    run_cli("publish", worse)  # the note does not change the model's identity
    assert len(registry.card("v2").notes) == 1


def test_overtaken_promotion_leaves_no_note(registry: Registry, grey: Data, tmp_path: Path) -> None:
    """Its comparison was with a model that is no longer in use."""
    run_cli("promote", write_grey_bundle(tmp_path, "v1"))
    worse, better = (
        write_grey_bundle(tmp_path, "v2", brightness=0.5),
        CurrentModel(version="v3", promoted=datetime.now(UTC)),
    )
    run_cli("publish", write_grey_bundle(tmp_path, "v3"))

    def meanwhile(_: ModelComparison) -> None:
        registry.set_current(better, registry.current())

    photos = {"photos": grey.photos, "index": grey.index}
    with pytest.raises(PromotionConflictError, match="v3 was put in use meanwhile"):
        promote(str(worse), registry, photos, silent_display(), force=True, show=meanwhile)
    assert registry.current() == better
    assert registry.card("v2").notes == []


def test_better_model_is_not_marked_as_forced(registry: Registry, grey: Data, tmp_path: Path) -> None:
    run_cli("promote", write_grey_bundle(tmp_path, "v1", brightness=0.5))
    run_cli("promote", write_grey_bundle(tmp_path, "v2"), *grey.flags, "--force")
    assert not registry.current().forced
    assert registry.card("v2").notes == []


def test_rollback(registry: Registry, grey: Data, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    assert "no model was ever promoted" in cli_error("rollback")
    run_cli("promote", write_grey_bundle(tmp_path, "v1", brightness=0.5))
    assert "v1 replaced no other model; choose one with --to" in cli_error("rollback")
    run_cli("promote", write_grey_bundle(tmp_path, "v2"), *grey.flags)
    run_cli("rollback")
    assert registry.current().version == "v1"
    assert "choose one with --to" in cli_error("rollback")  # a second rollback does not restore v2
    run_cli("rollback", "--to", "v2")
    assert registry.current().version == "v2"
    assert "v2 is in use already" in cli_error("rollback", "--to", "v2")
    assert "model 'v9'" in cli_error("rollback", "--to", "v9")


def test_promotion_errors(registry: Registry, grey: Data, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    assert "nowhere: neither a folder with a card.json nor a published version" in cli_error("promote", "nowhere")
    first = write_grey_bundle(tmp_path, "v1")
    run_cli("promote", first)
    assert "v1 is in use already" in cli_error("promote", first)
    message = cli_error("promote", write_grey_bundle(tmp_path, "v2"))
    assert "does not say which photos; give --photos and --index" in message
    damaged = write_grey_bundle(tmp_path, "v3")
    (damaged / "model-int8.onnx").write_bytes(b"damaged")
    assert "SHA-256" in cli_error("promote", damaged, *grey.flags, "--force")
    with pytest.raises(BundleError):
        registry.card("v3")
    assert registry.current().version == "v1"


def test_models_warns_of_a_broken_model_and_lists_the_others(
    registry: Registry, s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("publish", write_grey_bundle(tmp_path, "v1"))
    s3.put("models/copy/card.json", (tmp_path / "v1" / "card.json").read_bytes())
    s3.put("models/damaged/card.json", b"{}")
    run_cli("models")
    printed = capsys.readouterr()
    assert len([line for line in printed.out.splitlines() if "2026-01-01" in line]) == 1
    assert "warning: model 'copy': the card in its folder is that of 'v1'" in printed.err
    assert "warning: model 'damaged': its card is damaged: version: Field required" in printed.err


def test_models_marks_the_model_in_use(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("models")
    assert capsys.readouterr().err == "no models yet; promote a bundle that export has written\n"
    run_cli("promote", write_grey_bundle(tmp_path, "v1"))
    second = "v2-convnext_tiny-20261121"
    run_cli("publish", write_grey_bundle(tmp_path, second))
    registry.annotate(second, "Not for [sale].")
    capsys.readouterr()
    run_cli("models")
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if "2026-01-01" in line]
    assert ["→" in line for line in lines] == [True, False]
    assert second in lines[1]  # in full, as promote and rollback require
    assert printed.endswith(f"{second}: Not for [sale].\n")


def test_worker_uses_the_promoted_model(
    registry: Registry, grey: Data, s3: S3, sqlite_records: Engine, tmp_path: Path
) -> None:
    old = write_grey_bundle(tmp_path, "v1", brightness=0.5)
    settings = Settings(
        bucket=s3.bucket, s3_endpoint_url=s3.endpoint_url, database_url=str(sqlite_records.url), model_dir=old,
        model_cache=tmp_path / "cache", inference_threads=1, fetch_threads=1, worker_concurrency=1,
    )  # fmt: skip
    run_cli("promote", old)
    counting = Counting(settings)
    try:
        s3.put("5.png", (grey.photos / "00005.png").read_bytes())
        assert counting.count([ObjectCreated(s3.bucket, "5.png")]) == []
        run_cli("promote", write_grey_bundle(tmp_path, "v2"), *grey.flags)
        counting.models.poll()
        assert counting.count([ObjectCreated(s3.bucket, "5.png")]) == []
        with counting.database.connect() as connection:
            rows = connection.execute(select(Count.model_version, Count.predicted).order_by(Count.id)).all()
        assert [tuple(row) for row in rows] == [("v1", 2), ("v2", 5)]
    finally:
        counting.close()


def test_paired_interval_is_narrower_than_two_intervals() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 400)
    old = np.where(random.random(400) < 0.5, labels, (labels + 1) % 7)
    new = np.where((old != labels) & (random.random(400) < 0.2), labels, old)  # right wherever the old model is
    groups = [str(number // 2) for number in range(400)]
    half = np.full(400, 0.5)
    counts = [Counts(result, half, result.astype(float), result, labels, groups) for result in (new, old)]
    gain = paired_difference(*counts)["accuracy"]
    assert gain.value == pytest.approx((new == labels).mean() - (old == labels).mean())
    assert 0 < gain.low < gain.value < gain.high
    assert gain.high - gain.low < 0.08  # 0.137 if they were independent
    reversed_difference = paired_difference(*reversed(counts))["accuracy"]
    assert (reversed_difference.low, reversed_difference.high) == pytest.approx((-gain.high, -gain.low))
