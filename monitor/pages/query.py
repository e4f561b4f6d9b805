"""Query parameters of the list of discrepancies: the filter of its form, which is kept from page to page."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from binwatch.counts import MORE_THAN_5
from binwatch.records.audits import AuditAnswer
from binwatch.records.variances import VarianceState
from monitor.forms import validate
from monitor.views.discrepancies import MAX_PREFIX_LENGTH, Direction, Filters

LEVELS = (0.01, 0.05, 0.1, 0.2)
"""Levels that the form offers."""


class AuditFilter(StrEnum):
    """Filter by whether and how a bin has been audited."""

    NO = "no"
    YES = "yes"
    ANY = "any"
    COUNT = AuditAnswer.COUNT.value
    AT_LEAST = AuditAnswer.AT_LEAST.value
    CANNOT_TELL = AuditAnswer.CANNOT_TELL.value
    GO_AND_COUNT = AuditAnswer.GO_AND_COUNT.value

    @property
    def filters(self) -> dict[str, Any]:
        """The filter as keyword arguments of monitor.views.discrepancies.Filters."""
        if self in (AuditFilter.NO, AuditFilter.YES, AuditFilter.ANY):
            return {"audited": {AuditFilter.NO: False, AuditFilter.YES: True}.get(self)}
        return {"answer": AuditAnswer(self.value)}


class DiscrepancyQuery(BaseModel):
    """The filter as the form sends it: it has dates instead of times, and by default leaves out audited bins."""

    model_config = ConfigDict(frozen=True)

    since: date | None = None
    until: date | None = None
    """The last day, inclusive."""
    prefix: str | None = Field(None, max_length=MAX_PREFIX_LENGTH)
    direction: Direction | None = None
    """None means the direction in the settings."""
    size: int = Field(0, ge=0, le=MORE_THAN_5)
    audited: AuditFilter = AuditFilter.NO
    variance: VarianceState | None = None
    """If set, `audited` is ignored."""
    flagged: bool = False
    level: float | None = Field(None, gt=0, le=0.5)
    """None means the level in the settings."""

    @property
    def filters(self) -> Filters:
        """The query as filters of the list of bins."""
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
    def without_numbers(self) -> DiscrepancyQuery:
        """The query without the parts that reveal numbers. It selects no audited bins whose answer is a number."""
        audited = (
            self.audited if self.audited in (AuditFilter.CANNOT_TELL, AuditFilter.GO_AND_COUNT) else AuditFilter.NO
        )
        variance = self.variance if self.variance is VarianceState.OPEN else None
        hidden = {"direction": None, "size": 0, "flagged": False, "level": None}
        return self.model_copy(update=hidden | {"audited": audited, "variance": variance})

    @property
    def is_filtered(self) -> bool:
        """Whether any filter is set."""
        return bool(self._changed())

    def to_query_string(self, **more: object) -> str:
        """Return the query string of this filter with its "?": parameters that differ from their defaults, and `more`.

        Parameters in `more` that are None are left out. Returns "" if there are no parameters.
        """
        parameters = self._changed() | {name: value for name, value in more.items() if value is not None}
        return f"?{_encode(parameters)}" if parameters else ""

    def to_export_query(self, alpha: float) -> str:
        """Return the query string of the API, without its "?", for the same bins as a file."""
        parameters = self.filters.model_dump(mode="json", exclude_defaults=True) | {"alpha": alpha}
        if self.direction:  # even if it is the filters' default, since the settings may have another one
            parameters["direction"] = self.direction.value
        return _encode(parameters)

    def _changed(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


def _encode(parameters: dict[str, Any]) -> str:
    return urlencode(
        {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
    )


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def _parse_query(request: Request) -> DiscrepancyQuery:
    # Forms also send their empty fields.
    parameters = {
        name: value for name, value in request.query_params.items() if value and name in DiscrepancyQuery.model_fields
    }
    return validate(DiscrepancyQuery, parameters, "query")


CurrentQuery = Annotated[DiscrepancyQuery, Depends(_parse_query)]
"""Type of a route's parameter that receives the filter."""
