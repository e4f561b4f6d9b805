"""The limit on the size of requests, which is higher for an upload by a user who may write."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from starlette.types import Scope

from monitor.access.authentication import Authenticator
from monitor.access.bodies import MAX_BYTES
from monitor.access.proxies import path_of

PATH = "/expected"
MAX_FILE = 8 * 2**20
"""Bytes of an uploaded file: half a million rows of a CSV. Each may be held by as many requests as are in flight."""


def upload_limit(authenticator: Authenticator) -> Callable[[Scope], int]:
    """The limit on a request's body: MAX_FILE, and what a form adds, for an upload by somebody who may write."""

    def limit(scope: Scope) -> int:
        request = Request(scope)
        may = path_of(request) == PATH and authenticator.is_on and authenticator.writer_of(request) is not None
        return MAX_FILE + MAX_BYTES if may else MAX_BYTES

    return limit
