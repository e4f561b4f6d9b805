"""Estimates of each auditor's accuracy, from second answers to the same photos and from known quantities.

Agreement with others depends on who the others are: beside two people who are often wrong, a good auditor looks bad. So
all accuracies are estimated jointly from all answers, by the model of Dawid and Skene (1979, Applied Statistics 28, 20)
with one parameter per source of answers: its probability of being right. The sources are the auditors and the
inventory, which auditors have not seen; known quantities are a source that is never wrong. Which of two different
answers is right then follows from the accuracy of their sources, and from the inventory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from monitor.estimates import ShareEstimate, clopper_pearson, estimate

_ERROR_DECAY = 0.1
"""Probability of an error of n + 1 items relative to one of n items: most wrong answers are off by one."""
_PRIOR_RIGHT, _PRIOR_ANSWERS = 1.6, 2.0
"""Prior of every source: two answers, 80 % of them right. Without it, a few right answers would leave no doubt."""
_MAX_ERROR = 20
"""Larger errors, in items, are taken to be as probable as this one, so that an answer that is off by thousands does not
have likelihood 0."""
_KNOWN_ACCURACY = 1 - 1e-9
_MAX_ITERATIONS = 500
_TOLERANCE = 1e-6

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Source(Enum):
    """Sources of answers other than auditors."""

    KNOWN = "known"
    """The known quantity of the photo."""
    INVENTORY = "inventory"
    """The inventory, if the bin's count agrees with it."""
    DOUBTED_INVENTORY = "doubted inventory"
    """The inventory, if the bin's count differs: these quantities are wrong more often, and audited more often."""


Photo = Mapping[str | Source, int]
"""The answers to one photo: quantities by the auditor's name or another source."""


class AnswerAgreement(BaseModel):
    """Shares of answers that agree with others, with 95 % intervals."""

    exact: ShareEstimate
    within_one: ShareEstimate
    """Answers that differ by at most one item."""


class AuditorAgreement(BaseModel):
    """One auditor's agreement and accuracy. Agreement is None if there is nothing to compare with."""

    auditor: str
    others: AnswerAgreement | None
    """With other auditors, on photos that were given to two of them."""
    known: AnswerAgreement | None
    """With known quantities."""
    accuracy: ShareEstimate
    """Share of answers that are exactly right, estimated from all answers together."""


def agreements(photos: Sequence[Photo]) -> list[AuditorAgreement]:
    """Compute each auditor's agreement, the highest accuracy first. Each photo has answers by one or two auditors."""
    differences_to_others: dict[str, list[int]] = {}
    differences_to_known: dict[str, list[int]] = {}
    for photo in photos:
        answers = [(name, quantity) for name, quantity in photo.items() if isinstance(name, str)]
        for name, quantity in answers:
            for other_name, other_quantity in answers:
                if other_name != name:
                    differences_to_others.setdefault(name, []).append(abs(quantity - other_quantity))
            if Source.KNOWN in photo:
                differences_to_known.setdefault(name, []).append(abs(quantity - photo[Source.KNOWN]))
    auditors = [
        AuditorAgreement(
            auditor=name,
            others=_agreement(differences_to_others.get(name)),
            known=_agreement(differences_to_known.get(name)),
            accuracy=accuracy,
        )
        for name, accuracy in accuracies(photos).items()
        if isinstance(name, str)
    ]
    return sorted(auditors, key=lambda auditor: (-auditor.accuracy.share, auditor.auditor))


def _agreement(differences: list[int] | None) -> AnswerAgreement | None:
    if not differences:
        return None
    items, weights = np.array(differences), np.ones(len(differences))
    return AnswerAgreement(exact=estimate(items == 0, weights), within_one=estimate(items <= 1, weights))


