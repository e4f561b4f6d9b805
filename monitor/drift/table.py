"""The drift report as a table in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from binwatch.reference import MIN_REFERENCE_BINS, Signal
from binwatch.text import count_noun, escape_unprintable
from monitor import formatting
from monitor.drift.alarms import Alarm
from monitor.drift.judge import MIN_PHOTOS, SignalResult, Verdict
from monitor.drift.report import DriftReport, WindowReport

PROMISE = (
    "An alarm is raised by chance at most once in three months on average; a window is beyond a threshold in 1 of 200"
    " looks."
)
_SAID = {
    Verdict.STEADY: "steady",
    Verdict.DRIFTED: "beyond",
    Verdict.NOT_ENOUGH_PHOTOS: "not enough photos",
    Verdict.NO_REFERENCE: "no reference in the bundle",
    Verdict.SMALL_REFERENCE: "reference too small",
}


def render(report: DriftReport) -> RenderableType:
    """What `python -m monitor drift` prints."""
    if report.model is None:
        return Text("Nothing has been recorded yet: upload photos to the bucket, or check whether a worker is running.")
    parts: list[RenderableType] = [_alarm(*one) for one in report.every_alarm]
    if report.problem is not None:
        parts.append(Text(f"Drift alarms are not up to date: {report.problem}.", style="bold red"))
    parts.append(Text(_as_kept(report)))
    if report.hides_slices:
        parts.append(Text("Alarms of slices are not shown: set BINWATCH_SLICE_… here as for the monitor."))
    if report.state.is_by_hours:
        parts.append(Text(_same_hours(report)))
    parts.append(_table(report))
    parts += [Text(_accuracy(window)) for window in report.windows]
    parts.append(Text(PROMISE))
    parts.append(Text(f"A window of fewer than {MIN_PHOTOS} photos of different bins is not judged."))
    if report.outage is not None:
        parts.append(Text(f"No reference of model {report.model} at hand: {report.outage}."))
    elif not report.reference:
        parts.append(
            Text(f"No reference of model {report.model} at hand: its bundle has none, or is not where settings say.")
        )
    if report.is_small:
        parts.append(
            Text(
                f"The reference of model {report.model} is of {count_noun(report.bins or 0, 'bin')}, too few to"
                f" judge by: make one of {MIN_REFERENCE_BINS} or more (python -m trainer calibrate)."
            )
        )
    return Group(*parts)


def _as_kept(report: DriftReport) -> str:
    """Which alarms those above are: the monitor's, as of its last batch."""
    if report.closed_at is None:
        return "No drift alarm is raised: the monitor has closed no batch of photos yet."
    as_of = f"as of the last batch of photos, {formatting.moment(report.closed_at)}"
    if report.state.reference is not report.by:
        return (
            f"Drift alarms, {as_of}, follow BINWATCH_DRIFT_REFERENCE={report.state.reference}, the monitor's setting"
            f" then (here: {report.by}): {count_noun(len(report.every_alarm), 'alarm')} raised."
        )
    return f"Drift alarms are {as_of}." if report.every_alarm else f"No drift alarm is raised, {as_of}."


def _same_hours(report: DriftReport) -> str:
    hours = report.state.hours
    since = report.state.alarms_from
    said = (
        "Alarms compare photos with the same hours in the four weeks before, the table with the model's reference."
        f" Hours of the week with enough photos: {len(hours)} of 168"
    )
    when = f"alarms are raised from {formatting.moment(since)} on" if since else "alarms begin a week after the first"
    return f"{said}{f' ({formatting.hours_of_week(hours)}, UTC)' if hours else ''}; {when}."


def _alarm(slice_name: str | None, signal: Signal, alarm: Alarm) -> Text:
    where = f" in slice {escape_unprintable(slice_name)}" if slice_name is not None else ""
    return Text(
        f"DRIFT ALARM: {signal.value}{where} since {formatting.moment(alarm.since)}, raised by"
        f" {formatting.many(alarm.photos, 'photo')} recorded since {formatting.moment(alarm.began)}",
        style="bold red",
    )


def _table(report: DriftReport) -> Table:
    # Text, not str: a version in brackets would be taken for markup.
    table = Table(title=Text(f"Photos against the reference of model {report.model}: distance / threshold"))
    table.add_column("Signal")
    for window in report.windows:
        table.add_column(f"{window.window} ({formatting.number(window.photos)})", justify="right")
    for index, signal in enumerate(Signal):
        table.add_row(signal.value, *(_cell(window.judgements[index]) for window in report.windows))
    return table


def _cell(judgement: SignalResult) -> Text:
    said = _SAID[judgement.verdict]
    if judgement.distance is None or judgement.threshold is None:
        return Text(said, style="dim")
    style = "bold red" if judgement.verdict is Verdict.DRIFTED else ""
    return Text(f"{judgement.distance:.3f} / {judgement.threshold:.3f} {said}", style=style)


def _accuracy(window: WindowReport) -> str:
    return (
        f"{window.window}: estimated accuracy {formatting.share(window.estimated, window.photos)}, agreement"
        f" {formatting.share(window.agreement, window.compared)} of {formatting.number(window.compared)} compared"
    )
