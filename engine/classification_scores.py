"""How well the probabilities of a classifier agree with the labels, as functions of weighted cases, which a bootstrap can draw.

Everywhere: labels (n,) numbers of classes, probabilities (n, K), weights (k, n) how often each case counts in each of k draws;
a score is (k,), NaN in a draw where it is not defined. With two classes the second is the positive one.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

BINS = 15

Score = Callable[[np.ndarray], np.ndarray]


def scores_of(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Score]:
    """The scores by name, each a function of weights.

    auc: of the positive class; with more than two, the mean of each class against the rest, over the classes that occur.
    f1: of the positive class; with more than two, the mean over the classes that occur or are predicted.
    balanced_accuracy: the mean over the classes that occur of the share that was found; like the area, it does not exist in a
    draw that lacks one of them. accuracy: the share of right answers.
    calibration_error: see `calibration_error`. brier: the mean squared distance of the probabilities from the truth; with two
    classes, of the positive class's (half of that).
    """
    classes = probabilities.shape[1]
    answers = probabilities.argmax(1)
    counts = partial(class_counts, labels, answers, classes)
    scored = [1] if classes == 2 else range(classes)
    areas = [partial(auc, labels == number, probabilities[:, number]) for number in scored if occurs(labels, number)]
    present = np.unique(labels)
    off = ((probabilities - np.eye(classes)[labels]) ** 2).sum(1) / (2 if classes == 2 else 1)
    return {
        "auc": lambda weights: np.mean([area(weights) for area in areas], axis=0) if areas else np.full(len(weights), np.nan),
        "f1": lambda weights: f1(*counts(weights)),
        "balanced_accuracy": lambda weights: balanced_accuracy(*(of[:, present] for of in counts(weights)[:2])),
        "accuracy": lambda weights: weights @ (answers == labels) / weights.sum(1),
        "calibration_error": partial(calibration_error, answers == labels, probabilities.max(1)),
        "brier": lambda weights: weights @ off / weights.sum(1),
    }


def occurs(labels: np.ndarray, number: int) -> bool:
    """Whether a class can be told from the rest: some cases are of it, and some are not."""
    return 0 < np.sum(labels == number) < len(labels)


def auc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The probability that a positive case scores above a negative one, equal scores counting half (Mann and Whitney).

    positive: (n,) bool; score: (n,). NaN in a draw without positive or without negative cases.
    """
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # where a new score begins
    of_positive, of_negative = (
        np.add.reduceat(np.where(chosen, weights, 0)[:, order], first, axis=1) for chosen in (positive, ~positive)
    )
    below = np.cumsum(of_negative, axis=1) - of_negative
    won = (of_positive * (below + of_negative / 2)).sum(1)
    return _ratio(won, of_positive.sum(1) * of_negative.sum(1))


def class_counts(labels: np.ndarray, answers: np.ndarray, classes: int, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Three arrays (k, K): of each class the cases that are of it and were called so, those that are of it, those called so."""
    are, called = np.eye(classes)[labels], np.eye(classes)[answers]
    return weights @ (are * called), weights @ are, weights @ called


def f1(right: np.ndarray, are: np.ndarray, called: np.ndarray) -> np.ndarray:
    """From `class_counts`: the harmonic mean of precision and recall; NaN if the positive class neither is nor is called."""
    of_class = _ratio(2 * right, are + called)
    return of_class[:, 1] if right.shape[1] == 2 else np.nanmean(of_class, axis=1)


def balanced_accuracy(right: np.ndarray, are: np.ndarray) -> np.ndarray:
    """From `class_counts` of some classes: the mean of the shares of their cases that were found; NaN in a draw without one."""
    return np.mean(_ratio(right, are), axis=1)


def calibration_error(hits: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The expected calibration error (Guo et al. 2017): the mean over cases of |share of right answers − mean confidence| of
    the case's bin, one of 15 equal ones.

    hits: (n,) bool, was the answer right? confidence: (n,) the probability of the answer. Chance makes bins of few cases
    unequal, so that it grows with fewer different cases: an interval by bootstrap lies high and may not hold the value.
    """
    cells = np.eye(BINS)[bins_of(confidence)]
    return np.abs(weights @ (cells * (hits - confidence)[:, None])).sum(1) / weights.sum(1)


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """(n,) the bin of each probability: bin i holds what is above i / 15 and at most (i + 1) / 15, the first one 0, too."""
    return np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)


def reliability(hits: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin: the mean confidence and the share of right answers, NaN where it is empty, and how many cases it holds."""
    bins = bins_of(confidence)
    many, confident, right = (np.bincount(bins, of, BINS) for of in (np.ones(len(bins)), confidence, hits))
    return _ratio(confident, many), _ratio(right, many), many.astype(int)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
