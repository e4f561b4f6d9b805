"""The report of an evaluation: metrics as JSON, and an HTML page with metrics, diagrams and the worst photos.

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
from binwatch.counts import CLASSES, MORE_THAN_5, CountRule, class_error, predict_counts
from binwatch.text import count_noun
from trainer.disk import write_atomically, write_json
from trainer.evaluation.evaluate import Evaluation, Probabilities
from trainer.evaluation.metrics import ECE_BINS, Ints, challenge_counts, counts_of
from trainer.evaluation.tables import recall_and_precision

MAX_WORST_PHOTOS = 24
"""Maximum number of wrongly counted photos on the page."""
JPEG_QUALITY = 80
"""JPEG quality of the photos on the page."""
DIAGRAM_SIDE = 320
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
    """Mean confidence, accuracy and number of the photos whose confidence is in one interval."""

    confidence: float
    accuracy: float
    photos: int


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS) -> list[ReliabilityBin]:
    """Divide photos into equally wide intervals of confidence, and leave out empty intervals.

    `confidence` is float (photos,), `correct` is bool (photos,).
    """
    bin_index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    members = [bin_index == index for index in np.unique(bin_index)]
    return [
        ReliabilityBin(float(confidence[mask].mean()), float(correct[mask].mean()), int(mask.sum())) for mask in members
    ]


def worst_photos(
    probabilities: Probabilities, labels: Ints, limit: int = MAX_WORST_PHOTOS, rule: CountRule = CountRule.MODE
) -> list[int]:
    """Return the positions of up to `limit` wrongly counted photos, the one with the least likely label first."""
    likelihoods = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predict_counts(rule, probabilities) != labels)
    return [int(position) for position in wrong[np.argsort(likelihoods[wrong], kind="stable")][:limit]]


def write(evaluation: Evaluation, file: Path) -> Path:
    """Write the metrics to `file` as JSON, and the HTML page beside it. Return the page's path."""
    write_json(file, evaluation.as_json())
    html_file = file.with_suffix(".html")
    write_atomically(html_file, render_page(evaluation).encode())
    return html_file


def render_page(evaluation: Evaluation) -> str:
    """Render the HTML page."""
    name = next(iter(evaluation.metrics))
    title = f"{evaluation.model}: {name}"
    labels, groups = evaluation.photos.labels, evaluation.photos.groups
    challenge = name.endswith("(challenge)")
    probabilities = evaluation.probabilities
    if challenge:
        counts = challenge_counts(probabilities, labels, groups)
    else:
        counts = counts_of(probabilities, labels, groups, evaluation.rule)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><small>{escape(evaluation.hardware)}. Intervals: 95 %, bootstrap by bin group.</small></p>",
        f"<p>{escape(evaluation.limits())}</p>" if evaluation.limits() else "",
        _metrics_table(evaluation.metrics),
        f"<h2>By label: {escape(name)}</h2>",
        _confusion_table(evaluation.main),
        "<h2>Calibration</h2>",
        "<p>The share of right counts at each confidence. On the line, the two are equal.</p>",
        _reliability_diagram(reliability(counts.confidence, counts.predicted == counts.labels)),
        "<h2>Worst photos</h2>",
        "<p>Photos that were counted wrong, the one with the least likely label first. Some labels are wrong.</p>",
        _worst_photos(evaluation, *((MORE_THAN_5, CountRule.MODE) if challenge else (len(CLASSES), evaluation.rule))),
    ]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _metrics_table(metrics: dict[str, Metrics]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in metrics)
    columns = metrics.values()
    errors = [column.quantities for column in columns]
    rows = [
        ("photos", [f"{column.photos:,}" for column in columns]),
        ("accuracy", [_format_share(column.accuracy) for column in columns]),
        ("always the most common label", [f"{column.majority_accuracy:.1%}" for column in columns]),
        ("within one", [_format_share(column.within_one) for column in columns]),
        ("RMSE, items", [_format_items(column.rmse) for column in columns]),
        ("RMSE of the mean, items", [_format_items(column.rmse_of_mean) for column in columns]),
        ("MAE, items", [_format_items(column.mae) for column in columns]),
        ("MAE of the median, items", [_format_items(column.mae_of_median) for column in columns]),
        ("MAE over all quantities, items", [_format_items(error.mae if error else None) for error in errors]),
        ("RMSE over all quantities, items", [_format_items(error.rmse if error else None) for error in errors]),
        ("calibration error (ECE)", [_format_share(column.ece) for column in columns]),
    ]
    lines = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n" for name, cells in rows
    )
    return f"<table><tr><th></th>{head}</tr>\n{lines}</table>"


