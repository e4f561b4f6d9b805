"""A read-only registry of container images, which answers the requests of `docker pull`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from testing.services.http_server import LoopbackServer, respond

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class ImageRegistry:
    """Images by name and tag, each with a single small file in it."""

    def __init__(self, port: int) -> None:
        self.host = f"127.0.0.1:{port}"
        """Docker does not require TLS for a registry on the loopback address."""
        self._tags: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}

    def publish(self, name: str, tag: str, content: bytes) -> str:
        """Publish an image whose only file has this content, and return the digest of the image."""
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
        """Body and content type of a path; None if nothing is there."""
        if path == "/v2/":
            return b"{}", "application/json"
        name = path.removeprefix("/v2/")
        if name in self._tags:
            return self._tags[name], _MANIFEST
        blob = self._blobs.get(name.rsplit("/", 1)[-1])
        return None if blob is None else (blob, "application/octet-stream")

    def _blob(self, data: bytes, kind: str) -> dict[str, object]:
        self._blobs[_digest(data)] = data
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


@contextmanager
def running_registry() -> Iterator[ImageRegistry]:
    """Run a registry on a free port of the loopback address within the context."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        content = registry.answer(handler.path)
        body, kind = content or (b"{}", "application/json")
        respond(200 if content else 404, body, kind, **{"Docker-Content-Digest": _digest(body)})(handler)

    server = LoopbackServer(answer)
    registry = ImageRegistry(server.port)
    try:
        yield registry
    finally:
        server.close()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _layer(content: bytes) -> tuple[bytes, str]:
    """A compressed layer with one file, and the digest of the uncompressed layer."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0), _digest(file.getvalue())
