"""Photos that keep coming while something is restarted."""

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

PAUSE_S = 0.1


def photo(number: int) -> bytes:
    """A small JPEG like no other."""
    pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


class Load:
    """Puts a photo and its metadata every tenth of a second, each until S3 takes it, from entering to leaving."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.put: dict[str, str] = {}
        """Key → ETag of each photo that S3 has taken."""
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

    def wait_for(self, more: int) -> None:
        """Wait until S3 has taken so many more photos."""
        wanted = len(self.put) + more
        wait_until(lambda: len(self.put) >= wanted, lambda: f"S3 took {len(self.put)} photos, of {wanted}")

    def check(self) -> None:
        """Wait until every photo is counted and compared; then each must have been exactly once."""
        wait_until(lambda: not self._missing(), lambda: f"not counted or compared: {sorted(self._missing())[:10]}")
        counted = {key: number for key, number in self._stack.counts().items() if key[0].startswith(self._prefix)}
        assert counted == dict.fromkeys(self.put.items(), 1)
        compared = Counter(bin_id for (bin_id,) in self._stack.sql("SELECT bin_id FROM comparisons"))
        assert {compared[_bin(key)] for key in self.put} == {1}

    @property
    def _prefix(self) -> str:
        return f"bin-images/{self._name}/"

    def _missing(self) -> set[str]:
        counted = {key for key, _ in self._stack.counts()}
        compared = {bin_id for (bin_id,) in self._stack.sql("SELECT bin_id FROM comparisons")}
        return {key for key in self.put if key not in counted or _bin(key) not in compared}

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            # The metadata first: whichever comes second makes the comparison, and a photo that is there has been put.
            bin_id = f"{self._name}-{number:04}"
            self._until_taken(f"metadata/{bin_id}.json", b'{"EXPECTED_QUANTITY": 2}')
            key = f"{self._prefix}{bin_id}.jpg"
            self.put[key] = self._until_taken(key, photo(zlib.crc32(key.encode())))
            number += 1
            self._stopping.wait(PAUSE_S)

    def _until_taken(self, key: str, body: bytes) -> str:
        while True:
            try:
                answer: dict[str, Any] = self._s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            except (ClientError, BotoCoreError):  # it is being restarted: any client tries again
                self._stopping.wait(0.5)
            else:
                return str(answer["ETag"]).strip('"')


def _bin(key: str) -> str:
    return key.rsplit("/", 1)[1].removesuffix(".jpg")
