"""Variances: differences between a person's count and the quantity that the inventory expects, until they are decided.

The state of a variance follows from its trail alone. This module needs no database: settle_variances reads and writes
it.
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
    """Another person has to count the bin: no number is agreed yet (see `standing_of`)."""
    RECOUNTED = "recounted"
    """At least two people agree on a number: an approver has to decide."""
    APPROVED = "approved"
    """The inventory is wrong: other systems should take over the approved number."""
    REJECTED = "rejected"
    """The inventory stays as it is."""
    SUPERSEDED = "superseded"
    """The inventory expects another quantity now, so there is nothing to decide."""

    @property
    def is_closed(self) -> bool:
        """Whether the variance accepts no further step."""
        return self not in (VarianceState.OPEN, VarianceState.RECOUNTED)


class VarianceStep(StrEnum):
    """A step in the trail of a variance. The set is closed."""

    COUNTED = "counted"
    APPROVED = "approved"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


class VarianceDecision(StrEnum):
    """An approver's decision."""

    APPROVED = VarianceStep.APPROVED.value
    REJECTED = VarianceStep.REJECTED.value


class UnknownVariance(BinwatchError):
    """The records have no variance with this id."""


class VarianceConflict(BinwatchError):
    """The variance does not allow this step, or no longer does."""


class OwnCount(BinwatchError):
    """A person who counted a bin does not decide on its variance; somebody else has to."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@dataclass(frozen=True, slots=True)
class VarianceTolerance:
    """Differences that do not open a variance: up to `items` items, or up to `share` of the expected quantity."""

    items: int = 0
    share: float = 0.0

    def is_exceeded(self, expected: int, counted: int) -> bool:
        """Return whether a difference is beyond both tolerances."""
        return abs(counted - expected) > max(self.items, self.share * expected)


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
    """The current state of a variance."""

    state: VarianceState
    quantity: int | None = None
    """Agreed or approved number of items; None if there is none."""


def standing_of(trail: Sequence[TrailEntry]) -> VarianceStanding:
    """Compute the state of a variance from its steps, in order.

    A number of items is agreed if at least two people found it, and more people found it than any other number.
    """
    last = trail[-1]
    people_by_quantity = Counter(entry.quantity for entry in trail if entry.step is VarianceStep.COUNTED)
    (quantity, people), *runner_up = people_by_quantity.most_common(2)
    agreed = quantity if people > 1 and not (runner_up and runner_up[0][1] == people) else None
    if last.step is not VarianceStep.COUNTED:
        return VarianceStanding(VarianceState(last.step), agreed)
    return VarianceStanding(VarianceState.OPEN if agreed is None else VarianceState.RECOUNTED, agreed)


def is_recount(trail: Sequence[TrailEntry], person: str | None, *, blind: bool) -> bool:
    """Return whether a count is a recount: it is blind, and by a named person who is not in the trail yet."""
    return blind and person is not None and all(entry.person != person for entry in trail)


def check_trail(trail: Sequence[TrailEntry], expected: int) -> None:
    """Raise OwnCount or VarianceConflict unless the trail begins with a count and each further step was allowed."""
    if not trail or trail[0].step is not VarianceStep.COUNTED:
        raise VarianceConflict("a variance begins with a count")
    for index, entry in enumerate(trail[1:], 1):
        previous = trail[:index]
        if entry.step in (VarianceStep.APPROVED, VarianceStep.REJECTED):
            if entry.person is None:
                raise VarianceConflict("a decision needs the name of its approver")
            check_decision(previous, VarianceDecision(entry.step), entry.person, entry.quantity, expected)
        elif standing_of(previous).state.is_closed:
            raise VarianceConflict("no step can follow once a variance is closed")
        elif entry.step is VarianceStep.COUNTED and not is_recount(previous, entry.person, blind=True):
            raise VarianceConflict("a recount is by another person, who must be named")


def check_decision(
    trail: Sequence[TrailEntry], decision: VarianceDecision, person: str, quantity: int | None, expected: int
) -> None:
    """Raise OwnCount or VarianceConflict unless `person` may make this decision now.

    `quantity` is the number to approve: nobody can approve a number that they have not seen.
    """
    standing = standing_of(trail)
    if any(entry.person == person and entry.step is VarianceStep.COUNTED for entry in trail):
        raise OwnCount
    if standing.state.is_closed:
        raise VarianceConflict(f"the variance is {standing.state} already")
    if decision is VarianceDecision.REJECTED:
        return
    if standing.state is not VarianceState.RECOUNTED:
        raise VarianceConflict("no two people have found the same number yet; another person has to count")
    if quantity != standing.quantity:
        raise VarianceConflict(f"the number that most people found is {standing.quantity}, not {quantity}; look again")
    if quantity == expected:
        raise VarianceConflict(f"the inventory expects {expected}, which is what was found; reject the variance")
