"""For people: pages that need no script, styles that need no build, and nothing from another host."""

from fastapi import APIRouter

from monitor.pages import discrepancies, overview

router = APIRouter(include_in_schema=False)
for _page in (overview, discrepancies):
    router.include_router(_page.router)
