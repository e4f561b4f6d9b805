"""Limit on the size of request bodies, which is higher for uploads by users who may write."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.types import Scope

from monitor.access.authentication import Authenticator
from monitor.access.bodies import MAX_BODY_BYTES
from monitor.access.proxies import relative_path

UPLOAD_PATH = "/expected"
MAX_FILE_BYTES = 8 * 2**20
"""Maximum size of an uploaded file in bytes: half a million rows of CSV. Each concurrent request may hold one file."""


def upload_limit(authenticator: Authenticator) -> Callable[[Scope], int]:
    """Return a function for BodyLimit that adds MAX_FILE_BYTES to the limit for uploads by users who may write."""

    def limit_of(scope: Scope) -> int:
        request = Request(scope)
        may_upload = (
            relative_path(request) == UPLOAD_PATH
            and authenticator.is_on
            and authenticator.find_writer(request) is not None
        )
        return MAX_BODY_BYTES + (MAX_FILE_BYTES if may_upload else 0)

    return limit_of
