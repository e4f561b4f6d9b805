"""Opens ONNX Runtime sessions for the worker and the trainer, so that a model gives the same counts on every CPU.

This is the only module of the package that needs ONNX Runtime. The monitor does not import it.
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

CPU_PROVIDER = "CPUExecutionProvider"
_LOG_ERRORS_ONLY = 3
"""ONNX Runtime's log level for errors only, which suppresses its warnings about the placement of nodes."""
EXACT_INT8_OPTIONS = {"session.x64quantprecision": "1"}
"""Session option that makes int8 weights unsigned, for which x86 has exact products. It is set only where necessary,
since inference then takes twice as long as with VNNI's products (27 instead of 13 ms per photo)."""


def open_session(
    model: Path | bytes, providers: Sequence[Any] = (CPU_PROVIDER,), *, threads: int = 1, spin: bool = True
) -> Any:
    """Open a session for a model file or a model in memory, with `threads` threads per call.

    With `spin`, waiting threads respond sooner, but keep their cores busy.
    """
    options = {} if spin else {"session.intra_op.allow_spinning": "0"}
    return _create_session(model, providers, threads, exact_int8_options() | options)


@cache
def exact_int8_options() -> dict[str, str]:
    """Return session options with which int8 products do not saturate on this CPU.

    They are empty on CPUs with VNNI and on ARM. Logs a warning if ONNX Runtime cannot avoid saturation.
    """
    if _has_exact_int8({}):
        return {}
    if not _has_exact_int8(EXACT_INT8_OPTIONS):
        logger.warning(
            "int8 products saturate on this CPU, and ONNX Runtime %s cannot avoid it: counts by int8 may be too low;"
            " set BINWATCH_PRECISION=fp32, or use a CPU with VNNI",
            ort.__version__,
        )
    return EXACT_INT8_OPTIONS


def _has_exact_int8(options: dict[str, str]) -> bool:
    try:
        outputs = _create_session(int8_probe.build_model(), (CPU_PROVIDER,), 1, options).run(
            None, int8_probe.build_inputs()
        )
    except Exception:  # ONNX Runtime does not export its exception classes
        return False
    return int8_probe.is_exact(outputs)


def _create_session(model: Path | bytes, providers: Sequence[Any], threads: int, options: dict[str, str]) -> Any:
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.log_severity_level = _LOG_ERRORS_ONLY
    for name, value in options.items():
        session_options.add_session_config_entry(name, value)
    source = model if isinstance(model, bytes) else str(model)
    # ONNX Runtime's own fallback would silently and permanently replace a failing GPU with the CPU.
    return ort.InferenceSession(source, session_options, providers=list(providers), enable_fallback=0)
