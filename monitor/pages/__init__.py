"""For people: pages that need no script, styles that need no build, and nothing from another host."""

from fastapi import APIRouter

from monitor.pages import audits, bins, discrepancies, drift, expected, lists, login, models, overview

router = APIRouter(include_in_schema=False)
for _page in (overview, discrepancies, bins, audits, lists, expected, models, drift, login):
    router.include_router(_page.router)
