"""Embeddings in the records, in half precision: half the size, and far more precise than drift needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FLOAT16 = np.dtype("<f2")
_MAX_FLOAT16 = float(np.finfo(_FLOAT16).max)


def pack(embedding: npt.NDArray[np.float32]) -> bytes:
    """float32 (size,) → 2·size bytes, float16, little-endian."""
    return embedding.clip(-_MAX_FLOAT16, _MAX_FLOAT16).astype(_FLOAT16).tobytes()


def unpack(packed: bytes) -> npt.NDArray[np.float32]:
    """The result of `pack` → float32 (size,)."""
    return np.frombuffer(packed, _FLOAT16).astype(np.float32)