def _confusion_table(metrics: Metrics) -> str:
    """Render the confusion matrix: rows are labels, columns are counts. Darker cells are a larger share of the row."""
    head = "".join(f"<th>→ {escape(name)}</th>" for name in CLASSES)
    lines = []
    for name, row in zip(CLASSES, metrics.confusion, strict=True):
        total = sum(row) or 1
        cells = "".join(
            f'<td style="background: rgb(37 99 235 / {photos / total:.2f})">{photos}</td>' for photos in row
        )
        recall, precision = recall_and_precision(metrics, name)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}<td>{recall}</td><td>{precision}</td></tr>")
    return f"<table><tr><th>label</th>{head}<th>recall</th><th>precision</th></tr>\n{''.join(lines)}</table>"


def _reliability_diagram(bins: list[ReliabilityBin]) -> str:
    """Render accuracy (y) by confidence (x). The area of a dot is proportional to its number of photos."""
    max_photos = max((each.photos for each in bins), default=1)
    dots = "".join(
        f'<circle cx="{DIAGRAM_SIDE * each.confidence:.1f}" cy="{DIAGRAM_SIDE * (1 - each.accuracy):.1f}"'
        f' r="{3 + 11 * (each.photos / max_photos) ** 0.5:.1f}" fill="rgb(37 99 235 / 0.6)">'
        f"<title>{count_noun(each.photos, 'photo')}: confidence {each.confidence:.0%}, right"
        f" {each.accuracy:.0%}</title></circle>"
        for each in bins
    )
    return (
        f'<svg viewBox="-40 -15 {DIAGRAM_SIDE + 60} {DIAGRAM_SIDE + 55}" width="{DIAGRAM_SIDE + 60}" role="img"'
        ' aria-label="Reliability diagram">'
        f'<rect width="{DIAGRAM_SIDE}" height="{DIAGRAM_SIDE}" fill="none" stroke="#9aa5b1"/>'
        f'<line x1="0" y1="{DIAGRAM_SIDE}" x2="{DIAGRAM_SIDE}" y2="0" stroke="#9aa5b1" stroke-dasharray="4"/>{dots}'
        f'<text x="{DIAGRAM_SIDE / 2}" y="{DIAGRAM_SIDE + 30}" text-anchor="middle">confidence</text>'
        f'<text transform="translate(-15 {DIAGRAM_SIDE / 2}) rotate(-90)" text-anchor="middle">right</text></svg>'
    )


def _worst_photos(evaluation: Evaluation, classes: int, rule: CountRule) -> str:
    photos = evaluation.photos
    positions = np.flatnonzero(photos.labels < classes)
    probabilities = evaluation.probabilities[positions, :classes]
    figures = []
    counts = predict_counts(rule, probabilities)
    for index in worst_photos(probabilities, photos.labels[positions], rule=rule):
        row, count = photos.rows[positions[index]], int(counts[index])
        error = class_error(count, row.quantity)
        figures.append(
            f'<figure><img src="{_data_url(photos.decode(row.key))}" alt="photo {escape(row.key)}">'
            f"<figcaption><b>{escape(row.key)}</b><br>label {row.label}, counted {CLASSES[count]}"
            f" ({probabilities[index, count]:.0%})<br><small>{error:+d}</small></figcaption></figure>"
        )
    return f'<div class="photos">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _data_url(pixels: np.ndarray) -> str:
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"


def _format_share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} <small>({estimate.low:.1%}–{estimate.high:.1%})</small>"


def _format_items(estimate: Estimate | None) -> str:
    if estimate is None:  # not measured on this photo set
        return ""
    return f"{estimate.value:.2f} <small>({estimate.low:.2f}–{estimate.high:.2f})</small>"
