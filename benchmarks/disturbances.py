"""Disturbances of photos, such as those caused by a camera or its lighting, each at three strengths."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]
STRENGTHS = ("weak", "medium", "strong")


def scaled(pixels: Pixels, factor: float) -> Pixels:
    return (pixels.astype(np.float32) * factor).clip(0, 255).astype(np.uint8)


def blurred(pixels: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def noisy(pixels: Pixels, sigma: float) -> Pixels:
    seed = int(pixels[::16, ::16].sum())  # the same photo gets the same noise in every run
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def shifted(pixels: Pixels, share: float) -> Pixels:
    """Moved to the right and down; the new pixels repeat the edge."""
    offset = round(share * len(pixels))
    return np.pad(pixels, ((offset, 0), (offset, 0), (0, 0)), mode="edge")[: len(pixels), : len(pixels)]


def zoomed(pixels: Pixels, factor: float) -> Pixels:
    side = len(pixels)
    edge = side * (1 - 1 / factor) / 2
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=(edge, edge, side - edge, side - edge)))


def compressed(pixels: Pixels, quality: float) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer))


def covered(pixels: Pixels, share: float) -> Pixels:
    """A vertical grey strip in the middle, such as tape or a strap."""
    out = pixels.copy()
    half = round(share * len(pixels) / 2)
    middle = len(pixels) // 2
    out[:, middle - half : middle + half] = 90
    return out


DISTURBANCES: dict[str, tuple[Callable[[Pixels, float], Pixels], tuple[float, float, float]]] = {
    "darker": (scaled, (0.9, 0.75, 0.5)),
    "brighter": (scaled, (1.1, 1.3, 1.7)),
    "blurred": (blurred, (0.6, 1.2, 2.5)),
    "noisy": (noisy, (4, 10, 25)),
    "shifted": (shifted, (0.03, 0.08, 0.2)),
    "zoomed": (zoomed, (1.05, 1.15, 1.4)),
    "compressed": (compressed, (50, 25, 8)),
    "covered": (covered, (0.04, 0.1, 0.25)),
}
"""Name → function and its parameter at each strength."""
