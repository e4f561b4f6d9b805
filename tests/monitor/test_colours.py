"""Contrast of the colour pairs of the style sheets, in the light and the dark scheme."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "monitor" / "static"
TOKENS = (STATIC / "tokens.css").read_text(encoding="utf-8")
SHEETS = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.css")}

MIN_TEXT_CONTRAST = 4.5
"""Contrast of text by WCAG 2.2, level AA (1.4.3)."""
MIN_SHAPE_CONTRAST = 3.0
"""Contrast of lines, borders and other shapes that carry meaning (1.4.11)."""
BACKGROUNDS = ("ground", "card")

PAIRS = [
    *(
        (text, ground, MIN_TEXT_CONTRAST)
        for text in ("text", "soft", "link", "exact", "under", "over", "failed")
        for ground in BACKGROUNDS
    ),
    *((tone, f"{tone}-tint", MIN_TEXT_CONTRAST) for tone in ("exact", "under", "over", "failed")),
    *(("text", f"{tone}-tint", MIN_TEXT_CONTRAST) for tone in ("exact", "failed")),
    *(("link", f"{tone}-tint", MIN_TEXT_CONTRAST) for tone in ("exact", "failed")),
    *((text, "sunken", MIN_TEXT_CONTRAST) for text in ("text", "soft")),
    ("on-action", "action", MIN_TEXT_CONTRAST),
    ("card", "text", MIN_TEXT_CONTRAST),
    *(("on-shade", f"shade-{step}", MIN_TEXT_CONTRAST) for step in (1, 2, 3)),
    *(("on-deep-shade", f"shade-{step}", MIN_TEXT_CONTRAST) for step in (4, 5)),
    *((shape, ground, MIN_SHAPE_CONTRAST) for shape in ("edge", "estimate", "action") for ground in BACKGROUNDS),
    ("edge", "sunken", MIN_SHAPE_CONTRAST),
    ("exact", "sunken", MIN_SHAPE_CONTRAST),
    ("failed", "line", MIN_SHAPE_CONTRAST),
    ("exact", "line", MIN_SHAPE_CONTRAST),
]


def _colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", TOKENS, re.DOTALL)
    own = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", dark if scheme == "dark" else light))
    return own


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("foreground", "background", "min_contrast"), PAIRS)
def test_colour_pairs_meet_wcag_aa_contrast(scheme: str, foreground: str, background: str, min_contrast: float) -> None:
    colours = _colours(scheme)
    dark, light = sorted((_luminance(colours[foreground]), _luminance(colours[background])))
    assert (light + 0.05) / (dark + 0.05) >= min_contrast


def test_both_schemes_define_the_same_colours() -> None:
    assert _colours("light").keys() == _colours("dark").keys()


@pytest.mark.parametrize("sheet", sorted(SHEETS.keys() - {"tokens.css"}))
def test_every_colour_is_a_token(sheet: str) -> None:
    """A literal colour would be the same in the dark scheme."""
    css = SHEETS[sheet]
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?=[^{]*\})|\brgba?\(|\bhsla?\(", css)
    own = set(re.findall(r"--([a-z0-9-]+):", css))
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", css)) <= own | _colours("light").keys() | {"shadow"}


@pytest.mark.parametrize("sheet", sorted(SHEETS))
def test_style_sheets_load_no_resources(sheet: str) -> None:
    assert not re.search(r"url\(|@import", SHEETS[sheet])
