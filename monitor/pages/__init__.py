"""For people: pages that need no script, styles that need no build, and nothing from another host."""

from fastapi import APIRouter

from monitor.pages import overview

router = APIRouter(include_in_schema=False)
router.include_router(overview.router)
