"""Tests that incomplete photos are refused, and complete ones are read despite damage to other parts of their files."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from binwatch.errors import PhotoError, Reason
from binwatch.image import MAX_SIDE, ImageLimits, load_photo
from binwatch.photo_files import gif, jpeg, reader_of
from binwatch.photo_files.budget import MemoryBudget
from binwatch.photo_files.orientation import orientation
from testing.damage import LARGE_DAMAGE, Damage
from testing.photos import chunk, encoded, noise, png, scene

SAMPLES = sorted((Path(__file__).parents[2] / "samples" / "bin-images").glob("*.jpg"))[::20]
OVERSIZE = 2 * 2**20
"""More bytes than Pillow accepts in a text or a profile."""


def refused(data: bytes, limits: ImageLimits | None = None) -> tuple[Reason, str]:
    with pytest.raises(PhotoError) as caught:
        load_photo(data, limits=limits or ImageLimits())
    return caught.value.reason, str(caught.value)


def assert_same_pixels(data: bytes, intact: bytes) -> None:
    assert np.array_equal(load_photo(data).pixels, load_photo(intact).pixels)


# Complete photos


PNG = encoded(scene(), "PNG")
HEADER_END = 8 + 25
"""End of a PNG's signature and header chunk."""
DATA_END = len(PNG) - 12
"""Position before a PNG's end chunk."""


def _broken(name: bytes, body: bytes) -> bytes:
    return chunk(name, body)[:-1] + b"\0"


def _with_length(name: bytes, body: bytes, length: int) -> bytes:
    """Return a chunk that states another length."""
    return struct.pack(">I", length) + chunk(name, body)[4:]


ANCILLARY = {
    "text with a wrong checksum": _broken(b"tEXt", b"Comment\0hello"),
    "chromaticities of 5 bytes": chunk(b"cHRM", b"12345"),
    "resolution of 3 bytes": chunk(b"pHYs", b"123"),
    "no gamma": chunk(b"gAMA", b""),
    "transparency of 700 bytes": chunk(b"tRNS", bytes(700)),
    "time with a wrong checksum": _broken(b"tIME", b"1234567"),
    "compressed text of 2 MiB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(OVERSIZE))),
    "XMP of 2 MiB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * OVERSIZE),
    "packed XMP of 2 MiB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * OVERSIZE)),
    "a profile of 2 MiB": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(OVERSIZE))),
    "a profile that is none": chunk(b"iCCP", b"profile\0\0nothing"),
    "an animation that is none": chunk(b"acTL", b"\0\0"),
    "damaged EXIF": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "text that says it is longer": _with_length(b"tEXt", b"Comment\0hello", 17),
    "text that says it is shorter": _with_length(b"tEXt", b"Comment\0hello", 9),
    "text that says it is huge": _with_length(b"tEXt", b"Comment\0hello", 2**31),
    "a private chunk with a wrong checksum": _broken(b"prIv", b"hello"),
}


@pytest.mark.parametrize("name", ANCILLARY)
@pytest.mark.parametrize("place", [HEADER_END, DATA_END], ids=["before the pixels", "behind them"])
def test_png_with_damaged_other_chunks_is_read(name: str, place: int) -> None:
    assert_same_pixels(PNG[:place] + ANCILLARY[name] + PNG[place:], PNG)


@pytest.mark.parametrize("end", [-12, -11, -5, -1])
def test_png_without_end_chunk_is_read(end: int) -> None:
    assert_same_pixels(PNG[:end], PNG)


JPEGS = {
    "baseline": encoded(scene()),
    "progressive": encoded(scene(), progressive=True),
    "grey": encoded(scene().convert("L")),
    "cmyk": encoded(scene().convert("CMYK")),
    "restart markers": encoded(scene(), restart_marker_blocks=3),
    "real": SAMPLES[0].read_bytes() if SAMPLES else encoded(scene()),
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_without_end_marker_is_read(name: str) -> None:
    assert_same_pixels(JPEGS[name].removesuffix(b"\xff\xd9"), JPEGS[name])
    assert_same_pixels(JPEGS[name][:-1], JPEGS[name])  # half of the marker is present


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


SEGMENTS = {
    "a profile of 2 MiB": b"".join(
        _segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 40]) + b"x" * 60_000) for n in range(1, 41)
    ),
    "profile parts out of order": _segment(0xE2, b"ICC_PROFILE\0\x09\x02junk"),
    "XMP of 60 KB": _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b" " * 60_000),
    "a preview that is none": _segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "Photoshop's block, cut off": _segment(0xED, b"Photoshop 3.0\x008BIM\x04"),
    "a comment": _segment(0xFE, b"\xff\xd9 is no end here"),
    "damaged EXIF": _segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"),
    "fill bytes": b"\xff\xff\xff",
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_jpeg_with_damaged_other_segments_is_read(name: str) -> None:
    intact = JPEGS["baseline"]
    assert_same_pixels(intact[:2] + SEGMENTS[name] + intact[2:], intact)


