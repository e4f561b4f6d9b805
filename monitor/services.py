"""What the routes work with: made once at start, handed to each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from binwatch.objects import Objects
from binwatch.settings import Settings
from monitor.photos import Photos
from monitor.records import Records


@dataclass(frozen=True, slots=True)
class Services:
    """The records, and the photos that they are about."""

    records: Records
    photos: Photos


def make_services(settings: Settings) -> Services:
    """Nothing is connected yet. Raises SettingsError for a database URL that no monitor can use."""
    records = Records(settings.database_url.get_secret_value())
    return Services(records, Photos(records, Objects(settings), settings.limits))


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(_services)]
"""Type of a route's parameter that receives the services."""
