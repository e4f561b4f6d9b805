"""Fuzz test of decoding. A mutated photo must not crash a process, hang, use much memory, or raise an error other than
PhotoError.

    python -m benchmarks.fuzz_photos --photos 10000

A child process decodes the photos one after the other, with a limit on its address space. If it dies, another continues
after the photo that caused it. A photo can be reproduced by its number: `--first N --photos 1 --keep FILE`. Exits with
status 1 if there was a problem. Needs Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from binwatch.command_line import run
from binwatch.errors import PhotoError
from binwatch.image import load_photo
from testing.photos import chunk, encoded, png, scene

ADDRESS_SPACE = 2 * 2**30
"""Limit in bytes. A photo that needs more causes a MemoryError, which is reported."""
MAX_ADDED_BYTES = 24 * 2**20
"""Maximum number of bytes that a mutation adds."""
TIFF_VARIANTS = [
    *(("RGB", compression) for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
    *(("1", "group4"), ("L", "tiff_lzw"), ("P", "raw"), ("CMYK", "raw"), ("RGBA", "tiff_adobe_deflate")),
]
SLOW_S, LARGE_MIB = 10.0, 300
"""Limits for one photo: processor time in seconds, and growth of the process's memory in MiB."""
SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "bin-images").glob("*.jpg"))[::30]
_HANG_S = 120
"""Processor time for one photo after which the kernel kills the process."""


@dataclass
class DecodingReport:
    """Outcomes of all photos. `slowest` and `largest` are numbers of photos."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: int = 0
    largest_mib: float = 0.0
    largest: int = 0

    def add(self, number: int, outcome: str, seconds: float, mib: float) -> None:
        """Add the outcome of one photo."""
        self.outcomes[outcome] += 1
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, number
        if mib > self.largest_mib:
            self.largest_mib, self.largest = mib, number
        if outcome.startswith("raised") or mib > LARGE_MIB:
            self.problems.append(f"photo {number}: {outcome}, {mib:.0f} MiB")
        if seconds > SLOW_S:
            self.slow.append(f"photo {number}: {outcome}, {seconds:.1f} s")


def fuzz(first: int, photos: int, seed: int = 1) -> DecodingReport:
    """Decode `photos` mutated photos in child processes."""
    report, end = DecodingReport(), first + photos
    while first < end:
        command = [sys.executable, "-m", "benchmarks.fuzz_photos", "--child", "--seed", str(seed)]
        command += ["--first", str(first), "--photos", str(end - first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                report.add(*json.loads(line))
                first = json.loads(line)[0] + 1
        if child.returncode:
            report.problems.append(f"photo {first}: the process ended with {child.returncode}")
            first += 1
    return report


def decode_all(first: int, photos: int, seed: int) -> None:
    """Decode photos in this process, the child, and print a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for number in range(first, first + photos):
        data = photo(number, seed)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + _HANG_S, resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
        before, began = _memory_mib("VmRSS"), time.process_time()
        outcome = _outcome(data)
        seconds, grown = time.process_time() - began, _memory_mib("VmHWM") - before
        print(json.dumps([number, outcome, seconds, grown]), flush=True)


def _outcome(data: bytes) -> str:
    try:
        return f"decoded {load_photo(data).format}"
    except PhotoError as error:
        return error.reason
    except BaseException as error:
        return f"raised {type(error).__name__}: {error}"


def _memory_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def photo(number: int, seed: int = 1) -> bytes:
    """The mutated photo of a number and a seed."""
    random = Random(f"{seed} {number}")
    data = random.choice(seeds())
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        data = random.choice(MUTATIONS)(data, random)
    return data


