"""Escaping of texts that spreadsheets would read as formulas."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from binwatch.safe_csv import SafeCsvWriter, escape_formula, unescape_formula


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\tx",
        "\rx",
        "\n",
        " =1",
        "\u00a0-1",
        "＝1",
        "＋1",
        "－1",
        "＠a",
    ],
)
def test_texts_that_look_like_formulas_are_escaped(text: str) -> None:
    assert escape_formula(text) == "'" + text


@pytest.mark.parametrize(
    "text", ["", "00123", "a=1", "bin-images/1.jpg", "'quoted'", "it's", " a", "1-1", "\U0001f4e6"]
)
def test_other_texts_are_unchanged(text: str) -> None:
    assert (escape_formula(text), unescape_formula(text)) == (text, text)


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r\n \"ab,＝é"), max_size=12) | st.text(max_size=12))
@example("'=1")
@example("''=1")
@example("' =1")
def test_escaped_texts_round_trip(text: str) -> None:
    file = io.StringIO(newline="")
    SafeCsvWriter(file).writerows([[text, -1, 0.5, None], ["end"]])
    first, last = csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True)
    assert unescape_formula(first[0]) == text
    assert not re.match(r"[=+\-@\t\r\n]", first[0])
    assert first[1:] == ["-1", "0.5", ""]
    assert last == ["end"]
