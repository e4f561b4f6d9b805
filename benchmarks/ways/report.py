"""Prints the result of a way as the last line of standard output."""

from __future__ import annotations

import json


def report(predicted: dict[str, int], steady_photos: int, steady_s: float) -> None:
    """Print the class of each photo by file name, and the number of photos and the seconds after start-up."""
    print(json.dumps({"predicted": predicted, "steady_photos": steady_photos, "steady_s": steady_s}))
