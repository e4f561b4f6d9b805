"""Models in the bucket: `models/<version>/` holds a bundle, `models/current.json` names the one in use.

The trainer publishes and promotes; workers fetch what is current. A bundle is complete once its card is there, since
the card is uploaded last, and it is never changed afterwards, but for notes in its card.

Several people and jobs may publish and promote at once. Every write has a condition (If-None-Match, If-Match), so that
no one's file, note or decision is replaced by that of another who had not seen it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from binwatch.bundle import CARD, Bundle, Card, Precision, Version
from binwatch.errors import BundleError, ObjectsError, OvertakenError
from binwatch.objects import Fetched, ObjectRefused, Objects

CURRENT = "current.json"
_MAX_JSON_BYTES = 2**22
_NOTE_TRIES = 10
_MAX_MODEL_BYTES = 2**30


class Current(BaseModel):
    """Content of `models/current.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Version
    promoted: AwareDatetime
    previous: Version | None = None
    """The version that this one replaced, to go back to."""
    forced: bool = False
    """Promoted although it was not found to be better."""


class Registry:
    """The models under a prefix of a bucket."""

    def __init__(self, objects: Objects, bucket: str, prefix: str) -> None:
        self._objects = objects
        self._bucket = bucket
        self._prefix = prefix

    def current(self) -> Current | None:
        """The model in use; None if none was ever promoted. Raises ObjectsError if it cannot be asked."""
        return self._current()[0]

    def _current(self) -> tuple[Current | None, Fetched | None]:
        key = self._prefix + CURRENT
        try:
            found = self._objects.fetch(self._bucket, key, max_bytes=_MAX_JSON_BYTES)
        except ObjectRefused as error:
            if error.why == "missing":
                return None, None
            raise
        try:
            return Current.model_validate_json(found.data), found
        except ValidationError as error:
            raise BundleError(
                f"s3://{self._bucket}/{key} is damaged: {_first(error)}; delete it and promote a model again"
            ) from error

    def set_current(self, current: Current, before: Current | None) -> None:
        """Put another model in use, in place of `before`. Its bundle must be published.

        Raises OvertakenError if another one than `before` is in use by now.
        """
        self.card(current.version)
        now, found = self._current()
        if now == before:
            data = current.model_dump_json(indent=2).encode()
            self._objects.put_over(self._bucket, self._prefix + CURRENT, data, found)
            # What is there now decides: the answer to a write may get lost, and some stores ignore the condition.
            now = self.current()
        if now != current:
            what = f"{now.version} was put in use" if now else f"{CURRENT} was deleted"
            raise OvertakenError(f"{what} meanwhile, by someone else; compare with the model in use: promote again")

    def versions(self) -> list[str]:
        """Every complete bundle, in the order of their names."""
        suffix = "/" + CARD
        keys = (listed.key for listed in self._objects.list(self._bucket, self._prefix))
        return [key.removeprefix(self._prefix).removesuffix(suffix) for key in keys if key.endswith(suffix)]

    def card(self, version: str) -> Card:
        """Card of a published bundle. Raises BundleError if there is none of that version."""
        return self._card(version)[0]

    def _card(self, version: str) -> tuple[Card, Fetched]:
        try:
            found = self._objects.fetch(self._bucket, self._card_key(version), max_bytes=_MAX_JSON_BYTES)
        except ObjectRefused as error:
            raise BundleError(f"model {version!r}: {error}; see: python -m trainer models") from error
        try:
            card = Card.model_validate_json(found.data)
        except ValidationError as error:
            raise BundleError(f"model {version!r}: its card is damaged: {_first(error)}; publish it again") from error
        if card.version != version:
            raise BundleError(
                f"model {version!r}: the card in its folder is that of {card.version!r}; do not copy or rename folders"
                " in the bucket: export the model under the version that you want, and publish that"
            )
        return card, found

    def _card_key(self, version: str) -> str:
        return f"{self._prefix}{version}/{CARD}"

    def publish(self, folder: Path) -> Card:
        """Upload the bundle in `folder`. Raises BundleError if its version is taken by another bundle."""
        bundle = Bundle(folder)
        card = bundle.card
        if card.version in self.versions():
            return self._check_same(card)
        for precision in card.variants:
            self._upload(card.version, bundle.model(precision))
        if not self._objects.put_over(self._bucket, self._card_key(card.version), (folder / CARD).read_bytes(), None):
            return self._check_same(card)
        return card

    def _check_same(self, card: Card) -> Card:
        if self.card(card.version).model_copy(update={"notes": card.notes}) != card:
            raise BundleError(f"model {card.version!r} exists and is another one; export under a new version")
        return card

    def _upload(self, version: str, path: Path) -> None:
        """Upload a bundle's file. What is there may be the same, of a publish that was interrupted, and no other's."""
        key, data = f"{self._prefix}{version}/{path.name}", path.read_bytes()
        if not self._objects.put_over(self._bucket, key, data, None) and self._fetch_file(key) != data:
            raise BundleError(
                f"s3://{self._bucket}/{key} exists already and belongs to another bundle, whose card does not exist:"
                f" someone is publishing model {version!r} now, or was interrupted; export under a new version,"
                " or delete the file"
            )

    def annotate(self, version: str, note: str) -> None:
        """Add a sentence to a published card: the one part of a bundle that may change."""
        for _ in range(_NOTE_TRIES):
            card, found = self._card(version)
            if note in card.notes:
                return
            noted = card.model_copy(update={"notes": [*card.notes, note]})
            data = (noted.model_dump_json(indent=2) + "\n").encode()
            if self._objects.put_over(self._bucket, self._card_key(version), data, found):
                return
        raise ObjectsError(
            f"model {version!r}: its card was changed concurrently several times; the note was not added: {note}"
        )

    def fetch(self, version: str, precisions: list[Precision], cache: Path) -> Bundle:
        """The bundle with the wanted variants, in a folder below `cache`, downloaded unless it is there already.

        Variants that it does not have are left out; which are there, the card says. Every file is checked.
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
            (Path(partial) / CARD).write_text(card.model_dump_json(), encoding="utf-8")
            for file in Path(partial).iterdir():
                file.replace(folder / file.name)
        bundle = Bundle(folder)
        for precision in wanted:
            try:
                bundle.model(precision)
            except BundleError:  # a damaged file must not stay in the cache, or no later try could succeed
                shutil.rmtree(bundle.folder, ignore_errors=True)
                raise
        return bundle

    def _fetch_file(self, key: str) -> bytes:
        try:
            return self._objects.fetch(self._bucket, key, max_bytes=_MAX_MODEL_BYTES).data
        except ObjectRefused as error:
            raise BundleError(f"{error}; publish the model again") from error


def _first(error: ValidationError) -> str:
    """What is wrong, in a few words: a card has thousands of numbers, and pydantic would name each."""
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in found['loc']) or 'the file'}: {found['msg']}"
