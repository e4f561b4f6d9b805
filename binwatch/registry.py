"""Models in the bucket: `models/<version>/` has a bundle, `models/current.json` names the model in use.

The trainer publishes and promotes models, and workers fetch the one in use. A bundle is complete once its card exists,
since the card is uploaded last. Afterwards, only the notes in its card change.

Several people and jobs may publish and promote concurrently. Every write is conditional (If-None-Match, If-Match), so
that nobody overwrites a file, note or decision that they have not seen.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from binwatch.bundle import CARD_FILE, Bundle, Card, Precision, Version, describe_first_error
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
    """The version that it replaced, for a rollback."""
    forced: bool = False
    """Whether the model was promoted without being better."""


class Registry:
    """The models under a prefix of a bucket."""

    def __init__(self, objects: Objects, bucket: str, prefix: str) -> None:
        self._objects = objects
        self._bucket = bucket
        self._prefix = prefix

    def current(self) -> CurrentModel | None:
        """Fetch the model in use; None if no model was ever promoted. Raises ObjectsError in an outage."""
        return self._fetch_current()[0]

    def _fetch_current(self) -> tuple[CurrentModel | None, FetchedObject | None]:
        key = self._prefix + CURRENT_FILE
        try:
            fetched = self._objects.fetch(self._bucket, key, max_bytes=_MAX_JSON_BYTES)
        except ObjectRefused as error:
            if error.reason == "missing":
                return None, None
            raise
        try:
            return CurrentModel.model_validate_json(fetched.data), fetched
        except ValidationError as error:
            raise BundleError(
                f"s3://{self._bucket}/{key} is damaged: {describe_first_error(error)}; delete it and promote a model"
                " again"
            ) from error

    def set_current(self, current: CurrentModel, before: CurrentModel | None) -> None:
        """Put a published model in use, in place of `before`.

        Raises PromotionConflictError if the model in use is no longer `before`.
        """
        self.card(current.version)
        in_use, fetched = self._fetch_current()
        if in_use == before:
            data = current.model_dump_json(indent=2).encode()
            self._objects.put_if_unchanged(self._bucket, self._prefix + CURRENT_FILE, data, fetched)
            # Read it back: the response to the write may be lost, and some stores ignore the condition.
            in_use = self.current()
        if in_use != current:
            change = f"{in_use.version} was put in use" if in_use else f"{CURRENT_FILE} was deleted"
            raise PromotionConflictError(
                f"{change} meanwhile, by someone else; compare with the model in use: promote again"
            )

    def versions(self) -> list[str]:
        """List the versions of all complete bundles, in alphabetical order."""
        suffix = "/" + CARD_FILE
        keys = (listed.key for listed in self._objects.list(self._bucket, self._prefix))
        return [key.removeprefix(self._prefix).removesuffix(suffix) for key in keys if key.endswith(suffix)]

    def card(self, version: str) -> Card:
        """Fetch the card of a published bundle. Raises BundleError if the version does not exist."""
        return self._fetch_card(version)[0]

    def _fetch_card(self, version: str) -> tuple[Card, FetchedObject]:
        try:
            fetched = self._objects.fetch(self._bucket, self._card_key(version), max_bytes=_MAX_JSON_BYTES)
        except ObjectRefused as error:
            raise BundleError(f"model {version!r}: {error}; see: python -m trainer models") from error
        try:
            card = Card.model_validate_json(fetched.data)
        except ValidationError as error:
            raise BundleError(
                f"model {version!r}: its card is damaged: {describe_first_error(error)}; publish it again"
            ) from error
        if card.version != version:
            raise BundleError(
                f"model {version!r}: the card in its folder is that of {card.version!r}; do not copy or rename folders"
                " in the bucket: export the model under the version that you want, and publish that"
            )
        return card, fetched

    def _card_key(self, version: str) -> str:
        return f"{self._prefix}{version}/{CARD_FILE}"

    def publish(self, folder: Path) -> Card:
        """Upload the bundle in `folder`. Raises BundleError if another bundle has its version."""
        bundle = Bundle(folder)
        card = bundle.card
        if card.version in self.versions():
            return self._check_identical(card)
        for precision in card.variants:
            self._upload(card.version, bundle.model_path(precision))
        if not self._objects.put_if_unchanged(
            self._bucket, self._card_key(card.version), (folder / CARD_FILE).read_bytes(), None
        ):
            return self._check_identical(card)
        return card

    def _check_identical(self, card: Card) -> Card:
        """Return `card`. Raises BundleError unless it equals the published card of its version, except for notes."""
        if self.card(card.version).model_copy(update={"notes": card.notes}) != card:
            raise BundleError(f"model {card.version!r} exists and is another one; export under a new version")
        return card

    def _upload(self, version: str, path: Path) -> None:
        """Upload a bundle's file. A file that an interrupted publication has left must be identical."""
        key, data = f"{self._prefix}{version}/{path.name}", path.read_bytes()
        if not self._objects.put_if_unchanged(self._bucket, key, data, None) and self._fetch_file(key) != data:
            raise BundleError(
                f"s3://{self._bucket}/{key} exists already and belongs to another bundle, whose card does not exist:"
                f" someone is publishing model {version!r} now, or was interrupted; export under a new version,"
                " or delete the file"
            )

    def annotate(self, version: str, note: str) -> None:
        """Add a note to a published card."""
        for _ in range(_NOTE_TRIES):
            card, fetched = self._fetch_card(version)
            if note in card.notes:
                return
            noted = card.model_copy(update={"notes": [*card.notes, note]})
            data = (noted.model_dump_json(indent=2) + "\n").encode()
            if self._objects.put_if_unchanged(self._bucket, self._card_key(version), data, fetched):
                return
        raise ObjectsError(
            f"model {version!r}: its card was changed concurrently several times; the note was not added: {note}"
        )

    def fetch(self, version: str, precisions: list[Precision], cache: Path) -> Bundle:
        """Return a bundle with the wanted variants, in a folder below `cache`. Downloads the files that are not cached.

        Variants that the bundle lacks are ignored; if it lacks all of them, all its variants are fetched. Every file is
        verified.
        """
        card = self.card(version)
        wanted = [precision for precision in precisions if precision in card.variants] or list(card.variants)
        folder = cache / version
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-") as partial:
            for precision in wanted:
                variant = card.variants[precision]
                if not (folder / variant.file).exists():
                    data = self._fetch_file(f"{self._prefix}{version}/{variant.file}")
                    (Path(partial) / variant.file).write_bytes(data)
            folder.mkdir(exist_ok=True)
            (Path(partial) / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
            for file in Path(partial).iterdir():
                file.replace(folder / file.name)
        bundle = Bundle(folder)
        for precision in wanted:
            try:
                bundle.model_path(precision)
            except BundleError:  # a damaged file must not stay in the cache, or every retry would fail
                shutil.rmtree(bundle.folder, ignore_errors=True)
                raise
        return bundle

    def _fetch_file(self, key: str) -> bytes:
        try:
            return self._objects.fetch(self._bucket, key, max_bytes=_MAX_MODEL_BYTES).data
        except ObjectRefused as error:
            raise BundleError(f"{error}; publish the model again") from error
