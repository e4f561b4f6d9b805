"""How every command line of Binwatch ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from binwatch.errors import BinwatchError
from binwatch.text import visible

_EXTRAS = {"onnxruntime": "cpu", "psycopg": "postgres", "pyarrow": "parquet", "sagemaker": "sagemaker"}
"""What brings a package that is not in the program's own extra, since not everyone needs it."""
_OWN = frozenset({"binwatch", "demo", "monitor", "trainer", "worker"})


def run(app: Callable[[], object], extra: str) -> None:
    """Run `app`; an error made on purpose is one line on standard error and exit status 1, not a traceback.

    So is a package that is not installed: `extra` names what Binwatch must be installed with.
    """
    try:
        app()
    except BinwatchError as error:
        _end(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OWN:
            raise
        extras = ",".join(dict.fromkeys([*extra.split(","), *filter(None, [_EXTRAS.get(package)])]))
        _end(f"{package} is not installed; in Binwatch's repository: pip install -c requirements.lock '.[{extras}]'")


def _end(message: str) -> None:
    from binwatch import logs

    if logs.is_json():
        logging.getLogger("binwatch").critical("%s", message)
    else:
        print("\n".join(visible(line) for line in f"error: {message}".split("\n")), file=sys.stderr)
    sys.exit(1)
