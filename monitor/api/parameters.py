"""Query parameters that several routes share, each with its bounds."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from binwatch.counts import Suspicion
from monitor.views.discrepancies import MAX_PAGE_SIZE, Filters

MAX_BIN = 1024
"""Characters of a bin's id, which is part of a key: S3's have no more bytes."""
MAX_CURSOR_LENGTH = 200

Alpha = Annotated[
    float | None,
    Query(gt=0, le=0.5, description="level that bins are flagged at; default: that of the settings"),
]
FlagDirection = Annotated[
    Suspicion | None, Query(description="what bins are flagged for; default: that of the settings")
]
Bucket = Annotated[str | None, Query(min_length=1, max_length=63, description="bucket; default: that of the settings")]
BinId = Annotated[str, Query(alias="id", min_length=1, max_length=MAX_BIN, description="id of a bin, as 00123")]


class FileQuery(Filters):
    """Filters of a list that comes whole."""

    alpha: float | None = Field(
        None, gt=0, le=0.5, description="level that bins are flagged at; default: that of the settings"
    )


class ListQuery(FileQuery):
    """Filters, and which part of the list."""

    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="bins in the answer at most")
    after: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`next` of an earlier answer")
    before: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`previous` of an earlier answer")
