"""The version of this release."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version


def version() -> str:
    """Return the version in pyproject.toml; "unknown" if Binwatch is not installed."""
    try:
        return package_version("binwatch")
    except PackageNotFoundError:
        return "unknown"
