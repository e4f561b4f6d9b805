"""Objects uploaded with a Content-Encoding."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binwatch.encodings import DecodedTooLargeError, EncodingError, decode

PHOTO = b"a photo " * 1000
GZIP = gzip.compress(PHOTO, mtime=0)
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
DEFLATE = RAW.compress(PHOTO) + RAW.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", PHOTO),
        ("identity", PHOTO),
        ("aws-chunked", PHOTO),
        ("aws-chunked,gzip", GZIP),
        ("gzip", GZIP),
        (" GZip , ", GZIP),
        ("x-gzip", GZIP),
        ("gzip", GZIP + bytes(100)),
        ("gzip", gzip.compress(PHOTO[:10], mtime=0) + gzip.compress(PHOTO[10:], mtime=0)),
        ("gzip, gzip", gzip.compress(GZIP, mtime=0)),
        ("deflate, gzip", gzip.compress(zlib.compress(PHOTO), mtime=0)),
        ("deflate", zlib.compress(PHOTO)),
        ("deflate", DEFLATE),
        ("gzip", PHOTO),  # only the header: a proxy has decoded the body
    ],
)
def test_decoding(encoding: str, data: bytes) -> None:
    assert decode(data, encoding, len(PHOTO)) == PHOTO


@pytest.mark.parametrize(
    ("encoding", "data", "words"),
    [
        ("br", PHOTO, "not supported"),
        ("zstd", PHOTO, "not supported"),
        ("utf-8", PHOTO, "not supported"),
        ("gzip", GZIP[:-9], "ends early"),
        ("gzip", GZIP[:20] + b"\0\0\0" + GZIP[23:], "does not decode"),
        ("deflate", b"\xff\xff", "does not decode"),
        ("deflate", b"", "ends early"),
        ("gzip," * 9, GZIP, "9 nested encodings"),
    ],
)
def test_undecodable_data_is_refused_with_a_reason(encoding: str, data: bytes, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        decode(data, encoding, len(PHOTO))


def test_a_decompression_bomb_is_refused() -> None:
    bomb = gzip.compress(gzip.compress(bytes(50_000_000)))
    assert len(bomb) < 1000
    with pytest.raises(DecodedTooLargeError):
        decode(bomb, "gzip, gzip", 1_000_000)
    with pytest.raises(DecodedTooLargeError):
        decode(gzip.compress(bytes(900)) * 2, "gzip", 1000)


def test_many_concatenated_streams() -> None:
    assert decode(gzip.compress(b"", mtime=0) * 20_000 + GZIP, "gzip", len(PHOTO)) == PHOTO


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "gzip,deflate", "br"]))
def test_only_encoding_errors_are_raised(data: bytes, encoding: str) -> None:
    for body in (data, GZIP[: len(data)] + data, zlib.compress(data) + data):
        try:
            assert len(decode(body, encoding, 1000)) <= 1000
        except (EncodingError, DecodedTooLargeError):
            continue
