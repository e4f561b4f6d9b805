"""Query parameters shared by several routes, with their bounds."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from binwatch.counts import Suspicion
from monitor.views.discrepancies import MAX_PAGE_SIZE, Filters

MAX_BIN_ID_LENGTH = 1024
"""Maximum length of a bin's id in characters. The id is part of a key, which has at most 1024 bytes in S3."""
MAX_CURSOR_LENGTH = 200

Alpha = Annotated[
    float | None,
    Query(gt=0, le=0.5, description="level for flagging; default: the level in the settings"),
]
FlagDirection = Annotated[
    Suspicion | None, Query(description="suspicion that bins are flagged for; default: the one in the settings")
]
Bucket = Annotated[str | None, Query(min_length=1, max_length=63, description="default: the bucket in the settings")]
BinId = Annotated[
    str, Query(alias="id", min_length=1, max_length=MAX_BIN_ID_LENGTH, description="id of a bin, such as 00123")
]


class FileQuery(Filters):
    """Filters and level of the list of bins."""

    alpha: float | None = Field(
        None, gt=0, le=0.5, description="level for flagging; default: the level in the settings"
    )


class ListQuery(FileQuery):
    """Filters, level and page of the list of bins."""

    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="maximum number of bins")
    after: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`next` of another response")
    before: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`previous` of another response")
