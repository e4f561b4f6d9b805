"""Variances: differences between what a person counted and what the inventory expects, until somebody decides on them.

The state of a variance follows from its trail alone. Without a database, which settle_variances reads and writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from binwatch.errors import BinwatchError


class VarianceState(StrEnum):
    """State of a variance. The set is closed."""

    OPEN = "open"
    """Another person has to count: nobody has yet, or no number holds (see `standing_of`)."""
    RECOUNTED = "recounted"
    """Two people found the same number: an approver has to decide."""
    APPROVED = "approved"
    """The inventory is wrong: other systems are to take the approved number."""
    REJECTED = "rejected"
    """The inventory stays as it is."""
    SUPERSEDED = "superseded"
    """The inventory expects another quantity by now, so there is nothing to decide."""

    @property
    def is_closed(self) -> bool:
        """Whether no further step is possible."""
        return self not in (VarianceState.OPEN, VarianceState.RECOUNTED)


class VarianceStep(StrEnum):
    """Kind of a step of a variance. The set is closed."""

    COUNTED = "counted"
    APPROVED = "approved"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


class VarianceDecision(StrEnum):
    """An approver's decision."""

    APPROVED = VarianceStep.APPROVED.value
    REJECTED = VarianceStep.REJECTED.value


class UnknownVariance(BinwatchError):
    """There is no such variance."""


class VarianceConflict(BinwatchError):
    """The variance does not allow this decision, or no longer does."""


class OwnCount(BinwatchError):
    """A person who counted a bin does not decide on its variance; somebody else has to."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@dataclass(frozen=True, slots=True)
class VarianceTolerance:
    """Differences that open no variance: up to `items` items, or up to `share` of the expected quantity."""

    items: int = 0
    share: float = 0.0

    def is_exceeded(self, expected: int, found: int) -> bool:
        """Whether a difference is beyond both tolerances."""
        return abs(found - expected) > max(self.items, self.share * expected)


NO_TOLERANCE = VarianceTolerance()


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """One step of a variance's trail."""

    step: VarianceStep
    quantity: int | None = None
    """Counted or approved number of items; for SUPERSEDED, the quantity that the inventory expects now."""
    person: str | None = None


@dataclass(frozen=True, slots=True)
class VarianceStanding:
    """The present state of a variance."""

    state: VarianceState
    quantity: int | None = None
    """Number of items that most people found, or that was approved; None if there is none."""


def standing_of(trail: Sequence[TrailEntry]) -> VarianceStanding:
    """The state that results from a trail, in the order of its steps.

    A number holds if at least two people found it, and more people found it than any other number.
    """
    last = trail[-1]
    found = Counter(entry.quantity for entry in trail if entry.step is VarianceStep.COUNTED)
    (quantity, most), *others = found.most_common(2)
    agreed = quantity if most > 1 and not (others and others[0][1] == most) else None
    if last.step is not VarianceStep.COUNTED:
        return VarianceStanding(VarianceState(last.step), agreed)
    return VarianceStanding(VarianceState.OPEN if agreed is None else VarianceState.RECOUNTED, agreed)


def is_recount(trail: Sequence[TrailEntry], person: str | None, *, blind: bool) -> bool:
    """Whether another count is a recount: blind, and by a named person who has not counted before."""
    return blind and person is not None and all(entry.person != person for entry in trail)


def check_trail(trail: Sequence[TrailEntry], expected: int) -> None:
    """Raise OwnCount or VarianceConflict unless each step may follow on those before it, the first one on nothing."""
    if not trail or trail[0].step is not VarianceStep.COUNTED:
        raise VarianceConflict("a variance begins with a count")
    for place, entry in enumerate(trail[1:], 1):
        before = trail[:place]
        if entry.step in (VarianceStep.APPROVED, VarianceStep.REJECTED):
            if entry.person is None:
                raise VarianceConflict("nobody is named who decided")
            check_decision(before, VarianceDecision(entry.step), entry.person, entry.quantity, expected)
        elif standing_of(before).state.is_closed:
            raise VarianceConflict("nothing follows on a variance that is closed")
        elif entry.step is VarianceStep.COUNTED and not is_recount(before, entry.person, blind=True):
            raise VarianceConflict("another count is by another person, who is named")


def check_decision(
    trail: Sequence[TrailEntry], decision: VarianceDecision, person: str, quantity: int | None, expected: int
) -> None:
    """Raise OwnCount or VarianceConflict unless `person` may decide so now.

    `quantity` is the number to approve, so that nobody approves a number that they have not seen.
    """
    now = standing_of(trail)
    if any(entry.person == person and entry.step is VarianceStep.COUNTED for entry in trail):
        raise OwnCount
    if now.state.is_closed:
        raise VarianceConflict(f"the variance is {now.state} already")
    if decision is VarianceDecision.REJECTED:
        return
    if now.state is not VarianceState.RECOUNTED:
        raise VarianceConflict("no two people have found the same number yet; another person has to count")
    if quantity != now.quantity:
        raise VarianceConflict(f"the number that most people found is {now.quantity}, not {quantity}; look again")
    if quantity == expected:
        raise VarianceConflict(f"the inventory expects {expected}, which is what was found; reject the variance")
