"""Content-Encoding: decompresses an object's bytes.

S3 stores the header and the bytes as they were uploaded, and returns them unchanged.
"""

from __future__ import annotations

import zlib

_NONE = frozenset({"", "identity", "aws-chunked"})
"""Encodings that do not change the bytes. Some stores keep `aws-chunked`, which only describes the upload."""
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_MAGIC = b"\x1f\x8b"
_MOST = 3
"""Most nested encodings of one object; more may be a decompression bomb."""
_STEP = 4096
"""Bytes decompressed at a time: zlib copies all input after a stream's end, and a file may have a million streams."""


class EncodingError(ValueError):
    """The bytes cannot be decoded: damaged, or an encoding that is not supported."""


class TooLargeDecoded(ValueError):
    """The decoded data are larger than allowed. The rest was not decoded."""


def decoded(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decode `data` to at most `max_bytes` bytes. Raises EncodingError or TooLargeDecoded."""
    names = [name.strip().lower() for name in encoding.split(",")]
    applied = [name for name in names if name not in _NONE]
    if len(applied) > _MOST:
        raise EncodingError(f"has {len(applied)} nested encodings")
    for name in reversed(applied):
        if name == "deflate":
            data = _inflated(data, max_bytes)
        elif name not in _GZIP:
            raise EncodingError("is not supported: upload the file without it, or as gzip")
        # The header may be a mistake, or left by a proxy that decompressed the bytes.
        elif data.startswith(_GZIP_MAGIC):
            data = _gunzipped(data, max_bytes)
    return data


def _gunzipped(data: bytes, max_bytes: int) -> bytes:
    """The contents of all members of a gzip file. Bytes after the last member are padding."""
    parts: list[bytes] = []
    size = position = 0
    while data.startswith(_GZIP_MAGIC, position):
        part, position = _decompressed(data, position, zlib.MAX_WBITS | 16, max_bytes - size)
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _inflated(data: bytes, max_bytes: int) -> bytes:
    """Inflate `deflate` data: in zlib's format, as HTTP defines it, or raw, as many clients send it."""
    try:
        return _decompressed(data, 0, zlib.MAX_WBITS, max_bytes)[0]
    except EncodingError:
        return _decompressed(data, 0, -zlib.MAX_WBITS, max_bytes)[0]


def _decompressed(data: bytes, start: int, window: int, max_bytes: int) -> tuple[bytes, int]:
    """Decompress the stream at `start`; returns the bytes and the end of the stream."""
    stream, view = zlib.decompressobj(window), memoryview(data)
    found = bytearray()
    while not stream.eof:
        piece = view[start : start + _STEP]
        if not piece:
            raise EncodingError("ends early: upload the file again")
        try:
            found += stream.decompress(piece, max_bytes - len(found) + 1)
        except zlib.error as error:
            raise EncodingError(f"does not decode ({error}): upload the file again") from error
        if len(found) > max_bytes:
            raise TooLargeDecoded
        start += len(piece) - len(stream.unused_data)
    return bytes(found), start
