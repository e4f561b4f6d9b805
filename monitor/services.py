"""The services that routes use, created once at start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request

from binwatch.bundle import Reference
from binwatch.objects import Objects
from binwatch.photo_folder import PhotoFolder
from binwatch.registry import Registry
from binwatch.settings import Settings
from monitor.background_report import BackgroundReport
from monitor.cards import Cards
from monitor.drift.report import DriftReport, make_report, update_and_report
from monitor.photos import PhotoFetcher, Photos
from monitor.random_audits import RandomAudits, read_random_audits
from monitor.records import Records, WritableRecords
from monitor.views.discrepancies import Direction, Filters, FlagReport, read_flags
from monitor.views.overview import Overview, TimeRange, read_overview
from monitor.views.slices import SlicesView, view_slices


@dataclass(frozen=True, slots=True)
class Services:
    """The records, the photos, the models' cards and the background reports."""

    records: Records
    photos: Photos
    drift: BackgroundReport[DriftReport]
    """Each report closes batches of photos, which only a running monitor may do; `stored_drift` only reads."""
    flags: BackgroundReport[FlagReport]
    random_audits: BackgroundReport[RandomAudits]
    """None of these reports is made before it is started."""
    cards: Cards
    writable: WritableRecords
    settings: Settings

    def alpha(self, requested: float | None) -> float:
        """Return the requested flag level, or the settings' default."""
        return self.settings.flag_level if requested is None else requested

    def filters(self, requested: Filters) -> Filters:
        """Return the requested filters, with the settings' direction if none was requested."""
        if "direction" in requested.model_fields_set:
            return requested
        return requested.model_copy(update={"direction": Direction(self.settings.flag_direction)})

    def overview(self, model: str | None, span: TimeRange, alpha: float | None = None) -> Overview:
        """Read the overview of one model, by default the one in use. Raises RecordsDown, UnknownModel."""
        level, direction = self.alpha(alpha), self.settings.flag_direction
        drift, audits = self.drift.report, self.random_audits.report
        return self.records.read(
            lambda connection: read_overview(
                connection, drift, self.cached_reference, level, direction, model, span, random_audits=audits
            )
        )

    def slices(self, model: str | None) -> SlicesView:
        """Read the figures by slice of one model, by default the one in use. Raises RecordsDown, UnknownModel."""
        flags = self.flags.report.slices if self.flags.report else None
        return self.records.read(lambda connection: view_slices(connection, self.settings.slicing, flags, model))

    def stored_drift(self) -> DriftReport:
        """Judge the current windows, and read the alarms that a running monitor has stored. Raises RecordsDown."""
        return make_report(self.records, self.cards.reference, self.settings.drift_reference, self.settings.slicing)

    def cached_reference(self, version: str) -> Reference | None:
        """Return a model's reference if its card is cached; else fetch the card in the background, and return None."""
        card = self.cards.get_cached(version)
        return card.reference if card else None

    def close(self) -> None:
        """Stop the reports and release the records."""
        self.drift.stop()
        self.flags.stop()
        self.random_audits.stop()
        self.records.close()


def make_services(settings: Settings) -> Services:
    """Create the services, without connecting. Raises SettingsError for a database URL that a monitor cannot use."""
    records = Records(settings.database_url.get_secret_value())
    writable = WritableRecords(settings.database_url.get_secret_value())
    if settings.photo_dir is None:
        source: PhotoFetcher = (objects := Objects(settings))
        registry = Registry(objects, settings.bucket, settings.models_prefix)
    else:
        source, registry = PhotoFolder(settings.photo_dir), None
    cards = Cards(settings.model_dir, registry)
    interval_s = settings.drift_interval_s
    drift = partial(update_and_report, records, writable, cards.reference, settings.drift_reference, settings.slicing)
    flags = partial(
        read_flags,
        alpha=settings.flag_level,
        direction=settings.flag_direction,
        by_slice=settings.slicing is not None,
    )
    return Services(
        records=records,
        photos=Photos(records, source, settings.limits),
        drift=BackgroundReport("drift", drift, interval_s),
        flags=BackgroundReport("flags", lambda: records.read(flags), interval_s),
        random_audits=BackgroundReport("random audits", lambda: records.read(read_random_audits), interval_s),
        cards=cards,
        writable=writable,
        settings=settings,
    )


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


CurrentServices = Annotated[Services, Depends(_services)]
"""Type of a route's parameter that receives the services."""
