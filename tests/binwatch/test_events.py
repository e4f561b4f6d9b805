"""Parsing of S3 event messages in every dialect, and refusal of malformed ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from binwatch.errors import EventError
from binwatch.events import MAX_BODY_BYTES, MAX_KEY_BYTES, Dialect, ParsedMessage, parse_message
from binwatch.keys import has_dot_segments

FIXTURES = sorted((Path(__file__).parent / "events").glob("*.json"))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the message body of a fixture and the expected result."""
    fixture = json.loads(path.read_text(encoding="utf-8"))
    assert fixture["about"]
    text = fixture["text"] if "text" in fixture else json.dumps(fixture["body"], ensure_ascii=False)
    return text, fixture["expect"]


def _as_expected(message: ParsedMessage) -> dict[str, Any]:
    return {
        "dialect": message.dialect.value,
        "created": [[c.bucket, c.key, c.time.isoformat() if c.time else None] for c in message.created],
        "ignored": message.ignored,
    }


@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "text"])
@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixtures(path: Path, as_bytes: bool) -> None:
    text, expected = _read(path)
    body: bytes | str = text.encode() if as_bytes else text
    if "error" in expected:
        with pytest.raises(EventError) as raised:
            parse_message(body)
        for words in expected["error"]:
            assert words in str(raised.value)
        return
    message = parse_message(body)
    malformed = expected.pop("malformed")
    assert _as_expected(message) == expected
    assert len(message.malformed) == len(malformed)
    for result, wanted in zip(message.malformed, malformed, strict=True):
        position, words = wanted.split(" … ")
        assert result.startswith(position)
        assert words in result


def test_every_dialect_has_a_fixture() -> None:
    dialects = {_read(path)[1].get("dialect") for path in FIXTURES}
    assert dialects - {None} == set(Dialect)


def _put(key: object = "a.jpg", **fields: object) -> dict[str, Any]:
    record = {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": "2026-11-20T08:15:30Z"}
    return record | {"s3": {"bucket": {"name": "binwatch"}, "object": {"key": key}}} | fields


def _body(*records: object) -> str:
    return json.dumps({"Records": records})


def test_a_large_body_is_refused_unread() -> None:
    with pytest.raises(EventError, match=r"5,242,880 bytes is not an S3 event \(limit 1,048,576\)"):
        parse_message(b"[" * (5 * 2**20))
    message = parse_message(_body(_put()).ljust(MAX_BODY_BYTES))  # the limit itself is allowed
    assert [created.key for created in message.created] == ["a.jpg"]


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"Records":' * 50_000,
        "[" * 50_000 + "]" * 50_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
    ],
    ids=["open lists", "open objects", "closed lists", "closed objects"],
)
def test_deep_nesting_is_refused(body: str) -> None:
    with pytest.raises(EventError):
        parse_message(body)


def test_deep_nesting_beside_a_valid_record() -> None:
    """At every nesting depth up to Python's limit, parsing succeeds or raises EventError."""
    for depth in range(850, 1000, 10):
        body = _body(_put()).replace('"a.jpg"', "[" * depth + "]" * depth)
        with pytest.raises(EventError):
            parse_message(body)


@pytest.mark.parametrize(
    "number", ["1" * 5000, "-" + "9" * 4301, "1e400", "NaN", "1" * 5000 + ".5"], ids=lambda number: number[:6]
)
def test_numbers_that_python_cannot_hold(number: str) -> None:
    """Integers over 4,300 digits make json.loads raise ValueError."""
    with pytest.raises(EventError):
        parse_message(number)
    with pytest.raises(EventError):
        parse_message(_body(_put()).replace('"a.jpg"', number))
    with pytest.raises(EventError):
        parse_message(f'{{"Records": {number}}}')


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_other_encodings_of_json(encoding: str) -> None:
    assert parse_message(_body(_put("%C3%BC.jpg")).encode(encoding)).created[0].key == "ü.jpg"


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"\x80abc", b"\x00", '{"a":"\xff"}'.encode("latin-1")])
def test_undecodable_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(EventError, match="not JSON"):
        parse_message(body)


@pytest.mark.parametrize("name", ["x" * 81, "Objekt\u00fc", "a\nb", "\ud800", ""])
def test_invalid_event_names(name: str) -> None:
    """Names of ignored events are logged."""
    if name == "":
        assert parse_message(_body(_put(eventName=""))).ignored == [""]
        return
    message = parse_message(_body(_put(eventName=name), _put()))
    assert message.ignored == []
    assert message.malformed[0].isprintable()
    assert "eventName" in message.malformed[0]
    assert len(message.created) == 1


