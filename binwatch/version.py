"""Which release this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


def version() -> str:
    """As pyproject.toml has it; "unknown" where Binwatch runs from a folder without having been installed."""
    try:
        return version_of("binwatch")
    except PackageNotFoundError:
        return "unknown"
