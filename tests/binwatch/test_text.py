"""Singular and plural of nouns after numbers."""

from __future__ import annotations

import pytest

from binwatch.text import count_noun, pluralize


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("photo",), "0 photos"),
        (1, ("photo",), "1 photo"),
        (2, ("photo",), "2 photos"),
        (1200, ("photo",), "1,200 photos"),
        (1, ("process", "processes"), "1 process"),
        (3, ("bin has", "bins have"), "3 bins have"),
    ],
)
def test_counted_nouns(number: int, words: tuple[str, ...], expected: str) -> None:
    assert count_noun(number, *words) == expected
    assert pluralize(number, *words) == expected.split(" ", 1)[1]
