"""Decodes the Content-Encoding of objects.

S3 stores the header and the bytes as they were uploaded, and returns both unchanged.
"""

from __future__ import annotations

import zlib

_IDENTITY = frozenset({"", "identity", "aws-chunked"})
"""Encodings that do not change the bytes. Some stores keep `aws-chunked`, which only describes the upload."""
_GZIP = frozenset({"gzip", "x-gzip"})
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_ENCODINGS = 3
"""Maximum number of nested encodings of an object. More may be a decompression bomb."""
_CHUNK_BYTES = 4096
"""Bytes decompressed at a time. zlib copies all input after the end of a stream, and a file may have a million streams,
so larger chunks would be slow."""


class EncodingError(ValueError):
    """The bytes cannot be decoded: they are damaged, or the encoding is not supported."""


class DecodedTooLargeError(ValueError):
    """The decoded data are larger than allowed. Decoding stopped at the limit."""


def decode(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decode `data` to at most `max_bytes` bytes. Raises EncodingError or DecodedTooLargeError."""
    names = [name.strip().lower() for name in encoding.split(",")]
    encodings = [name for name in names if name not in _IDENTITY]
    if len(encodings) > _MAX_ENCODINGS:
        raise EncodingError(f"has {len(encodings)} nested encodings")
    for name in reversed(encodings):
        if name == "deflate":
            data = _inflate(data, max_bytes)
        elif name not in _GZIP:
            raise EncodingError("is not supported: upload the file without it, or as gzip")
        # The header may be wrong, or left over from a proxy that has already decompressed the bytes.
        elif data.startswith(_GZIP_MAGIC):
            data = _gunzip(data, max_bytes)
    return data


def _gunzip(data: bytes, max_bytes: int) -> bytes:
    """Decompress all members of a gzip file. Bytes after the last member are padding, and are ignored."""
    members: list[bytes] = []
    size = position = 0
    while data.startswith(_GZIP_MAGIC, position):
        member, position = _decompress_stream(data, position, zlib.MAX_WBITS | 16, max_bytes - size)
        members.append(member)
        size += len(member)
    return b"".join(members)


def _inflate(data: bytes, max_bytes: int) -> bytes:
    """Decompress `deflate` data: in zlib's format, as HTTP defines it, or raw, as many clients send it."""
    try:
        return _decompress_stream(data, 0, zlib.MAX_WBITS, max_bytes)[0]
    except EncodingError:
        return _decompress_stream(data, 0, -zlib.MAX_WBITS, max_bytes)[0]


def _decompress_stream(data: bytes, start: int, window_bits: int, max_bytes: int) -> tuple[bytes, int]:
    """Decompress the stream that begins at `start`; returns the decompressed bytes and the stream's end position."""
    stream, view = zlib.decompressobj(window_bits), memoryview(data)
    output = bytearray()
    while not stream.eof:
        chunk = view[start : start + _CHUNK_BYTES]
        if not chunk:
            raise EncodingError("ends early: upload the file again")
        try:
            output += stream.decompress(chunk, max_bytes - len(output) + 1)
        except zlib.error as error:
            raise EncodingError(f"does not decode ({error}): upload the file again") from error
        if len(output) > max_bytes:
            raise DecodedTooLargeError
        start += len(chunk) - len(stream.unused_data)
    return bytes(output), start
