"""Estimates how often each auditor is right, from second answers to the same photos and from known quantities.

Agreement with others depends on who the others are: beside two people who are often wrong, a good auditor looks bad. So
each auditor's accuracy is estimated from all answers at once, by the model of Dawid and Skene (1979, Applied Statistics
28, 20) with one parameter for each source of answers: how often it is right. The sources are the auditors and the
inventory, which auditors have not seen; known quantities are a source that is never wrong. Which of two answers that
differ is right then follows from how often their sources are, and from what the inventory says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from monitor.estimates import ShareEstimate, clopper_pearson, estimate

_FURTHER = 0.1
"""Probability of an error of n + 1 items relative to that of n items: most wrong answers are off by one."""
_RIGHT, _OF = 1.6, 2.0
"""Prior for every source: two answers, 80 % of them right. Without it, a few answers that are all right would leave no
doubt."""
_FARTHEST = 20
"""Larger errors are as likely as this one, in items: an answer that is off by thousands must not have likelihood 0."""
_NEVER_WRONG = 1 - 1e-9
_STEPS = 500
_CLOSE = 1e-6

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Source(Enum):
    """Sources of answers other than auditors."""

    KNOWN = "known"
    """The known quantity of the photo."""
    INVENTORY = "inventory"
    """The inventory, of a bin whose count agrees with it."""
    DOUBTED_INVENTORY = "doubted inventory"
    """The inventory, of a bin whose count differs: these quantities are wrong more often, and audited more often."""


Photo = Mapping[str | Source, int]
"""Answers to one photo: quantities by the auditor's name, or another source."""


class AnswerAgreement(BaseModel):
    """How often answers were the same as others, with 95 % intervals."""

    exact: ShareEstimate
    within_one: ShareEstimate
    """Or one item more or fewer."""


class AuditorAgreement(BaseModel):
    """One auditor. None where there is nothing to compare with."""

    auditor: str
    others: AnswerAgreement | None
    """With other auditors, of photos that were given twice."""
    known: AnswerAgreement | None
    """With known quantities."""
    accuracy: ShareEstimate
    """How often the auditor is right, item for item, estimated from all answers together."""


def agreements(photos: Sequence[Photo]) -> list[AuditorAgreement]:
    """Each auditor's agreement, the highest estimated accuracy first. A photo has answers of one or two auditors."""
    others: dict[str, list[int]] = {}
    known: dict[str, list[int]] = {}
    for photo in photos:
        said = [(name, quantity) for name, quantity in photo.items() if isinstance(name, str)]
        for name, quantity in said:
            for off in (abs(quantity - other) for another, other in said if another != name):
                others.setdefault(name, []).append(off)
            if Source.KNOWN in photo:
                known.setdefault(name, []).append(abs(quantity - photo[Source.KNOWN]))
    found = [
        AuditorAgreement(
            auditor=name, others=_agreement(others.get(name)), known=_agreement(known.get(name)), accuracy=accuracy
        )
        for name, accuracy in accuracies(photos).items()
        if isinstance(name, str)
    ]
    return sorted(found, key=lambda one: (-one.accuracy.share, one.auditor))


def _agreement(differences: list[int] | None) -> AnswerAgreement | None:
    if not differences:
        return None
    off, alike = np.array(differences), np.ones(len(differences))
    return AnswerAgreement(exact=estimate(off == 0, alike), within_one=estimate(off <= 1, alike))


def accuracies(photos: Sequence[Photo]) -> dict[str | Source, ShareEstimate]:
    """How often each source of answers is right, by expectation maximisation; 1 for known quantities.

    An interval is that of Clopper and Pearson, for as many answers to known quantities as would have the same variance.
    This follows from the observed information (Louis 1982, J. R. Statist. Soc. B 44, 226).
    """
    sources = list(dict.fromkeys(source for photo in photos for source in photo))
    if not sources:
        return {}
    index, most = {source: number for number, source in enumerate(sources)}, max(map(len, photos))
    of, quantities = np.zeros((len(photos), most), np.int64), np.full((len(photos), most), np.nan)
    for row, photo in enumerate(photos):
        of[row, : len(photo)] = [index[source] for source in photo]
        quantities[row, : len(photo)] = list(photo.values())
    there = ~np.isnan(quantities)
    answers = np.bincount(of[there], minlength=len(sources)) + _OF
    fixed = np.array([source is Source.KNOWN for source in sources])
    shares, candidates = np.where(fixed, _NEVER_WRONG, _RIGHT / _OF), _candidates(quantities)
    for _ in range(_STEPS):
        before, right = shares, _right(shares[of], quantities, candidates)
        found = (np.bincount(of[there], right[there], len(sources)) + _RIGHT) / answers
        shares = np.where(fixed, _NEVER_WRONG, found)
        if np.abs(shares - before).max() < _CLOSE:
            break
    information = np.diag(answers / (shares * (1 - shares))) - _missing(shares, of, quantities, right)
    variances = np.diag(np.linalg.pinv(information))
    # At most the number of answers; only the prior where nothing else tells two sources apart.
    worth = np.where(variances > 0, shares * (1 - shares) / np.maximum(variances, 1e-12), 0).clip(_OF, answers)
    return {
        source: ShareEstimate(
            share=share, interval=clopper_pearson(share * equal, equal), audits=round(number - _OF), equivalent=equal
        )
        for source, share, equal, number in zip(sources, shares.tolist(), worth.tolist(), answers.tolist(), strict=True)
    }


def _candidates(quantities: Floats) -> Floats:
    """Quantities that photos may show, shape (photos, candidates): each answer, and one more or fewer; NaN fills up."""
    near = quantities[:, :, None] + np.array([-1.0, 0.0, 1.0])
    every = np.sort(near.reshape(len(quantities), -1), axis=1)
    every[:, 1:][every[:, 1:] == every[:, :-1]] = np.nan
    every[every < 0] = np.nan
    return every


def _right(shares: Floats, quantities: Floats, candidates: Floats) -> Floats:
    """Probability that each answer is right. All but `candidates` have the shape (photos, answers)."""
    off = np.minimum(np.abs(candidates[:, None, :] - quantities[:, :, None]), _FARTHEST)
    wrong = (1 - shares)[:, :, None] * 0.5 * (1 - _FURTHER) * _FURTHER ** (off - 1)
    likely = np.where(off == 0, shares[:, :, None], wrong)
    likely[np.isnan(quantities)] = 1.0
    joint = np.nan_to_num(likely.prod(axis=1))
    posterior = joint / joint.sum(axis=1, keepdims=True)
    right: Floats = np.einsum("pac,pc->pa", (off == 0).astype(np.float64), posterior)
    return right


def _missing(shares: Floats, of: Integers, quantities: Floats, right: Floats) -> Floats:
    """The information that is lost because it is unknown which answers are right, shape (sources, sources).

    Two answers of a photo that are the same are right or wrong together; of two that differ, one is wrong.
    """
    score = 1 / (shares * (1 - shares))
    lost = np.zeros((len(shares), len(shares)))
    for one in range(of.shape[1]):
        for other in range(of.shape[1]):
            same = quantities[:, one] == quantities[:, other]
            covariance = np.where(same, right[:, one], 0.0) - right[:, one] * right[:, other]
            there = ~np.isnan(quantities[:, one] + quantities[:, other])
            np.add.at(lost, (of[there, one], of[there, other]), covariance[there])
    return lost * np.outer(score, score)
