"""Parsing of metadata JSON: the expected quantity, or the reason for its absence, and articles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from binwatch.errors import MetadataError, MetadataReason
from binwatch.metadata import (
    ARTICLES_FIELD,
    MAX_ARTICLES,
    MAX_QUANTITY,
    MAX_TEXT_CHARS,
    QUANTITY_FIELD,
    expected_quantity,
    parse_articles,
)

SAMPLES = Path(__file__).parents[2] / "samples"

# Shortened from the Amazon Bin Image Dataset.
ABID = {
    "BIN_FCSKU_DATA": {"B00GIDB8RQ": {"asin": "B00GIDB8RQ", "quantity": 2, "length": {"unit": "IN", "value": 4.6}}},
    "EXPECTED_QUANTITY": 2,
}


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        (json.dumps(ABID), 2),
        ('{"EXPECTED_QUANTITY": 0}', 0),
        ('{"EXPECTED_QUANTITY": 209}', 209),
        ('{"EXPECTED_QUANTITY": 3.0}', 3),
        ('{"EXPECTED_QUANTITY": 3e0}', 3),
        ('{"EXPECTED_QUANTITY": -0.0}', 0),
        ('{"EXPECTED_QUANTITY": 1000000}', MAX_QUANTITY),
        ('{"EXPECTED_QUANTITY": 1, "EXPECTED_QUANTITY": 2}', 2),
        ('\ufeff{"EXPECTED_QUANTITY": 4, "name": "Käfig 📦"}', 4),
        (' \n{"EXPECTED_QUANTITY": 5}\n', 5),
    ],
)
def test_quantities(text: str, quantity: int) -> None:
    result = expected_quantity(text.encode())
    assert result == quantity
    assert type(result) is int


def test_real_metadata() -> None:
    files = sorted((Path(__file__).parents[2] / "samples" / "metadata").glob("*.json"))
    result = {expected_quantity(path.read_bytes()) for path in files}
    assert len(files) > 100
    assert set(range(6)) < result
    assert max(result) > 5


def _refused(data: bytes) -> tuple[MetadataReason, str]:
    with pytest.raises(MetadataError) as refused:
        expected_quantity(data)
    return refused.value.reason, str(refused.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"EXPECTED_QUANTITY": 3',
        b"EXPECTED_QUANTITY,3",
        b"<xml/>",
        b"\xff\xd8\xff\xe0",
        '{"EXPECTED_QUANTITY": 3, "name": "Käfig"}'.encode("latin-1"),
        '{"EXPECTED_QUANTITY": 3}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"EXPECTED_QUANTITY": ' + b"1" * 5000 + b"}",
    ],
    ids=range(10),
)
def test_not_json(data: bytes) -> None:
    reason, message = _refused(data)
    assert reason is MetadataReason.NOT_JSON
    assert message.startswith("the file is not JSON (")


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "3", "null", '"EXPECTED_QUANTITY"', '{"expected_quantity": 3}', '{"a": {"EXPECTED_QUANTITY": 3}}'],
)
def test_no_quantity(text: str) -> None:
    assert _refused(text.encode()) == (
        MetadataReason.NO_QUANTITY,
        "the JSON has no EXPECTED_QUANTITY at its top level; add it",
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("-1", "'-1'"),
        ("1000001", "'1000001'"),
        ("2.5", "'2.5'"),
        ('"3"', "'3'"),
        ("null", "'None'"),
        ("true", "'True'"),
        ("[3]", "'[3]'"),
        ('{"n": 3}', "\"{'n': 3}\""),
        ("NaN", "'nan'"),
        ("Infinity", "'inf'"),
        ("1e400", "'inf'"),
        ("1e300", "'1e+300'"),
        ('"\\ud800"', "'\\ud800'"),
        ('"\\u0000"', "'\\x00'"),
        ('"' + "x" * 1000 + '"', "'" + "x" * 40 + "'"),
    ],
    ids=lambda text: text[:10],
)
def test_bad_quantity(value: str, shown: str) -> None:
    reason, message = _refused(f'{{"EXPECTED_QUANTITY": {value}}}'.encode())
    assert reason is MetadataReason.BAD_QUANTITY
    assert message.startswith(f"EXPECTED_QUANTITY is {shown[:41]}")
    assert message.endswith("not a whole number of 0 to 1,000,000")


def test_a_deeply_nested_quantity_is_refused() -> None:
    for depth in range(300, 1000, 10):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            value = opening * depth + "0" + closing * depth
            reason, _ = _refused(f'{{"EXPECTED_QUANTITY": {value}}}'.encode())
            assert reason in {MetadataReason.BAD_QUANTITY, MetadataReason.NOT_JSON}


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def _reads_or_refuses(data: bytes) -> None:
    try:
        quantity = expected_quantity(data)
    except MetadataError as refused:
        message = str(refused)
    else:
        assert type(quantity) is int
        assert 0 <= quantity <= MAX_QUANTITY
        message = "none"
    assert 0 < len(message) < 300
    assert "\0" not in message  # PostgreSQL cannot store NUL
    message.encode()


@settings(max_examples=300)
@given(any_json | st.fixed_dictionaries({"EXPECTED_QUANTITY": any_json}))
@example({"EXPECTED_QUANTITY": 10**400})
def test_only_metadata_errors_are_raised(document: object) -> None:
    _reads_or_refuses(json.dumps(document).encode())


@settings(max_examples=200)
@given(st.binary(max_size=100))
@example(b"\xef\xbb\xbf")
def test_any_bytes(data: bytes) -> None:
    _reads_or_refuses(data)
    _reads_or_refuses(b'{"EXPECTED_QUANTITY":' + data + b"}")


def _with(items: object) -> bytes:
    return json.dumps({QUANTITY_FIELD: 3, ARTICLES_FIELD: items}).encode()


def test_articles_of_a_bin() -> None:
    result = parse_articles((SAMPLES / "metadata" / "00182.json").read_bytes())
    assert result is not None
    mug = {"sku": "B00AVZXZO2", "name": "Funny Guy Mugs I Pooped Today Mug", "quantity": 1}
    assert result[0] == mug | {"size": "4.6 × 4.4 × 4.3 in"}
    assert sum(item["quantity"] or 0 for item in result) == expected_quantity(
        (SAMPLES / "metadata" / "00182.json").read_bytes()
    )


@pytest.mark.parametrize("data", [b"{}", b"[]", b"no JSON", _with([]), _with(None), _with("x")])
def test_files_without_articles(data: bytes) -> None:
    assert parse_articles(data) is None


def test_invalid_items_are_skipped() -> None:
    odd = {"a\u202eb\x00": {"name": 5, "quantity": -1}, "c": "no item", "d": {"normalizedName": "D", "quantity": 2.0}}
    assert parse_articles(_with(odd)) == [
        {"sku": "a b", "name": "", "quantity": None},
        {"sku": "d", "name": "D", "quantity": 2},
    ]


@pytest.mark.parametrize(
    "height", [None, 3, {}, {"unit": "cm", "value": 1}, {"unit": "in", "value": -1}, {"unit": ["in"], "value": 1}]
)
def test_an_incomplete_size_is_omitted(height: object) -> None:
    side = {"unit": "in", "value": 2.5}
    assert parse_articles(_with({"a": {"length": side, "width": side, "height": height}})) == [
        {"sku": "a", "name": "", "quantity": None}
    ]


def test_articles_are_limited() -> None:
    result = parse_articles(_with({f"{number}": {"name": "n" * 5000, "quantity": 1} for number in range(500)}))
    assert result is not None
    assert len(result) == MAX_ARTICLES
    assert {len(item["name"]) for item in result} == {MAX_TEXT_CHARS}
