"""The photos that a nightly run counts, on either backend."""

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
from worker.reconcile import Grace

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """All photos under `prefix` without a record of `model`; with `again`, all photos under `prefix`."""

    model: str
    prefix: str = ""
    again: bool = False


def photos(
    objects: Objects, database: Database, settings: Settings, selection: Selection, grace: Grace
) -> Iterator[list[ListedObject]]:
    """The photos of the selection, a page at a time, in the order of their keys."""
    listing = grace.older(
        listed
        for listed in objects.list(settings.bucket, selection.prefix)
        if kind_of(listed.key, settings.models_prefix) is ObjectKind.PHOTO
    )
    while page := list(islice(listing, _PAGE)):
        if not selection.again:
            with database.connect() as connection:
                page = unrecorded_photos(connection, settings.bucket, page, selection.model)
        yield page


def current_version(objects: Objects, settings: Settings) -> str:
    """Version of the model in use: the promoted one, or else the settings'."""
    current = Registry(objects, settings.bucket, settings.models_prefix).current()
    return current.version if current is not None else Bundle(settings.model_dir).card.version
