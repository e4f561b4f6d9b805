"""Test photos: a scene that reveals wrong orientation, and a corpus of valid, unusual and invalid files."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pillow_heif
from PIL import Image

from binwatch.errors import Reason
from testing.brightness import brightness_of

WIDTH, HEIGHT = 400, 300
SIDE = 200
MAX_BYTES, MAX_PIXELS = 200_000, 1_000_000
"""Limits for the corpus, low enough that its oversized files need not be large."""


def scene(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Smooth colours that differ in all four corners, so that a wrong orientation or channel order is visible."""
    across = np.linspace(0, 255, width)[None, :].repeat(height, axis=0)
    down = np.linspace(0, 255, height)[:, None].repeat(width, axis=1)
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


pillow_heif.register_heif_opener()  # lets Pillow write HEIF, too


def encoded(image: Image.Image, name: str = "JPEG", **options: object) -> bytes:
    """The image as a file of the format that Pillow calls `name`."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A hand-written PNG, because Pillow does not write all variants that it reads. `colour`: the PNG colour type."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@dataclass(frozen=True)
class Case:
    """A file and its expected outcome: the class that the brightness model counts, or the reason for the failure."""

    name: str
    data: bytes
    outcome: int | Reason


def corpus() -> list[Case]:
    """Files of every kind that may appear in a bucket of photos. The result is deterministic."""
    return [
        *_formats(),
        *_modes(),
        *_rotated(),
        *_unusual(),
        *_truncated(),
        *_damaged(),
        *_oversized(),
        *_unsupported_formats(),
        *_not_images(),
    ]


def level(predicted: int, mode: str = "RGB", side: int = SIDE) -> Image.Image:
    """A plain photo that the brightness model counts as `predicted`."""
    return Image.new("RGB", (side, side), (brightness_of(predicted),) * 3).convert(mode)


def noise(side: int = SIDE) -> Image.Image:
    """A photo with detail in every block, so that truncation anywhere loses visible data."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (side, side, 3), dtype=np.uint8))


def _formats() -> list[Case]:
    return [
        Case("baseline.jpg", encoded(level(0)), 0),
        Case("progressive.jpg", encoded(level(1), progressive=True), 1),
        Case("quality-1.jpg", encoded(level(2), quality=1), 2),
        Case("not-subsampled.jpeg", encoded(level(3), subsampling=0), 3),
        Case("restart-markers.jpg", encoded(level(4), restart_marker_blocks=2), 4),
        Case("png.png", encoded(level(5), "PNG"), 5),
        Case("webp.webp", encoded(level(6), "WEBP"), 6),
        Case("webp-lossless.webp", encoded(level(0), "WEBP", lossless=True), 0),
        Case("gif.gif", encoded(level(1), "GIF"), 1),
        Case("bmp.bmp", encoded(level(2), "BMP"), 2),
        Case("scan.tif", encoded(level(5), "TIFF", compression="tiff_lzw"), 5),
        Case("png-under-a-jpegs-name.jpg", encoded(level(3), "PNG"), 3),
        Case("capitals.JPG", encoded(level(4)), 4),
    ]