def accuracies(photos: Sequence[Photo]) -> dict[str | Source, ShareEstimate]:
    """Estimate the accuracy of each source by expectation maximisation; that of known quantities is fixed.

    The interval is that of Clopper and Pearson, for the number of answers to known quantities that would give the same
    variance. The variance follows from the observed information (Louis 1982, J. R. Statist. Soc. B 44, 226).
    """
    names = list(dict.fromkeys(source for photo in photos for source in photo))
    if not names:
        return {}
    index, max_answers = {name: i for i, name in enumerate(names)}, max(map(len, photos))
    sources, quantities = np.zeros((len(photos), max_answers), np.int64), np.full((len(photos), max_answers), np.nan)
    for row, photo in enumerate(photos):
        sources[row, : len(photo)] = [index[name] for name in photo]
        quantities[row, : len(photo)] = list(photo.values())
    present = ~np.isnan(quantities)
    n_answers = np.bincount(sources[present], minlength=len(names)) + _PRIOR_ANSWERS
    is_known = np.array([name is Source.KNOWN for name in names])
    shares = np.where(is_known, _KNOWN_ACCURACY, _PRIOR_RIGHT / _PRIOR_ANSWERS)
    candidates = _candidates(quantities)
    for _ in range(_MAX_ITERATIONS):
        previous, right = shares, _probability_right(shares[sources], quantities, candidates)
        n_right = np.bincount(sources[present], right[present], len(names)) + _PRIOR_RIGHT
        shares = np.where(is_known, _KNOWN_ACCURACY, n_right / n_answers)
        if np.abs(shares - previous).max() < _TOLERANCE:
            break
    complete = np.diag(n_answers / (shares * (1 - shares)))
    variances = np.diag(np.linalg.pinv(complete - _missing_information(shares, sources, quantities, right)))
    # At most the number of answers, prior included, and at least the prior: the answers may not tell two sources apart.
    equivalents = np.where(variances > 0, shares * (1 - shares) / np.maximum(variances, 1e-12), 0)
    equivalents = equivalents.clip(_PRIOR_ANSWERS, n_answers)
    return {
        name: ShareEstimate(
            share=share,
            interval=clopper_pearson(share * equivalent, equivalent),
            audits=round(n - _PRIOR_ANSWERS),
            equivalent=equivalent,
        )
        for name, share, equivalent, n in zip(
            names, shares.tolist(), equivalents.tolist(), n_answers.tolist(), strict=True
        )
    }


def _candidates(quantities: Floats) -> Floats:
    """Return the quantities that each photo may show, shape (photos, candidates), padded with NaN.

    These are each answer, and one item more or fewer.
    """
    neighbours = quantities[:, :, None] + np.array([-1.0, 0.0, 1.0])
    candidates = np.sort(neighbours.reshape(len(quantities), -1), axis=1)
    candidates[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = np.nan
    candidates[candidates < 0] = np.nan
    return candidates


def _probability_right(shares: Floats, quantities: Floats, candidates: Floats) -> Floats:
    """Return the probability that each answer is right. All but `candidates` have the shape (photos, answers)."""
    errors = np.minimum(np.abs(candidates[:, None, :] - quantities[:, :, None]), _MAX_ERROR)
    wrong = (1 - shares)[:, :, None] * 0.5 * (1 - _ERROR_DECAY) * _ERROR_DECAY ** (errors - 1)
    likelihoods = np.where(errors == 0, shares[:, :, None], wrong)
    likelihoods[np.isnan(quantities)] = 1.0
    joint = np.nan_to_num(likelihoods.prod(axis=1))
    posterior = joint / joint.sum(axis=1, keepdims=True)
    right: Floats = np.einsum("pac,pc->pa", (errors == 0).astype(np.float64), posterior)
    return right


def _missing_information(shares: Floats, sources: Integers, quantities: Floats, right: Floats) -> Floats:
    """Return the information lost because the right answers are unknown, shape (sources, sources).

    Two equal answers to a photo are right or wrong together; of two different ones, at least one is wrong.
    """
    score = 1 / (shares * (1 - shares))
    missing = np.zeros((len(shares), len(shares)))
    for i in range(sources.shape[1]):
        for j in range(sources.shape[1]):
            is_equal = quantities[:, i] == quantities[:, j]
            covariance = np.where(is_equal, right[:, i], 0.0) - right[:, i] * right[:, j]
            present = ~np.isnan(quantities[:, i] + quantities[:, j])
            np.add.at(missing, (sources[present, i], sources[present, j]), covariance[present])
    return missing * np.outer(score, score)