@cache
def seeds() -> list[bytes]:
    """Valid photos of all kinds, small and large, and a few whose headers declare more than the files contain."""
    small, flat = scene(120, 90), Image.new("RGB", (3000, 2000), "tan")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    animation = {"save_all": True, "append_images": [small.rotate(90)]}
    blank = [Image.new("P", (6000, 6000)), Image.new("RGBA", (4000, 4000)), Image.new("1", (7000, 7000))]
    return [
        *(path.read_bytes() for path in SAMPLES),
        *(_reencoded(path.read_bytes(), progressive=True) for path in SAMPLES[:3]),
        *(_reencoded(path.read_bytes(), restart_marker_blocks=3) for path in SAMPLES[:2]),
        *(encoded(small, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")),
        *(encoded(small.convert(mode), quality=90, exif=exif) for mode in ("L", "CMYK")),
        *(encoded(small, "JPEG", progressive=True, subsampling=subsampling, exif=exif) for subsampling in (0, 1, 2)),
        *(encoded(small.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")),
        *(encoded(small, "WEBP", lossless=lossless, exif=exif, xmp=b"x" * 99) for lossless in (True, False)),
        *(encoded(small, name, **animation) for name in ("WEBP", "GIF", "PNG", "MPO")),
        *(encoded(small.convert(mode), "BMP") for mode in ("1", "L", "P", "RGBA")),
        *(encoded(small.quantize(8), "GIF", interlace=interlace, transparency=3) for interlace in (0, 1)),
        png(120, 90, 16, 2, (b"\0" + bytes(720)) * 90),
        png(120, 90, 16, 0, (b"\0" + bytes(240)) * 90),
        *(encoded(flat, name) for name in ("JPEG", "PNG", "GIF")),
        encoded(flat, "JPEG", progressive=True),
        encoded(flat, "WEBP", lossless=True, method=0),
        *(encoded(image, "PNG") for image in blank),
        _run_length_bmp(),
        *(encoded(small.convert(mode), "TIFF", compression=compression) for mode, compression in TIFF_VARIANTS),
        encoded(flat, "TIFF", compression="tiff_lzw"),
        encoded(small, "TIFF", save_all=True, append_images=[small.rotate(90)]),
        *(encoded(small.convert(mode), "HEIF", quality=90, exif=exif) for mode in ("L", "RGB", "RGBA")),
        encoded(flat, "HEIF", quality=50),
    ]


def _reencoded(data: bytes, **options: object) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return encoded(image, **options)


def _run_length_bmp() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + b"\xff\0" * 5000


Mutation = Callable[[bytes, Random], bytes]


def _random_offset(data: bytes, random: Random) -> int:
    """A random offset, most often in the first bytes, which are headers."""
    return random.randrange(min(len(data), random.choice([64, 700, 700, len(data)]))) if data else 0


def _change_bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5, 20]) if changed else 0):
        changed[_random_offset(data, random)] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
    return bytes(changed)


def _change_number(data: bytes, random: Random) -> bytes:
    """Replace two or four bytes by an extreme number, as if it were a length, a width, or an offset."""
    offset = _random_offset(data, random)
    size, order = random.choice([2, 4]), random.choice(["<", ">"])
    value = random.choice([0, 1, 2, 255, 256, 7071, 32767, 65535, 2**24, 2**31 - 1, 2**32 - 1]) % 2 ** (8 * size)
    return data[:offset] + struct.pack(order + ("H" if size == 2 else "I"), value) + data[offset + size :]


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: _random_offset(data, random)] + random.choice([b"", b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82", b";"])


def _delete(data: bytes, random: Random) -> bytes:
    offset = _random_offset(data, random)
    return data[:offset] + data[offset + random.choice([1, 2, 4, 13, 100, 4096]) :]


def _repeat(data: bytes, random: Random) -> bytes:
    """Repeat a piece of the file, such as a scan, a block or a chunk."""
    offset, size = _random_offset(data, random), random.choice([2, 4, 14, 60, 700])
    return (
        data[:offset]
        + _repeated(data[offset : offset + size], random.choice([2, 10, 1000, 20_000]))
        + data[offset + size :]
    )


def _repeated(piece: bytes, times: int) -> bytes:
    """The piece repeated up to MAX_ADDED_BYTES, a size that is always refused."""
    return piece * min(times, MAX_ADDED_BYTES // max(1, len(piece)))


def _splice(data: bytes, random: Random) -> bytes:
    other = random.choice(seeds())
    return data[: _random_offset(data, random)] + other[_random_offset(other, random) :]


def _insert(data: bytes, random: Random) -> bytes:
    offset = _random_offset(data, random)
    return data[:offset] + random.choice([bytes(1000), b"\xff" * 1000, random.randbytes(50)]) + data[offset:]


def _change_png_header(data: bytes, random: Random) -> bytes:
    """Change the dimensions, depth and colour type of a PNG, with a correct checksum."""
    if data[:4] != b"\x89PNG" or len(data) < 33:
        return _change_number(data, random)
    width, height = (random.choice([1, 2, 100, 5000, 7071, 65_535, 25_000_000]) for _ in range(2))
    colours = struct.pack(">BB", random.choice([1, 2, 4, 8, 16]), random.choice([0, 2, 3, 4, 6]))
    header = struct.pack(">II", width, height) + colours + bytes([0, 0, random.choice([0, 1])])
    return data[:8] + chunk(b"IHDR", header) + data[33:]


def _repeat_scan(data: bytes, random: Random) -> bytes:
    """Change the dimensions of a JPEG's frame, and repeat the last scan."""
    frame, last = data.find(b"\xff\xc2"), data.rfind(b"\xff\xda")
    if min(frame, last) < 0:
        return _repeat(data, random)
    size = struct.pack(">HH", *(random.choice([8, 1000, 6000, 65_000]) for _ in range(2)))
    data = data[: frame + 5] + size + data[frame + 9 :]
    return data[:-2] + _repeated(data[last:-2], random.choice([1, 30, 90, 5000])) + b"\xff\xd9"


def _blank_png(data: bytes, random: Random) -> bytes:
    """Replace the photo by a large PNG of zeros, which is a small file."""
    width, height = (random.choice([1, 1000, 6000, 7000]) for _ in range(2))
    colour, size = random.choice([(0, 1), (2, 3), (6, 4), (4, 2)])
    return png(width, height, 8, colour, (b"\0" + bytes(width * size)) * height) + zlib.compress(data)[:10]


MUTATIONS: list[Mutation] = [
    *[_change_bytes, _change_number, _truncate, _delete, _splice] * 4,
    *[_repeat, _insert, _change_png_header, _repeat_scan] * 2,
    _blank_png,
]


def main() -> None:
    """Decode mutated photos and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first photo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the first photo to this file, and decode nothing")
    parser.add_argument("--child", action="store_true", help="decode in this process")
    options = parser.parse_args()
    if options.keep:
        options.keep.write_bytes(photo(options.first, options.seed))
    elif options.child:
        decode_all(options.first, options.photos, options.seed)
    else:
        report = fuzz(options.first, options.photos, options.seed)
        show(report)
        sys.exit(1 if report.problems or report.slow else 0)


def show(report: DecodingReport) -> None:
    """Print the outcomes."""
    print(f"{report.outcomes.total()} photos")
    for outcome, photos in report.outcomes.most_common():
        print(f"{photos:>8}  {outcome}")
    print(f"slowest: photo {report.slowest}, {report.slowest_s:.2f} s of processor time")
    print(f"largest: photo {report.largest}, {report.largest_mib:.0f} MiB")
    for problem in report.problems + report.slow:
        print(f"PROBLEM {problem}")


if __name__ == "__main__":
    run(main, "dev")
