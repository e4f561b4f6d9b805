"""The environment variables that identify the processes of a run. torchrun sets them. This module needs no torch."""

from __future__ import annotations

import os

from binwatch.errors import quote_value
from binwatch.numbers import parse_int
from trainer.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_distributed() -> bool:
    """Return whether this process is one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def ranks() -> tuple[int, int, int]:
    """Return rank, world size and local rank. Raises ConfigError if a variable is missing or not a number."""
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is set, but not {', '.join(missing)}; start the processes with torchrun")
    rank, world_size, local_rank = (_int_variable(name) for name in VARIABLES[:3])
    return rank, world_size, local_rank


def master_address() -> str:
    """Return the address to which the processes connect."""
    return ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))


def _int_variable(name: str) -> int:
    value = parse_int(os.environ[name])
    if value is None:
        raise ConfigError(f"{name} is {quote_value(os.environ[name])}, not a number")
    return value
