"""Content-Encoding: what an object's bytes were before someone compressed them for the way.

S3 keeps the header and the bytes as they were uploaded, and gives them back so.
"""

from __future__ import annotations

import zlib

_NONE = frozenset({"", "identity", "aws-chunked"})
"""What changes no bytes. Some stores keep `aws-chunked`, which is about how an upload was sent, with the object."""
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_MAGIC = b"\x1f\x8b"
_MOST = 3
"""Encodings of one object: more is a bomb."""
_STEP = 4096
"""Bytes decompressed at a time: zlib copies what follows a stream's end, and a file may be of a million streams."""


class EncodingError(ValueError):
    """The bytes cannot be decoded: damaged, or an encoding that is not supported."""


class TooLargeDecoded(ValueError):
    """Decoded, there are more bytes than are wanted. The rest was not decoded."""


def decoded(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """`data` without its Content-Encoding, `max_bytes` at most. Raises EncodingError or TooLargeDecoded."""
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
    """All members of a gzip file; what follows them is padding."""
    parts: list[bytes] = []
    size = position = 0
    while data.startswith(_GZIP_MAGIC, position):
        part, position = _decompressed(data, position, zlib.MAX_WBITS | 16, max_bytes - size)
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _inflated(data: bytes, max_bytes: int) -> bytes:
    """By HTTP's definition in zlib's format; many send it without zlib's header."""
    try:
        return _decompressed(data, 0, zlib.MAX_WBITS, max_bytes)[0]
    except EncodingError:
        return _decompressed(data, 0, -zlib.MAX_WBITS, max_bytes)[0]


def _decompressed(data: bytes, start: int, window: int, max_bytes: int) -> tuple[bytes, int]:
    """The stream that starts there, decompressed, and where it ends."""
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
