"""Jinja2 templates of the pages. All values are escaped, and undefined names are errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from binwatch.text import pluralize
from monitor import formatting
from monitor.access.proxies import root_path_of
from monitor.pages import sentences
from monitor.views.blind import ITEM_DEFINITION


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page. The value `page` is the name of its entry in the navigation."""
    app = request.scope.get("app")  # missing if middleware refused the request
    defaults: dict[str, Any] = {
        "page": None,
        "now": datetime.now(UTC),
        "root": root_path_of(request),
        "has_slices": app is not None and app.state.services.settings.slicing is not None,
        "item_definition": ITEM_DEFINITION,
        "audit_reasons": sentences.AUDIT_REASONS,
    }
    return HTMLResponse(_TEMPLATES.get_template(template).render(defaults | values), status)


_TEMPLATES = Environment(
    loader=PackageLoader("monitor"),
    autoescape=True,  # keys, details and names of models are untrusted text
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "share": formatting.share,
    "items": formatting.items,
    "number": formatting.number,
    "many": formatting.many,
    "noun": pluralize,
    "moment": formatting.moment,
    "minute": formatting.minute,
    "ago": formatting.ago,
    "iso": datetime.isoformat,
    "reason": formatting.reason,
    "found": lambda audit: formatting.audit_answer(audit.answer, audit.quantity),
    "audit_reason": sentences.AUDIT_REASONS.__getitem__,
    "percent": lambda share: f"{100 * share:g}\N{NARROW NO-BREAK SPACE}%",  # exact, for values of settings
    "short": lambda label: label.replace("more than", ">"),  # name of a class for a narrow column
    "query_string": lambda parameters: (
        "?" + urlencode({name: value for name, value in parameters.items() if value is not None})
    ),
    "p_value_text": sentences.p_value_text,
    "flagged_for": sentences.FLAGGED_FOR.__getitem__,
    "chance_text": sentences.chance_text,
    "probability": sentences.probability_text,
    "variance": sentences.VARIANCE_STATES.__getitem__,
    "verdict": sentences.OUTCOMES.__getitem__,
    "direction": sentences.DIRECTIONS.__getitem__,
}
