"""A load of photos that are uploaded while something is restarted."""

from __future__ import annotations

import io
import threading
import zlib
from collections import Counter
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from testing.compose_stack import BUCKET, Stack, wait_until

UPLOAD_INTERVAL_S = 0.1


def photo(number: int) -> bytes:
    """A small JPEG with distinct content."""
    pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


class Load:
    """Uploads a photo and its metadata every tenth of a second within its context. Retries until S3 accepts them."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.uploaded: dict[str, str] = {}
        """Key → ETag of each uploaded photo."""
        self._stack = stack
        self._name = name
        self._s3 = stack.s3()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for_uploads(self, count: int) -> None:
        """Wait until `count` more photos are uploaded."""
        target = len(self.uploaded) + count
        wait_until(lambda: len(self.uploaded) >= target, lambda: f"S3 accepted {len(self.uploaded)} of {target} photos")

    def check(self) -> None:
        """Wait until every photo is counted and compared, and check that each was exactly once."""
        wait_until(lambda: not self._missing(), lambda: f"not counted or compared: {sorted(self._missing())[:10]}")
        counted = {key: count for key, count in self._stack.counts().items() if key[0].startswith(self._prefix)}
        assert counted == dict.fromkeys(self.uploaded.items(), 1)
        compared = Counter(bin_id for (bin_id,) in self._stack.sql("SELECT bin_id FROM comparisons"))
        assert {compared[_bin_id(key)] for key in self.uploaded} == {1}

    @property
    def _prefix(self) -> str:
        return f"bin-images/{self._name}/"

    def _missing(self) -> set[str]:
        counted = {key for key, _ in self._stack.counts()}
        compared = {bin_id for (bin_id,) in self._stack.sql("SELECT bin_id FROM comparisons")}
        return {key for key in self.uploaded if key not in counted or _bin_id(key) not in compared}

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            # The metadata first, so that every photo in `put` can be compared.
            bin_id = f"{self._name}-{number:04}"
            self._put_with_retries(f"metadata/{bin_id}.json", b'{"EXPECTED_QUANTITY": 2}')
            key = f"{self._prefix}{bin_id}.jpg"
            self.uploaded[key] = self._put_with_retries(key, photo(zlib.crc32(key.encode())))
            number += 1
            self._stopping.wait(UPLOAD_INTERVAL_S)

    def _put_with_retries(self, key: str, body: bytes) -> str:
        while True:
            try:
                response: dict[str, Any] = self._s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            except (ClientError, BotoCoreError):  # S3 is being restarted
                self._stopping.wait(0.5)
            else:
                return str(response["ETag"]).strip('"')


def _bin_id(key: str) -> str:
    return key.rsplit("/", 1)[1].removesuffix(".jpg")