def test_jpeg_with_padding_before_end_marker_is_read() -> None:
    intact = JPEGS["baseline"]
    assert_same_pixels(intact[:-2] + b"\0\0" + intact[-2:], intact)
    assert refused(intact[:-2] + bytes(500) + intact[-2:])[0] is Reason.CORRUPT


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_with_damaged_metadata_is_read(lossless: bool) -> None:
    intact = encoded(scene(), "WEBP", lossless=lossless)
    exif = encoded(scene(), "WEBP", lossless=lossless, exif=b"Exif\0\0odd", xmp=b"x" * 101)
    assert_same_pixels(exif, intact)
    assert_same_pixels(exif[:-60], intact)  # truncated within the metadata, which come last
    assert_same_pixels(exif + b"XMP \xff\xff\xff\x7f", intact)
    odd = exif.index(b"EXIF")
    assert exif[odd + 4] % 2  # odd length, so that a padding byte follows
    padding = odd + 8 + exif[odd + 4]
    assert_same_pixels(exif[:padding] + exif[padding + 1 :], intact)


def test_gif_with_damaged_other_blocks_is_read() -> None:
    intact = encoded(scene(), "GIF")
    start = 13 + 3 * 256
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 9000 + b"\0"
    broken = b"!\xff\x0bNETSCAPE2.0\x01\x01\0"
    assert_same_pixels(intact[:start] + comment + broken + intact[start:], intact)
    assert_same_pixels(intact[:-1], intact)


# Incomplete photos


def test_lost_parts_are_detected() -> None:
    """A large loss is detected at every position, in baseline and progressive files."""
    undetected = []
    for path in SAMPLES:
        plain = path.read_bytes()
        with Image.open(path) as image:
            photos = {"as it is": plain, "progressive": encoded(image, progressive=True)}
        for kind, data in photos.items():
            for name, damage in LARGE_DAMAGE.items():
                undetected += [f"{path.name}, {kind}, {name}"] if _passes(data, damage) else []
    assert len(undetected) <= len(SAMPLES) * len(LARGE_DAMAGE) * 2 // 100, undetected
    assert not [name for name in undetected if "512" not in name]


def _passes(data: bytes, damage: Damage) -> bool:
    try:
        load_photo(damage(data, random.Random(len(data))))
    except PhotoError:
        return False
    return True


