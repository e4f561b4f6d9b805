"""P-values: what they are, and that they keep their promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from binwatch.bundle import Calibration
from binwatch.conformal import Judgement, PValueTable, calibrate, judge, oddness_scores
from binwatch.counts import Suspicion, class_probabilities
from tests.calibrations import category

EVERY = tuple(range(7))


def certain_of(chances: dict[int, float]) -> list[float]:
    """Probabilities of the classes."""
    return [chances.get(index, 0.0) for index in EVERY]


def test_the_share_of_photos_that_are_at_least_as_odd() -> None:
    every = category((0.1, 0.5, 0.5, 0.9), surplus=(0.2, 0.4))
    values = PValueTable(Calibration(photos=4, split="test", categories=(every,)))
    below = [0.05, 0.1, 0.5, 0.75, 0.9, 0.99]
    found = [values.p_values(certain_of({2: share, 3: 1 - share}), 3) for share in below]
    assert [each and each[Suspicion.MISSING] for each in found] == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]
    assert {each and each[Suspicion.SURPLUS] for each in found} == {1.0}
    above = values.p_values(certain_of({3: 0.7, 4: 0.1, 6: 0.2}), 3)
    assert above is not None
    assert above[Suspicion.SURPLUS] == pytest.approx(2 / 3)
    assert above[Suspicion.MISSING] == 1.0


def test_scores_are_what_is_left_on_the_other_side() -> None:
    probabilities = [0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1]
    assert oddness_scores(probabilities, 2) == {Suspicion.EITHER: 0.4, Suspicion.MISSING: 0.3, Suspicion.SURPLUS: 0.4}
    assert oddness_scores(probabilities, 0)[Suspicion.MISSING] == 0  # nothing can be missing
    assert oddness_scores(probabilities, 17) == {Suspicion.EITHER: 0.9, Suspicion.MISSING: 0.9, Suspicion.SURPLUS: 0}


def test_scores_beyond_five_are_of_the_whole_distribution() -> None:
    said = [0.0] * 6 + [0.1] * 4 + [0.05] * 11 + [0.05]
    assert oddness_scores(said, 7) == {Suspicion.EITHER: 0.8, Suspicion.MISSING: 0.1, Suspicion.SURPLUS: 0.8}
    assert oddness_scores(said, 300) == {Suspicion.EITHER: 0.95, Suspicion.MISSING: 0.95, Suspicion.SURPLUS: 0}


def test_each_quantity_is_judged_by_its_own_photos() -> None:
    parts = (category((0.0, 0.1), classes=(0,)), category((0.9,), classes=(6,)))
    values = PValueTable(Calibration(photos=3, split="test", categories=parts))
    unsure = certain_of({0: 0.2, 3: 0.6, 6: 0.2})
    empty, full = values.p_values(unsure, 0), values.p_values(unsure, 17)
    assert empty is not None
    assert full is not None
    assert empty[Suspicion.SURPLUS] == pytest.approx(1 / 3)
    assert full[Suspicion.MISSING] == 1.0  # "more than 5"
    assert values.p_values(unsure, 3) is None


def test_rare_classes_are_calibrated_with_their_neighbours() -> None:
    labels = np.repeat(np.arange(7), (3, 20, 30, 200, 20, 90, 5))
    chances = np.full((len(labels), 7), 1 / 7)
    found = calibrate(chances, labels, [str(number) for number in range(len(labels))], "test")
    assert [part.classes for part in found.categories] == [(0, 1, 2, 3), (4, 5, 6)]
    assert found.photos == len(labels)


def test_quantities_above_five_are_calibrated_apart() -> None:
    """Of a model that tells them apart: 6 to 8 are a category of their own, and 17 and more join the last."""
    quantities = np.repeat([3, 5, 6, 7, 8, 9, 17, 40], (150, 120, 50, 30, 30, 110, 60, 20))
    distribution = np.zeros((len(quantities), 22))
    distribution[:, 5] = np.where(quantities > 8, 0.5, 0.1)  # what speaks against 6 or more
    distribution[:, 9] = 1 - distribution[:, 5]
    names = [str(number) for number in range(len(quantities))]
    found = calibrate(distribution, quantities, names, "test")
    assert [part.classes for part in found.categories] == [(0, 1, 2, 3), (4, 5), (6, 7, 8), tuple(range(9, 22))]
    assert [len(part.missing) for part in found.categories] == [150, 120, 110, 190]
    values, unsure = PValueTable(found), distribution[-1].tolist()
    six, many = values.p_values(unsure, 6), values.p_values(unsure, 40)
    assert six is not None
    assert many is not None
    assert six[Suspicion.MISSING] == pytest.approx(1 / 111)  # odd for 6, though not for 9 and more
    assert many[Suspicion.MISSING] == pytest.approx(81 / 191)  # of 190, the 80 photos of 17 and 40 are as odd
    limited = calibrate(distribution, quantities, names, "test", answers=(3, 4, 5))
    assert [part.classes for part in limited.categories] == [(3,), (4, 5)]
    assert PValueTable(limited).p_values(unsure, 6) is None


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


def test_photos_of_one_bin_with_other_quantities_are_kept() -> None:
    found = calibrate(np.full((4, 22), 1 / 22), np.array([7, 7, 9, 30]), list("aaaa"), "test")
    assert [(part.classes, len(part.either)) for part in found.categories] == [(tuple(range(22)), 3)]


@pytest.mark.parametrize("chance", [1 / 7, 0.451957, 0.891173, 0.848232, 1 / 3])
def test_photos_alike_are_alike(chance: float) -> None:
    """To the digits that are kept, and from float32, too: a photo must not look odder than the very same photo."""
    probabilities = np.full((200, len(EVERY)), (1 - chance) / 6, np.float32)
    probabilities[:, 2] = chance
    values = PValueTable(calibrate(probabilities, np.full(200, 2), [str(n) for n in range(200)], "test"))
    found = values.p_values([round(float(each), 6) for each in probabilities[0]], 2)  # as workers record them
    assert found is not None
    assert set(found.values()) == {1.0}


BEYOND = [0.05, 0.04, 0.03, 0.02, 0.01, 0.01, *[0.004] * 10]
"""Of 6, 7, … 20 items and more, as long a tail as that of real bins: 0.2 together."""


@pytest.mark.parametrize("beyond", [[0.2], BEYOND], ids=["classes", "up to 20"])
def test_of_correctly_recorded_bins_no_more_than_the_level_are_flagged(beyond: list[float]) -> None:
    """Over many drawn calibrations, for a model that is poor and differs by class. The seed is fixed."""
    random, columns = np.random.default_rng(4), 6 + len(beyond)

    def photos(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.choice(columns, number, p=[0.02, 0.1, 0.2, 0.2, 0.15, 0.13, *beyond])
        logits = random.normal(0, 1 + np.minimum(labels[:, None], 6) / 3, (number, columns))
        logits[np.arange(number), labels] += 1.5
        powers = np.exp(logits)
        return powers / powers.sum(axis=1, keepdims=True), labels

    for level, suspicion in itertools.product((0.05, 0.2), Suspicion):
        flagged = []
        for _ in range(60):
            known, labels = photos(900)
            values = PValueTable(calibrate(known, labels, [str(number) for number in range(900)], "test"))
            new, truth = photos(300)
            judged = [
                judge(class_probabilities(row).tolist(), int(label), values, row.tolist())
                for row, label in zip(new, truth, strict=True)
            ]
            p_values = [one.p_value(suspicion) for one in judged]
            flagged.append(np.mean([p is not None and p <= level for p in p_values]))
        # At most the level on average; the mean of 60 runs is known to about a third of a percent at 5 %. Bins that
        # hold 0 cannot lack items, and "more than 5" cannot hold a surplus: fewer are flagged for one side.
        least = 0.7 if suspicion is Suspicion.EITHER else 0.55
        assert level * least < np.mean(flagged) < level * 1.1


@pytest.mark.parametrize(("quantity", "chance"), [(0, 0.1), (5, 0.6), (6, 0.7), (90, 0.7)])
def test_the_chance_of_a_quantity(quantity: int, chance: float) -> None:
    assert judge([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], quantity, None) == Judgement(chance)


def test_no_judgement_without_probabilities() -> None:
    assert judge(None, 3, None) == Judgement()
    assert judge([1.0], 0, None) == Judgement()
