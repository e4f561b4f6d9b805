"""Fuzz test of decoding. A mutated photo may not crash a process, hang, use much memory, or raise any other error than
PhotoError.

    python -m benchmarks.fuzz_photos --photos 10000

A process decodes them one after the other, with a limit on its address space. If it dies, another one continues after
the photo that caused it. A photo is reproduced by its number: `--first N --photos 1 --keep FILE`. Exits with 1 if there
was a problem. Needs Linux.
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
LARGEST = 24 * 2**20
"""Largest number of bytes that a mutation adds."""
TIFFS = [
    *(("RGB", how) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
    *(("1", "group4"), ("L", "tiff_lzw"), ("P", "raw"), ("CMYK", "raw"), ("RGBA", "tiff_adobe_deflate")),
]
SLOW_S, LARGE_MIB = 10.0, 300
"""Limits: processor time of a photo, and growth of the process's memory for it."""
SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "bin-images").glob("*.jpg"))[::30]
_HANGS_S = 120
"""Processor time for one photo after which the kernel ends the process."""


@dataclass
class DecodingReport:
    """Outcomes of all photos."""

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
    """Decode `photos` mutated photos in other processes."""
    findings, end = DecodingReport(), first + photos
    while first < end:
        command = [sys.executable, "-m", "benchmarks.fuzz_photos", "--child", "--seed", str(seed)]
        command += ["--first", str(first), "--photos", str(end - first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                findings.add(*json.loads(line))
                first = json.loads(line)[0] + 1
        if child.returncode:
            findings.problems.append(f"photo {first}: the process ended with {child.returncode}")
            first += 1
    return findings


def decode_all(first: int, photos: int, seed: int) -> None:
    """The child process: decode photos, and print a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for number in range(first, first + photos):
        data = photo(number, seed)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + _HANGS_S, resource.RLIM_INFINITY))
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, began = _memory("VmRSS"), time.process_time()
        outcome = _outcome(data)
        seconds, grown = time.process_time() - began, _memory("VmHWM") - before
        print(json.dumps([number, outcome, seconds, grown]), flush=True)


def _outcome(data: bytes) -> str:
    try:
        return f"decoded {load_photo(data).format}"
    except PhotoError as error:
        return error.reason
    except BaseException as error:
        return f"raised {type(error).__name__}: {error}"


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024


def photo(number: int, seed: int = 1) -> bytes:
    """The mutated photo with a number."""
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
    more = {"save_all": True, "append_images": [small.rotate(90)]}
    rows = [Image.new("P", (6000, 6000)), Image.new("RGBA", (4000, 4000)), Image.new("1", (7000, 7000))]
    return [
        *(path.read_bytes() for path in SAMPLES),
        *(_again(path.read_bytes(), progressive=True) for path in SAMPLES[:3]),
        *(_again(path.read_bytes(), restart_marker_blocks=3) for path in SAMPLES[:2]),
        *(encoded(small, name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")),
        *(encoded(small.convert(mode), quality=90, exif=exif) for mode in ("L", "CMYK")),
        *(encoded(small, "JPEG", progressive=True, subsampling=how, exif=exif) for how in (0, 1, 2)),
        *(encoded(small.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")),
        *(encoded(small, "WEBP", lossless=lossless, exif=exif, xmp=b"x" * 99) for lossless in (True, False)),
        *(encoded(small, name, **more) for name in ("WEBP", "GIF", "PNG", "MPO")),
        *(encoded(small.convert(mode), "BMP") for mode in ("1", "L", "P", "RGBA")),
        *(encoded(small.quantize(8), "GIF", interlace=how, transparency=3) for how in (0, 1)),
        png(120, 90, 16, 2, (b"\0" + bytes(720)) * 90),
        png(120, 90, 16, 0, (b"\0" + bytes(240)) * 90),
        *(encoded(flat, name) for name in ("JPEG", "PNG", "GIF")),
        encoded(flat, "JPEG", progressive=True),
        encoded(flat, "WEBP", lossless=True, method=0),
        *(encoded(image, "PNG") for image in rows),
        _run_lengths(),
        *(encoded(small.convert(mode), "TIFF", compression=how) for mode, how in TIFFS),
        encoded(flat, "TIFF", compression="tiff_lzw"),
        encoded(small, "TIFF", save_all=True, append_images=[small.rotate(90)]),
        *(encoded(small.convert(mode), "HEIF", quality=90, exif=exif) for mode in ("L", "RGB", "RGBA")),
        encoded(flat, "HEIF", quality=50),
    ]


def _again(data: bytes, **options: object) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return encoded(image, **options)


def _run_lengths() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + b"\xff\0" * 5000


Mutation = Callable[[bytes, Random], bytes]


def _place(data: bytes, random: Random) -> int:
    """A random position, most often in the first bytes, which are headers."""
    return random.randrange(min(len(data), random.choice([64, 700, 700, len(data)]))) if data else 0


def _bytes(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5, 20]) if changed else 0):
        changed[_place(data, random)] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)])
    return bytes(changed)


def _number(data: bytes, random: Random) -> bytes:
    """Replace two or four bytes by an unusual number, as of a length, a width, or an offset."""
    at = _place(data, random)
    size, order = random.choice([2, 4]), random.choice(["<", ">"])
    value = random.choice([0, 1, 2, 255, 256, 7071, 32767, 65535, 2**24, 2**31 - 1, 2**32 - 1]) % 2 ** (8 * size)
    return data[:at] + struct.pack(order + ("H" if size == 2 else "I"), value) + data[at + size :]


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)] + random.choice([b"", b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82", b";"])


def _lose(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice([1, 2, 4, 13, 100, 4096]) :]


def _repeat(data: bytes, random: Random) -> bytes:
    """Repeat a piece of the file, such as a scan, a block or a chunk."""
    at, size = _place(data, random), random.choice([2, 4, 14, 60, 700])
    return data[:at] + _times(data[at : at + size], random.choice([2, 10, 1000, 20_000])) + data[at + size :]


def _times(piece: bytes, times: int) -> bytes:
    """The piece repeated, up to a size that is refused in any case."""
    return piece * min(times, LARGEST // max(1, len(piece)))


def _splice(data: bytes, random: Random) -> bytes:
    other = random.choice(seeds())
    return data[: _place(data, random)] + other[_place(other, random) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.choice([bytes(1000), b"\xff" * 1000, random.randbytes(50)]) + data[at:]


def _sound_header(data: bytes, random: Random) -> bytes:
    """A PNG with other dimensions, depth and colours, and a correct checksum."""
    if data[:4] != b"\x89PNG" or len(data) < 33:
        return _number(data, random)
    width, height = (random.choice([1, 2, 100, 5000, 7071, 65_535, 25_000_000]) for _ in range(2))
    colours = struct.pack(">BB", random.choice([1, 2, 4, 8, 16]), random.choice([0, 2, 3, 4, 6]))
    header = struct.pack(">II", width, height) + colours + bytes([0, 0, random.choice([0, 1])])
    return data[:8] + chunk(b"IHDR", header) + data[33:]


def _scans(data: bytes, random: Random) -> bytes:
    """Repeat the last scan of a JPEG, in a frame of other dimensions."""
    frame, last = data.find(b"\xff\xc2"), data.rfind(b"\xff\xda")
    if min(frame, last) < 0:
        return _repeat(data, random)
    size = struct.pack(">HH", *(random.choice([8, 1000, 6000, 65_000]) for _ in range(2)))
    data = data[: frame + 5] + size + data[frame + 9 :]
    return data[:-2] + _times(data[last:-2], random.choice([1, 30, 90, 5000])) + b"\xff\xd9"


def _zeros(data: bytes, random: Random) -> bytes:
    """A PNG of zeros, which compress to almost nothing."""
    width, height = (random.choice([1, 1000, 6000, 7000]) for _ in range(2))
    colour, size = random.choice([(0, 1), (2, 3), (6, 4), (4, 2)])
    return png(width, height, 8, colour, (b"\0" + bytes(width * size)) * height) + zlib.compress(data)[:10]


MUTATIONS: list[Mutation] = [
    *[_bytes, _number, _cut, _lose, _splice] * 4,
    *[_repeat, _insert, _sound_header, _scans] * 2,
    _zeros,
]


def main() -> None:
    """Print the outcomes of the photos."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first photo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="write the first photo to this file, and decode none")
    parser.add_argument("--child", action="store_true", help="decode in this process")
    options = parser.parse_args()
    if options.keep:
        options.keep.write_bytes(photo(options.first, options.seed))
    elif options.child:
        decode_all(options.first, options.photos, options.seed)
    else:
        findings = fuzz(options.first, options.photos, options.seed)
        show(findings)
        sys.exit(1 if findings.problems or findings.slow else 0)


def show(findings: DecodingReport) -> None:
    """Print the outcomes."""
    print(f"{findings.outcomes.total()} photos")
    for outcome, photos in findings.outcomes.most_common():
        print(f"{photos:>8}  {outcome}")
    print(f"slowest: photo {findings.slowest}, {findings.slowest_s:.2f} s of processor time")
    print(f"largest: photo {findings.largest}, {findings.largest_mib:.0f} MiB")
    for problem in findings.problems + findings.slow:
        print(f"PROBLEM {problem}")


if __name__ == "__main__":
    run(main, "dev")
