"""The parts of a card that `calibrate` replaces. In a module of its own, so that importing it does not import torch."""

from __future__ import annotations

from enum import StrEnum


class CardPart(StrEnum):
    """A part of the card that is made from photos. The value is its field in the card."""

    CALIBRATION = "calibration"
    REFERENCE = "reference"
