"""A read-only registry of container images: the requests that a Docker engine makes to pull one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from testing.services.http_server import LoopbackServer, say

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class ImageRegistry:
    """Images by name and tag, each with a single small file in it."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        """An engine asks a registry on the loopback address without TLS."""
        self._tags: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}

    def publish(self, name: str, tag: str, content: bytes) -> str:
        """Publish an image whose file has this content under a tag; returns the image's digest."""
        layer, unpacked = _layer(content)
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [unpacked]}}
        ).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": _MANIFEST,
            "config": self._blob(config, _CONFIG), "layers": [self._blob(layer, _LAYER)],
        }).encode()  # fmt: skip
        self._tags[f"{name}/manifests/{tag}"] = self._tags[f"{name}/manifests/{_digest(manifest)}"] = manifest
        return _digest(manifest)

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """Body and type of what is at a path."""
        if path == "/v2/":
            return b"{}", "application/json"
        place = path.removeprefix("/v2/")
        if place in self._tags:
            return self._tags[place], _MANIFEST
        found = self._blobs.get(place.rsplit("/", 1)[-1])
        return None if found is None else (found, "application/octet-stream")

    def _blob(self, data: bytes, kind: str) -> dict[str, object]:
        self._blobs[_digest(data)] = data
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


@contextmanager
def running_registry() -> Iterator[ImageRegistry]:
    """A registry on a free port of the loopback address until the block ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = registry.answer(handler.path)
        body, kind = found or (b"{}", "application/json")
        say(200 if found else 404, body, kind, **{"Docker-Content-Digest": _digest(body)})(handler)

    server = LoopbackServer(answer)
    registry = ImageRegistry(server.port)
    try:
        yield registry
    finally:
        server.close()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _layer(content: bytes) -> tuple[bytes, str]:
    """A layer with one file, packed, and the digest of what it unpacks to."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0), _digest(file.getvalue())
