"""Intervals of scores by the bootstrap, with whole subjects drawn: what two frames of a patient say is not said twice.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: chapter 13 (percentile intervals), 8 (units that belong together).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
BLOCK = 2**22  # numbers that a block of draws holds
LEAST_SHARE = 0.5  # of the draws in which a score must exist to have an interval


@dataclass(frozen=True)
class Estimate:
    """A score of some cases and its 95 % interval; `value` is NaN without cases, the interval also without two subjects."""

    value: float
    low: float
    high: float
    cases: int
    subjects: int


def resamples(subjects: np.ndarray, seed: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """Blocks (≤ draws, n) of how often each case is in each draw, `draws` rows in all; cases of a subject are drawn together.

    subjects: (n,) whose each case is. The draws depend on the names of the subjects, not on the order of the cases.
    """
    names, whose = np.unique(np.asarray(subjects), return_inverse=True)
    generator = np.random.default_rng(seed)
    many = max(1, BLOCK // len(whose))
    for first in range(0, draws, many):
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(many, draws - first))
        yield drawn[:, whose].astype(np.float64)


def estimate(score: Callable[[np.ndarray], np.ndarray], subjects: np.ndarray, seed: int = 0) -> Estimate:
    """A score of n cases with its percentile interval.

    score: weights (k, n) of the cases → (k,) values, NaN where it does not exist. Draws in which it does not exist (a class has
    no case in them) are left out; where they are most, there is no interval.
    """
    cases, of_subjects = len(subjects), len(np.unique(np.asarray(subjects)))
    if not cases:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    value = float(score(np.ones((1, cases)))[0])
    if of_subjects < 2 or math.isnan(value):
        return Estimate(value, math.nan, math.nan, cases, of_subjects)
    drawn = np.concatenate([score(weights) for weights in resamples(subjects, seed)])
    exists = drawn[~np.isnan(drawn)]
    if len(exists) < LEAST_SHARE * len(drawn):
        return Estimate(value, math.nan, math.nan, cases, of_subjects)
    low, high = np.percentile(exists, [2.5, 97.5])
    return Estimate(value, float(low), float(high), cases, of_subjects)


def mean_of_cases(values: np.ndarray, subjects: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of `values` (n,) over cases, each of one of `subjects` (n,). NaN is no value: such a case is left out."""
    values, subjects = np.asarray(values, np.float64), np.asarray(subjects)
    known = ~np.isnan(values)
    values = values[known]
    return estimate(lambda weights: weights @ values / weights.sum(1), subjects[known], seed)


def paired_difference(ours: np.ndarray, theirs: np.ndarray, subjects: np.ndarray, seed: int = 0) -> Estimate:
    """The mean over cases of ours − theirs, two methods' values (n,) of the same cases in the same order.

    A case that has no value (NaN) with one of them has no difference; `cases` of the result counts those that have.
    """
    return mean_of_cases(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), subjects, seed)


def over_seeds(values: np.ndarray) -> np.ndarray:
    """(seeds, n) → (n,): of each case the mean over the seeds that have a value; NaN where none has."""
    return _mean(np.asarray(values, np.float64), axis=0)


def seed_means(values: np.ndarray) -> np.ndarray:
    """(seeds, n) → (seeds,): of each seed the mean over its cases that have a value."""
    return _mean(np.asarray(values, np.float64), axis=1)


def deviation(means: np.ndarray) -> float:
    """The standard deviation of the seeds' scores (seeds,), as a sample of all seeds; NaN of one alone."""
    return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    known = ~np.isnan(values)
    many = known.sum(axis)
    return np.where(many > 0, np.where(known, values, 0).sum(axis) / np.maximum(many, 1), np.nan)
