"""An evaluation as files: the figures as JSON, and one HTML page with figures, diagrams and the worst photos.

The page loads nothing from other hosts.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from binwatch.bundle import Estimate, Metrics
from binwatch.counts import CLASSES, MORE, CountRule, counts_by, error_of
from binwatch.text import many
from trainer.disk import write_atomically, write_json
from trainer.evaluation.evaluate import Evaluation, Probabilities
from trainer.evaluation.metrics import ECE_BINS, Ints, challenge_counts, counts_of
from trainer.evaluation.tables import recall_and_precision

WORST = 24
PHOTO_QUALITY = 80
SIDE = 320
"""Side of the reliability diagram, in pixels."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #d9dee5; }
th:first-child, td:first-child { text-align: left; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; border-radius: 4px; } figcaption { font-size: 13px; }
small { color: #5b6773; }
"""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Photos whose confidence lies in one interval: their mean confidence, and the share that is counted right."""

    confidence: float
    accuracy: float
    photos: int


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = ECE_BINS) -> list[ReliabilityBin]:
    """Photos by equally wide intervals of confidence, without empty ones; float (photos,) and bool (photos,) in."""
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        ReliabilityBin(
            float(confidence[index == at].mean()), float(right[index == at].mean()), int((index == at).sum())
        )
        for at in np.unique(index)
    ]


def worst(
    probabilities: Probabilities, labels: Ints, limit: int = WORST, rule: CountRule = CountRule.MODE
) -> list[int]:
    """Positions of photos that were counted wrong, the least likely label first."""
    given = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(counts_by(rule, probabilities) != labels)
    return [int(position) for position in wrong[np.argsort(given[wrong], kind="stable")][:limit]]


def write(evaluation: Evaluation, file: Path) -> Path:
    """Write the figures into `file` as JSON, and the page beside it. Returns the page's path."""
    write_json(file, evaluation.as_json())
    html = file.with_suffix(".html")
    write_atomically(html, page(evaluation).encode())
    return html


def page(evaluation: Evaluation) -> str:
    """The HTML page."""
    name = next(iter(evaluation.metrics))
    title = f"{evaluation.model}: {name}"
    labels, groups = evaluation.photos.labels, evaluation.photos.groups
    challenge = name.endswith("(challenge)")
    answers = evaluation.probabilities
    counts = (
        challenge_counts(answers, labels, groups) if challenge else counts_of(answers, labels, groups, evaluation.rule)
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><small>{escape(evaluation.hardware)}. Intervals: 95 %, bootstrap by bin group.</small></p>",
        f"<p>{escape(evaluation.limits())}</p>" if evaluation.limits() else "",
        _figures(evaluation.metrics),
        f"<h2>By label: {escape(name)}</h2>",
        _confusion(evaluation.main),
        "<h2>Calibration</h2>",
        "<p>The share of right counts at each confidence. On the line, the two are equal.</p>",
        _diagram(reliability(counts.confidence, counts.predicted == counts.labels)),
        "<h2>Worst photos</h2>",
        "<p>Photos that were counted wrong, the one with the least likely label first. Some labels are wrong.</p>",
        _photos(evaluation, *((MORE, CountRule.MODE) if challenge else (len(CLASSES), evaluation.rule))),
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _figures(sets: dict[str, Metrics]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in sets)
    rows = [("photos", [f"{found.photos:,}" for found in sets.values()])]
    rows += [("accuracy", [_share(found.accuracy) for found in sets.values()])]
    rows += [("always the most common label", [f"{found.majority_accuracy:.1%}" for found in sets.values()])]
    rows += [("within one", [_share(found.within_one) for found in sets.values()])]
    rows += [("RMSE, items", [_items(found.rmse) for found in sets.values()])]
    rows += [("RMSE of the mean, items", [_items(found.rmse_of_mean) for found in sets.values()])]
    rows += [("MAE, items", [_items(found.mae) for found in sets.values()])]
    rows += [("MAE of the median, items", [_items(found.mae_of_median) for found in sets.values()])]
    wide = [found.quantities for found in sets.values()]
    rows += [("MAE over all quantities, items", [_items(each.mae if each else None) for each in wide])]
    rows += [("RMSE over all quantities, items", [_items(each.rmse if each else None) for each in wide])]
    rows += [("calibration error (ECE)", [_share(found.ece) for found in sets.values()])]
    lines = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n" for name, cells in rows
    )
    return f"<table><tr><th></th>{head}</tr>\n{lines}</table>"


def _confusion(found: Metrics) -> str:
    """Rows are labels, columns are counts. The larger its share of the row, the darker a cell."""
    head = "".join(f"<th>→ {escape(name)}</th>" for name in CLASSES)
    lines = []
    for name, row in zip(CLASSES, found.confusion, strict=True):
        total = sum(row) or 1
        cells = "".join(
            f'<td style="background: rgb(37 99 235 / {photos / total:.2f})">{photos}</td>' for photos in row
        )
        recall, precision = recall_and_precision(found, name)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}<td>{recall}</td><td>{precision}</td></tr>")
    return f"<table><tr><th>label</th>{head}<th>recall</th><th>precision</th></tr>\n{''.join(lines)}</table>"


def _diagram(bins: list[ReliabilityBin]) -> str:
    """Confidence to the right, share of right counts upwards; the area of a dot is its number of photos."""
    most = max((each.photos for each in bins), default=1)
    dots = "".join(
        f'<circle cx="{SIDE * each.confidence:.1f}" cy="{SIDE * (1 - each.accuracy):.1f}"'
        f' r="{3 + 11 * (each.photos / most) ** 0.5:.1f}" fill="rgb(37 99 235 / 0.6)">'
        f"<title>{many(each.photos, 'photo')}: confidence {each.confidence:.0%}, right"
        f" {each.accuracy:.0%}</title></circle>"
        for each in bins
    )
    return (
        f'<svg viewBox="-40 -15 {SIDE + 60} {SIDE + 55}" width="{SIDE + 60}" role="img"'
        ' aria-label="Reliability diagram">'
        f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#9aa5b1"/>'
        f'<line x1="0" y1="{SIDE}" x2="{SIDE}" y2="0" stroke="#9aa5b1" stroke-dasharray="4"/>{dots}'
        f'<text x="{SIDE / 2}" y="{SIDE + 30}" text-anchor="middle">confidence</text>'
        f'<text transform="translate(-15 {SIDE / 2}) rotate(-90)" text-anchor="middle">right</text></svg>'
    )


def _photos(evaluation: Evaluation, classes: int, rule: CountRule) -> str:
    photos = evaluation.photos
    chosen = np.flatnonzero(photos.labels < classes)
    probabilities = evaluation.probabilities[chosen, :classes]
    figures = []
    counts = counts_by(rule, probabilities)
    for position in worst(probabilities, photos.labels[chosen], rule=rule):
        row, given = photos.rows[chosen[position]], probabilities[position]
        answer = int(counts[position])
        error = error_of(answer, row.quantity)
        figures.append(
            f'<figure><img src="{_picture(photos.decode(row.key))}" alt="photo {escape(row.key)}">'
            f"<figcaption><b>{escape(row.key)}</b><br>label {row.label}, counted {CLASSES[answer]}"
            f" ({given[answer]:.0%})<br><small>{error:+d}</small></figcaption></figure>"
        )
    return f'<div class="photos">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _picture(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=PHOTO_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _share(found: Estimate) -> str:
    return f"{found.value:.1%} <small>({found.low:.1%}–{found.high:.1%})</small>"


def _items(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{found.value:.2f} <small>({found.low:.2f}–{found.high:.2f})</small>"
