"""For machines: metrics, health, the photos, and everything that pages show as JSON (/openapi.json describes it)."""

from fastapi import APIRouter

from monitor.api import audits, lists, machine, views
from monitor.api.machine import MAX_ID, ModelName

router = APIRouter()
for _part in (machine, views, lists, audits):
    router.include_router(_part.router)

__all__ = ["MAX_ID", "ModelName", "router"]
