"""Shares of damaged and undamaged photos that are refused, and the processor time of the check.

JPEG has no checksums: damage is detected if the entropy-coded data does not end where it should.

    python -m benchmarks.broken_photos samples/bin-images --photos 120
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from PIL import Image

from binwatch.command_line import run
from binwatch.errors import PhotoError
from binwatch.image import INPUT_SIZE, load_photo
from binwatch.keys import ObjectKind, kind_of
from testing.damage import LARGE_DAMAGE, SMALL_DAMAGE

ENCODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "as it is": lambda data: data,
    "progressive": lambda data: _reencoded(data, progressive=True),
    "own tables": lambda data: _reencoded(data, optimize=True),
    "restart markers": lambda data: _reencoded(data, restart_marker_rows=1),
}


def main() -> None:
    """Damage photos in each way, and print the share of those that are refused."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=120, help="number of photos to damage; all are tried undamaged")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.iterdir() if kind_of(path.name) is ObjectKind.PHOTO)
    photos = [path.read_bytes() for path in paths]
    refused = [path.name for path, data in zip(paths, photos, strict=True) if _is_refused(data)]
    print(f"{len(photos)} undamaged photos, refused: {len(refused)} {' '.join(refused[:5])}")
    photos = photos[:: max(1, len(photos) // options.photos)][: options.photos]
    print(f"{len(photos)} photos, each damaged once in each way; share refused\n")
    print(f"{'':24}" + "".join(f"{name:>17}" for name in ENCODINGS))
    versions = [[encode(data) for data in photos] for encode in ENCODINGS.values()]
    for name, damage in (LARGE_DAMAGE | SMALL_DAMAGE).items():
        random = Random(options.seed)
        shares = [sum(_is_refused(damage(data, random)) for data in version) / len(photos) for version in versions]
        print(f"{name:24}" + "".join(f"{share:>17.1%}" for share in shares), flush=True)
    binwatch_ms, pillow_ms = (
        1e3 * min(_seconds_per_photo(photos, decode) for _ in range(5)) for decode in (load_photo, _decode_with_pillow)
    )
    print(f"\nprocessor time of a photo: {binwatch_ms:.2f} ms; by Pillow, which detects no damage, {pillow_ms:.2f} ms")


def _reencoded(data: bytes, **options: object) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(file, "JPEG", quality=85, **options)
    return file.getvalue()


def _is_refused(data: bytes) -> bool:
    try:
        load_photo(data)
    except PhotoError:
        return True
    return False


def _decode_with_pillow(data: bytes) -> object:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (INPUT_SIZE, INPUT_SIZE))
        return image.convert("RGB").resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BILINEAR)


def _seconds_per_photo(photos: list[bytes], decode: Callable[[bytes], object]) -> float:
    began = time.process_time()
    for data in photos:
        decode(data)
    return (time.process_time() - began) / len(photos)


if __name__ == "__main__":
    run(main, "dev")
