"""Packs embeddings for the records in half precision, which takes half the space and is ample for drift."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FLOAT16 = np.dtype("<f2")
_MAX_FLOAT16 = float(np.finfo(_FLOAT16).max)


def pack(embedding: npt.NDArray[np.float32]) -> bytes:
    """Pack float32 (size,) as 2·size bytes: float16, little-endian."""
    return embedding.clip(-_MAX_FLOAT16, _MAX_FLOAT16).astype(_FLOAT16).tobytes()


def unpack(packed: bytes) -> npt.NDArray[np.float32]:
    """Unpack the result of `pack` to float32 (size,)."""
    return np.frombuffer(packed, _FLOAT16).astype(np.float32)
