"""Intervals of scores by the bootstrap, with whole subjects drawn: what two frames of a patient say is not said twice.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: chapter 13 (percentile intervals), 8 (units that belong together).
"""

import math
from collections.abc import Callable, Iterator, Sequence
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


def known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean along an axis over what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    many = known.sum(axis)
    return np.where(many > 0, np.where(known, values, 0).sum(axis) / np.maximum(many, 1), np.nan)


def mean_over_seeds(values: np.ndarray, subjects: np.ndarray, seeds: Sequence[int]) -> dict:
    """The figures of several runs' values (seeds, n) of the same cases: the mean over seeds of each, then that over cases."""
    means = known_mean(values, axis=1)
    return as_figures(mean_of_cases(known_mean(values, axis=0), subjects), dict(zip(seeds, means.tolist())))


def as_figures(found: Estimate, of_seeds: dict[int, float]) -> dict:
    """For a JSON file: value, interval, how many cases and subjects they rest on, each seed's value and the deviation of those.

    What does not exist is None. deviation: the standard deviation of the seeds, taken for a sample of all seeds.
    """
    known = [value for value in of_seeds.values() if not math.isnan(value)]
    return {
        "value": number_or_none(found.value),
        "interval": None if math.isnan(found.low) else [found.low, found.high],
        "cases": found.cases,
        "subjects": found.subjects,
        "seeds": {str(seed): number_or_none(value) for seed, value in of_seeds.items()},
        "deviation": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }


def number_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)
