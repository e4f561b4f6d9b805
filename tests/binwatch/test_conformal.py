"""P-values: definition, calibration categories and false flag rate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from binwatch.bundle import Calibration
from binwatch.conformal import Judgement, PValueTable, calibrate, judge, oddness_scores
from binwatch.counts import Suspicion, class_probabilities
from tests.calibrations import category

ALL_CLASSES = tuple(range(7))


def class_probabilities_of(chances: dict[int, float]) -> list[float]:
    """Return the probabilities of all classes; those not given are 0."""
    return [chances.get(index, 0.0) for index in ALL_CLASSES]


def test_the_p_value_is_the_share_of_scores_at_least_as_high() -> None:
    pooled = category((0.1, 0.5, 0.5, 0.9), surplus=(0.2, 0.4))
    values = PValueTable(Calibration(photos=4, split="test", categories=(pooled,)))
    below = [0.05, 0.1, 0.5, 0.75, 0.9, 0.99]
    p_values = [values.p_values(class_probabilities_of({2: share, 3: 1 - share}), 3) for share in below]
    assert [each and each[Suspicion.MISSING] for each in p_values] == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]
    assert {each and each[Suspicion.SURPLUS] for each in p_values} == {1.0}
    above = values.p_values(class_probabilities_of({3: 0.7, 4: 0.1, 6: 0.2}), 3)
    assert above is not None
    assert above[Suspicion.SURPLUS] == pytest.approx(2 / 3)
    assert above[Suspicion.MISSING] == 1.0


def test_scores_are_the_probability_of_the_other_side() -> None:
    probabilities = [0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1]
    assert oddness_scores(probabilities, 2) == {Suspicion.EITHER: 0.4, Suspicion.MISSING: 0.3, Suspicion.SURPLUS: 0.4}
    assert oddness_scores(probabilities, 0)[Suspicion.MISSING] == 0  # no items can be missing
    assert oddness_scores(probabilities, 17) == {Suspicion.EITHER: 0.9, Suspicion.MISSING: 0.9, Suspicion.SURPLUS: 0}


def test_scores_beyond_five_use_the_whole_distribution() -> None:
    distribution = [0.0] * 6 + [0.1] * 4 + [0.05] * 11 + [0.05]
    assert oddness_scores(distribution, 7) == {Suspicion.EITHER: 0.8, Suspicion.MISSING: 0.1, Suspicion.SURPLUS: 0.8}
    assert oddness_scores(distribution, 300) == {Suspicion.EITHER: 0.95, Suspicion.MISSING: 0.95, Suspicion.SURPLUS: 0}


def test_each_quantity_is_judged_by_photos_of_its_category() -> None:
    parts = (category((0.0, 0.1), classes=(0,)), category((0.9,), classes=(6,)))
    values = PValueTable(Calibration(photos=3, split="test", categories=parts))
    unsure = class_probabilities_of({0: 0.2, 3: 0.6, 6: 0.2})
    empty, full = values.p_values(unsure, 0), values.p_values(unsure, 17)
    assert empty is not None
    assert full is not None
    assert empty[Suspicion.SURPLUS] == pytest.approx(1 / 3)
    assert full[Suspicion.MISSING] == 1.0  # "more than 5"
    assert values.p_values(unsure, 3) is None


def test_rare_classes_are_calibrated_with_their_neighbours() -> None:
    labels = np.repeat(np.arange(7), (3, 20, 30, 200, 20, 90, 5))
    chances = np.full((len(labels), 7), 1 / 7)
    result = calibrate(chances, labels, [str(number) for number in range(len(labels))], "test")
    assert [part.classes for part in result.categories] == [(0, 1, 2, 3), (4, 5, 6)]
    assert result.photos == len(labels)


def test_quantities_above_five_are_calibrated_separately() -> None:
    """For a model that distinguishes them, 6 to 8 are a separate category, and 17 and more belong to the last."""
    quantities = np.repeat([3, 5, 6, 7, 8, 9, 17, 40], (150, 120, 50, 30, 30, 110, 60, 20))
    distribution = np.zeros((len(quantities), 22))
    distribution[:, 5] = np.where(quantities > 8, 0.5, 0.1)  # the probability of less than 6
    distribution[:, 9] = 1 - distribution[:, 5]
    names = [str(number) for number in range(len(quantities))]
    result = calibrate(distribution, quantities, names, "test")
    assert [part.classes for part in result.categories] == [(0, 1, 2, 3), (4, 5), (6, 7, 8), tuple(range(9, 22))]
    assert [len(part.missing) for part in result.categories] == [150, 120, 110, 190]
    values, unsure = PValueTable(result), distribution[-1].tolist()
    six, many = values.p_values(unsure, 6), values.p_values(unsure, 40)
    assert six is not None
    assert many is not None
    assert six[Suspicion.MISSING] == pytest.approx(1 / 111)  # unusual for 6 but not for 9 and more
    assert many[Suspicion.MISSING] == pytest.approx(
        81 / 191
    )  # the 80 photos of 17 and 40 among 190 have scores at least as high
    limited = calibrate(distribution, quantities, names, "test", answers=(3, 4, 5))
    assert [part.classes for part in limited.categories] == [(3,), (4, 5)]
    assert PValueTable(limited).p_values(unsure, 6) is None


def test_few_photos_are_calibrated_together() -> None:
    result = calibrate(np.full((5, 7), 1 / 7), np.array([0, 1, 2, 3, 6]), list("abcde"), "test")
    assert [part.classes for part in result.categories] == [ALL_CLASSES]


def test_one_photo_of_each_bin_and_class_is_kept() -> None:
    labels = np.array([3, 3, 3, 4, 3])
    result = calibrate(np.full((5, 7), 1 / 7), labels, ["a", "a", "a", "a", "b"], "test")
    assert result.photos == 3


def test_without_photos_there_is_no_calibration() -> None:
    with pytest.raises(ValueError, match="no photos"):
        calibrate(np.empty((0, 7)), np.empty(0, int), [], "test")


def test_photos_of_one_bin_with_different_quantities_are_kept() -> None:
    result = calibrate(np.full((4, 22), 1 / 22), np.array([7, 7, 9, 30]), list("aaaa"), "test")
    assert [(part.classes, len(part.either)) for part in result.categories] == [(tuple(range(22)), 3)]


@pytest.mark.parametrize("chance", [1 / 7, 0.451957, 0.891173, 0.848232, 1 / 3])
def test_identical_photos_have_a_p_value_of_one(chance: float) -> None:
    """Rounding and float32 must not make a photo look more unusual than an identical photo of the calibration."""
    probabilities = np.full((200, len(ALL_CLASSES)), (1 - chance) / 6, np.float32)
    probabilities[:, 2] = chance
    values = PValueTable(calibrate(probabilities, np.full(200, 2), [str(n) for n in range(200)], "test"))
    p_values = values.p_values(
        [round(float(value), 6) for value in probabilities[0]], 2
    )  # rounded as workers record them
    assert p_values is not None
    assert set(p_values.values()) == {1.0}


TAIL = [0.05, 0.04, 0.03, 0.02, 0.01, 0.01, *[0.004] * 10]
"""Probabilities of 6, 7, … 20 and more items, with a realistic tail: 0.2 in total."""


@pytest.mark.parametrize("tail", [[0.2], TAIL], ids=["classes", "up to 20"])
def test_false_flags_do_not_exceed_the_level(tail: list[float]) -> None:
    """Over many random calibrations of a poor model whose accuracy differs by class, with a fixed seed."""
    random, columns = np.random.default_rng(4), 6 + len(tail)

    def photos(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.choice(columns, number, p=[0.02, 0.1, 0.2, 0.2, 0.15, 0.13, *tail])
        logits = random.normal(0, 1 + np.minimum(labels[:, None], 6) / 3, (number, columns))
        logits[np.arange(number), labels] += 1.5
        powers = np.exp(logits)
        return powers / powers.sum(axis=1, keepdims=True), labels

    for level, suspicion in itertools.product((0.05, 0.2), Suspicion):
        flagged = []
        for _ in range(60):
            probabilities, labels = photos(900)
            values = PValueTable(calibrate(probabilities, labels, [str(number) for number in range(900)], "test"))
            new, truth = photos(300)
            judged = [
                judge(class_probabilities(row).tolist(), int(label), values, row.tolist())
                for row, label in zip(new, truth, strict=True)
            ]
            p_values = [judgement.p_value(suspicion) for judgement in judged]
            flagged.append(np.mean([p is not None and p <= level for p in p_values]))
        # On average at most the level; the standard error of 60 runs is about a third of a percent at 5 %. Bins that
        # hold 0 cannot lack items, and "more than 5" cannot have a surplus, so one-sided tests flag fewer.
        min_share = 0.7 if suspicion is Suspicion.EITHER else 0.55
        assert level * min_share < np.mean(flagged) < level * 1.1


@pytest.mark.parametrize(("quantity", "chance"), [(0, 0.1), (5, 0.6), (6, 0.7), (90, 0.7)])
def test_the_probability_of_a_quantity(quantity: int, chance: float) -> None:
    assert judge([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], quantity, None) == Judgement(chance)


def test_there_is_no_p_value_without_probabilities() -> None:
    assert judge(None, 3, None) == Judgement()
    assert judge([1.0], 0, None) == Judgement()