def _modes() -> list[Case]:
    wide = struct.pack(">H", brightness_of(5) * 257)
    return [
        Case("grey.jpg", encoded(level(5, "L")), 5),
        Case("grey.png", encoded(level(6, "L"), "PNG"), 6),
        Case("cmyk.jpg", encoded(level(2, "CMYK"), quality=95), 2),
        Case("black-and-white.png", encoded(Image.new("1", (SIDE, SIDE), 1), "PNG"), 6),
        Case("palette.png", encoded(level(3, "P"), "PNG"), 3),
        Case("palette-transparent.png", encoded(level(3, "P"), "PNG", transparency=bytes(256)), 3),
        Case("grey-alpha.png", encoded(level(4, "LA"), "PNG"), 4),
        Case("colour-alpha.png", encoded(level(1, "RGBA"), "PNG"), 1),
        Case("all-transparent.webp", encoded(level(4, "RGBA"), "WEBP", lossless=True, exact=True), 4),
        Case("grey-16-bit.png", png(SIDE, SIDE, 16, 0, (b"\0" + wide * SIDE) * SIDE), 5),
        Case("colour-16-bit.png", png(SIDE, SIDE, 16, 2, (b"\0" + wide * 3 * SIDE) * SIDE), 5),
        Case("grey-2-bit.png", png(SIDE, SIDE, 2, 0, (b"\0" + b"\xff" * (SIDE // 4)) * SIDE), 6),
    ]


def _rotated() -> list[Case]:
    cases = []
    for orientation in (2, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        cases.append(
            Case(f"orientation-{orientation}.jpg", encoded(level(orientation % 7), exif=exif), orientation % 7)
        )
    return cases


def _unusual() -> list[Case]:
    second = level(6)
    return [
        Case("one-pixel.png", encoded(level(3, side=1), "PNG"), 3),
        Case("one-row.png", encoded(level(2).resize((900, 1)), "PNG"), 2),
        Case("animated.gif", encoded(level(1), "GIF", save_all=True, append_images=[second]), 1),
        Case("animated.webp", encoded(level(2), "WEBP", save_all=True, append_images=[second]), 2),
        Case("two-pictures.jpg", encoded(level(3), "MPO", save_all=True, append_images=[second]), 3),
        Case("damaged-exif.jpg", encoded(level(4), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"), 4),
        Case("trailing-bytes.jpg", encoded(level(5)) + bytes(1000), 5),
        Case("at-the-limit-of-bytes.jpg", encoded(level(6)).ljust(MAX_BYTES, b"\0"), 6),
        Case("at-the-limit-of-pixels.png", encoded(level(0).resize((1000, 1000)), "PNG"), 0),
    ]


def _truncated() -> list[Case]:
    plain = encoded(noise())
    progressive = encoded(noise(), progressive=True)
    return [
        *(
            Case(f"cut-off-at-{tenth}0-percent.jpg", plain[: len(plain) * tenth // 10], Reason.TRUNCATED)
            for tenth in range(1, 10)
        ),
        *(
            Case(
                f"progressive-cut-off-at-{tenth}0-percent.jpg",
                progressive[: len(progressive) * tenth // 10],
                Reason.TRUNCATED,
            )
            for tenth in (3, 6, 9)
        ),
        Case("cut-off.png", encoded(noise(), "PNG")[:-5000], Reason.TRUNCATED),
        Case("cut-off.bmp", encoded(noise(), "BMP")[:-5000], Reason.TRUNCATED),
        Case("cut-off.gif", encoded(noise(), "GIF")[:-5000], Reason.TRUNCATED),
        Case("cut-off.tif", encoded(noise(), "TIFF", compression="jpeg")[:-5000], Reason.CORRUPT),
        Case("cut-off.webp", encoded(noise(), "WEBP")[:-5000], Reason.CORRUPT),
        Case("cut-off-within-the-header.jpg", plain[:30], Reason.CORRUPT),
    ]


def _damaged() -> list[Case]:
    jpeg, portable = bytearray(encoded(noise())), bytearray(encoded(noise(), "PNG"))
    portable[portable.index(b"IDAT") + 1000] ^= 0xFF
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 4] = 77  # bits of a sample
    lossless = encoded(noise(), "WEBP", lossless=True)
    return [
        Case("damaged-frame-header.jpg", bytes(jpeg), Reason.CORRUPT),
        Case("damaged-data.png", bytes(portable), Reason.CORRUPT),
        Case("no-data.png", png(SIDE, SIDE, 8, 2), Reason.TRUNCATED),
        Case("header-of-zeros.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)), Reason.CORRUPT),
        Case("no-width.bmp", b"BM" + bytes(60), Reason.CORRUPT),
        Case("damaged-header.webp", lossless[:20] + b"\0" + lossless[21:], Reason.CORRUPT),
        Case("zeros.tif", b"MM\0*" + bytes(40), Reason.CORRUPT),
        Case("first-bytes-only.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Reason.CORRUPT),
        Case("first-bytes-only.jpg", b"\xff\xd8\xff", Reason.CORRUPT),
        Case("first-bytes-only.gif", b"GIF89a", Reason.CORRUPT),
    ]


def _oversized() -> list[Case]:
    size = (12_999).to_bytes(3, "little")
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + size
    return [
        Case("too-many-bytes.jpg", encoded(level(1)).ljust(MAX_BYTES + 1, b"\0"), Reason.TOO_LARGE),
        Case("too-many-pixels.png", encoded(level(1).resize((1000, 1001)), "PNG"), Reason.TOO_MANY_PIXELS),
        Case("huge-dimensions.png", png(20_000, 20_000, 8, 2), Reason.TOO_MANY_PIXELS),
        Case("largest-dimensions.png", png(2**31 - 1, 2**31 - 1, 8, 2), Reason.TOO_MANY_PIXELS),
        Case(
            "huge-dimensions.webp",
            b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp,
            Reason.TOO_MANY_PIXELS,
        ),
        Case("bomb-of-pixels.png", png(8_000, 8_000, 1, 0, (b"\0" + bytes(1000)) * 8_000), Reason.TOO_MANY_PIXELS),
        # Far more data than the header's dimensions need: decoders must stop after the last pixel.
        Case("bomb-of-data.png", png(100, 100, 8, 2, b"\0" * 100_000_000), 0),
    ]


def _unsupported_formats() -> list[Case]:
    return [
        Case("avif.jpg", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", Reason.UNSUPPORTED_FORMAT),
        Case("icon.png", encoded(level(1, side=16), "ICO"), Reason.UNSUPPORTED_FORMAT),
        Case("photoshop.jpg", b"8BPS\0\x01" + bytes(40), Reason.UNSUPPORTED_FORMAT),
        Case("document.jpg", b"%PDF-1.7\n" + bytes(40), Reason.UNSUPPORTED_FORMAT),
    ]


def _not_images() -> list[Case]:
    return [
        Case("empty.jpg", b"", Reason.EMPTY),
        Case("text.jpg", b"this is not a photo", Reason.NOT_AN_IMAGE),
        Case("json.jpg", b'{"EXPECTED_QUANTITY": 3}', Reason.NOT_AN_IMAGE),
        Case("page-of-a-proxy.jpg", b"<!doctype html><title>403</title>", Reason.NOT_AN_IMAGE),
        Case("zeros.jpg", bytes(5000), Reason.NOT_AN_IMAGE),
        Case("one-byte.png", b"\x89", Reason.NOT_AN_IMAGE),
        Case("sound.webp", b"RIFF\x24\0\0\0WAVEfmt ", Reason.NOT_AN_IMAGE),
        Case("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.NOT_AN_IMAGE),
        Case("pickle.jpg", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os", Reason.NOT_AN_IMAGE),
        Case("zip.png", b"PK\x03\x04" + bytes(40), Reason.NOT_AN_IMAGE),
    ]
