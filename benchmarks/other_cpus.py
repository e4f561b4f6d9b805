"""Compares the counts of the sample photos on other CPUs, emulated by qemu-user, with those on this one.

    python -m benchmarks.other_cpus [--cpu Haswell] [--cpu SandyBridge] [--photos 122]

Needs an x86-64 machine and the Debian package qemu-user. Haswell has AVX2 and SandyBridge AVX, and neither has VNNI;
qemu 7.2 emulates no AVX-512. A photo takes 4 seconds of processor time. `--plain` disables the self-check and the
session options that keep int8 products exact, to show their effect. Exits with status 1 if a count differs.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from binwatch import onnx_session
from binwatch.bundle import Bundle
from binwatch.settings import DEFAULT_MODEL, Provider
from worker.engine import Engine

SAMPLES = Path(__file__).parents[1] / "samples" / "bin-images"
QEMU = "qemu-x86_64"
BATCH_SIZE = 4


@dataclass(frozen=True)
class CpuOutputs:
    """The outputs of one CPU for all photos."""

    probabilities: np.ndarray
    self_check: str
    options: str
    seconds: float

    @property
    def counts(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)


def missing_requirement() -> str | None:
    """The reason why this machine cannot emulate another CPU; None if it can."""
    if platform.machine() != "x86_64":
        return f"this machine is {platform.machine()}, and cannot run an x86-64 Python"
    return None if shutil.which(QEMU) else f"no {QEMU}: install the Debian package qemu-user"


def write_outputs(model: Path, pixels: Path, out: Path, *, plain: bool) -> None:
    """Count decoded photos on the CPU of this process, which may be emulated, and write the outputs to `out`."""
    bundle = Bundle(model)
    if plain:
        onnx_session.exact_int8_options = dict
        card = bundle.card
        variants = {name: each.model_copy(update={"self_check": None}) for name, each in card.variants.items()}
        bundle.card = card.model_copy(update={"variants": variants})
    began = time.perf_counter()
    engine = Engine(bundle, provider=Provider.CPU, threads=1)
    photos = np.load(pixels)
    batches = [engine.infer(photos[start : start + BATCH_SIZE]) for start in range(0, len(photos), BATCH_SIZE)]
    options = " ".join(f"{name}={value}" for name, value in onnx_session.exact_int8_options().items())
    with out.open("wb") as file:
        np.savez(
            file,
            probabilities=np.concatenate([batch.probabilities for batch in batches]),
            self_check=f"{engine.precision} {engine.self_check}",
            options=options or "none",
            seconds=time.perf_counter() - began,
        )


def outputs_of_cpu(cpu: str | None, model: Path, pixels: Path, *, plain: bool = False) -> CpuOutputs:
    """Count decoded photos in a new process, on an emulated CPU or, if `cpu` is None, on this one."""
    out = pixels.with_suffix(f".{cpu}.npz")
    emulated = [QEMU, "-cpu", cpu] if cpu else []
    command = [*emulated, sys.executable, "-m", "benchmarks.other_cpus", "--answer", str(pixels), str(out)]
    arguments = ["--model", str(model), *(["--plain"] if plain else [])]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        # In each thread, qemu warns about features that it does not emulate.
        lines = [line for line in result.stderr.splitlines() if "TCG doesn't support" not in line]
        raise SystemExit("\n".join([f"{cpu or 'this CPU'}: exit status {result.returncode}", *lines[-20:]]))
    with np.load(out) as arrays:
        return CpuOutputs(
            arrays["probabilities"], str(arrays["self_check"]), str(arrays["options"]), float(arrays["seconds"])
        )


def decode_samples(model: Path, photos: int) -> np.ndarray:
    """The first sample photos with the model's preprocessing."""
    card = Bundle(model).card
    files = sorted(SAMPLES.glob("*.jpg"))[:photos]
    return np.stack([card.load_photo(file.read_bytes()).pixels for file in files])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="append", help="one of qemu-x86_64 -cpu help; default: Haswell, SandyBridge")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--photos", type=int, default=122)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--answer", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        return write_outputs(options.model, *options.answer, plain=options.plain)
    reason = missing_requirement()
    if reason:
        raise SystemExit(reason)
    with TemporaryDirectory() as folder:
        pixels = Path(folder) / "photos.npy"
        np.save(pixels, decode_samples(options.model, options.photos))
        this_cpu = outputs_of_cpu(None, options.model, pixels)
        print("CPU            other counts  largest difference  mean class  session options, self-check")
        same = True
        for cpu in (None, *(options.cpu or ("Haswell", "SandyBridge"))):
            outputs = outputs_of_cpu(cpu, options.model, pixels, plain=options.plain) if cpu else this_cpu
            differing = int((outputs.counts != this_cpu.counts).sum())
            max_difference = float(np.abs(outputs.probabilities - this_cpu.probabilities).max())
            same &= differing == 0
            print(
                f"{cpu or 'this one':<14}{f'{differing} of {len(outputs.counts)}':>13}{max_difference:>20.3g}"
                f"{outputs.counts.mean():>12.2f}  {outputs.options}, {outputs.self_check} ({outputs.seconds:.0f} s)"
            )
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