def test_missing_lower_half_is_reported_as_truncated() -> None:
    data = JPEGS["real"]
    assert refused(data[: len(data) // 2] + b"\xff\xd9") == (
        Reason.TRUNCATED,
        "a part of the photo is missing (premature end of data segment); upload the photo again",
    )


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_progressive_jpeg_without_last_scans_is_refused(end: bytes) -> None:
    data = encoded(scene(), progressive=True)
    last = data.rindex(b"\xff\xda")
    table = data.rindex(b"\xff\xc4", 0, last)
    reason, message = refused(data[:table] + end)
    assert reason is Reason.TRUNCATED
    assert "no scan brings the rest of it" in message


@pytest.mark.parametrize("name", ["IDAT", "PLTE"])
def test_png_with_wrong_pixel_checksum_is_refused(name: str) -> None:
    data = bytearray(encoded(noise().quantize(16), "PNG"))
    place = data.index(name.encode())
    size = int.from_bytes(data[place - 4 : place])
    data[place + 4 + size // 2] ^= 1
    assert refused(bytes(data)) == (
        Reason.CORRUPT,
        f"the image data is damaged (the checksum of a chunk {name} is wrong); take or upload the photo again",
    )


def test_truncated_gif_is_refused() -> None:
    """LZW has an end code, after which pixels have the background colour: here, black below the first row."""
    intact = encoded(Image.new("L", (64, 64), 7).quantize(2), "GIF")
    assert load_photo(intact).pixels.max() > 0
    start = intact.index(b",\0\0\0\0") + 10
    codes = bytes([0b00000100 | 0b101 << 3])  # clear, end
    data = intact[:start] + b"\x02" + bytes([len(codes)]) + codes + b"\0;"
    assert refused(data)[0] in (Reason.TRUNCATED, Reason.CORRUPT)


# Excessive resources


def test_too_long_side_is_refused() -> None:
    grey = png(MAX_SIDE + 1, 2, 8, 0, (b"\0" + bytes(MAX_SIDE + 1)) * 2)
    assert refused(grey) == (Reason.TOO_MANY_PIXELS, f"{MAX_SIDE + 1}×2: a side over the limit of 65,535 pixels")
    assert load_photo(png(MAX_SIDE, 2, 8, 0, (b"\0" + bytes(MAX_SIDE)) * 2)).width == MAX_SIDE


def test_photo_that_needs_too_much_memory_is_refused() -> None:
    data = encoded(scene(), "WEBP")
    memory = 16 * 400 * 300
    assert load_photo(data, limits=ImageLimits(max_memory=memory)).format == "WEBP"
    reason, message = refused(data, ImageLimits(max_memory=memory - 1))
    assert reason is Reason.TOO_MANY_PIXELS
    assert message.startswith("400×300 pixels of this WEBP take about 1 MiB to decode, over the limit of 1 MiB; reduce")


def _many_scans(scans: int) -> bytes:
    """Return a progressive photo of 8000×6000 pixels whose last scan, of a few bytes, is repeated."""
    data = encoded(Image.new("L", (8000, 6000), 90), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"


def test_jpeg_with_too_many_scans_is_refused() -> None:
    reason, message = refused(_many_scans(20_000))
    assert reason is Reason.TOO_MANY_PIXELS
    assert message == "it has over 100 scans, each of which takes time; save the photo again"


def test_bmp_with_run_length_coding_is_refused() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + b"\xff\0" * 1000
    reason, message = refused(data)
    assert reason is Reason.UNSUPPORTED_FORMAT
    assert message == "BMP with run-length coding is not counted; save it without, or as a PNG"


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_files_with_too_many_segments_are_refused(name: str) -> None:
    if name == "JPEG":
        data = b"\xff\xd8" + b"\xff\xfe\0\2" * 200_000 + JPEGS["baseline"][2:]
    else:
        data = PNG[:HEADER_END] + chunk(b"prIv", b"") * 200_000 + PNG[HEADER_END:]
    reason, message = refused(data)
    assert reason is Reason.CORRUPT
    assert "over 100,000" in message


def test_memory_limit(tmp_path: Path) -> None:
    """At 50 megapixels, long and thin photos and formats that are decoded twice once took 0.4 to 1 GB."""
    flat = Image.new("RGB", (4000, 4000), "navy")
    files = {
        "thin.png": png(2, 25_000_000, 8, 0, bytes(3 * 25_000_000)),
        "rgba.png": png(7000, 7000, 8, 6, (b"\0" + bytes(28_000)) * 7000),
        "palette.png": encoded(Image.new("P", (7000, 7000)), "PNG"),
        "deep.png": png(7000, 7000, 16, 0, (b"\0" + bytes(14_000)) * 7000),
        "flat.webp": encoded(flat.resize((7071, 7071)), "WEBP", lossless=True, method=0),
        "large.webp": encoded(flat, "WEBP", lossless=True, method=0),
        "screen.gif": encoded(Image.new("L", (7000, 7000)), "GIF"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program = """
import sys
from binwatch.image import load_photo
from binwatch.errors import PhotoError
def memory(what):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) // 1024
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM begins anew
    before = memory("VmRSS")
    try:
        answer = load_photo(data).format
    except PhotoError as error:
        answer = error.reason
    print(answer, memory("VmHWM") - before)
"""
    command = [sys.executable, "-c", program, *(str(tmp_path / name) for name in files)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    took = dict(zip(files, (line.split() for line in answer.stdout.splitlines()), strict=True))
    assert {name: what for name, (what, _) in took.items()} == {
        "thin.png": "too_many_pixels",
        "rgba.png": "PNG",
        "palette.png": "PNG",
        "deep.png": "PNG",
        "flat.webp": "too_many_pixels",
        "large.webp": "WEBP",
        "screen.gif": "GIF",
    }
    assert all(int(mib) < 300 for _, mib in took.values()), took


def test_memory_budget_is_shared() -> None:
    """With eight threads that need 40 of 100 bytes each, at most two run at a time, and all finish."""
    budget, lock = MemoryBudget(100), threading.Lock()
    taken, peak, turns = 0, 0, 0

    def decode() -> None:
        nonlocal taken, peak, turns
        for _ in range(50):
            with budget.reserved(40):
                with lock:
                    taken, turns = taken + 40, turns + 1
                    peak = max(peak, taken)
                with lock:
                    taken -= 40

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert turns == 8 * 50
    assert peak <= 80


def test_large_photo_is_not_starved() -> None:
    budget, order = MemoryBudget(100), []
    arrived = threading.Event()

    def large() -> None:
        arrived.set()
        with budget.reserved(1000):  # more than the budget: it takes all of it
            order.append("large")

    def small() -> None:
        with budget.reserved(10):
            order.append("small")

    with budget.reserved(50):
        first = threading.Thread(target=large)
        first.start()
        arrived.wait(60)
        while not budget._queue:  # until it is waiting
            arrived.wait(0.001)
        second = threading.Thread(target=small)
        second.start()
        while len(budget._queue) < 2:
            arrived.wait(0.001)
    first.join(60)
    second.join(60)
    assert order == ["large", "small"]


# Orientation


def _exif(*entries: tuple[int, int, int, bytes], order: str = ">") -> bytes:
    start = b"MM\0*\0\0\0\x08" if order == ">" else b"II*\0\x08\0\0\0"
    return (
        start
        + struct.pack(order + "H", len(entries))
        + b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    )


SHORT_6, TAG = b"\0\6\0\0", 0x0112


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (_exif((TAG, 3, 1, SHORT_6)), 6),
        (_exif((TAG, 3, 1, b"\x08\0\0\0"), order="<"), 8),
        (_exif((TAG, 4, 1, b"\0\0\0\3")), 3),
        (b"Exif\0\0" + _exif((0x010F, 2, 4, b"abc\0"), (TAG, 3, 1, SHORT_6)), 6),
        (_exif((TAG, 2, 2, b"6\0\0\0")), 1),  # text
        (_exif((TAG, 3, 2, b"\0\6\0\6")), 1),  # two of them
        (_exif((TAG, 3, 1, b"\0\x09\0\0")), 1),
        (_exif((TAG, 3, 1, SHORT_6))[:-6], 1),
        (b"MM\0*\xff\xff\xff\xff", 1),
        (b"", 1),
    ],
)
def test_exif_orientation(exif: bytes, expected: int) -> None:
    assert orientation(exif) == expected
    photo = load_photo(encoded(scene(), exif=b"Exif\0\0" + exif.removeprefix(b"Exif\0\0")))
    assert photo.sides_swapped == (expected >= 5)


def test_xmp_orientation() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert orientation(xmp=xmp) == 6
    assert orientation(_exif((TAG, 3, 1, b"\0\3\0\0")), xmp) == 3
    assert load_photo(encoded(scene(), "WEBP", xmp=xmp)).sides_swapped
    assert load_photo(
        PNG[:HEADER_END] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + PNG[HEADER_END:]
    ).sides_swapped
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)
    assert load_photo(PNG[:HEADER_END] + chunk(b"iTXt", packed) + PNG[HEADER_END:]).sides_swapped
    old = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n22\n" + _exif((TAG, 3, 1, SHORT_6)).hex().encode())
    assert load_photo(PNG[:HEADER_END] + chunk(b"zTXt", old) + PNG[HEADER_END:]).sides_swapped


def test_65535_damaged_tags_cause_no_warning() -> None:
    exif = _exif(*[(TAG, 9, 2**31, b"\xff\xff\xff\xff")] * 65_535)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_pixels(PNG[:HEADER_END] + chunk(b"eXIf", exif) + PNG[HEADER_END:], PNG)


# Choice of the decoder


@pytest.mark.parametrize(
    ("data", "reader"),
    [(JPEGS["baseline"], jpeg.read), (encoded(scene(), "GIF"), gif.read), (b"GIF", None), (b"", None)],
)
def test_format_is_detected_by_first_bytes(data: bytes, reader: Callable[[bytes], object] | None) -> None:
    assert reader_of(data) is reader


@pytest.mark.parametrize("factors", [0x00, 0x33, 0x44, 0xFF])
def test_invalid_sampling_factors(factors: int) -> None:
    data = bytearray(JPEGS["baseline"])
    data[data.index(b"\xff\xc0") + 11] = factors
    assert refused(bytes(data))[0] in (Reason.CORRUPT, Reason.TRUNCATED)


def test_subsampled_cmyk_is_read_by_pillow() -> None:
    """simplejpeg does not support these JPEGs. Like other rare subsamplings, they are read without damage detection."""
    data = encoded(scene().convert("CMYK"), subsampling=2)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (224, 224))
        expected = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(load_photo(data).pixels, expected)
