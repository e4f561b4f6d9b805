"""What each way says at its end, on one line of its standard output."""

from __future__ import annotations

import json


def report(predicted: dict[str, int], steady_photos: int, steady_s: float) -> None:
    """`predicted` has the class of each photo by file name; the rest is the speed once everything had started."""
    print(json.dumps({"predicted": predicted, "steady_photos": steady_photos, "steady_s": steady_s}))
