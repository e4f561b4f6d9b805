"""Select the photos of a nightly run, for either backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Engine as Database

from binwatch.bundle import Bundle
from binwatch.keys import ObjectKind, kind_of
from binwatch.objects import ListedObject, Objects
from binwatch.records.queries import unrecorded_photos
from binwatch.registry import Registry
from binwatch.settings import Settings
from worker.reconcile import GracePeriod

_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """All photos under `prefix` without a record of `model`; with `again`, all photos under `prefix`."""

    model: str
    prefix: str = ""
    again: bool = False


def select_photos(
    objects: Objects, database: Database, settings: Settings, selection: Selection, grace: GracePeriod
) -> Iterator[list[ListedObject]]:
    """Yield the photos of the selection, a page at a time, in the order of their keys."""
    listing = grace.filter_older(
        listed
        for listed in objects.list(settings.bucket, selection.prefix)
        if kind_of(listed.key, settings.models_prefix) is ObjectKind.PHOTO
    )
    while page := list(islice(listing, _PAGE_SIZE)):
        if not selection.again:
            with database.connect() as connection:
                page = unrecorded_photos(connection, settings.bucket, page, selection.model)
        yield page


def current_version(objects: Objects, settings: Settings) -> str:
    """Return the version of the model in use: the promoted one, or else that of the settings."""
    current = Registry(objects, settings.bucket, settings.models_prefix).current()
    return current.version if current is not None else Bundle(settings.model_dir).card.version
