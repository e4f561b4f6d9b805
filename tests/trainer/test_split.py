from __future__ import annotations

from collections import Counter

from trainer.data.split import Split, split_of


def test_a_group_is_always_in_the_same_split() -> None:
    result = {group: split_of(group) for group in ("00002", "00015", "00093", "121", "bin ü")}
    assert result == {
        "00002": Split.TRAIN,
        "00015": Split.TEST,
        "00093": Split.TEST,
        "121": Split.TRAIN,
        "bin ü": Split.TRAIN,
    }


def test_splits_are_80_10_10() -> None:
    shares = Counter(split_of(str(number)) for number in range(20_000))
    assert abs(shares[Split.TRAIN] / 20_000 - 0.8) < 0.01
    assert abs(shares[Split.VALIDATION] / 20_000 - 0.1) < 0.01
    assert abs(shares[Split.TEST] / 20_000 - 0.1) < 0.01


def test_another_seed_gives_another_split() -> None:
    groups = [str(number) for number in range(1000)]
    moved = sum(split_of(group, 0) != split_of(group, 1) for group in groups)
    assert 250 < moved < 430  # 1 - (0.8² + 0.1² + 0.1²) = 34 % are expected to move
