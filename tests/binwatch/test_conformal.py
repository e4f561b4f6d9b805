"""P-values: what they are, and that they keep their promise."""

from __future__ import annotations

import numpy as np
import pytest

from binwatch.bundle import Calibration, Category
from binwatch.conformal import PValues, calibrate, chance_of

EVERY = tuple(range(7))


def test_the_share_of_photos_that_are_at_least_as_odd() -> None:
    together = Category(classes=EVERY, scores=(0.1, 0.5, 0.5, 0.9))
    values = PValues(Calibration(photos=4, split="test", categories=(together,)))
    found = [values.of(chance, 3) for chance in (0.95, 0.9, 0.5, 0.25, 0.1, 0.01)]
    assert found == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]


def test_each_quantity_is_judged_by_its_own_photos() -> None:
    values = PValues(
        Calibration(
            photos=3,
            split="test",
            categories=(Category(classes=(0,), scores=(0.0, 0.1)), Category(classes=(6,), scores=(0.9,))),
        )
    )
    assert values.of(0.2, 0) == pytest.approx(1 / 3)
    assert values.of(0.2, 17) == 1.0  # "more than 5"
    assert values.of(0.2, 3) is None


def test_rare_classes_are_calibrated_with_their_neighbours() -> None:
    labels = np.repeat(np.arange(7), (3, 20, 30, 200, 20, 90, 5))
    chances = np.full((len(labels), 7), 1 / 7)
    found = calibrate(chances, labels, [str(number) for number in range(len(labels))], "test")
    assert [part.classes for part in found.categories] == [(0, 1, 2, 3), (4, 5, 6)]
    assert found.photos == len(labels)


def test_few_photos_are_calibrated_all_together() -> None:
    found = calibrate(np.full((5, 7), 1 / 7), np.array([0, 1, 2, 3, 6]), list("abcde"), "test")
    assert [part.classes for part in found.categories] == [EVERY]


def test_one_photo_of_each_bin_and_class_is_kept() -> None:
    labels = np.array([3, 3, 3, 4, 3])
    found = calibrate(np.full((5, 7), 1 / 7), labels, ["a", "a", "a", "a", "b"], "test")
    assert found.photos == 3


def test_without_photos_there_is_no_calibration() -> None:
    with pytest.raises(ValueError, match="no photos"):
        calibrate(np.empty((0, 7)), np.empty(0, int), [], "test")


def test_rounding_makes_no_bin_look_odder() -> None:
    chances = np.full((200, 7), 1 / 7, np.float32)
    values = PValues(calibrate(chances, np.full(200, 3), [str(number) for number in range(200)], "test"))
    assert values.of(float(chances[0, 3]), 3) == 1.0


@pytest.mark.parametrize("chance", [0.451957, 0.891173, 0.848232, 1 / 3])
def test_photos_alike_are_alike_to_the_digits_that_are_kept(chance: float) -> None:
    """1 - 0.451957 is 0.5480430000000001 as a float, above the score of the very same photo."""
    probabilities = np.full((40, len(EVERY)), (1 - chance) / 6)
    probabilities[:, 2] = chance
    found = PValues(calibrate(probabilities, np.full(40, 2), [str(n) for n in range(40)], "test"))
    assert found.of(round(chance, 6), 2) == 1


def test_of_correctly_recorded_bins_no_more_than_the_level_are_flagged() -> None:
    """Over many drawn calibrations, for a model that is poor and differs by class. The seed is fixed."""
    random = np.random.default_rng(4)

    def photos(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.choice(7, number, p=[0.02, 0.1, 0.2, 0.2, 0.15, 0.13, 0.2])
        logits = random.normal(0, 1 + labels[:, None] / 3, (number, 7))
        logits[np.arange(number), labels] += 1.5
        powers = np.exp(logits)
        return powers / powers.sum(axis=1, keepdims=True), labels

    for level in (0.05, 0.2):
        flagged = []
        for _ in range(60):
            known, labels = photos(900)
            values = PValues(calibrate(known, labels, [str(number) for number in range(900)], "test"))
            new, truth = photos(300)
            p_values = [values.of(float(row[label]), int(label)) for row, label in zip(new, truth, strict=True)]
            flagged.append(np.mean([p is not None and p <= level for p in p_values]))
        # At most the level on average; the mean of 60 runs is known to about a third of a percent at 5 %.
        assert level * 0.7 < np.mean(flagged) < level * 1.1


@pytest.mark.parametrize(("quantity", "chance"), [(0, 0.1), (5, 0.6), (6, 0.7), (90, 0.7)])
def test_the_chance_of_a_quantity(quantity: int, chance: float) -> None:
    assert chance_of([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], quantity) == chance


def test_no_chance_without_probabilities() -> None:
    assert chance_of(None, 3) is None
    assert chance_of([1.0], 0) is None
