"""Jinja2 for the pages. All values are escaped, and an undefined name is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from binwatch.text import noun
from monitor import formatting
from monitor.access.proxies import root_path_of
from monitor.pages import sentences
from monitor.views.blind import ITEM_DEFINITION


def html(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. `page` is the name of its entry in the navigation."""
    known: dict[str, Any] = {"page": None, "now": datetime.now(UTC), "root": root_path_of(request)}
    known |= {"item": ITEM_DEFINITION, "reasons": sentences.AUDIT_REASONS}  # of the form for an answer
    # A request that middleware refuses has not reached the app.
    app = request.scope.get("app")
    known["sliced"] = app is not None and app.state.services.settings.slicing is not None
    return HTMLResponse(_TEMPLATES.get_template(template).render(known | values), status)


_TEMPLATES = Environment(
    loader=PackageLoader("monitor"),
    autoescape=True,  # keys, details and model names are strangers' text
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "share": formatting.share,
    "items": formatting.items,
    "number": formatting.number,
    "many": formatting.many,
    "noun": noun,
    "moment": formatting.moment,
    "minute": formatting.minute,
    "ago": formatting.ago,
    "iso": datetime.isoformat,
    "reason": formatting.reason,
    "found": lambda audit: formatting.found(audit.answer, audit.quantity),
    "audit_reason": sentences.AUDIT_REASONS.__getitem__,
    "percent": lambda share: f"{100 * share:g}\N{NARROW NO-BREAK SPACE}%",  # of a setting, which is exact
    "short": lambda label: label.replace("more than", ">"),  # a class in a narrow column
    "query": lambda values: "?" + urlencode({name: value for name, value in values.items() if value is not None}),
    "oddness": sentences.oddness,
    "flagged_for": sentences.FLAGGED_FOR.__getitem__,
    "doubt": sentences.doubt,
    "likely": sentences.likely,
    "variance": sentences.VARIANCE_STATES.__getitem__,
    "verdict": sentences.OUTCOMES.__getitem__,
    "direction": sentences.DIRECTIONS.__getitem__,
}
