"""The drift page: alarms, and each signal in the reference and now, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from binwatch.counts import CLASSES, MORE_THAN_5
from monitor.charts.shapes import PairedColumns, Shifts, Steps, columns, shifts, steps
from monitor.drift.distributions import Distribution, DistributionKind
from monitor.drift.judge import Verdict
from monitor.drift.windows import Window
from monitor.pages import sentences
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices
from monitor.views.drift import SignalView, WindowView, summarise_drift, view_drift

router = APIRouter()

_CLASS_LABELS = [*CLASSES[:MORE_THAN_5], "> 5"]


@dataclass(frozen=True, slots=True)
class SignalPanel:
    """Texts and chart of one signal."""

    view: SignalView
    name: str
    description: str
    verdict: str
    figures: str
    """The figures behind the verdict, as text."""
    chart: PairedColumns | Steps | Shifts | None


@router.get("/drift", response_class=HTMLResponse)
def drift(
    request: Request, services: CurrentServices, context: RequestContext, window: Window | None = None
) -> HTMLResponse:
    """Show the signals of one window; by default, the window of the drift summary."""
    report = services.drift.report
    view, summary = view_drift(report), summarise_drift(report)
    window = window or summary.window or Window.LATEST
    window_view = next((candidate for candidate in view.windows if candidate.window is window), None)
    return render(
        request,
        "drift.html",
        page="Drift",
        context=context,
        view=view,
        verdict=sentences.drift_status(summary),
        window=window_view,
        windows=sentences.WINDOWS,
        alarms=[sentences.alarm_text(alarm) for alarm in view.alarms],
        same_hours=sentences.same_hours_text(view.same_hours) if view.same_hours else "",
        false_alarms=sentences.FALSE_ALARMS,
        estimate=sentences.estimate_text(window_view) if window_view else "",
        panels=signal_panels(window_view) if window_view else [],
    )


def signal_panels(window: WindowView) -> list[SignalPanel]:
    """Return the panels of a window: drifted signals first, then steady ones, then those without a verdict."""
    order = list(dict.fromkeys([Verdict.DRIFTED, Verdict.STEADY, *Verdict]))
    return [
        SignalPanel(
            signal,
            *sentences.SIGNALS[signal.signal],
            verdict=sentences.VERDICTS[signal.verdict],
            figures=sentences.distance_text(signal),
            chart=_chart(signal.distribution),
        )
        for signal in sorted(window.signals, key=lambda signal: order.index(signal.verdict))
    ]


def _chart(distribution: Distribution | None) -> PairedColumns | Steps | Shifts | None:
    if distribution is None:
        return None
    reference, window = distribution.reference, distribution.window
    if distribution.kind is DistributionKind.CLASSES:
        return columns(reference, window, _CLASS_LABELS)
    if distribution.kind is DistributionKind.SHIFTS:
        return shifts(window)
    low, high = (sentences.axis_label(value or 0.0) for value in (distribution.low, distribution.high))
    return steps(reference, window, low, high)
