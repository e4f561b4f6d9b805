"""How every command line of Binwatch ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from binwatch.errors import BinwatchError


def run(app: Callable[[], object]) -> None:
    """Run `app`; an error made on purpose is one line on standard error and exit status 1, not a traceback."""
    try:
        app()
    except BinwatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
