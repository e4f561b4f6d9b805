"""What the routes work with: made once at start, handed to each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from binwatch.objects import Objects
from binwatch.registry import Registry
from binwatch.settings import Settings
from monitor.cards import Cards
from monitor.drift.watch import DriftWatch
from monitor.photos import Photos
from monitor.records import Records


@dataclass(frozen=True, slots=True)
class Services:
    """The records, and the photos that they are about."""

    records: Records
    photos: Photos
    drift: DriftWatch
    """Makes no report until it is started."""
    cards: Cards
    settings: Settings

    def close(self) -> None:
        """Give back what is held."""
        self.drift.stop()
        self.cards.close()
        self.records.close()


def make_services(settings: Settings) -> Services:
    """Nothing is connected yet. Raises SettingsError for a database URL that no monitor can use."""
    records = Records(settings.database_url.get_secret_value())
    objects = Objects(settings)
    cards = Cards(settings.model_dir, Registry(objects, settings.bucket, settings.models_prefix))
    drift = DriftWatch(records, cards.reference, settings.drift_interval_s)
    return Services(records, Photos(records, objects, settings.limits), drift, cards, settings)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(_services)]
"""Type of a route's parameter that receives the services."""
