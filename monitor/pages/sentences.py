"""Texts of the pages that explain figures to people who have not read the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from binwatch.counts import Outcome, Suspicion
from binwatch.records.audits import AuditReason
from binwatch.records.variances import VarianceState
from binwatch.reference import MIN_REFERENCE_BINS, Signal
from binwatch.settings import DriftReference
from binwatch.text import pluralize
from monitor.drift.judge import MIN_PHOTOS, Verdict
from monitor.drift.windows import Window
from monitor.formatting import hours_of_week, many, minute, number, share
from monitor.views.discrepancies import Direction, Level
from monitor.views.drift import AlarmView, DriftSummary, SameHoursView, SignalView, State, WindowView
from monitor.views.overview import TimeRange

_NARROW = "\N{NARROW NO-BREAK SPACE}"
_MIN_SHOWN_PROBABILITY = 0.001
"""Smaller probabilities are shown as "less than 0.1 %"."""
_MIN_WHOLE_PERCENT = 0.1
"""Smaller probabilities are shown in percent with one decimal."""
_MIN_ROUNDED = 100
"""Axis labels from this value on are rounded to integers."""
_MIN_ORDINARY_P_VALUE = 0.2
"""P-values from this one on are common among correctly recorded bins."""

SIGNALS = {
    Signal.PREDICTED: ("Counts", "How many items the model sees. Points to other stock, or to the model."),
    Signal.EXPECTED: ("Expected quantities", "What the inventory says. Points to the inventory."),
    Signal.CONFIDENCE: ("Confidence", "How sure the model is. Points to photos that are harder or easier."),
    Signal.BRIGHTNESS: ("Brightness", "How light photos are. Points to the lamp or the exposure."),
    Signal.CONTRAST: ("Contrast", "How far light and dark are apart. Points to the lamp, the lens or glare."),
    Signal.SHARPNESS: ("Sharpness", "How crisp edges are. Points to focus, a dirty lens or compression."),
    Signal.SHAPE: ("Shape", "Width over height. Points to another camera or a crop."),
    Signal.BYTES: ("File size", "Size of the photos' files. Points to another camera or another upload."),
    Signal.EMBEDDING: (
        "What the model notices",
        "How far photos have moved in the model's own terms. Points to anything: a moved camera, a strip of tape.",
    ),
}
"""Name and description of each signal."""
WINDOWS = {
    Window.HOUR: "the last hour",
    Window.DAY: "the last day",
    Window.WEEK: "the last 7 days",
    Window.LATEST: "the last 1,000 photos",
}
FALSE_ALARMS = (
    "An alarm is raised by chance at most once in three months on average, all signals and slices together; in a"
    " single window, a signal is beyond its threshold in 1 of 200 looks."
)
"""Rate of false alarms of drift."""
MAX_NAMED_SLICES = 3
"""Maximum number of slices named in the drift status."""
SPANS = {TimeRange.DAY: "day", TimeRange.WEEK: "7 days", TimeRange.MONTH: "30 days", TimeRange.QUARTER: "90 days"}
REFERENCES = {
    DriftReference.TRAINING: "what the model was measured on",
    DriftReference.SAME_HOURS: "the same hours in the four weeks before",
}
"""What alarms compare photos with."""
VERDICTS = {
    Verdict.STEADY: "as before",
    Verdict.DRIFTED: "drifted",
    Verdict.NOT_ENOUGH_PHOTOS: "too few photos",
    Verdict.NO_REFERENCE: "no reference",
    Verdict.SMALL_REFERENCE: "reference too small",
}
AUDIT_REASONS = {
    AuditReason.HIDDEN: "hidden behind others",
    AuditReason.PACKAGING: "packaging",
    AuditReason.MULTIPACK: "multipack",
    AuditReason.BLURRED: "blurred",
    AuditReason.OTHER: "another reason",
}
"""Why the quantity was hard to tell."""
VARIANCE_STATES = {
    VarianceState.OPEN: "to be counted again",
    VarianceState.RECOUNTED: "to be approved",
    VarianceState.APPROVED: "approved",
    VarianceState.REJECTED: "rejected",
    VarianceState.SUPERSEDED: "superseded",
}
"""States of a variance."""
OUTCOMES = {Outcome.EXACT: "right", Outcome.UNDER: "too low", Outcome.OVER: "too high"}
"""Verdict of an audit on a count or on an expected quantity."""
DIRECTIONS = {
    Direction.EITHER: "more or fewer than expected",
    Direction.MISSING: "fewer than expected: items missing",
    Direction.SURPLUS: "more than expected: a surplus",
    Direction.EXACT: "as many as expected",
    Direction.ALL: "any of these",
}


_LOOKS = {
    Suspicion.EITHER: "this odd",
    Suspicion.MISSING: "so much as if items were missing",
    Suspicion.SURPLUS: "so much as if there were more",
}


def p_value_text(p_value: float | None, suspicion: Suspicion = Suspicion.EITHER) -> str:
    """Explain a p-value; empty if there is none."""
    if p_value is None:
        return ""
    if p_value >= _MIN_ORDINARY_P_VALUE:
        return "Correctly recorded bins often look like this."
    bins = max(round(1000 * p_value), 1)
    return f"Of 1{_NARROW}000 correctly recorded bins, about {bins} look {_LOOKS[suspicion]}."


def chance_text(chance: float | None) -> str:
    """Explain the probability of the expected quantity."""
    if chance is None:
        return (
            "The expected quantity cannot be judged: the model cannot predict it, or has no calibration photos of it."
            " So the bin cannot be flagged, and is ranked last."
        )
    return f"The model gives the expected quantity {probability_text(chance)}."


def probability_text(probability: float) -> str:
    """Format a probability in percent. No probability is shown as 0 %."""
    if probability < _MIN_SHOWN_PROBABILITY:
        return f"less than 0.1{_NARROW}%"
    return f"{100 * probability:.{1 if probability < _MIN_WHOLE_PERCENT else 0}f}{_NARROW}%"


FLAGGED_FOR = {
    Suspicion.EITHER: "flagged",
    Suspicion.MISSING: "flagged as missing items",
    Suspicion.SURPLUS: "flagged as holding a surplus",
}


def level_text(level: Level, drift: DriftSummary) -> str:
    """Explain how many bins are flagged by chance, how often flags were right, and whether drift adds false flags."""
    if not level.calibrated:
        return (
            "The model has no calibration: bins are ranked by how sure it is, and none is flagged. Export the model"
            " with this release to get one."
        )
    max_flags = number(round(level.false_flags))
    by_chance = (
        f"If every bin were recorded correctly, at most about {max_flags} would be {FLAGGED_FOR[level.direction]} by"
        " chance"
    )
    if level.flagged <= level.false_flags:
        return f"{by_chance}: these may all be chance.{_checked_text(level)}{_uncalibrated_text(level)}"
    look = "some of these are right, so look before you correct"
    # The level assumes photos like those of the calibration. It holds for any distribution of quantities.
    drifted = [signal for signal in drift.signals if signal not in (Signal.PREDICTED, Signal.EXPECTED)]
    but = f" But photos have drifted ({_names(drifted)}): until audits say otherwise, expect more flags by chance."
    return f"{by_chance}: {look}.{_checked_text(level)}{but if drifted else ''}{_uncalibrated_text(level)}"


def _uncalibrated_text(level: Level) -> str:
    """Explain how many bins have no p-value, and why."""
    bins = level.compared - level.calibrated
    if not bins:
        return ""
    why = (
        "was counted by a model without calibration, or expects a quantity that the model cannot predict or has no"
        " calibration photos of"
    )
    return f" {many(bins, 'more bin', 'more bins')} cannot be flagged: each {why}."


def _checked_text(level: Level) -> str:
    """Explain how often flags were right."""
    if not level.checked:
        return ""
    bins = pluralize(level.checked, "bin that was", "bins that were")
    wrong = number(level.inventory_wrong) if level.inventory_wrong else "none"
    return f" Of {number(level.checked)} flagged {bins} checked lately, the inventory was wrong in {wrong}."


def empty_list_text(level: Level, *, is_filtered: bool) -> str:
    """Explain why the list of discrepancies is empty, and what to do."""
    if not level.compared:
        return (
            "Nothing compared yet: a bin comes here once its photo is counted and its expected quantity is known."
            " Upload photos with their metadata files, or an inventory file at “Upload expected quantities”."
        )
    if is_filtered:
        return "No bin passes this filter. Widen it, or show all."
    return "No bin is left: each count agrees with the inventory, or somebody has looked at the bin."


def drift_status(drift: DriftSummary) -> tuple[str, str]:
    """Return the state of drift as a short label and as a sentence."""
    since = f"Since {minute(drift.since)}" if drift.since else "Now"
    reference = REFERENCES[drift.reference]
    return {
        State.DRIFTED: (
            "found",
            f"{since}, photos differ from {reference}: {_names(drift.signals)}.{_slices_text(drift.slices)}",
        ),
        State.STEADY: ("none found", _steady_text(drift)),
        State.COLLECTING: ("collecting", f"Alarms have to wait until enough is known of {reference}."),
        State.TOO_FEW: ("too few photos", f"Drift is judged from {MIN_PHOTOS} photos of different bins on."),
        State.NO_REFERENCE: ("cannot be judged", "The model's bundle does not say what photos used to look like."),
        State.SMALL_REFERENCE: (
            "cannot be judged",
            f"The bundle's reference is of fewer than {MIN_REFERENCE_BINS} bins: make a larger one (docs/drift.md).",
        ),
        State.UNWRITABLE: (
            "cannot be judged",
            "Alarms are not up to date: the records could not be read or written for them, or the model's bundle could"
            " not be fetched; the monitor's log says why.",
        ),
        State.NOTHING: ("nothing yet", "Drift is judged once photos are counted."),
        State.UNKNOWN: ("being looked at", "The monitor looks once a minute; reload this page then."),
    }[drift.state]


def _steady_text(drift: DriftSummary) -> str:
    window = WINDOWS[drift.window] if drift.window else ""
    training = REFERENCES[DriftReference.TRAINING]
    if drift.reference is DriftReference.SAME_HOURS:
        differs = f" From {training}, {_names(drift.beyond)} of {window} differ; that alone raises no alarm."
        return f"Photos are like those of {REFERENCES[drift.reference]}.{differs if drift.beyond else ''}"
    if drift.beyond:
        return f"No alarm: {_names(drift.beyond)} of {window} may differ by chance from {training}."
    return f"Photos of {window} are like those the model was measured on."


def same_hours_text(same_hours: SameHoursView) -> str:
    """Explain how many hours of the week can be compared, and when alarms begin."""
    text = f"Hours of the week with enough photos in the weeks before: {len(same_hours.hours)} of 168"
    text = f"{text} ({hours_of_week(same_hours.hours)}, UTC)." if same_hours.hours else f"{text}."
    if same_hours.alarms_from is None:
        return f"{text} Alarms begin one week after the first of them."
    return f"{text} Alarms are raised from {minute(same_hours.alarms_from)} on."


def alarm_text(alarm: AlarmView) -> str:
    """Describe an alarm and the photos that raised it."""
    where = "" if alarm.slice is None else f" in slice {alarm.slice}"
    photos = f"{many(alarm.photos, 'photo')} of different bins, recorded since {minute(alarm.began)}"
    return f"{SIGNALS[alarm.signal][0]}{where}: {photos}."


def _slices_text(names: Sequence[str]) -> str:
    """Name the slices with an alarm of their own, at most MAX_NAMED_SLICES of them."""
    more = f" and {many(len(names) - MAX_NAMED_SLICES, 'more slice')}" if len(names) > MAX_NAMED_SLICES else ""
    return f" Slices with an alarm of their own: {', '.join(names[:MAX_NAMED_SLICES])}{more}." if names else ""


def _names(signals: Sequence[Signal]) -> str:
    return ", ".join(SIGNALS[signal][0].lower() for signal in signals)


def estimate_text(window: WindowView) -> str:
    """Describe a window: its photos, estimated accuracy and agreement."""
    return (
        f"{many(window.photos, 'photo')} of different bins: estimated accuracy"
        f" {share(window.estimated, window.photos)}, agreement {share(window.agreement, window.compared)} of"
        f" {number(window.compared)} compared."
    )


def distance_text(signal: SignalView) -> str:
    """Explain the figures behind a verdict."""
    if signal.distance is None or signal.threshold is None:
        if signal.verdict is Verdict.NOT_ENOUGH_PHOTOS:
            return f"{many(signal.photos, 'photo')}; judged from {MIN_PHOTOS} on."
        if signal.verdict is Verdict.SMALL_REFERENCE:
            return f"The bundle's reference is of fewer than {MIN_REFERENCE_BINS} bins."
        return "The model's bundle does not say what this used to be."
    return f"Distance {signal.distance:.3f}; chance alone hardly ever exceeds {signal.threshold:.3f}."


def axis_label(value: float) -> str:
    """Format a value at the end of an axis with two significant digits, or as an integer from 100 on."""
    return number(round(value)) if abs(value) >= _MIN_ROUNDED else f"{value:.2g}"
