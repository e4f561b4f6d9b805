"""Decoding of photos: every format and mode, orientation, limits, and reasons for refusals."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from binwatch.errors import PhotoError, Reason
from binwatch.image import FORMATS, INPUT_SIZE, PILLOW_MAX_PIXELS, ImageLimits, _to_rgb, load_photo
from testing.photos import HEIGHT, WIDTH, chunk, encoded, png, scene


def _squashed(image: Image.Image) -> np.ndarray:
    """Return the expected pixels of `load_photo`, computed without its shortcuts."""
    return np.asarray(image.convert("RGB").resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR))


def _assert_near(actual: np.ndarray, expected: np.ndarray, mean: float, max_difference: float = 255) -> None:
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.mean() <= mean
    assert difference.max() <= max_difference


def _reason(data: bytes, limits: ImageLimits | None = None) -> tuple[Reason, str]:
    with pytest.raises(PhotoError) as refused:
        load_photo(data, limits=limits or ImageLimits())
    return refused.value.reason, str(refused.value)


@pytest.mark.parametrize(
    ("name", "options", "mean"),
    [
        ("JPEG", {"quality": 95}, 1.5),
        ("JPEG", {"quality": 95, "progressive": True}, 1.5),
        ("JPEG", {"quality": 95, "subsampling": 0, "restart_marker_blocks": 4}, 1.5),
        ("PNG", {}, 0),
        ("PNG", {"optimize": True}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 3),
        ("BMP", {}, 0),
        ("GIF", {}, 12),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "jpeg", "quality": 95}, 1.5),
        ("HEIF", {"quality": 95}, 3),
    ],
)
def test_formats(name: str, options: dict[str, object], mean: float) -> None:
    photo = load_photo(encoded(scene(), name, **options))
    assert (photo.format, photo.width, photo.height) == (name, WIDTH, HEIGHT)
    assert photo.pixels.shape == (INPUT_SIZE, INPUT_SIZE, 3)
    assert photo.pixels.dtype == np.uint8
    _assert_near(photo.pixels, _squashed(scene()), mean)


@pytest.mark.parametrize("size", [1, 32, 224, 500])
def test_size(size: int) -> None:
    assert load_photo(encoded(scene()), size=size).pixels.shape == (size, size, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (223, 225), (3000, 40)])
@pytest.mark.parametrize("name", FORMATS)
def test_odd_shapes(name: str, shape: tuple[int, int]) -> None:
    photo = load_photo(encoded(Image.new("RGB", shape, (200, 30, 90)), name))
    assert (photo.width, photo.height) == shape
    assert np.abs(photo.pixels.reshape(-1, 3).mean(axis=0) - (200, 30, 90)).max() <= 4


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_grey(name: str) -> None:
    grey = scene().convert("L")
    _assert_near(load_photo(encoded(grey, name)).pixels, _squashed(grey), 1.5)


def test_cmyk_as_adobe_writes_it() -> None:
    """Adobe stores CMYK inverted and says so in an APP14 marker, which Pillow writes and reads too."""
    data = encoded(scene().convert("CMYK"), quality=95)
    assert b"Adobe" in data
    _assert_near(load_photo(data).pixels, _squashed(scene()), 2)


def test_cmyk_without_adobes_marker() -> None:
    """Pillow treats every CMYK JPEG as inverted, since nearly all are Adobe's; so do training and counting."""
    data = encoded(scene().convert("CMYK"), quality=95)
    start = data.index(b"\xff\xee")
    plain = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) :]
    assert b"Adobe" not in plain
    _assert_near(load_photo(plain).pixels, _squashed(scene()), 2)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
