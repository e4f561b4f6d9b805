"""Drift: each signal as it was and as it is, with the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from binwatch.counts import CLASSES, MORE
from monitor.charts.shapes import PairedColumns, Shifts, Steps, columns, shifts, steps
from monitor.drift.distributions import Distribution, DistributionKind
from monitor.drift.judge import Verdict
from monitor.drift.windows import Window
from monitor.pages import sentences
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.drift import SignalView, WindowView, summarise_drift, view_drift

router = APIRouter()

_SHORT = [*CLASSES[:MORE], "> 5"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One signal, ready to be drawn."""

    of: SignalView
    name: str
    what: str
    verdict: str
    says: str
    """The figures behind the verdict."""
    chart: PairedColumns | Steps | Shifts | None


@router.get("/drift", response_class=HTMLResponse)
def drift(
    request: Request, services: CurrentServices, context: RequestContext, window: Window | None = None
) -> HTMLResponse:
    """The signals of one window: the one asked for, or the one that says most."""
    report = services.drift.report
    view, brief = view_drift(report), summarise_drift(report)
    chosen = window or brief.window or Window.LATEST
    shown = next((one for one in view.windows if one.window is chosen), None)
    return html(
        request,
        "drift.html",
        page="Drift",
        context=context,
        view=view,
        verdict=sentences.drift_status(brief),
        shown=shown,
        windows=sentences.WINDOWS,
        alarms=[sentences.alarm(one) for one in view.alarms],
        same_hours=sentences.same_hours(view.same_hours) if view.same_hours else "",
        promise=sentences.PROMISE,
        estimate=sentences.estimate(shown) if shown else "",
        pictures=pictures(shown) if shown else [],
    )


def pictures(window: WindowView) -> list[Picture]:
    """What has drifted comes first, and what cannot be judged last."""
    order = list(dict.fromkeys([Verdict.DRIFTED, Verdict.STEADY, *Verdict]))
    return [
        Picture(
            one,
            *sentences.SIGNALS[one.signal],
            verdict=sentences.VERDICTS[one.verdict],
            says=sentences.distance(one),
            chart=_chart(one.distribution),
        )
        for one in sorted(window.signals, key=lambda one: order.index(one.verdict))
    ]


def _chart(of: Distribution | None) -> PairedColumns | Steps | Shifts | None:
    if of is None:
        return None
    if of.kind is DistributionKind.CLASSES:
        return columns(of.reference, of.window, _SHORT)
    if of.kind is DistributionKind.SHIFTS:
        return shifts(of.window)
    return steps(of.reference, of.window, sentences.figure(of.low or 0.0), sentences.figure(of.high or 0.0))
