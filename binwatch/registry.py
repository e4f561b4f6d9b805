"""Models in the bucket: `models/<version>/` has a bundle, `models/current.json` names the model in use.

The trainer publishes and promotes models; workers fetch the one in use. A bundle is complete once its card exists,
since the card is uploaded last, and never changes afterwards, except for notes in its card.

Several people and jobs may publish and promote concurrently. Every write has a condition (If-None-Match, If-Match), so
that no file, note or decision is overwritten by somebody who has not seen it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from binwatch.bundle import CARD_FILE, Bundle, Card, Precision, Version
from binwatch.errors import BundleError, ObjectsError, PromotionConflictError
from binwatch.objects import FetchedObject, ObjectRefused, Objects

CURRENT_FILE = "current.json"
_MAX_JSON_BYTES = 2**22
_NOTE_TRIES = 10
_MAX_MODEL_BYTES = 2**30


class CurrentModel(BaseModel):
    """Content of `models/current.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version
    promoted: AwareDatetime
    previous: Version | None = None
    """The version that this one replaced, for a rollback."""
    forced: bool = False
    """Whether it was promoted without being better."""


class Registry:
    """The models under a prefix of a bucket."""

    def __init__(self, objects: Objects, bucket: str, prefix: str) -> None:
        self._objects = objects
        self._bucket = bucket
        self._prefix = prefix

    def current(self) -> CurrentModel | None:
        """The model in use; None if none was ever promoted. Raises ObjectsError in an outage."""
        return self._current()[0]

    def _current(self) -> tuple[CurrentModel | None, FetchedObject | None]:
        key = self._prefix + CURRENT_FILE
        try:
            found = self._objects.fetch(self._bucket, key, max_bytes=_MAX_JSON_BYTES)
        except ObjectRefused as error:
            if error.reason == "missing":
                return None, None
            raise
        try:
            return CurrentModel.model_validate_json(found.data), found
        except ValidationError as error:
            raise BundleError(
                f"s3://{self._bucket}/{key} is damaged: {_first_error(error)}; delete it and promote a model again"
            ) from error

    def set_current(self, current: CurrentModel, before: CurrentModel | None) -> None:
        """Put a published model in use, in place of `before`.

        Raises OvertakenError if another model than `before` is in use now.
        """
        self.card(current.version)
        now, found = self._current()
        if now == before:
            data = current.model_dump_json(indent=2).encode()
            self._objects.put_if_unchanged(self._bucket, self._prefix + CURRENT_FILE, data, found)
            # Read it back: the response to the write may be lost, and some stores ignore the condition.
            now = self.current()
        if now != current:
            what = f"{now.version} was put in use" if now else f"{CURRENT_FILE} was deleted"
            raise PromotionConflictError(
                f"{what} meanwhile, by someone else; compare with the model in use: promote again"
            )

    def versions(self) -> list[str]:
        """Versions of all complete bundles, in alphabetical order."""
        suffix = "/" + CARD_FILE
        keys = (listed.key for listed in self._objects.list(self._bucket, self._prefix))
        return [key.removeprefix(self._prefix).removesuffix(suffix) for key in keys if key.endswith(suffix)]

    def card(self, version: str) -> Card:
        """Card of a published bundle. Raises BundleError if the version does not exist."""
        return self._card(version)[0]

    def _card(self, version: str) -> tuple[Card, FetchedObject]:
        try:
            found = self._objects.fetch(self._bucket, self._card_key(version), max_bytes=_MAX_JSON_BYTES)
        except ObjectRefused as error:
            raise BundleError(f"model {version!r}: {error}; see: python -m trainer models") from error
        try:
            card = Card.model_validate_json(found.data)
        except ValidationError as error:
            raise BundleError(
                f"model {version!r}: its card is damaged: {_first_error(error)}; publish it again"
            ) from error
        if card.version != version:
            raise BundleError(
                f"model {version!r}: the card in its folder is that of {card.version!r}; do not copy or rename folders"
                " in the bucket: export the model under the version that you want, and publish that"
            )
        return card, found

    def _card_key(self, version: str) -> str:
        return f"{self._prefix}{version}/{CARD_FILE}"

    def publish(self, folder: Path) -> Card:
        """Upload the bundle in `folder`. Raises BundleError if its version is taken by another bundle."""
        bundle = Bundle(folder)
        card = bundle.card
        if card.version in self.versions():
            return self._check_same(card)
        for precision in card.variants:
            self._upload(card.version, bundle.model_path(precision))
        if not self._objects.put_if_unchanged(
            self._bucket, self._card_key(card.version), (folder / CARD_FILE).read_bytes(), None
        ):
            return self._check_same(card)
        return card

    def _check_same(self, card: Card) -> Card:
        if self.card(card.version).model_copy(update={"notes": card.notes}) != card:
            raise BundleError(f"model {card.version!r} exists and is another one; export under a new version")
        return card

    def _upload(self, version: str, path: Path) -> None:
        """Upload a bundle's file. An existing one must be identical, from an interrupted publication."""
        key, data = f"{self._prefix}{version}/{path.name}", path.read_bytes()
        if not self._objects.put_if_unchanged(self._bucket, key, data, None) and self._fetch_file(key) != data:
            raise BundleError(
                f"s3://{self._bucket}/{key} exists already and belongs to another bundle, whose card does not exist:"
                f" someone is publishing model {version!r} now, or was interrupted; export under a new version,"
                " or delete the file"
            )

    def annotate(self, version: str, note: str) -> None:
        """Add a note to a published card. Only the notes of a bundle may change."""
        for _ in range(_NOTE_TRIES):
            card, found = self._card(version)
            if note in card.notes:
                return
            noted = card.model_copy(update={"notes": [*card.notes, note]})
            data = (noted.model_dump_json(indent=2) + "\n").encode()
            if self._objects.put_if_unchanged(self._bucket, self._card_key(version), data, found):
                return
        raise ObjectsError(
            f"model {version!r}: its card was changed concurrently several times; the note was not added: {note}"
        )

    def fetch(self, version: str, precisions: list[Precision], cache: Path) -> Bundle:
        """The bundle with the wanted variants, in a folder below `cache`, downloaded unless it is cached.

        Variants that the bundle lacks are ignored; if it lacks all, all of its variants are fetched. Every file is
        checked.
        """
        card = self.card(version)
        wanted = [precision for precision in precisions if precision in card.variants] or list(card.variants)
        folder = cache / version
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-") as partial:
            for precision in wanted:
                variant = card.variants[precision]
                if not (folder / variant.file).exists():
                    key = f"{self._prefix}{version}/{variant.file}"
                    data = self._fetch_file(key)
                    (Path(partial) / variant.file).write_bytes(data)
            folder.mkdir(exist_ok=True)
            (Path(partial) / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
            for file in Path(partial).iterdir():
                file.replace(folder / file.name)
        bundle = Bundle(folder)
        for precision in wanted:
            try:
                bundle.model_path(precision)
            except BundleError:  # a damaged file must not stay in the cache, or no later try could succeed
                shutil.rmtree(bundle.folder, ignore_errors=True)
                raise
        return bundle

    def _fetch_file(self, key: str) -> bytes:
        try:
            return self._objects.fetch(self._bucket, key, max_bytes=_MAX_MODEL_BYTES).data
        except ObjectRefused as error:
            raise BundleError(f"{error}; publish the model again") from error


def _first_error(error: ValidationError) -> str:
    """The first error only: a card has thousands of numbers, and pydantic would name each wrong one."""
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in found['loc']) or 'the file'}: {found['msg']}"
