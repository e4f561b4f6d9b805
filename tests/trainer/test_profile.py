"""`profile`: measurements on real photos, and conclusions from artificial figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainer.drawn import SMALL, Data, run_cli
from trainer.config import read_config
from trainer.display import silent_display
from trainer.errors import ConfigError
from trainer.profile.measure import Profile, profile
from trainer.profile.prices import Price, costs, read_prices
from trainer.profile.usage import Machine, Usage, UsageWatch
from trainer.profile.verdict import verdict
from trainer.train import step_timer as stages_module
from trainer.train.step_timer import Stage, Stopwatch, time_waits

SAMPLES = Path(__file__).parents[2] / "samples"
SMALL_STEP = [*SMALL, "--set", "train.batch_size=4", "--set", "train.threads=2", "--set", "train.readers=1"]
SPLIT = ["--set", "data.split_column=part", "--set", "augment.where=device"]
PRICES = "# Seen on 1 May, in a region.\nmachine,usd_per_hour,speed\nthis one,2,1\n\nanother,8.5,\n"


@pytest.fixture
def real(tmp_path: Path) -> Data:
    """Copy the sample photos with a split column, since they are too few to be split by the hash of the group."""
    result = Data(tmp_path)
    result.photos = SAMPLES / "bin-images"
    rows = list(csv.DictReader((SAMPLES / "index.csv").read_text(encoding="utf-8").splitlines()))
    with result.index.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["key", "label", "bin_group", "part"])
        for number, row in enumerate(rows):
            split = "validation" if number % 10 == 0 else "train"
            writer.writerow([row["key"], row["label"], row["bin_group"], split])
    return result


def test_profile_of_real_photos(real: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prices.csv").write_text(PRICES, encoding="utf-8")
    out = tmp_path / "profile.json"
    files = ["--prices", tmp_path / "prices.csv", "--json", out]
    run_cli("profile", *real.flags, *SMALL_STEP, *SPLIT, "--seconds", 0.2, *files)

    result = json.loads(out.read_text(encoding="utf-8"))
    rows = len(real.index.read_text(encoding="utf-8").splitlines()) - 1
    validation = -(-rows // 10)
    assert result["photos"] == {"train": rows - validation, "validation": validation, "test": 0}
    assert list(result["stages"]) == [stage.value for stage in Stage]
    assert result["stages"]["forward"] > 0
    assert result["stages"]["augmentation on the device"] > 0
    timed = result["steps"] * sum(result["stages"].values())
    assert 0 < timed <= result["usage"]["seconds"]
    assert result["wait"] == pytest.approx(
        result["steps"] * result["stages"]["waiting for data"] / result["usage"]["seconds"]
    )
    assert sorted(result["readers"], key=int) == ["1", "2", "4"]
    assert result["machine"]["gpu"] == ""
    assert result["machine"]["cores"] >= 1
    assert result["usage"]["own_cores"] > 0
    epoch = result["photos"]["train"] / result["training"] + validation / result["scoring"] + result["saving_seconds"]
    assert result["epoch_seconds"] == pytest.approx(epoch)
    assert result["once_seconds"] == pytest.approx(rows / result["checking"])
    this_machine, other_machine = result["usd"]
    assert this_machine["epoch"] == pytest.approx(result["epoch_seconds"] * 2 / 3600)
    assert other_machine["million_photos"] == pytest.approx(1e6 / result["training"] * 8.5 / 3600)

    printed = capsys.readouterr().out
    for text in (
        "waiting for data",
        "as it trains",
        "alone, 1 thread (as configured)",
        "no GPU was used",
        "this one",
        "as here?",
        *result["verdict"],
    ):
        assert text in printed
    assert "Seen on 1 May, in a region." in " ".join(printed.split())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.csv", "prices.csv", "profile.json"]


def test_profile_with_frozen_layers(data: Data) -> None:
    options = {"model.architecture": "resnet50v2", "model.weights": "none", "model.width": 0.125}
    options |= {"data.photos": data.photos, "data.index": data.index, "model.freeze": "layer2", "augment.views": 1}
    result = profile(
        read_config(None, options | {"train.batch_size": 8, "train.threads": 2}), silent_display(), seconds=0.1
    )
    assert result.features is not None
    assert list(result.readers) == [4]
    assert result.once_seconds == pytest.approx(160 / result.checking + (132 + 18) / result.features)
    assert result.feature_bytes == pytest.approx(28 * 28 * 64 * 2, rel=0.01)  # float16, and the files' headers
    gigabytes = (132 + 18) * result.feature_bytes / 1e9
    assert f"disk: the features of all photos take {gigabytes:.2f} GB" in verdict(result)


class FakeTime:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_stopwatch_times_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    time = FakeTime()
    monkeypatch.setattr(stages_module, "time", time)

    def items() -> Iterator[int]:
        for number in range(3):
            time.now += 2
            yield number

    watch = Stopwatch("cpu")
    for _ in time_waits(items(), watch):
        with watch(Stage.FORWARD):
            time.now += 5
    assert watch.seconds[Stage.WAIT] == 6
    assert watch.seconds[Stage.FORWARD] == 15
    assert watch.seconds[Stage.BACKWARD] == 0
    only = Stopwatch("cpu")
    for _ in time_waits(items(), only.waits_only):
        with only.waits_only(Stage.FORWARD):
            time.now += 5
    assert only.seconds[Stage.WAIT] == 6
    assert only.seconds[Stage.FORWARD] == 0


def test_usage_watch_measures_this_process() -> None:
    with UsageWatch("cpu") as watch:
        begun = sum(range(2_000_000))
    assert begun
    assert watch.usage.own_cores > 0
    assert watch.usage.memory_gb > 0
    assert all(0 <= core <= 1 for core in watch.usage.cores)
    assert watch.usage.gpu is None


def make_profile(**changes: object) -> Profile:
    """Return a profile of 4 cores without a GPU that reads 100 photos/s, with a network that could process 400."""
    facts = {"train.readers": 4, "processes": 1, "augment.views": 4, "train.batch_size": 64, "train.accumulate": 1}
    result = Profile(Machine(4, 16.0, "", 0.0), facts, {"train": 8000, "validation": 1000, "test": 1000}, 50_000.0)
    result.training, result.network, result.wait = 98.0, 400.0, 0.62
    result.readers = {2: 52.0, 4: 100.0, 8: 102.0, 16: 95.0}
    result.checking, result.scoring, result.saving_seconds = 200.0, 500.0, 3.0
    result.usage = Usage(10.0, [0.9, 0.8, 1.0, 1.0], 3.6, 2.0)
    for name, value in changes.items():
        setattr(result, name, value)
    return result


def test_verdict_data_bound() -> None:
    advice = verdict(make_profile())
    assert advice[0] == (
        "data-bound: 62% of a step is spent waiting for photos; the network alone processes 400 a second, reading alone"
        " reaches 100"
    )
    assert (
        advice[1] == "another number of readers is hardly faster (photos/s by readers: 2: 52, 4: 100, 8: 102, 16: 95)"
    )
    assert advice[2] == (
        "cores: 3.7 of 4 were busy, 3.6 of them by this process; there is none to spare; a photo takes 36.7 ms of"
        " processor time"
    )
    assert advice[-1] == "disk: training reads 4.9 MB/s of photos; all photos are 0.50 GB"


def test_more_readers_are_recommended_only_if_faster() -> None:
    advice = verdict(make_profile(readers={2: 52.0, 4: 100.0, 8: 190.0}))
    assert "8 readers instead of 4: 190 photos/s alone; try --set train.readers=8" in advice
    advice = verdict(make_profile(readers={2: 52.0, 4: 100.0, 8: 190.0}, wait=0.02))
    assert not any("train.readers" in sentence for sentence in advice)


def test_verdict_compute_bound() -> None:
    advice = verdict(make_profile(wait=0.01, network=104.0, readers={4: 900.0}))
    assert advice[0] == (
        "compute-bound: 1% of a step is spent waiting for photos; the network alone processes 104 a second, reading"
        " alone reaches 900;"
        " reading at the same time slows the network to 94% of its speed"
    )


def test_verdict_with_a_gpu_and_little_memory() -> None:
    usage = Usage(10.0, [0.2] * 4, 0.8, 3.0, 0.37, 5.5)
    advice = verdict(make_profile(machine=Machine(4, 0.4, "H100", 80.0), usage=usage))
    assert "GPU (H100): busy 37% of the time; at most 5.5 of 80.0 GB of its memory" in advice
    assert "memory: at most 3.0 of 0.4 GB, in this process; there is none to spare" in advice
    assert advice[-1] == "disk: the photos do not fit into memory, so the disk must read these 4.9 MB/s, in small files"
    unknown = Usage(10.0, [0.2] * 4, 0.8, 3.0, None, 5.5)
    advice = verdict(make_profile(machine=Machine(4, 16, "H100", 80.0), usage=unknown))
    assert any("utilisation not known (pip install nvidia-ml-py)" in sentence for sentence in advice)


def test_verdict_warns_of_other_programs() -> None:
    advice = verdict(make_profile(usage=Usage(10.0, [1.0] * 4, 1.5, 2.0)))
    assert advice[0] == "NOT A QUIET MACHINE: other programs kept 2.5 of 4 cores busy; measure again"


def test_costs_are_durations_times_prices() -> None:
    result = make_profile()
    assert result.epoch_seconds == pytest.approx(8000 / 98 + 1000 / 500 + 3)
    assert result.once_seconds == pytest.approx(10_000 / 200)
    here, faster = costs(result, [Price("here", 3.6, None), Price("faster", 3.6, 4.0)])
    assert here.epoch == pytest.approx(result.epoch_seconds / 1000)
    assert here.before_first_epoch == pytest.approx(0.05)
    assert here.million_photos == pytest.approx(1e6 / 98 / 1000)
    assert faster.epoch == pytest.approx(here.epoch / 4)


def test_prices_are_read_with_their_comments(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(PRICES, encoding="utf-8")
    prices, notes = read_prices(file)
    assert prices == [Price("this one", 2.0, 1.0), Price("another", 8.5, None)]
    assert notes == "Seen on 1 May, in a region."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("machine,price\na,1\n", "no column 'usd_per_hour'; it needs machine and usd_per_hour, and may have speed"),
        ("# nothing\nmachine,usd_per_hour\n", "has no machines"),
        ("# one\nmachine,usd_per_hour\na,dear\n", "line 3: usd_per_hour is 'dear', not a number above 0"),
        ("machine,usd_per_hour\na,\n", "line 2: usd_per_hour is empty"),
        ("machine,usd_per_hour\n,1\n", "line 2: machine is empty"),
        ("machine,usd_per_hour,speed\na,1,0\n", "line 2: speed is '0', not a number above 0"),
        ("machine,usd_per_hour,speed\na,nan,1\n", "line 2: usd_per_hour is 'nan', not a number above 0"),
    ],
)
def test_mistake_in_the_price_list_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_prices(file)


def test_missing_price_list_is_reported_before_the_measurements(
    data: Data, cli_error: Callable[..., str], tmp_path: Path
) -> None:
    assert "nowhere.csv: cannot be read" in cli_error("profile", *data.flags, "--prices", tmp_path / "nowhere.csv")


def test_example_price_list_is_valid() -> None:
    prices, notes = read_prices(Path(__file__).parents[2] / "docs" / "prices.csv")
    assert prices
    assert "replace" in notes
