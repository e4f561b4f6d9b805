"""The parts of a card that `calibrate` makes. Without torch."""

from __future__ import annotations

from enum import StrEnum


class CardPart(StrEnum):
    """A part of the card that is made from photos, by its name in the card."""

    CALIBRATION = "calibration"
    REFERENCE = "reference"
