"""Whole sentences of the pages: what a figure means for somebody who has never read the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from binwatch.counts import Outcome, Suspicion
from binwatch.records.audits import AuditReason
from binwatch.records.variances import VarianceState
from binwatch.reference import ENOUGH, Signal
from binwatch.settings import DriftReference
from binwatch.text import noun
from monitor.drift.judge import MIN_PHOTOS, Verdict
from monitor.drift.windows import Window
from monitor.formatting import hours_of_week, many, minute, number, share
from monitor.views.discrepancies import Direction, Level
from monitor.views.drift import AlarmView, DriftSummary, SameHoursView, SignalView, State, WindowView
from monitor.views.overview import TimeRange

_NARROW = "\N{NARROW NO-BREAK SPACE}"
_LARGE = 100
_LEAST = 0.001
_SMALL = 0.1
_ORDINARY = 0.2
"""P-values from which a bin looks like any other."""

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
"""What each signal is called, and what it is."""
WINDOWS = {
    Window.HOUR: "the last hour",
    Window.DAY: "the last day",
    Window.WEEK: "the last 7 days",
    Window.LATEST: "the last 1,000 photos",
}
PROMISE = (
    "An alarm is raised by chance at most once in three months on average, all signals and slices together; in a"
    " single window, a signal is beyond its threshold in 1 of 200 looks."
)
"""What the monitor promises of drift."""
FEW_SLICES = 3
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
"""Why it was hard to tell."""
VARIANCE_STATES = {
    VarianceState.OPEN: "to be counted again",
    VarianceState.RECOUNTED: "to be approved",
    VarianceState.APPROVED: "approved",
    VarianceState.REJECTED: "rejected",
    VarianceState.SUPERSEDED: "superseded",
}
"""States of a variance."""
OUTCOMES = {Outcome.EXACT: "right", Outcome.UNDER: "too low", Outcome.OVER: "too high"}
"""What an audit says of a count or of an expected quantity."""
DIRECTIONS = {
    Direction.EITHER: "more or fewer than expected",
    Direction.MISSING: "fewer than expected: items missing",
    Direction.SURPLUS: "more than expected: a surplus",
    Direction.EXACT: "as many as expected",
    Direction.ALL: "any of these",
}


_SO_ODD = {
    Suspicion.EITHER: "this odd",
    Suspicion.MISSING: "so much as if items were missing",
    Suspicion.SURPLUS: "so much as if there were more",
}


def oddness(p_value: float | None, suspicion: Suspicion = Suspicion.EITHER) -> str:
    """A p-value in words; empty if there is none."""
    if p_value is None:
        return ""
    if p_value >= _ORDINARY:
        return "Correctly recorded bins often look like this."
    odd = max(round(1000 * p_value), 1)
    return f"Of 1{_NARROW}000 correctly recorded bins, about {odd} look {_SO_ODD[suspicion]}."


def doubt(chance: float | None) -> str:
    """How likely the expected quantity is to the model."""
    if chance is None:
        return (
            "The expected quantity cannot be judged: the model cannot predict it, or has no calibration photos of it."
            " So the bin cannot be flagged, and is ranked last."
        )
    return f"The model gives the expected quantity {likely(chance)}."


def likely(chance: float) -> str:
    """A probability, fine enough that no possibility looks like none."""
    if chance < _LEAST:
        return f"less than 0.1{_NARROW}%"
    return f"{100 * chance:.{1 if chance < _SMALL else 0}f}{_NARROW}%"


FLAGGED_FOR = {
    Suspicion.EITHER: "flagged",
    Suspicion.MISSING: "flagged as missing items",
    Suspicion.SURPLUS: "flagged as holding a surplus",
}


def level(of: Level, drift: DriftSummary) -> str:
    """How many bins a level flags by chance, what flags have been worth, and whether drift makes that doubtful."""
    if not of.calibrated:
        return (
            "The model has no calibration: bins are ranked by how sure it is, and none is flagged. Export the model"
            " with this release to get one."
        )
    most = number(round(of.false_flags))
    by_chance = (
        f"If every bin were recorded correctly, at most about {most} would be {FLAGGED_FOR[of.direction]} by chance"
    )
    if of.flagged <= of.false_flags:
        return f"{by_chance}: these may all be chance.{_so_far(of)}{_not_judged(of)}"
    look = "some of these are right, so look before you correct"
    # The promise of a level holds for photos like those of the calibration; other stock does not matter to it.
    drifted = [one for one in drift.signals if one not in (Signal.PREDICTED, Signal.EXPECTED)]
    but = f" But photos have drifted ({_names(drifted)}): until audits say otherwise, expect more flags by chance."
    return f"{by_chance}: {look}.{_so_far(of)}{but if drifted else ''}{_not_judged(of)}"


def _not_judged(of: Level) -> str:
    """How many bins have no p-value, and why."""
    rest = of.compared - of.calibrated
    if not rest:
        return ""
    why = (
        "was counted by a model without calibration, or expects a quantity that the model cannot predict or has no"
        " calibration photos of"
    )
    return f" {many(rest, 'more bin', 'more bins')} cannot be flagged: each {why}."


def _so_far(of: Level) -> str:
    """What flags have been worth."""
    if not of.checked:
        return ""
    bins = noun(of.checked, "bin that was", "bins that were")
    wrong = number(of.inventory_wrong) if of.inventory_wrong else "none"
    return f" Of {number(of.checked)} flagged {bins} checked lately, the inventory was wrong in {wrong}."


def nothing_found(of: Level, *, is_filtered: bool) -> str:
    """Why a list of discrepancies is empty, and what to do."""
    if not of.compared:
        return (
            "Nothing compared yet: a bin comes here once its photo is counted and its expected quantity is known."
            " Upload photos with their metadata files, or an inventory file at “Upload expected quantities”."
        )
    if is_filtered:
        return "No bin passes this filter. Widen it, or show all."
    return "No bin is left: each count agrees with the inventory, or somebody has looked at the bin."


def drift_status(of: DriftSummary) -> tuple[str, str]:
    """The state of drift: in a word or two, and in a sentence."""
    where = WINDOWS[of.window] if of.window else ""
    since = f"Since {minute(of.since)}" if of.since else "Now"
    usual = REFERENCES[of.reference]
    return {
        State.DRIFTED: (
            "found",
            f"{since}, photos differ from {usual}: {_names(of.signals)}.{_in_slices(of.slices)}",
        ),
        State.STEADY: ("none found", _steady(of, where)),
        State.COLLECTING: ("collecting", f"Alarms have to wait until enough is known of {usual}."),
        State.TOO_FEW: ("too few photos", f"Drift is judged from {MIN_PHOTOS} photos of different bins on."),
        State.NO_REFERENCE: ("cannot be judged", "The model's bundle does not say what photos used to look like."),
        State.SMALL_REFERENCE: (
            "cannot be judged",
            f"The bundle's reference is of fewer than {ENOUGH} bins: make a larger one (docs/drift.md).",
        ),
        State.UNWRITABLE: (
            "cannot be judged",
            "Alarms are not up to date: the records could not be read or written for them, or the model's bundle could"
            " not be fetched; the monitor's log says why.",
        ),
        State.NOTHING: ("nothing yet", "Drift is judged once photos are counted."),
        State.UNKNOWN: ("being looked at", "The monitor looks once a minute; reload this page then."),
    }[of.state]


def _steady(of: DriftSummary, where: str) -> str:
    measured_on = REFERENCES[DriftReference.TRAINING]
    if of.reference is DriftReference.SAME_HOURS:
        differs = f" From {measured_on}, {_names(of.beyond)} of {where} differ; that alone raises no alarm."
        return f"Photos are like those of {REFERENCES[of.reference]}.{differs if of.beyond else ''}"
    if of.beyond:
        return f"No alarm: {_names(of.beyond)} of {where} may differ by chance from {measured_on}."
    return f"Photos of {where} are like those the model was measured on."


def same_hours(of: SameHoursView) -> str:
    """How many hours of the week can be compared, and when alarms begin."""
    said = f"Hours of the week with enough photos in the weeks before: {len(of.hours)} of 168"
    hours = f"{said} ({hours_of_week(of.hours)}, UTC)." if of.hours else f"{said}."
    if of.alarms_from is None:
        return f"{hours} Alarms begin one week after the first of them."
    return f"{hours} Alarms are raised from {minute(of.alarms_from)} on."


def alarm(of: AlarmView) -> str:
    """What raised an alarm."""
    where = "" if of.slice is None else f" in slice {of.slice}"
    photos = f"{many(of.photos, 'photo')} of different bins, recorded since {minute(of.began)}"
    return f"{SIGNALS[of.signal][0]}{where}: {photos}."


def _in_slices(names: Sequence[str]) -> str:
    """The first FEW_SLICES slices with an alarm: a status has room for a few."""
    more = f" and {many(len(names) - FEW_SLICES, 'more slice')}" if len(names) > FEW_SLICES else ""
    return f" Slices with an alarm of their own: {', '.join(names[:FEW_SLICES])}{more}." if names else ""


def _names(signals: Sequence[Signal]) -> str:
    return ", ".join(SIGNALS[signal][0].lower() for signal in signals)


def estimate(of: WindowView) -> str:
    """A window's size, and estimated accuracy beside agreement."""
    return (
        f"{many(of.photos, 'photo')} of different bins: estimated accuracy {share(of.estimated, of.photos)}, agreement"
        f" {share(of.agreement, of.compared)} of {number(of.compared)} compared."
    )


def distance(of: SignalView) -> str:
    """The figures behind a verdict."""
    if of.distance is None or of.threshold is None:
        if of.verdict is Verdict.NOT_ENOUGH_PHOTOS:
            return f"{many(of.photos, 'photo')}; judged from {MIN_PHOTOS} on."
        if of.verdict is Verdict.SMALL_REFERENCE:
            return f"The bundle's reference is of fewer than {ENOUGH} bins."
        return "The model's bundle does not say what this used to be."
    return f"Distance {of.distance:.3f}; chance alone hardly ever exceeds {of.threshold:.3f}."


def figure(value: float) -> str:
    """An end of an axis, short enough for it."""
    return number(round(value)) if abs(value) >= _LARGE else f"{value:.2g}"
