"""Embeddings in the records, in half precision: half the size, and far more precise than drift needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_TYPE = np.dtype("<f2")
_LIMIT = float(np.finfo(_TYPE).max)


def pack(embedding: npt.NDArray[np.float32]) -> bytes:
    """float32 (size,) → 2·size bytes, float16, little-endian."""
    return embedding.clip(-_LIMIT, _LIMIT).astype(_TYPE).tobytes()


def unpack(packed: bytes) -> npt.NDArray[np.float32]:
    """The result of `pack` → float32 (size,)."""
    return np.frombuffer(packed, _TYPE).astype(np.float32)
