"""The version of this release."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


def version() -> str:
    """The version in pyproject.toml; "unknown" if Binwatch is not installed."""
    try:
        return version_of("binwatch")
    except PackageNotFoundError:
        return "unknown"
