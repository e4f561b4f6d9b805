"""All routes: the pages and the API.

They are not collected in the __init__ of the two packages, because importing one module of a package would then import
all routes, in a circle.
"""

from __future__ import annotations

from fastapi import APIRouter

from monitor.api import audits as api_audits
from monitor.api import lists as api_lists
from monitor.api import machine, views
from monitor.pages import (
    auditors,
    audits,
    bins,
    discrepancies,
    drift,
    expected,
    lists,
    login,
    models,
    overview,
    slices,
    variances,
)

pages = APIRouter(include_in_schema=False)
for _page in (
    overview,
    discrepancies,
    bins,
    audits,
    auditors,
    variances,
    lists,
    expected,
    models,
    slices,
    drift,
    login,
):
    pages.include_router(_page.router)

api = APIRouter()
for _part in (machine, views, api_lists, api_audits):
    api.include_router(_part.router)