def test_the_longest_key() -> None:
    longest = "ü" * (MAX_KEY_BYTES // 2)
    assert parse_message(_body(_put(longest))).created[0].key == longest
    with pytest.raises(EventError, match="over 1024 bytes"):
        parse_message(_body(_put(longest + "a")))


def test_too_many_records_are_refused() -> None:
    message = parse_message(_body(*[_put(f"{i}.jpg") for i in range(5000)]))
    assert [created.key for created in message.created] == [f"{i}.jpg" for i in range(5000)]


def _assert_storable(message: ParsedMessage) -> None:
    for created in message.created:
        for name in (created.bucket, created.key):
            assert 0 < len(name.encode()) <= MAX_KEY_BYTES
            assert "\0" not in name
        assert created.time is None or created.time.utcoffset() is not None
    for text in [*message.ignored, *message.malformed]:
        assert len(text) < 300
        text.encode()


def _parses_or_refuses(body: bytes | str) -> None:
    try:
        message = parse_message(body)
    except EventError as refused:
        text = str(refused)
    else:
        _assert_storable(message)
        text = ""
    assert len(text) < 1000
    text.encode()  # can be logged


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
any_text = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["\ud800", "a%00", "%ed%a0%80", "%C3", "+", "%2B", "%", "%%%", "\0", "s3:TestEvent", "s3:"]
)
EVENT_NAMES = ["ObjectCreated:Put", "s3:ObjectCreated:Put", "ObjectRemoved:Delete", "Object Created", "s3:TestEvent"]


def _or_anything(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return strategy | any_json


almost_records = st.fixed_dictionaries(
    {},
    optional={
        "eventName": _or_anything(st.sampled_from(EVENT_NAMES) | any_text),
        "eventSource": _or_anything(st.just("aws:s3")),
        "eventTime": _or_anything(st.datetimes().map(str) | any_text),
        "s3": _or_anything(
            st.fixed_dictionaries(
                {"bucket": _or_anything(st.fixed_dictionaries({"name": _or_anything(any_text)}))},
                optional={"object": _or_anything(st.fixed_dictionaries({"key": _or_anything(any_text)}))},
            )
        ),
    },
)
almost_events = st.fixed_dictionaries(
    {},
    optional={
        "Records": _or_anything(st.lists(_or_anything(almost_records), max_size=3)),
        "Event": st.sampled_from(EVENT_NAMES),
        "source": st.just("aws.s3"),
        "detail-type": st.sampled_from(EVENT_NAMES),
        "detail": almost_records,
        "TopicArn": any_text,
        "Message": _or_anything(any_text),
        "properties": any_json,
    },
)


@settings(max_examples=300, deadline=None)
@given(almost_events | st.lists(almost_records, max_size=3) | any_json)
@example({"TopicArn": "", "Message": "[" * 500_000})
@example({"Records": [_put(eventTime="0001-01-01T00:00:00+14:00")]})
@example({"Records": [_put(eventName="\ud800"), _put()]})
@example({"\ud800": 1})
def test_only_event_errors_are_raised(document: object) -> None:
    _parses_or_refuses(json.dumps(document))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(st.characters(), max_size=200))
@example("\ud800")
@example(b"\xef\xbb\xbf")
@example("\ufeff\ufeff{}")
def test_any_bytes_and_any_text(body: bytes | str) -> None:
    _parses_or_refuses(body)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FIXTURES), st.data())
def test_damaged_fixtures_are_parsed_or_refused(path: Path, data: st.DataObject) -> None:
    body = bytearray(_read(path)[0].encode())
    for _ in range(data.draw(st.integers(0, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    _parses_or_refuses(bytes(body[: data.draw(st.integers(0, len(body)))]))


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200).filter(
        lambda key: not has_dot_segments(key)
    )
)
def test_every_key_survives_each_dialect(key: str) -> None:
    for encoded in (quote_plus(key), quote(key, safe=""), quote_plus(key, safe="/")):
        assert parse_message(_body(_put(encoded))).created[0].key == key
        minio = _put(encoded, eventSource="minio:s3", eventName="s3:ObjectCreated:Put")
        assert parse_message(_body(minio)).created[0].key == key
    name = "x" + key.replace("/", "-")
    assert parse_message(_body(_put(name, eventName="s3:ObjectCreated:Put"))).created[0].key == name
    assert parse_message(_body(_put(name, eventSource="ceph:s3"))).created[0].key == name
    detail = {"bucket": {"name": "binwatch"}, "object": {"key": key}}
    bridge = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
    assert parse_message(json.dumps(bridge)).created[0].key == key
