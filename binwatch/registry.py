"""Models in the bucket: `models/<version>/` holds a bundle, `models/current.json` names the one in use.

The trainer publishes and promotes; workers fetch what is current. A bundle is complete once its card is there, since
the card is uploaded last, and it is never changed afterwards, but for notes in its card.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from binwatch.bundle import CARD, Bundle, Card, Precision, Version
from binwatch.errors import BundleError
from binwatch.objects import ObjectRefused, Objects

_MAX_JSON_BYTES = 2**22
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
        key = self._prefix + "current.json"
        try:
            data = self._objects.fetch(self._bucket, key, max_bytes=_MAX_JSON_BYTES).data
        except ObjectRefused as error:
            if error.why == "missing":
                return None
            raise
        try:
            return Current.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(f"s3://{self._bucket}/{key} is damaged ({error}); promote a model again") from error

    def set_current(self, current: Current) -> None:
        """Put another model in use. Its bundle must be published."""
        self.card(current.version)
        self._objects.put(self._bucket, self._prefix + "current.json", current.model_dump_json(indent=2).encode())

    def versions(self) -> list[str]:
        """Every complete bundle, in the order of their names."""
        suffix = "/" + CARD
        keys = (listed.key for listed in self._objects.list(self._bucket, self._prefix))
        return [key.removeprefix(self._prefix).removesuffix(suffix) for key in keys if key.endswith(suffix)]

    def card(self, version: str) -> Card:
        """Card of a published bundle. Raises BundleError if there is none of that version."""
        try:
            data = self._objects.fetch(self._bucket, f"{self._prefix}{version}/{CARD}", max_bytes=_MAX_JSON_BYTES).data
        except ObjectRefused as error:
            raise BundleError(f"model {version!r}: {error}; see: python -m trainer models") from error
        try:
            return Card.model_validate_json(data)
        except ValidationError as error:
            raise BundleError(f"model {version!r}: its card is damaged ({error}); publish it again") from error

    def publish(self, folder: Path) -> Card:
        """Upload the bundle in `folder`. Raises BundleError if its version is taken by another bundle."""
        bundle = Bundle(folder)
        card = bundle.card
        if card.version in self.versions():
            if self.card(card.version).model_copy(update={"notes": card.notes}) != card:
                raise BundleError(f"model {card.version!r} exists and is another one; export under a new version")
            return card
        for precision in card.variants:
            path = bundle.model(precision)
            self._objects.put(self._bucket, f"{self._prefix}{card.version}/{path.name}", path.read_bytes())
        self._objects.put(self._bucket, f"{self._prefix}{card.version}/{CARD}", (folder / CARD).read_bytes())
        return card

    def annotate(self, version: str, note: str) -> None:
        """Add a sentence to a published card: the one part of a bundle that may change."""
        card = self.card(version)
        noted = card.model_copy(update={"notes": [*card.notes, note]})
        key = f"{self._prefix}{version}/{CARD}"
        self._objects.put(self._bucket, key, (noted.model_dump_json(indent=2) + "\n").encode())

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
            self._check(bundle, precision)
        return bundle

    def _fetch_file(self, key: str) -> bytes:
        try:
            return self._objects.fetch(self._bucket, key, max_bytes=_MAX_MODEL_BYTES).data
        except ObjectRefused as error:
            raise BundleError(f"{error}; publish the model again") from error

    def _check(self, bundle: Bundle, precision: Precision) -> None:
        """A damaged file must not stay in the cache, or no later try could succeed."""
        try:
            bundle.model(precision)
        except BundleError:
            shutil.rmtree(bundle.folder, ignore_errors=True)
            raise
