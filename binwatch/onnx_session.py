"""Opens ONNX Runtime sessions for the worker and the trainer, such that a file gives the same counts on every CPU.

The only module of this package that needs ONNX Runtime. The monitor does not import it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from binwatch import int8_probe

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
_ERRORS = 3
"""ONNX Runtime's log level. Its warnings about the placement of nodes are not printed."""
EXACT_INT8 = {"session.x64quantprecision": "1"}
"""Option that makes int8 weights unsigned, for which x86 has exact products. They take twice the time of VNNI's (27
instead of 13 ms per photo), so it is set only where necessary."""


def open_session(model: Path | bytes, providers: Sequence[Any] = (CPU,), *, threads: int = 1, spin: bool = True) -> Any:
    """An ONNX Runtime session for a file or a model in memory, with `threads` threads per call.

    Threads that `spin` respond sooner, but occupy their cores while they wait.
    """
    entries = {} if spin else {"session.intra_op.allow_spinning": "0"}
    return _open(model, providers, threads, exact_products() | entries)


@cache
def exact_products() -> dict[str, str]:
    """Session options with which int8 products do not saturate on this CPU; empty on CPUs with VNNI and on ARM."""
    if _is_exact({}):
        return {}
    if not _is_exact(EXACT_INT8):
        logger.warning(
            "int8 products saturate on this CPU, and ONNX Runtime %s cannot avoid it: counts by int8 may be too low;"
            " set BINWATCH_PRECISION=fp32, or use a CPU with VNNI",
            ort.__version__,
        )
    return EXACT_INT8


def _is_exact(options: dict[str, str]) -> bool:
    try:
        outputs = _open(int8_probe.model(), (CPU,), 1, options).run(None, int8_probe.inputs())
    except Exception:  # ONNX Runtime raises its own, unexported classes
        return False
    return int8_probe.is_exact(outputs)


def _open(model: Path | bytes, providers: Sequence[Any], threads: int, entries: dict[str, str]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    source = model if isinstance(model, bytes) else str(model)
    # With ONNX Runtime's own fallback, a failing GPU would silently be replaced by the CPU for good.
    return ort.InferenceSession(source, options, providers=list(providers), enable_fallback=0)
