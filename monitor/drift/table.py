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
_VERDICTS = {
    Verdict.STEADY: "steady",
    Verdict.DRIFTED: "beyond",
    Verdict.NOT_ENOUGH_PHOTOS: "not enough photos",
    Verdict.NO_REFERENCE: "no reference in the bundle",
    Verdict.SMALL_REFERENCE: "reference too small",
}


def render(report: DriftReport) -> RenderableType:
    """Render the output of `python -m monitor drift`."""
    if report.model is None:
        return Text("Nothing has been recorded yet: upload photos to the bucket, or check whether a worker is running.")
    parts: list[RenderableType] = [_alarm(*alarm) for alarm in report.all_alarms]
    if report.problem is not None:
        parts.append(Text(f"Drift alarms are not up to date: {report.problem}.", style="bold red"))
    parts.append(Text(_alarm_summary(report)))
    if report.has_hidden_slices:
        parts.append(Text("Alarms of slices are not shown: set BINWATCH_SLICE_… here as for the monitor."))
    if report.state.uses_same_hours:
        parts.append(Text(_same_hours(report)))
    parts.append(_table(report))
    parts += [Text(_accuracy(window)) for window in report.windows]
    parts.append(Text(PROMISE))
    parts.append(Text(f"A window of fewer than {MIN_PHOTOS} photos of different bins is not judged."))
    if report.outage is not None:
        parts.append(Text(f"The reference of model {report.model} is not available: {report.outage}."))
    elif not report.reference:
        parts.append(
            Text(f"Model {report.model} has no reference: its bundle has none, or is not where the settings say.")
        )
    if report.has_small_reference:
        parts.append(
            Text(
                f"The reference of model {report.model} has {count_noun(report.reference_bins or 0, 'bin')}, too few to"
                f" judge by: make one of {MIN_REFERENCE_BINS} bins or more (python -m trainer calibrate)."
            )
        )
    return Group(*parts)


def _alarm_summary(report: DriftReport) -> str:
    """Say which alarms are listed: those that the monitor stored with its last batch."""
    if report.closed_at is None:
        return "No drift alarm is raised: the monitor has closed no batch of photos yet."
    as_of = f"as of the last batch of photos, {formatting.moment(report.closed_at)}"
    if report.state.reference is not report.baseline:
        return (
            f"Drift alarms, {as_of}, follow BINWATCH_DRIFT_REFERENCE={report.state.reference}, the monitor's setting"
            f" then (here: {report.baseline}): {count_noun(len(report.all_alarms), 'alarm')} raised."
        )
    return f"Drift alarms are {as_of}." if report.all_alarms else f"No drift alarm is raised, {as_of}."


def _same_hours(report: DriftReport) -> str:
    hours = report.state.hours
    since = report.state.alarms_from
    coverage = (
        "Alarms compare photos with the same hours in the four weeks before, the table with the model's reference."
        f" Hours of the week with enough photos: {len(hours)} of 168"
    )
    start = f"alarms are raised from {formatting.moment(since)} on" if since else "alarms begin a week after the first"
    return f"{coverage}{f' ({formatting.hours_of_week(hours)}, UTC)' if hours else ''}; {start}."


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
        table.add_row(signal.value, *(_cell(window.results[index]) for window in report.windows))
    return table


def _cell(result: SignalResult) -> Text:
    verdict = _VERDICTS[result.verdict]
    if result.distance is None or result.threshold is None:
        return Text(verdict, style="dim")
    style = "bold red" if result.verdict is Verdict.DRIFTED else ""
    return Text(f"{result.distance:.3f} / {result.threshold:.3f} {verdict}", style=style)


def _accuracy(window: WindowReport) -> str:
    return (
        f"{window.window}: estimated accuracy {formatting.share(window.estimated, window.photos)}, agreement"
        f" {formatting.share(window.agreement, window.compared)} of {formatting.number(window.compared)} compared"
    )
