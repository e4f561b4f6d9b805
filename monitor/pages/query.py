"""Query parameters of the list of discrepancies: the filter that its form sends, carried from page to page."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from binwatch.counts import MORE
from binwatch.records.audits import AuditAnswer
from binwatch.records.variances import VarianceState
from monitor.forms import validated
from monitor.views.discrepancies import MAX_PREFIX_LENGTH, Direction, Filters

LEVELS = (0.01, 0.05, 0.1, 0.2)
"""Levels that the form offers."""


class AuditFilter(StrEnum):
    """Whether somebody has looked, and with which answer."""

    NO = "no"
    YES = "yes"
    ANY = "any"
    COUNT = AuditAnswer.COUNT.value
    AT_LEAST = AuditAnswer.AT_LEAST.value
    CANNOT_TELL = AuditAnswer.CANNOT_TELL.value
    GO_AND_COUNT = AuditAnswer.GO_AND_COUNT.value

    @property
    def filters(self) -> dict[str, Any]:
        """The filters of the views."""
        if self in (AuditFilter.NO, AuditFilter.YES, AuditFilter.ANY):
            return {"audited": {AuditFilter.NO: False, AuditFilter.YES: True}.get(self)}
        return {"answer": AuditAnswer(self.value)}


class DiscrepancyQuery(BaseModel):
    """The filter as the form sends it: days instead of moments, and the list of what is left to do by default."""

    model_config = ConfigDict(frozen=True)

    since: date | None = None
    until: date | None = None
    """The last day, included."""
    prefix: str | None = Field(None, max_length=MAX_PREFIX_LENGTH)
    direction: Direction | None = None
    """None is the settings' own."""
    size: int = Field(0, ge=0, le=MORE)
    audited: AuditFilter = AuditFilter.NO
    variance: VarianceState | None = None
    """If set, `audited` is ignored."""
    flagged: bool = False
    level: float | None = Field(None, gt=0, le=0.5)
    """None is the settings' own."""

    @property
    def filters(self) -> Filters:
        """The filters of the views."""
        return Filters(
            since=_midnight(self.since),
            until=_midnight(self.until + timedelta(days=1)) if self.until and self.until < date.max else None,
            prefix=self.prefix,
            size=self.size,
            flagged=self.flagged,
            variance=self.variance,
            **({} if self.variance else self.audited.filters),
            **({"direction": self.direction} if self.direction else {}),
        )

    @property
    def for_blind(self) -> DiscrepancyQuery:
        """The filter without the parts that reveal numbers. Of audited bins, only those without a number pass it."""
        audited = (
            self.audited if self.audited in (AuditFilter.CANNOT_TELL, AuditFilter.GO_AND_COUNT) else AuditFilter.NO
        )
        variance = self.variance if self.variance is VarianceState.OPEN else None
        hidden = {"direction": None, "size": 0, "flagged": False, "level": None}
        return self.model_copy(update=hidden | {"audited": audited, "variance": variance})

    @property
    def is_filtered(self) -> bool:
        """Whether any filter is set."""
        return bool(self._said)

    def query(self, **more: object) -> str:
        """Query of an address with the same filter: parameters that differ from their defaults, and `more`."""
        given = self._said | {name: value for name, value in more.items() if value is not None}
        return f"?{_encoded(given)}" if given else ""

    def export(self, alpha: float) -> str:
        """Query of the API for the same bins as a file."""
        named = {"direction": self.direction.value} if self.direction else {}  # also the default of the filters
        return _encoded(self.filters.model_dump(mode="json", exclude_defaults=True) | named | {"alpha": alpha})

    @property
    def _said(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


def _encoded(given: dict[str, Any]) -> str:
    return urlencode({name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()})


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def _query(request: Request) -> DiscrepancyQuery:
    # A form sends its empty fields, too.
    given = {
        name: value for name, value in request.query_params.items() if value and name in DiscrepancyQuery.model_fields
    }
    return validated(DiscrepancyQuery, given, "query")


CurrentQuery = Annotated[DiscrepancyQuery, Depends(_query)]
"""Type of a route's parameter that receives the filter."""