def test_png_of_16_bits(colour: int, channels: int) -> None:
    """16 bits are scaled to 8, not clipped to white."""
    across = np.linspace(0, 65535, WIDTH).astype(">u2")
    row = b"\0" + across[:, None].repeat(channels, axis=1).tobytes()
    pixels = load_photo(png(WIDTH, HEIGHT, 16, colour, row * HEIGHT)).pixels
    expected = Image.fromarray((across >> 8).astype(np.uint8)[None].repeat(HEIGHT, axis=0))
    _assert_near(pixels, _squashed(expected), 0.5, 1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits(bits: int) -> None:
    pixels = load_photo(png(WIDTH, HEIGHT, bits, 0, (b"\0" + b"\xff" * (WIDTH * bits // 8)) * HEIGHT)).pixels
    assert (pixels == 255).all()


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [
        ("1", None),
        ("LA", None),
        ("RGBA", None),
        ("P", None),
        ("P", 3),
        ("P", bytes([0, 100, *[255] * 254])),
        ("L", 7),
        ("RGB", (0, 0, 255)),
    ],
    ids=str,
)
def test_png_modes(mode: str, transparency: object) -> None:
    """Transparent pixels keep their colour, without warnings (which are errors here)."""
    image = scene().quantize(256) if mode == "P" else scene().convert(mode)
    options = {} if transparency is None else {"transparency": transparency}
    expected = _squashed(image.convert("RGB"))
    _assert_near(load_photo(encoded(image, "PNG", **options)).pixels, expected, 0)


def test_alpha_does_not_change_colours() -> None:
    image = scene().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    _assert_near(load_photo(encoded(image, "PNG")).pixels, _squashed(scene()), 0)
    _assert_near(load_photo(encoded(image, "WEBP", lossless=True, exact=True)).pixels, _squashed(scene()), 0)


@pytest.mark.parametrize(
    "mode", ["I;16", "I;16B", "I", "F", "P", "LA", "PA", "RGBA", "RGBX", "YCbCr", "CMYK", "1", "L"]
)
def test_all_pillow_modes_are_converted(mode: str) -> None:
    if mode.startswith("I;16"):
        image = Image.frombytes(mode, (4, 4), (b"\x34\x80" if mode == "I;16" else b"\x80\x34") * 16)
    else:
        image = Image.new(mode, (4, 4), {"I": 0x8034, "F": 128.0}.get(mode, 0))
    converted = _to_rgb(image)
    assert converted.mode == "RGB"
    if mode[0] in "IF":
        assert converted.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("name", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation(name: str) -> None:
    second = Image.new("RGB", (WIDTH, HEIGHT), "white")
    data = encoded(Image.new("RGB", (WIDTH, HEIGHT), "black"), name, save_all=True, append_images=[second])
    assert load_photo(data).pixels.max() <= 1


def test_a_multi_picture_jpeg_of_a_phone() -> None:
    """Phones append a preview or depth map; Pillow calls such a JPEG MPO."""
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=95)
    photo = load_photo(data)
    assert (photo.width, photo.height) == (WIDTH, HEIGHT)
    _assert_near(photo.pixels, _squashed(scene()), 1.5)


# EXIF orientation → how a camera held that way stores an upright scene.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_comes_out_upright(orientation: int, name: str) -> None:
    how = STORED[orientation]
    stored = scene() if how is None else scene().transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = load_photo(
        encoded(stored, name, exif=exif.tobytes(), **({"quality": 95} if name not in ("PNG", "TIFF") else {}))
    )
    turned_by_decoder = name in ("TIFF", "HEIF")
    assert (photo.width, photo.height) == (scene() if turned_by_decoder else stored).size
    _assert_near(photo.pixels, _squashed(scene()), 3, 40)


def test_heif_without_its_decoder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    reason, words = _reason(encoded(scene(), "HEIF"))
    assert reason is Reason.UNSUPPORTED_FORMAT
    assert "pillow-heif is not installed (Binwatch's extra `heic`)" in words


def test_a_tiff_of_a_million_tags_is_refused_at_once() -> None:
    reason, _ = _reason(b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535))
    assert reason is Reason.CORRUPT


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientations_are_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _assert_near(load_photo(encoded(scene(), exif=exif, quality=95)).pixels, _squashed(scene()), 1.5)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"garbage", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01"])
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_damaged_exif_data_is_ignored(name: str, exif: bytes) -> None:
    data = encoded(scene(), name, exif=b"Exif\0\0" + exif if name == "JPEG" else exif)
    _assert_near(load_photo(data).pixels, _squashed(scene()), 2)


def test_a_draft_is_close_to_a_full_decode() -> None:
    """libjpeg's scaled decoding is a box filter; the difference must be far too small to change a count."""
    for width, height in [(448, 448), (900, 700), (2400, 1800), (5000, 300)]:
        data = encoded(scene(width, height), quality=95)
        with Image.open(io.BytesIO(data)) as full:
            expected = _squashed(full)
        _assert_near(load_photo(data).pixels, expected, 1, 6)


def test_the_same_bytes_give_the_same_pixels_in_every_thread() -> None:
    photos = [encoded(scene(700, 500), name) for name in FORMATS] * 8
    sequential = [load_photo(data).pixels for data in photos]
    with ThreadPoolExecutor(8) as pool:
        for pixels, expected in zip(pool.map(load_photo, photos), sequential, strict=True):
            assert np.array_equal(pixels.pixels, expected)


def test_first_photos_in_eight_threads() -> None:
    """Pillow loads its decoders when the first photo is opened, which must not fail in concurrent threads."""
    program = f"""
import sys, threading
from binwatch.image import load_photo
data = bytes.fromhex({encoded(scene(64, 48), "WEBP").hex()!r})
start, results = threading.Barrier(8), []
def run():
    start.wait()
    try:
        results.append(load_photo(data).format)
    except Exception as error:
        results.append(repr(error))
threads = [threading.Thread(target=run) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
assert results == ["WEBP"] * 8, results
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize(
    ("name", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {}), ("GIF", {})],
    ids=["jpeg", "progressive", "png", "webp", "bmp", "gif"],
)
def test_truncated_photos_are_refused(name: str, options: dict[str, object], tenth: int) -> None:
    noise = Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB")
    data = encoded(noise, name, **options)
    reason, message = _reason(data[: len(data) * tenth // 10])
    if tenth == 0:
        assert (reason, message) == (Reason.EMPTY, "the file is empty (0 bytes); upload the photo again")
    else:
        assert reason in {Reason.TRUNCATED, Reason.CORRUPT}
        assert "photo again" in message or "cut off" in message
        if name in {"PNG", "BMP"} or (name == "JPEG" and tenth > 2):
            assert reason is Reason.TRUNCATED


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 8, 12, 20, 30])
@pytest.mark.parametrize("name", FORMATS)
def test_photos_truncated_in_the_header_are_refused(name: str, kept: int) -> None:
    reason, _ = _reason(encoded(scene(), name)[:kept])
    assert reason in {Reason.TRUNCATED, Reason.CORRUPT, Reason.NOT_AN_IMAGE}
    if kept >= 4 and name not in {"WEBP"}:
        assert reason is not Reason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello, this is text", "b'hello, t', are not those of an image"),
        (b"<!doctype html><title>403</title>", "not those of an image"),
        (b"\0" * 1000, "not those of an image"),
        (b"{}", "not those of an image"),
        (b"P6\n1 1\n255\n\0\0\0", "not those of an image"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not those of an image"),
    ],
)
def test_other_data_is_refused(data: bytes, words: str) -> None:
    reason, message = _reason(data)
    assert reason is Reason.NOT_AN_IMAGE
    assert words in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encoded(Image.new("F", (8, 8)), "TIFF"), "TIFF of numbers that are not whole"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF or video"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "ICO files are not counted"),
        (b"8BPS\0\x01", "PSD files are not counted"),
        (b"%PDF-1.7", "PDF files are not counted"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 files are not counted"),
    ],
)
def test_unsupported_formats_are_named(data: bytes, words: str) -> None:
    reason, message = _reason(data)
    assert reason is Reason.UNSUPPORTED_FORMAT
    assert words in message
    assert "; save it in" in message or message.endswith("; send JPEG, PNG, WEBP, BMP, GIF, TIFF")


def test_too_many_bytes_are_refused() -> None:
    data = encoded(scene())
    assert load_photo(data, limits=ImageLimits(max_bytes=len(data))).format == "JPEG"
    reason, message = _reason(data, ImageLimits(max_bytes=len(data) - 1))
    assert reason is Reason.TOO_LARGE
    assert message == f"the file has {len(data):,} bytes, over the limit of {len(data) - 1:,}"


@pytest.mark.parametrize("name", FORMATS)
def test_too_many_pixels_are_refused(name: str) -> None:
    data = encoded(scene(), name)
    assert load_photo(data, limits=ImageLimits(max_pixels=WIDTH * HEIGHT)).format == name
    reason, message = _reason(data, ImageLimits(max_pixels=WIDTH * HEIGHT - 1))
    assert reason is Reason.TOO_MANY_PIXELS
    assert message == "400×300 pixels over the limit of 119,999 pixels"


@pytest.mark.parametrize("fatal", [True, False], ids=["warnings are errors", "warnings are ignored"])
@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (9_500, 9_500), (2**31 - 1, 2**31 - 1), (65_535, 1_000)]
)
def test_excessive_dimensions_in_the_header_are_refused(width: int, height: int, fatal: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error" if fatal else "ignore")
        reason, message = _reason(png(width, height, 8, 2))
    assert reason is Reason.TOO_MANY_PIXELS
    assert message.endswith("over the limit of 50,000,000 pixels")
    if width * height < PILLOW_MAX_PIXELS:
        assert message.startswith(f"{width}×{height} pixels")


def test_a_gif_frame_larger_than_its_screen() -> None:
    data = bytearray(encoded(scene().quantize(16), "GIF"))
    frame = data.index(b",\0\0\0\0")
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert _reason(bytes(data))[0] is Reason.TOO_MANY_PIXELS


def test_refused_photos_use_little_memory(tmp_path: Path) -> None:
    """A 20,000×20,000 PNG would need 1.2 GB, a 13,000×13,000 WebP 676 MB."""
    size = (12_999).to_bytes(3, "little")
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + size
    webp = b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp
    oversized = png(20_000, 20_000, 1, 0, (b"\0" + bytes(2_500)) * 20_000)
    bomb = png(100, 100, 8, 2, b"\0" * 200_000_000)  # far more data than the header's pixels need
    program = f"""
import re, warnings
from pathlib import Path
from binwatch.image import load_photo
from binwatch.errors import PhotoError
def peak():  # VmHWM: ru_maxrss would be that of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
photos = [bytes.fromhex(text) for text in {[png(20_000, 20_000, 8, 2).hex(), webp.hex()]!r}]
photos += [open(path, "rb").read() for path in __import__("sys").argv[1:]]
warnings.simplefilter("ignore")
before = peak()
for photo in photos:
    try:
        load_photo(photo)
    except PhotoError:
        pass
print(peak() - before)
"""
    paths = [tmp_path / "whole.png", tmp_path / "bomb.png"]
    for path, data in zip(paths, [oversized, bomb], strict=True):
        path.write_bytes(data)
    command = [sys.executable, "-c", program, *map(str, paths)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert int(answer.stdout) < 40  # MiB


SAMPLES = sorted((Path(__file__).parents[2] / "samples" / "bin-images").glob("*.jpg"))


def test_real_photos() -> None:
    """All photos of real bins are decoded, and libjpeg's scaling stays close to a full decode (at most 2.5 of 255)."""
    assert len(SAMPLES) > 100
    for path in SAMPLES:
        photo = load_photo(path.read_bytes())
        with Image.open(path) as full:
            assert (photo.width, photo.height) == full.size
            _assert_near(photo.pixels, _squashed(full), 3)


@pytest.mark.parametrize("path", SAMPLES[::20], ids=lambda path: path.stem)
def test_truncated_real_photos_are_refused(path: Path) -> None:
    data = path.read_bytes()
    for tenth in range(1, 10):
        assert _reason(data[: len(data) * tenth // 10])[0] in {Reason.TRUNCATED, Reason.CORRUPT}


MUTABLE = {name: encoded(scene(120, 90), name) for name in FORMATS}
MUTABLE["progressive"] = encoded(scene(120, 90), progressive=True)
MUTABLE["exif"] = encoded(
    scene(120, 90), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
)
MUTABLE["palette"] = encoded(scene(120, 90).quantize(32), "PNG", transparency=bytes(32))
if SAMPLES:
    MUTABLE["real"] = SAMPLES[0].read_bytes()
MUTABLE["animation"] = encoded(scene(60, 40), "WEBP", save_all=True, append_images=[scene(60, 40).rotate(90)])


def _loads_or_refuses(data: bytes) -> None:
    try:
        photo = load_photo(data, size=32, limits=ImageLimits(max_pixels=4_000_000))
    except PhotoError as refused:
        message = str(refused)
    else:
        assert photo.pixels.shape == (32, 32, 3)
        assert photo.pixels.dtype == np.uint8
        message = "none"
    assert 0 < len(message) < 500
    assert "\0" not in message  # PostgreSQL cannot store NUL
    message.encode()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(MUTABLE)), st.data())
def test_damaged_photos(name: str, data: st.DataObject) -> None:
    photo = bytearray(MUTABLE[name])
    # Most damage is in the headers, where it has the most effects.
    places = st.integers(0, min(700, len(photo) - 1)) | st.integers(0, len(photo) - 1)
    for _ in range(data.draw(st.integers(0, 6))):
        photo[data.draw(places)] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(photo)) | st.integers(0, len(photo)))
    _loads_or_refuses(bytes(photo[:end]))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X"]),
    st.binary(max_size=300),
)
@example(b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", b"\0" * 13))
@example(b"", b"\xff\xd8\xff\xe0\0\0")
@example(
    b"\x89PNG\r\n\x1a\n",
    chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"acTL", b"\0\0\0\x02\0\0\0\0"),
)
def test_any_bytes(start: bytes, rest: bytes) -> None:
    _loads_or_refuses(start + rest)
