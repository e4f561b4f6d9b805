"""The environment variables that identify the processes of a run; torchrun sets them. Without torch."""

from __future__ import annotations

import os

from binwatch.errors import shown
from binwatch.numbers import whole
from trainer.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def place() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine. Raises ConfigError if a variable is missing or no number."""
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is set, but not {', '.join(missing)}; start the processes with torchrun")
    rank, size, local = (_number(name) for name in VARIABLES[:3])
    return rank, size, local


def address() -> str:
    """The address to which the processes connect."""
    return ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))


def _number(name: str) -> int:
    found = whole(os.environ[name])
    if found is None:
        raise ConfigError(f"{name} is {shown(os.environ[name])}, not a number")
    return found
